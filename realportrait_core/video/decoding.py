"""Frames of a video one by one, with their timestamps, and as upright RGB pictures."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from ..errors import InputError
from .source import Readable, container, not_read, opened, video_stream

HDR = {16: "PQ", 18: "HLG"}  # transfer functions that look washed out in 8 bits
WIDEST_PIXEL = 16  # width / height, or height / width
MARGIN = 1.0  # s before the wanted time at which a seek aims, since a file's index may be coarse


@dataclass(frozen=True)
class DecodedFrame:
    """A frame as the file has it."""

    frame: Any  # av.VideoFrame
    ratio: float  # width of a pixel / its height
    time: float  # s
    anew: bool  # the one before is damaged or of another size


def decode(source: Readable, since: float | None = None) -> Iterator[DecodedFrame]:
    """Every frame in display order, or those from the key frame before `since` s on, if the file's index is right.

    Raises InputError where the content is no video, or damaged from here on.
    """
    import av

    before, broken, time = None, False, 0.0
    try:
        with opened(source) as video:
            track = video_stream(video, source)
            rate, ratio = track.average_rate, float(track.sample_aspect_ratio or 1)
            if not 1 / WIDEST_PIXEL <= ratio <= WIDEST_PIXEL:
                raise InputError(
                    f"{source.name} declares pixels {ratio:g} times as wide as high, which no video has: its header is damaged. "
                    "Convert it with another program, with square pixels."
                )
            if since is not None:
                video.seek(round(since / track.time_base), stream=track)
            for i, frame in enumerate(video.decode(track)):
                if frame.is_corrupt:
                    broken = True
                    continue
                if frame.time is None and not (rate and since is None):
                    raise InputError(f"{source.name} has neither timestamps nor a frame rate.")
                size = frame.width, frame.height, frame.rotation
                time = float(i / rate if frame.time is None else frame.time)
                yield DecodedFrame(frame, ratio, time, broken or before not in (None, size))
                before, broken = size, False
    except InputError:
        raise
    except (av.FFmpegError, OSError, ValueError, IndexError, MemoryError) as error:
        if before is None:
            raise not_read(source, error) from error
        raise InputError(
            f"{source.name} cannot be read as a video beyond {time:.2f} s ({error}): it is damaged there. Load the part before "
            "it, or convert the file with another program."
        ) from error


def decode_near(source: Readable, seconds: float) -> tuple[Iterator[DecodedFrame], float | None]:
    """Frames that begin at or before `seconds` after the first one, and the time of that first one in the file.

    Where the file cannot be searched, all frames and None.
    """
    first = next(decode(source), None)
    if first is None or container(source) not in ("mp4", "matroska"):
        return decode(source), None
    frames = decode(source, max(first.time, first.time + seconds - MARGIN))
    try:
        found = next(frames, None)
    except InputError:  # of the seek: if the file itself is damaged, plain decoding raises
        found = None
    if found is None or found.time > first.time + seconds:
        return decode(source), None
    return chain([found], frames), first.time


def upright(decoded: DecodedFrame, longest_side: int = 0) -> np.ndarray:
    """(H, W, 3) uint8 RGB with square pixels, rotated as the file declares; at most longest_side px if that is above 0.

    What is transparent is laid over white, as pictures are.
    """
    frame = decoded.frame
    width, height = max(1, round(frame.width * decoded.ratio)), frame.height
    smaller = 0 < longest_side < max(width, height)
    if smaller:
        width, height = fit(width, height, longest_side)
    form = "rgba" if any(part.is_alpha for part in frame.format.components) else "rgb24"
    picture = (
        frame.to_ndarray(format=form)
        if (width, height) == (frame.width, frame.height)
        else frame.reformat(width=width, height=height, format=form, interpolation="AREA" if smaller else "BICUBIC").to_ndarray()
    )
    if form == "rgba":
        picture = over_white(picture)
    return np.ascontiguousarray(np.rot90(picture, round(frame.rotation / 90) % 4))  # counterclockwise, both


def over_white(picture: np.ndarray) -> np.ndarray:
    """(H, W, 4) uint8 RGBA -> (H, W, 3)."""
    color, alpha = picture[..., :3].astype(np.uint16), picture[..., 3:].astype(np.uint16)
    return ((color * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def fit(width: int, height: int, longest_side: int) -> tuple[int, int]:
    """Width and height with the longer of them longest_side px."""
    scale = longest_side / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))
