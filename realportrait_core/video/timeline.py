"""Which frames of a video are kept: a constant frame rate by nearest timestamps, a start, a stride and a count."""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import ceil
from typing import Literal, Protocol, TypeVar

from ..errors import InputError

CLOCK = 1.1e-3  # s, by which the distance of two timestamps may be off: Matroska counts whole milliseconds

LARGEST = 1e9  # of each number of a selection: FFmpeg counts time in 64 bits
LONGEST_STILL = 600.0  # s without a new frame, more of which is a damaged timestamp

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Selection:
    """Which frames of a video are loaded. The timeline is the video at `fps`, its first frame being number 0.

    Raises InputError for values below 0 or above LARGEST.
    """

    start: float = 0.0  # seconds, or a frame of the timeline
    start_in: Literal["seconds", "frames"] = "seconds"
    frames: int = 0  # at most so many; 0: all
    stride: int = 1  # of the timeline, every stride-th
    fps: float = 0.0  # 0: the video's own
    longest_side: int = 0  # px, to which larger frames are resized; 0: as they are

    def __post_init__(self) -> None:
        if self.start_in not in ("seconds", "frames"):
            raise InputError(f"start_in is {self.start_in!r}; it must be 'seconds' or 'frames'.")
        numbers = self.start, self.frames, self.stride, self.fps, self.longest_side
        if not all(0 <= number <= LARGEST for number in numbers) or self.stride < 1:  # NaN neither
            raise InputError(
                f"start {self.start:g}, frames {self.frames}, stride {self.stride}, fps {self.fps:g} and longest_side "
                f"{self.longest_side} cannot be: none may be negative or above {LARGEST:g}, and the stride is at least 1."
            )

    def first(self, fps: float) -> int:
        """The frame of the timeline that is nearest to the start."""
        return round(self.start * fps if self.start_in == "seconds" else self.start)


class Timed(Protocol):
    """A frame with its time in s, and whether it starts anew, unconnected with the one before."""

    @property
    def time(self) -> float: ...

    @property
    def anew(self) -> bool: ...


T = TypeVar("T", bound=Timed)


def resample(
    frames: Iterable[T], fps: float, longest_hold: float | None = None, origin: float | None = None
) -> Iterator[tuple[T, float, bool, bool]]:
    """Frames at any times -> (frame, time, fresh, joined) every 1 / fps s, the nearest in time.

    Time is counted from the first frame, or from `origin` s, at or before it. fresh: not a repetition of the one before;
    joined: continues the one before. Frames that go back in time are left out. After a gap of more than longest_hold s (at
    least 1.5 frames), and where a frame is `anew`, time starts anew; with None it never does, and the frame before such a
    gap is repeated until its middle.
    """
    gap = None if longest_hold is None else max(longest_hold, 1.5 / fps)
    before, last, start, n = None, None, 0.0, 0

    def until(end: float) -> Iterator[tuple[T, float, bool, bool]]:
        nonlocal last, n
        while start + n / fps < end:
            yield before, start + n / fps, before is not last, n > 0
            last, n = before, n + 1

    for frame in frames:
        if before is None:
            start = frame.time if origin is None else origin + ceil((frame.time - origin) * fps - 1e-3) / fps
        elif frame.time <= before.time:
            continue
        elif gap is not None and (frame.anew or frame.time - before.time > gap):
            yield from until(before.time + CLOCK)
            start, n = frame.time, 0
        else:
            yield from until((before.time + frame.time) / 2)
        before = frame
    if before is not None:
        yield from until(before.time + CLOCK)


def without_jumps(frames: Iterable[T], fps: float, name: str) -> Iterator[T]:
    """Raises InputError where no frame comes for LONGEST_STILL, as one damaged timestamp has it: the frame before would be repeated
    for hours, or years.
    """
    before = None
    for frame in frames:
        if before is not None and frame.time - before > max(LONGEST_STILL, 2 / fps):
            raise InputError(
                f"The timestamps of {name} jump from {before:.2f} s to {frame.time:.2f} s: the file is damaged there. "
                "Load the part before it, or convert the file with another program."
            )
        before = frame.time
        yield frame


def select(
    frames: Iterable[T], fps: float, selection: Selection, name: str, tick: Callable[[int], None], origin: float | None = None
) -> Iterator[tuple[T, float]]:
    """The selection's frames with their times in the file. tick(n) before every frame of the timeline, selected or not.

    frames may begin anywhere before the range if `origin`, the time of the very first in s, is given.

    Raises InputError, with the numbers, where the range starts behind the last frame or the timestamps jump. Decoding ends
    with the range.
    """
    first, given, n = selection.first(fps), 0, 0
    for frame, time, _, _ in resample(without_jumps(frames, fps, name), fps, None, origin):
        origin = time if origin is None else origin
        n = round((time - origin) * fps) + 1
        tick(n)
        if n <= first or (n - 1 - first) % selection.stride:
            continue
        yield frame, time
        given += 1
        if given == selection.frames:
            return
    if not n:
        raise InputError(f"{name} has no frames.")
    if not given:
        raise InputError(
            f"The range starts at frame {first} ({first / fps:.2f} s) and {name} has {n} frames at {fps:g} a second "
            f"(0 to {n - 1}, {n / fps:.2f} s). Start earlier."
        )
    if selection.frames:
        log.warning("%s ends after %d of the %d frames asked for, at frame %d.", name, given, selection.frames, n - 1)
