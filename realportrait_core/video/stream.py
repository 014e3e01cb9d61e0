"""Frames one at a time, again from the start as often as they are asked for: of a video file, or of a tensor."""

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import torch

from ..errors import InputError
from .apart import probe_apart, read_apart
from .loading import Progress, TimelineProgress
from .reading import timeline_rate
from .records import Request
from .source import VideoFile, VideoInfo
from .timeline import Selection


class FrameStream(Protocol):
    """A video of which one frame at a time is in memory."""

    @property
    def name(self) -> str: ...  # for errors

    @property
    def fps(self) -> float: ...

    @property
    def total(self) -> int: ...  # about how many frames there are, for progress; 0 where it is not known

    def __iter__(self) -> Iterator[np.ndarray]: ...  # (H, W, 3) RGB, uint8 or in [0, 1], all of one size; a new pass at each call


@dataclass(frozen=True)
class VideoStream:
    """The selected frames (H, W, 3) uint8 of a file, decoded in a process of their own, which ends with the iterator.

    Raises InputError as `load_video` does.
    """

    source: VideoFile
    selection: Selection

    @property
    def name(self) -> str:
        return self.source.name

    @cached_property
    def info(self) -> VideoInfo:
        """What the container declares."""
        return probe_apart(self.source)

    @property
    def fps(self) -> float:
        """Frames a second of what is given."""
        return timeline_rate(self.source, self.selection, self.info) / self.selection.stride

    @property
    def total(self) -> int:
        return self.progress().expected

    def progress(self, callback: Progress | None = None) -> TimelineProgress:
        rate = timeline_rate(self.source, self.selection, self.info)
        return TimelineProgress(self.selection, rate, self.info.duration, callback)

    def __iter__(self) -> Iterator[np.ndarray]:
        for _, picture in self.timed():
            yield picture

    def timed(self, callback: Progress | None = None) -> Generator[tuple[float, np.ndarray], None, None]:
        """The same, each with its time in the file in s, from which its sound starts.

        callback(done, total) at every frame of the timeline; what it raises ends the decoding.
        """
        picture, tick = None, None if callback is None else self.progress(callback).frame
        with closing(read_apart(self.source, Request(self.selection), tick)) as records:
            next(records)
            for shown in records:
                picture = picture if shown.pixels is None else shown.pixels
                yield shown.time, picture

    def first(self, callback: Progress | None = None) -> tuple[float, np.ndarray]:
        """The first frame and its time, as `timed` gives it. No other is decoded behind it."""
        alone = replace(self, selection=replace(self.selection, frames=1))
        with closing(alone.timed(callback)) as frames:
            return next(frames)

    def part(self, selection: Selection) -> "VideoStream":
        """The selected frames of these, as `select_frames` would select them; what is scaled down is so once.

        Raises InputError where frames of a part would be given at another rate than the part's, and where the range starts
        behind its last frame.
        """
        own = self.selection
        side = min((one for one in (own.longest_side, selection.longest_side) if one), default=0)
        if not (own.start or own.frames or own.fps) and own.stride == 1:
            return replace(self, selection=replace(selection, longest_side=side))
        rate = timeline_rate(self.source, own, self.info)
        fps = rate / own.stride
        if selection.fps not in (0, fps):
            raise InputError(
                f"fps is {selection.fps:g}, and these frames of {self.name} come at {fps:g} a second already. Set fps where the "
                "file is chosen, and leave it at 0 here."
            )
        first, frames = selection.first(fps), selection.frames
        if own.frames:
            left = -(-(own.frames - first) // selection.stride)
            if left < 1:
                raise InputError(
                    f"The range starts at frame {first} ({first / fps:.2f} s), and only {own.frames} frames of {self.name} were "
                    f"chosen before it (0 to {own.frames - 1}). Start earlier."
                )
            frames = min(frames or left, left)
        start = own.first(rate) + first * own.stride
        return replace(self, selection=Selection(start, "frames", frames, own.stride * selection.stride, own.fps, side))


@dataclass(frozen=True)
class FramesInMemory:
    """Frames (L, H, W, 3), in [0, 1] or uint8, that are there already."""

    frames: torch.Tensor
    fps: float
    name: str = "the video"

    @property
    def total(self) -> int:
        return len(self.frames)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (frame.cpu().numpy() for frame in self.frames)
