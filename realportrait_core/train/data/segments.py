"""From a video to segments in which one face is followed: frames by their timestamps, cuts, tracks, a square that stays.

A video is decoded twice, at the same pace: once by the detector, which finds the segments, once for the pictures of those. So
memory does not depend on its length.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from math import ceil

import numpy as np
import torch

from ...animation.framing import frame_square
from ...errors import InputError
from ...face.crop import face_square
from ...face.detect import Face, FaceDetector
from ...face.track import MAX_GAP, fill, follow, smooth
from ...video.decoding import HDR, DecodedFrame, decode, upright
from ...video.timeline import resample
from .sources import Source

# frames of a segment, 20 s at 25 fps, among which a step draws. The paper's videos have 3 s to 5 minutes, 22 s in the mean.
LONGEST = 512  # frames and face crops are held at once when they are encoded: 0.8 GB at 512 px
BLOCK = 1024  # frames whose faces are held at once; a segment ends with its block
LONGEST_HOLD = 0.2  # s, longest time from one frame to the next; after a longer one a new run begins


@dataclass(frozen=True)
class Frame:
    """A frame of the resampled video."""

    picture: np.ndarray  # (H, W, 3) uint8 RGB, upright
    time: float  # s, in the file
    fresh: bool  # not a repetition of the frame before
    joined: bool  # follows on the frame before; False at the start, after a gap and where the size changes


@dataclass(frozen=True)
class Segment:
    """T frames, from number `start` of the resampled video on, in which one face is followed."""

    start: int
    time: float  # s, in the file
    size: tuple[int, int]  # height, width of the pictures, px
    faces: list[Face | None]
    fresh: list[bool]
    points: torch.Tensor  # (T, 5, 2) px, smoothed; filled in where the face is missing

    def __len__(self) -> int:
        return len(self.faces)

    @property
    def present(self) -> torch.Tensor:
        """(T,) bool, whether the face was found."""
        return torch.tensor([face is not None for face in self.faces])


@dataclass(frozen=True)
class Scrap:
    """Frames of which no segment can be made."""

    reason: str
    detail: str
    time: float  # s, in the file
    frames: int


# Frames by their timestamps


def read_frames(source: Source, fps: float) -> Iterator[Frame]:
    """The video at `fps`: every 1 / fps s the frame that is nearest in time.

    Raises InputError where the file is no video, is damaged from here on, or is HDR; frames may have come before it.
    """
    picture = None
    for shown, time, fresh, joined in resample(without_hdr(source), fps, LONGEST_HOLD):
        if fresh:
            picture = upright(shown)
        yield Frame(picture, time, fresh, joined)


def without_hdr(source: Source) -> Iterator[DecodedFrame]:
    """Every frame that the file shows. Raises InputError as read_frames."""
    for shown in decode(source):
        if (transfer := int(shown.frame.color_trc)) in HDR:
            raise InputError(f"{source.name} is HDR ({HDR[transfer]}): convert it to 8-bit BT.709 first.")
        yield shown


# Segments


def find_segments(source: Source, detector: FaceDetector, fps: float, shortest: int) -> Iterator[Segment | Scrap]:
    """Segments of `shortest` to LONGEST frames in which one face is followed, and the rest of the video as scraps, in order.

    A file that is damaged, or no video at all, ends with a Scrap that gives the reason: nothing is raised.
    """
    frames, begun = read_frames(source, fps), 0
    while True:
        block = Block([], [], [], [])
        faces, _, cuts, _ = follow(block.watch(islice(frames, BLOCK)), detector, "largest", None)
        if begun == 0 and not faces and not block.problem:
            block.problem.append(f"{source.name} has no frames.")
        edges = sorted({0, len(faces), *cuts, *block.starts})
        for first, last in zip(edges, edges[1:]):
            yield from cut_run(block, faces, first, last, begun, fps, shortest)
        if block.problem:
            yield Scrap(
                "damaged file" if begun or faces else "unreadable file",
                block.problem[0],
                block.times[-1] if block.times else 0.0,
                0,
            )
        begun += len(faces)
        if len(faces) < BLOCK:
            return


@dataclass(frozen=True)
class Block:
    """The record of frames whose pictures are no longer held."""

    times: list[float]
    fresh: list[bool]
    sizes: list[tuple[int, int]]
    starts: list[int]  # frames at which a run begins, counted from the block's first
    problem: list[str] = field(default_factory=list)  # why no more came: one sentence, or none

    def watch(self, frames: Iterable[Frame]) -> Iterator[np.ndarray]:
        """The pictures. An error ends them."""
        try:
            for frame in frames:
                if not frame.joined:
                    self.starts.append(len(self.times))
                self.times.append(frame.time)
                self.fresh.append(frame.fresh)
                self.sizes.append(frame.picture.shape[:2])
                yield frame.picture
        except InputError as error:
            self.problem.append(str(error))


def cut_run(
    block: Block, faces: list[Face | None], first: int, last: int, begun: int, fps: float, shortest: int
) -> Iterator[Segment | Scrap]:
    """Frames first .. last - 1, between two cuts: parts with a face, none missing it for more than MAX_GAP frames."""
    seen = [i for i in range(first, last) if faces[i] is not None]
    if not seen:
        yield Scrap("no face", f"no face in {last - first} frames", block.times[first], last - first)
        return
    tracks = [[seen[0], seen[0] + 1]]
    for i in seen[1:]:
        if i - tracks[-1][1] > MAX_GAP:
            tracks.append([i, i + 1])
        tracks[-1][1] = i + 1
    for start, stop in tracks:
        length = stop - start
        if length < shortest:
            detail = f"{length} frames ({length / fps:.2f} s) with one face, at least {shortest} are needed"
            yield Scrap("too short", detail, block.times[start], length)
            continue
        parts = ceil(length / LONGEST)
        bounds = [start + length * i // parts for i in range(parts + 1)]
        for a, b in zip(bounds, bounds[1:]):
            present = torch.tensor([face is not None for face in faces[a:b]])
            points = torch.full((b - a, 5, 2), torch.nan)
            points[present] = torch.stack([face.points for face in faces[a:b] if face is not None])
            yield Segment(
                begun + a,
                block.times[a],
                block.sizes[a],
                faces[a:b],
                block.fresh[a:b],
                smooth(fill(points, present, "interpolate")),
            )


def read_segment(frames: Iterator[Frame], position: int, segment: Segment) -> Iterator[Frame]:
    """The segment's frames, from a second pass that has arrived at frame `position` of the video, at or before the segment."""
    return islice(frames, segment.start - position, segment.start - position + len(segment))


def segment_square(segment: Segment, size: int) -> torch.Tensor | None:
    """(3, 3) float64, picture px -> px of a size x size frame: one square that holds the face in every frame, or None.

    animation.framing.frame_square around all places where the face is: "auto", as a user's portrait is framed, or the whole
    picture's shorter side where the face moves more than that shows.
    """
    low, high = boxes(segment.points)
    middle = (low.amin(0) + high.amax(0)) / 2
    mean = segment.points.double().mean(0)
    points = mean + middle - face_square(mean, scale=1.0, vy=0.0).center
    for framing in ("auto", "whole"):
        square = frame_square(points, *segment.size, size, framing)
        if holds(square, segment.points, size):
            return square
    return None


def boxes(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The face's upright box, corner to corner, from points (T, 5, 2): twice (T, 2) px."""
    faces = face_square(points, scale=1.0, vy=0.0)
    return faces.center - faces.size[:, None] / 2, faces.center + faces.size[:, None] / 2


def holds(square: torch.Tensor, points: torch.Tensor, size: int) -> bool:
    """Whether a frame of `size` px, picture px -> frame px (3, 3), shows the faces of points (T, 5, 2) px in full."""
    corners = torch.cat(boxes(points)) @ square[:2, :2].T + square[:2, 2]
    return float(corners.min()) >= -0.5 and float(corners.max()) <= size - 0.5
