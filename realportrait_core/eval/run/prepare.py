"""A case before any row is made: its faces, its motion, and on a frame of SIZE px what the rows will be compared with.

As in the paper, every row is compared at 256x256 px, whatever size a network makes. Where there is no truth, the driving frames
take its place, on the square around their own face that the portrait's frame is around its face.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...animation.extraction import CHUNK
from ...animation.framing import frame_square, sample_frame
from ...animation.mapping import PortraitMotion, frame_portrait
from ...errors import InputError
from ...face.crop import clip_crop, rescale
from ...face.track import FaceTrack, track
from ...motion_map import MotionMaps
from ..cases import Case, driving_frames, driving_rate, frames_of
from ..networks import Networks
from ..report.pictures import sized
from ..source import Source, find_faces, motion_of

SIZE = 256  # px


@dataclass(frozen=True)
class View:
    """A video on a frame of SIZE px, and where its face is expected."""

    pictures: Tensor  # (L, 3, S, S) in [0, 1]
    points: Tensor  # (L, 5, 2) px, the face's
    crop: Tensor  # (3, 3) px -> px of the crop that M receives


@dataclass(frozen=True)
class Prepared:
    """A case of L frames."""

    source: Source
    motion: PortraitMotion  # on a frame of the transformer's size
    portrait: Tensor  # (1, 3, s, s) in [0, 1] on that frame
    true_frames: Tensor | None  # (L, 3, s, s) the truth on it; None: there is none
    target: View  # the truth, or the driving frames
    points: Tensor  # (L, 5, 2) px of SIZE: where a row's face should be; the target's own, where that is the truth
    crop: Tensor  # (3, 3) px of SIZE -> M's crop of a row
    face: Tensor  # (L, S, S) bool, the facial mask in a row
    portrait_face: Tensor  # (1, S, S) bool, the same in the portrait
    valid: Tensor | None  # (L, S, S) bool, where the truth is known; None: everywhere
    fps: float  # of the driving video
    of_itself: bool  # whether the driving video is the truth

    @property
    def exact(self) -> bool:
        """Whether there is a truth."""
        return self.true_frames is not None

    @property
    def first(self) -> int:
        """The first frame that is scored: frame 0 of a truth is the portrait itself."""
        return 1 if self.exact else 0

    @property
    def portrait_compared(self) -> Tensor:
        """(1, 3, S, S) in [0, 1]."""
        return as_compared(self.portrait).float() / 255

    def __len__(self) -> int:
        return len(self.face)


@torch.inference_mode()
def prepare_case(networks: Networks, case: Case) -> Prepared:
    """FaceError where a face is missing, InputError where files cannot be read or do not belong together."""
    if case.truth is None:
        return without_truth(networks, case)
    driver, truth, valid = frames_of(case)
    source = find_faces(truth[0], driver, networks.detector)
    points = source.track.points if case.of_itself else track(truth, networks.detector, video="true").points
    motion = motion_of(networks, source)
    to_frame = at_size(motion)
    target = View(framed(truth, to_frame, SIZE), moved(points, to_frame), clip_crop(points) @ torch.linalg.inv(to_frame))
    known = None if valid is None else framed(255 * valid[..., None].to(torch.uint8), to_frame, SIZE)[:, 0] > 0.999
    if known is not None and not bool(known.any(2).any(1).all()):
        raise InputError(f"{case.name}: there is a frame of whose truth nothing is known.")
    own = framed(truth, motion.portrait_to_frame, motion.maps.height)
    return Prepared(
        source=source,
        motion=motion,
        portrait=portrait_of(source, motion),
        true_frames=own,
        target=target,
        points=target.points,
        crop=target.crop,
        face=facial(motion, motion.maps),
        portrait_face=facial(motion, motion.portrait_maps),
        valid=known,
        fps=driving_rate(case),
        of_itself=case.of_itself,
    )


def without_truth(networks: Networks, case: Case) -> Prepared:
    driver = driving_frames(case)
    source = find_faces(case.portrait_picture(), driver, networks.detector)
    motion = motion_of(networks, source)
    middle, own = centres(motion.maps.face), centres(motion.portrait_maps.face)  # (L, 2), (1, 2) px of the transformer's frame
    at_rest = moved(source.points[None], at_size(motion))  # (1, 5, 2)
    expected = at_rest + (middle - own)[:, None].float() * (SIZE / motion.maps.height)
    return Prepared(
        source=source,
        motion=motion,
        portrait=portrait_of(source, motion),
        true_frames=None,
        target=driving_view(driver, source.track),
        points=expected,
        crop=clip_crop(expected),
        face=facial(motion, motion.maps),
        portrait_face=facial(motion, motion.portrait_maps),
        valid=None,
        fps=driving_rate(case),
        of_itself=False,
    )


def driving_view(driving: Tensor, followed: FaceTrack) -> View:
    """The driving frames (L, H, W, 3) uint8 on the square around the face of their first one."""
    height, width = driving.shape[1:3]
    square = frame_square(followed.points[0], height, width, SIZE, "whole")
    points = moved(followed.points, square)
    return View(framed(driving, square, SIZE), points, clip_crop(points))


def portrait_of(source: Source, motion: PortraitMotion) -> Tensor:
    return frame_portrait(source.portrait, motion).movedim(-1, 1)


def at_size(motion: PortraitMotion) -> Tensor:
    """(3, 3) float64: px of the portrait -> px of a frame of SIZE px that shows the same."""
    return rescale(SIZE / motion.maps.height) @ motion.portrait_to_frame


def facial(motion: PortraitMotion, maps: MotionMaps) -> Tensor:
    """The facial masks (L, SIZE, SIZE) bool of the motion's maps."""
    back = torch.linalg.inv(rescale(SIZE / motion.maps.height)).to(maps.face)
    return replace(maps, face=maps.face @ back, height=SIZE, width=SIZE).mask()


def centres(ellipses: Tensor) -> Tensor:
    """The middles (L, 2) px of facial masks (L, 2, 3), px -> unit disc."""
    return -torch.linalg.solve(ellipses[:, :, :2], ellipses[:, :, 2])


def moved(points: Tensor, to_frame: Tensor) -> Tensor:
    """Points (..., 2) px through (3, 3)."""
    return (points.double() @ to_frame[:2, :2].T + to_frame[:2, 2]).float()


def framed(frames: Tensor, to_frame: Tensor, size: int) -> Tensor:
    """Frames (L, H, W, C) uint8 on a frame of `size` px: (L, C, size, size) in [0, 1]."""
    pictures = frames.movedim(-1, 1)
    if pictures.shape[2:] == (size, size) and torch.allclose(to_frame, torch.eye(3, dtype=to_frame.dtype)):
        return pictures.float() / 255
    return torch.cat([sample_frame(chunk.float() / 255, to_frame, size) for chunk in pictures.split(CHUNK)])


def as_compared(pictures: Tensor) -> Tensor:
    """A row (L, 3, s, s) in [0, 1] at SIZE px and as a file would hold it: (L, 3, SIZE, SIZE) uint8."""
    return sized(pictures, SIZE).movedim(-1, 1)
