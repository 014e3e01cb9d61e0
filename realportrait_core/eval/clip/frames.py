"""A clip of anybody's as it is judged: as many frames of everything, result and truth at SIDE px, and the face of each picture."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...animation.extraction import CHUNK
from ...errors import FaceError, InputError
from ...face.crop import face_square
from ...face.detect import FaceDetector
from ...face.track import FaceTrack, portrait_points, track

SIDE = 256  # px, the shorter side of result and truth
APART = 0.25  # of the face's size: how far the faces of result and truth may be from each other

Callback = Callable[[int, int], None]  # (done, total)


@dataclass(frozen=True)
class Clip:
    """L frames of driving video, result and, where it is known, truth; on the CPU, from where chunks go to the networks."""

    portrait: Tensor  # (1, H, W, 3) in [0, 1]
    driving: Tensor  # (L, h, w, 3)
    result: Tensor  # (L, S, S', 3), the shorter side SIDE px
    truth: Tensor | None  # (L, S, S', 3)
    notes: tuple[str, ...] = ()  # what a reader of the figures must know

    def __len__(self) -> int:
        return len(self.result)


@dataclass(frozen=True)
class ClipFaces:
    """Where the face is; None: there is none in any of these pictures."""

    portrait: Tensor | None  # (5, 2) px
    driving: FaceTrack | None
    result: FaceTrack | None
    truth: FaceTrack | None
    notes: tuple[str, ...] = ()


def clip_of(portrait: Tensor, driving: Tensor, result: Tensor, truth: Tensor | None = None) -> Clip:
    """The frames that all of these have, each (n, H, W, 3) in [0, 1], and the portrait's first picture.

    InputError where the truth has other proportions than the result: no pixel of one is then that of the other.
    """
    notes = []
    if len(portrait) > 1:
        notes.append(f"The portrait is a batch of {len(portrait)} pictures: the first is taken.")
    given = {"driving video": driving, "result": result} | ({} if truth is None else {"truth": truth})
    count = min(map(len, given.values()))
    if len(set(map(len, given.values()))) > 1:
        told = ", ".join(f"the {name} has {len(frames)}" for name, frames in given.items())
        notes.append(f"Of frames {told}: the first {count} are judged.")
    small = resized(result[:count])
    if small.shape[1:] != result.shape[1:]:
        notes.append(f"The result's {size_of(result)} px are resized to {size_of(small)}, as in the paper's tables.")
    true = None if truth is None else resized(truth[:count])
    if true is not None and true.shape != small.shape:
        raise InputError(
            f"The truth is {size_of(truth)} px and the result {size_of(result)} px: they show different parts of the picture. "
            "Paste the result back into the picture, or crop the truth to what the result shows."
        )
    return Clip(portrait[:1].cpu(), driving[:count].cpu(), small.cpu(), None if true is None else true.cpu(), tuple(notes))


def size_of(frames: Tensor) -> str:
    return f"{frames.shape[2]}x{frames.shape[1]}"


def resized(frames: Tensor) -> Tensor:
    """(L, H, W, 3) -> (L, S, S', 3), the shorter side SIDE px. Frames of that size stay as they are, bit by bit."""
    height, width = frames.shape[1:3]
    zoom = SIDE / min(height, width)
    size = (round(height * zoom), round(width * zoom))
    if size == (height, width):
        return frames
    parts = [F.interpolate(part.movedim(-1, 1), size, mode="bilinear", antialias=True) for part in frames.split(CHUNK)]
    return torch.cat(parts).clamp(0, 1).movedim(1, -1)


def find_faces(clip: Clip, detector: FaceDetector, stages: dict[str, Callback]) -> ClipFaces:
    """Tracks the largest face of each video; where there is none, the notes say so."""
    notes: list[str] = []

    def tracked(name: str, frames: Tensor | None) -> FaceTrack | None:
        if frames is None:
            return None
        try:
            return track(frames, detector, callback=stages[name], video=name)
        except FaceError as error:
            notes.append(without(error))
            return None

    try:
        portrait = portrait_points(clip.portrait[0], detector)
    except FaceError as error:
        portrait = None
        notes.append(without(error))
    faces = ClipFaces(portrait, tracked("driving", clip.driving), tracked("result", clip.result), tracked("truth", clip.truth))
    if faces.result is not None and faces.truth is not None and (apart := faces_apart(faces.result, faces.truth)) > APART:
        notes.append(
            f"The face of the result is {100 * apart:.0f} % of its size away from that of the truth: they are not framed alike, "
            "and PSNR, SSIM, ST-LPIPS and spectrum mean little. Paste the result back, or crop the truth to what the result shows."
        )
    return ClipFaces(faces.portrait, faces.driving, faces.result, faces.truth, tuple(notes))


def without(error: FaceError) -> str:
    """What is missing, without the advice, which is for those who animate."""
    return f"{str(error).partition('. ')[0].removesuffix('.')}: the figures that need it are left out."


def faces_apart(a: FaceTrack, b: FaceTrack) -> float:
    """Median distance of the faces of two videos of one size, as a share of the face's extent."""
    squares = [face_square(face.points, scale=1.0, vy=0.0) for face in (a, b)]
    return float(((squares[0].center - squares[1].center).norm(dim=-1) / squares[1].size).median())
