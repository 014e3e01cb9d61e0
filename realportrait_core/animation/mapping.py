"""Map: the motion position maps of a portrait (Figure 1). W warps f_r to x_d, and the result is placed on the animated square."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from ..face.crop import face_ellipse, warp_ellipse
from ..motion_map import MotionMaps
from ..vid2vid import FaceVid2Vid
from ..vid2vid.keypoints import transform
from .extraction import CHUNK, device_of, dtype_of
from .framing import frame_square, sample_frame
from .keypoints import PUBLIC_KEYPOINT_PX, Keypoints, Progress
from .retargeting import DrivenKeypoints


@dataclass(frozen=True)
class PortraitMotion:
    """The motion position maps of L frames, on a square frame that shows the portrait's face."""

    maps: MotionMaps  # L frames
    portrait_maps: MotionMaps  # 1 frame: the portrait's own, f_{r->r}
    portrait_to_frame: Tensor  # (3, 3) float64, portrait px -> frame px
    portrait_size: tuple[int, int]
    x_d: Tensor | None = None  # (L, K, 3) the driven keypoints in the portrait's crop, which the animation should show
    first: int = 0  # the driving video's frame that is the first of the L
    keypoints: Keypoints | None = None  # what the maps were made from, of the same L frames; with it the portrait's picture and f_r


@dataclass(frozen=True)
class MapGeometry:
    """The position of the maps of L frames on the frame."""

    portrait_to_frame: Tensor  # (3, 3) float64, portrait px -> frame px
    frame_to_crop: Tensor  # (3, 3) float64, frame px -> crop px
    face: Tensor  # (L, 2, 3) frame px -> unit disc, the facial mask
    portrait_face: Tensor  # (2, 3)


def map_geometry(keypoints: Keypoints, x_d: Tensor, size: int, framing: str) -> MapGeometry:
    """Geometry on a size x size px frame; x_d (L, K, 3) in the portrait's crop.

    The facial mask of a driving frame is shifted by the distance from the driving frame's own keypoints to x_d.
    """
    portrait_to_frame = frame_square(keypoints.portrait_points, *keypoints.portrait_size, size, framing)
    frame_to_crop = keypoints.portrait_crop @ torch.linalg.inv(portrait_to_frame)  # (3, 3)
    shift = PUBLIC_KEYPOINT_PX * (x_d - transform(keypoints.driver))[..., :2].mean(1).double()  # (L, 2)
    face = warp_ellipse(face_ellipse(keypoints.driver_points), keypoints.driver_crop, frame_to_crop, shift)
    portrait_face = face_ellipse(keypoints.portrait_points) @ torch.linalg.inv(portrait_to_frame)
    return MapGeometry(portrait_to_frame, frame_to_crop, face, portrait_face)


def motion_maps(
    vid2vid: FaceVid2Vid, driven: DrivenKeypoints, size: int, framing: str = "auto", callback: Progress | None = None
) -> PortraitMotion:
    """The maps of L driven frames on a size x size px frame of the portrait; f_{r->d} is kept in fp16 on the CPU.

    The maps cover the portrait's crop in every frame; the motion is in x_d. callback(done, total) after each chunk of frames.
    """
    x_d, keypoints, device = driven.x_d, driven.keypoints, device_of(vid2vid)
    x_s = transform(keypoints.portrait).to(device)  # (1, K, 3)
    weight = torch.ones(len(x_d)) if keypoints.motion_weight is None else keypoints.motion_weight
    f_r = keypoints.feature.to(device, dtype_of(vid2vid.warping))  # (1, C, D, h, w)
    compressed = vid2vid.warping.compress(f_r)
    parts = []
    for start in range(0, len(x_d), CHUNK):
        f = vid2vid.warping(f_r, x_d[start : start + CHUNK].to(device), x_s, compressed).out  # (n, Cw, h, w)
        parts.append((f * weight[start : start + CHUNK, None, None, None].to(f)).half().cpu())
        if callback is not None:
            callback(min(start + CHUNK, len(x_d)), len(x_d))
    own = vid2vid.warping(f_r, x_s, x_s, compressed).out.half().cpu()  # (1, Cw, h, w)

    geometry = map_geometry(keypoints, x_d, size, framing)
    maps = MotionMaps(torch.cat(parts), geometry.frame_to_crop.expand(len(x_d), 3, 3), geometry.face, size, size)
    portrait_maps = MotionMaps(own, geometry.frame_to_crop[None], geometry.portrait_face[None], size, size)
    return PortraitMotion(maps, portrait_maps, geometry.portrait_to_frame, keypoints.portrait_size, x_d, driven.first, keypoints)


def frame_portrait(portrait: Tensor, motion: PortraitMotion) -> Tensor:
    """The part of the portrait (1, H, W, 3) that the motion's frame shows: (1, size, size, 3).

    Raises InputError for a picture that is not of the size the motion was made for.
    """
    if tuple(portrait.shape[1:3]) != tuple(motion.portrait_size):
        height, width = motion.portrait_size
        raise InputError(
            f"The portrait is {portrait.shape[2]}x{portrait.shape[1]} px; the motion was made for one of {width}x{height} px. "
            "Connect the same picture to both."
        )
    size, pictures = motion.maps.height, portrait.movedim(-1, 1)
    identity = torch.eye(3, dtype=torch.float64)
    if pictures.shape[2:] == (size, size) and torch.allclose(motion.portrait_to_frame, identity):
        return portrait
    return sample_frame(pictures, motion.portrait_to_frame, size).movedim(1, -1)
