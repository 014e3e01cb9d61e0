"""Which frames of another method's result belong to which frames of the driving video.

As many frames: frame by frame, whatever rate the file declares, since many methods write 25 or 30 a second for any video. Another
number over the same time: the method has converted the frame rate, and frames are compared where both videos have one at about
the same time; a result of half the rate is judged on every second frame, and not on frames that it holds. Otherwise from the
first frame on, frame by frame, as far as both go.
"""

from dataclasses import dataclass

from ...errors import InputError

NEAR = 2  # frames by which the numbers differ where a method has dropped some at an end, and has not converted the rate


@dataclass(frozen=True)
class Alignment:
    """The pairs of frames that are compared."""

    case: tuple[int, ...]  # frames of the case, ascending
    result: tuple[int, ...]  # the result's frame for each of them
    note: str | None  # a sentence, where not simply all frames are compared


def align(row: str, times: list[float] | None, frames: int, fps: float | None, count: int) -> Alignment:
    """The common frames of a result of `count` frames and a case of `frames` at `fps` a second.

    times: of the result's frames, s; None where it has none, as a folder of pictures. InputError for fewer than 2 frames.
    """
    if count < min(2, frames):
        raise InputError(f"{row} has {count} of the {frames} frames; at least 2 are needed.")
    if times is not None and fps and abs(count - frames) > NEAR and times[-1] > times[0]:
        rate = (count - 1) / (times[-1] - times[0])
        if abs(count / rate - frames / fps) <= max(1 / rate, 1 / fps):
            return by_time(row, [time - times[0] for time in times], rate, frames, fps)
    common = min(count, frames)
    numbers, note = tuple(range(common)), None
    if count > frames:
        note = f"{row} has {count} frames; the first {frames} are compared."
    elif count < frames:
        note = f"{row} has {count} of the {frames} frames; these {count}, the first, are compared."
    return Alignment(numbers, numbers, note)


def by_time(row: str, times: list[float], rate: float, frames: int, fps: float) -> Alignment:
    """The frames that lie less than half a frame of the faster video apart; times from 0."""
    apart = (0.5 + 1e-3) / max(rate, fps)
    pairs: list[tuple[int, int]] = []
    for i in range(frames):
        nearest = min(range(len(times)), key=lambda j: abs(times[j] - i / fps))
        if abs(times[nearest] - i / fps) <= apart and not (pairs and pairs[-1][1] == nearest):
            pairs.append((i, nearest))
    case, result = zip(*pairs)  # frame 0 is always common
    note = (
        f"{row} has {len(times)} frames at {rate:.4g} a second, over the same time as the driving video's {frames} at {fps:.4g}: "
        f"the {len(pairs)} frames that both have at one time are compared."
    )
    return Alignment(case, result, note)
