"""Edits of what the driver does, between keypoints and motion maps: smoothed, of a steady size, mirrored."""

from dataclasses import dataclass, replace

import torch

from .animation.keypoints import Keypoints, without_cuts
from .face.crop import CROP
from .vid2vid.edit import HeadSize, hold_size, mirror, smooth_expression, smooth_head, smoothed
from .vid2vid.regions import partners

MIRRORED_POINTS = (1, 0, 2, 4, 3)  # eyes and corners of the mouth change sides


@dataclass(frozen=True)
class Edit:
    """What is done to the driver's motion. The defaults leave it as it is."""

    head_size: HeadSize = "driven"
    smooth_head: float = 0.0  # frames, turn, place and size of the head
    smooth_expression: float = 0.0  # frames
    smooth_track: float = 0.0  # frames, the face points, where the facial mask lies
    mirror: bool = False


def edit_driver(keypoints: Keypoints, edit: Edit) -> Keypoints:
    """The keypoints with the driver's side edited, as one shot; the portrait's stays. InputError for a value that cannot be."""
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
    """The keypoints of the same driver in a mirror: poses, face points and crop."""
    width = keypoints.driver_size[1]
    points = keypoints.driver_points[:, list(MIRRORED_POINTS)] * keypoints.driver_points.new_tensor([-1.0, 1.0])
    points[..., 0] += width - 1
    return replace(
        keypoints,
        driver=mirror(keypoints.driver, partners(keypoints.driver.canonical)),
        driver_points=points,
        driver_crop=flip(CROP) @ keypoints.driver_crop @ flip(width),
    )
