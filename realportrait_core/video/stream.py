"""The selected frames of a video one at a time, again from the start as often as they are asked for."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..errors import InputError
from .decoding import decode, upright
from .loading import check_picture
from .source import Readable, probe
from .timeline import Selection, select


class FrameStream(Protocol):
    """A video of which one frame at a time is in memory."""

    @property
    def name(self) -> str: ...  # for errors

    @property
    def fps(self) -> float: ...

    def __iter__(self) -> Iterator[np.ndarray]: ...  # (H, W, 3) uint8 RGB, all of one size; a new pass at each call


@dataclass(frozen=True)
class VideoStream:
    """The selected frames of a file. Iterating raises InputError as `load_video` does."""

    source: Readable
    selection: Selection

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def fps(self) -> float:
        """Frames a second of what is given. Raises InputError where neither file nor selection says it."""
        rate = self.selection.fps or probe(self.source).rate
        if not rate:
            raise InputError(f"{self.name} does not declare a frame rate. Set fps, to 25 for example.")
        return rate / self.selection.stride

    def __iter__(self) -> Iterator[np.ndarray]:
        fps, size, before, picture = self.fps * self.selection.stride, None, None, None
        for decoded, time in select(decode(self.source), fps, self.selection, self.name, lambda n: None):
            if before is not decoded:
                before, picture = decoded, upright(decoded, self.selection.longest_side)
                check_picture(size, picture.shape, time, self.name)
                size = picture.shape
            yield picture
