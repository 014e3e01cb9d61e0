"""The poses and implicit keypoints of a portrait and its driving frames, with the crops in which they are measured."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..face.crop import CROP, CROP_MIDDLE
from ..vid2vid.keypoints import Pose
from ..vid2vid.neutral import calm_frame
from ..vid2vid.shots import join_shots
from ..vid2vid.stitching import Finish

# Crop px per unit of the keypoints of the public networks, whose grid of 64 cells has -1 and 1 at the centres of the outer cells.
# MINI's grid has them at the crop's outer edges, CROP / 2 px a unit; its facial masks too were trained with this one.
PUBLIC_KEYPOINT_PX = (CROP - CROP // 64) / 2

Progress = Callable[[int, int], None]  # (done, total)


@dataclass(frozen=True)
class Keypoints:
    """The output of M and F for a portrait and L driving frames, and where both faces are in their pictures.

    The portrait is a picture, or a video of L frames, each with its own pose, crop and points; driving frame i then moves the
    portrait's frame i.
    """

    portrait: Pose  # 1 pose; L of a portrait video
    driver: Pose  # L poses, all in one crop of the driving video
    feature: Tensor  # (1, C, D, h, w) f_r; of a portrait video's first frame, the others are made with the maps
    portrait_crop: Tensor  # (3, 3) float64, portrait px -> crop px; (L, 3, 3) of a portrait video
    driver_crop: Tensor  # (3, 3) float64, driving frame px -> crop px
    portrait_points: Tensor  # (5, 2) px; (L, 5, 2) of a portrait video
    driver_points: Tensor  # (L, 5, 2) px
    present: Tensor  # (L,) bool, whether the face was found in the driving frame
    portrait_size: tuple[int, int]  # height, width in px
    driver_size: tuple[int, int]  # height, width in px
    encoder: str = ""  # motion_fingerprint of the M that predicted the poses; empty where it is not known
    cuts: tuple[int, ...] = ()  # frames before which the driving video is cut to another shot of the face
    motion_weight: Tensor | None = None  # (L,) 0 .. 1, factor on the maps; None: 1 everywhere
    finish: Finish | None = None  # stitching and retargeting of the driven keypoints; None: neither
    picture: Tensor | None = None  # (1 or L, H, W, 3) in [0, 1], the portrait itself; None where only its keypoints are known

    def __len__(self) -> int:
        return len(self.driver)

    @property
    def of_video(self) -> bool:
        """Whether the portrait is a video."""
        return self.portrait_crop.ndim == 3

    def at_rest(self) -> "Keypoints":
        """The same of a still portrait: of a portrait video the frame whose expression is nearest its median."""
        if not self.of_video:
            return self
        frame = calm_frame(self.portrait)
        return replace(
            self,
            portrait=self.portrait[frame : frame + 1],
            portrait_crop=self.portrait_crop[frame],
            portrait_points=self.portrait_points[frame],
            picture=self.picture[frame : frame + 1],
        )

    def __getitem__(self, frames: slice) -> "Keypoints":
        """Those of some driving frames, a slice with a step of 1."""
        start, stop, _ = frames.indices(len(self))
        if self.of_video:
            part = slice(start, stop)
            self = replace(
                self,
                portrait=self.portrait[part],
                portrait_crop=self.portrait_crop[part],
                portrait_points=self.portrait_points[part],
                picture=self.picture[part],
            )
        return replace(
            self,
            driver=self.driver[frames],
            driver_points=self.driver_points[frames],
            present=self.present[frames],
            motion_weight=None if self.motion_weight is None else self.motion_weight[frames],
            cuts=tuple(frame - start for frame in self.cuts if start < frame < stop),
        )


def keypoints_to_crop(x: Tensor) -> Tensor:
    """The plane of keypoints (..., 2) in px of their crop."""
    return PUBLIC_KEYPOINT_PX * x + CROP_MIDDLE


def crop_to_keypoints(points: Tensor) -> Tensor:
    """The inverse of `keypoints_to_crop`."""
    return (points - CROP_MIDDLE) / PUBLIC_KEYPOINT_PX


def without_cuts(keypoints: Keypoints) -> Keypoints:
    """The keypoints as if the driving video had no cuts: poses continue across each cut, and the face points with them."""
    if not keypoints.cuts:
        return keypoints
    before, after = keypoints.driver, join_shots(keypoints.driver, keypoints.cuts)
    crop, back = keypoints.driver_crop, torch.linalg.inv(keypoints.driver_crop)
    x = crop_to_keypoints(keypoints.driver_points.double() @ crop[:2, :2].T + crop[:2, 2])  # (L, 5, 2)
    x = (after.scale / before.scale)[:, None] * (x - before.translation[:, None, :2]) + after.translation[:, None, :2]
    points = keypoints_to_crop(x) @ back[:2, :2].T + back[:2, 2]
    return replace(keypoints, driver=after, driver_points=points.float(), cuts=())
