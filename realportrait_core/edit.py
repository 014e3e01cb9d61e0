"""Edits of the driving motion, between keypoints and motion maps: smoothed, with a steady head size, mirrored."""

from dataclasses import dataclass, replace

import torch

from .animation.keypoints import Keypoints, without_cuts
from .face.crop import CROP
from .vid2vid.edit import HeadSize, hold_size, mirror, smooth_expression, smooth_head, smoothed
from .vid2vid.regions import partners

MIRRORED_POINTS = (1, 0, 2, 4, 3)  # left and right eye and mouth corner exchanged


@dataclass(frozen=True)
class Edit:
    """Edits of the driving motion. The defaults change nothing."""

    head_size: HeadSize = "driven"
    smooth_head: float = 0.0  # frames, for rotation, translation and scale of the head
    smooth_expression: float = 0.0  # frames
    smooth_track: float = 0.0  # frames, for the face points, which define the facial mask
    mirror: bool = False


def edit_driver(keypoints: Keypoints, edit: Edit) -> Keypoints:
    """The keypoints with edited driving poses, continued across cuts. Raises InputError for invalid values."""
    if edit != Edit():
        keypoints = without_cuts(keypoints)
    poses = hold_size(keypoints.driver, edit.head_size)
    poses = smooth_expression(smooth_head(poses, edit.smooth_head), edit.smooth_expression)
    points = smoothed(keypoints.driver_points, edit.smooth_track, "The smoothing of the track")
    keypoints = replace(keypoints, driver=poses, driver_points=points)
    return mirror_driver(keypoints) if edit.mirror else keypoints


def flip(width: int) -> torch.Tensor:
    """(3, 3) float64: px of a picture `width` px wide -> px of its mirror image."""
    return torch.tensor([[-1.0, 0.0, width - 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)


def mirror_driver(keypoints: Keypoints) -> Keypoints:
    """The keypoints of the mirrored driving video: poses, face points and crop."""
    width = keypoints.driver_size[1]
    points = keypoints.driver_points[:, list(MIRRORED_POINTS)] * keypoints.driver_points.new_tensor([-1.0, 1.0])
    points[..., 0] += width - 1
    return replace(
        keypoints,
        driver=mirror(keypoints.driver, partners(keypoints.driver.canonical)),
        driver_points=points,
        driver_crop=flip(CROP) @ keypoints.driver_crop @ flip(width),
    )
