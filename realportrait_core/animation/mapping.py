"""Map: the motion position maps of a portrait (Figure 1). W warps f_r to x_d, and the result is placed on the animated square."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import AblationConfig, DiTConfig
from ..errors import InputError
from ..face.crop import face_ellipse, warp_ellipse
from ..memory import Ladder, halves, pieces
from ..motion_map import MotionMaps
from ..vid2vid import FaceVid2Vid
from ..vid2vid.keypoints import transform
from .extraction import CHUNK, device_of, portrait_features
from .framing import frame_square, sample_frame
from .keypoints import PUBLIC_KEYPOINT_PX, Keypoints, Progress, keypoints_to_crop
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
    frame_to_crop: Tensor  # (3, 3) float64, frame px -> crop px; (L, 3, 3) of a portrait video
    face: Tensor  # (L, 2, 3) frame px -> unit disc, the facial mask
    portrait_face: Tensor  # (2, 3)


def map_geometry(keypoints: Keypoints, x_d: Tensor, size: int, framing: str) -> MapGeometry:
    """Geometry on a size x size px frame; x_d (L, K, 3) in the portrait's crop.

    The facial mask of a driving frame is shifted by the distance from the driving frame's own keypoints to x_d.
    """
    points = keypoints.portrait_points.mean(0) if keypoints.of_video else keypoints.portrait_points  # (5, 2)
    portrait_to_frame = frame_square(points, *keypoints.portrait_size, size, framing)
    frame_to_crop = keypoints.portrait_crop @ torch.linalg.inv(portrait_to_frame)  # (3, 3) or (L, 3, 3)
    shift = PUBLIC_KEYPOINT_PX * (x_d - transform(keypoints.driver))[..., :2].mean(1).double()  # (L, 2)
    face = warp_ellipse(face_ellipse(keypoints.driver_points), keypoints.driver_crop, frame_to_crop, shift)
    portrait_face = face_ellipse(points) @ torch.linalg.inv(portrait_to_frame)
    return MapGeometry(portrait_to_frame, frame_to_crop, face, portrait_face)


def maps_ladder() -> Ladder:
    return Ladder("Motion maps", halves(CHUNK))


def motion_maps(
    vid2vid: FaceVid2Vid,
    driven: DrivenKeypoints,
    size: int,
    framing: str = "auto",
    callback: Progress | None = None,
    ladder: Ladder | None = None,
) -> PortraitMotion:
    """The maps of L driven frames on a size x size px frame of the portrait; f_{r->d} is kept in fp16 on the CPU.

    The maps cover the portrait's crop in every frame; the motion is in x_d. f_r of a portrait video is made here, chunk by chunk,
    and not kept: it is four times as large as f_{r->d} in fp16, and F takes a fifth of W's time. callback(done, total) after each
    chunk of frames. ladder: `maps_ladder` of a run that makes maps clip by clip. Raises InsufficientMemory.
    """
    x_d, keypoints, device = driven.x_d, driven.keypoints, device_of(vid2vid)
    x_s = transform(keypoints.portrait).to(device)  # (1 or L, K, 3)
    weight = torch.ones(len(x_d)) if keypoints.motion_weight is None else keypoints.motion_weight
    first = portrait_features(vid2vid, keypoints, slice(0, 1))  # (1, C, D, h, w)
    compressed = vid2vid.warping.compress(first)

    def warped(part: slice) -> Tensor:
        if keypoints.of_video:
            f = vid2vid.warping(portrait_features(vid2vid, keypoints, part), x_d[part].to(device), x_s[part]).out
        else:
            f = vid2vid.warping(first, x_d[part].to(device), x_s, compressed).out  # (n, Cw, h, w)
        return (f * weight[part, None, None, None].to(f)).half().cpu()

    parts = []
    for f, done in pieces(len(x_d), ladder or maps_ladder(), warped):
        parts.append(f)
        if callback is not None:
            callback(done, len(x_d))
    own = vid2vid.warping(first, x_s[:1], x_s[:1], compressed).out.half().cpu()  # (1, Cw, h, w)

    geometry = map_geometry(keypoints, x_d, size, framing)
    maps = MotionMaps(torch.cat(parts), geometry.frame_to_crop.expand(len(x_d), 3, 3), geometry.face, size, size)
    portrait_maps = MotionMaps(own, maps.frame_to_crop[:1], geometry.portrait_face[None], size, size)
    return PortraitMotion(maps, portrait_maps, geometry.portrait_to_frame, keypoints.portrait_size, x_d, driven.first, keypoints)


def frame_keypoints(x_d: Tensor, frame_to_crop: Tensor, size: int) -> Tensor:
    """Keypoints x_d (..., K, 3) of the portrait's crop in half sides of a frame of size px, from its centre.

    1-D motion is strongest so: it says where in the frame each keypoint is. frame_to_crop (..., 3, 3), frame px -> crop px, does
    not turn.
    """
    to_frame = torch.linalg.inv(frame_to_crop.double())
    zoom = to_frame[..., 0, 0][..., None, None]  # frame px per crop px
    plane = zoom * keypoints_to_crop(x_d[..., :2].double()) + to_frame[..., :2, 2][..., None, :] - (size - 1) / 2
    depth = zoom * PUBLIC_KEYPOINT_PX * x_d[..., 2:].double()
    return (torch.cat([plane, depth], -1) / (size / 2)).to(x_d)


def motion_input(cfg: DiTConfig, motion: PortraitMotion, frames: list[int]) -> MotionMaps | Tensor:
    """What a network takes as the motion of these frames: their maps, or of 1-D motion their keypoints (L, K, 3)."""
    if isinstance(cfg, AblationConfig) and cfg.keypoints:
        return frame_keypoints(motion.x_d[frames], motion.maps.frame_to_crop[frames], motion.maps.height)
    return motion.maps[frames]


def portrait_of(motion: PortraitMotion) -> Tensor:
    """The portrait's own picture (1, H, W, 3) in [0, 1]. Raises InputError for a motion that does not hold it."""
    picture = None if motion.keypoints is None else motion.keypoints.picture
    if picture is None:
        height, width = motion.portrait_size
        raise InputError(
            f"The motion does not hold the picture of its portrait ({width}x{height} px). Connect the portrait, or extract the "
            "motion again."
        )
    return picture


def frame_portrait(portrait: Tensor, motion: PortraitMotion) -> Tensor:
    """The part of the portrait (1, H, W, 3) that the motion's frame shows: (1, size, size, 3).

    Raises InputError for a picture that is not of the size the motion was made for, or the motion of a portrait video.
    """
    if motion.keypoints is not None and motion.keypoints.of_video:
        raise InputError(
            f"This motion is of a portrait video of {len(motion.maps)} frames, and RealPortrait animates a still portrait. Render "
            "it with Render Face Vid2vid, or give Extract Face Motion a single picture as the portrait."
        )
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
