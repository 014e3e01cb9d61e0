"""Frames one at a time, again from the start as often as they are asked for: of a video file, or of a tensor."""

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
import torch

from .apart import go_on, probe_apart, read_apart
from .loading import TimelineProgress
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

    interrupt() as in `apart.read_apart`; what it raises ends the iterator. Raises InputError as `load_video` does.
    """

    source: VideoFile
    selection: Selection
    interrupt: Callable[[], None] = field(default=go_on, compare=False)

    @property
    def name(self) -> str:
        return self.source.name

    @cached_property
    def info(self) -> VideoInfo:
        """What the container declares."""
        return probe_apart(self.source, self.interrupt)

    @property
    def fps(self) -> float:
        """Frames a second of what is given."""
        return timeline_rate(self.source, self.selection, self.info) / self.selection.stride

    @property
    def total(self) -> int:
        rate = timeline_rate(self.source, self.selection, self.info)
        return TimelineProgress(self.selection, rate, self.info.duration, None).expected

    def __iter__(self) -> Iterator[np.ndarray]:
        for _, picture in self.timed():
            yield picture

    def timed(self) -> Generator[tuple[float, np.ndarray], None, None]:
        """The same, each with its time in the file in s, from which its sound starts."""
        picture = None
        with closing(read_apart(self.source, Request(self.selection), interrupt=self.interrupt)) as records:
            next(records)
            for shown in records:
                picture = picture if shown.pixels is None else shown.pixels
                yield shown.time, picture


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
