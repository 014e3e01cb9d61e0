"""Frames of a video by their timestamps: decoded one by one, resampled, turned upright, and only the chosen ones kept."""

import io
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from math import ceil
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol, TypeVar

import numpy as np
import torch
import torch.nn.functional as F

from .errors import InputError

HDR = {16: "PQ", 18: "HLG"}  # transfer functions that an 8-bit picture shows washed out
FASTEST = 240.0  # frames a second above which a file's own rate is taken for a clock's, not a camera's
SEARCHED = 5.0  # s; a range that starts later is looked for from the key frame before it
MARGIN = 1.0  # s before it that are searched for, since a file's index may be coarse
LOADED = 1 + 4  # bytes a colour value takes while frames are loaded: uint8, then float32

ISO_BOXES = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"}
EBML = b"\x1a\x45\xdf\xa3"

Progress = Callable[[int, int], None]

log = logging.getLogger(__name__)


class Readable(Protocol):
    """Where a video's bytes come from."""

    @property
    def name(self) -> str: ...  # for errors

    def open(self) -> BinaryIO: ...  # anew each time


@dataclass(frozen=True)
class VideoFile:
    """A video on disk, or all its bytes."""

    name: str
    content: Path | bytes

    def open(self) -> BinaryIO:
        return io.BytesIO(self.content) if isinstance(self.content, bytes) else self.content.open("rb")


@dataclass(frozen=True)
class Shown:
    """A frame as the file has it."""

    frame: Any  # av.VideoFrame
    ratio: float  # width of a pixel / its height
    time: float  # s
    anew: bool  # the one before is damaged or of another size


@dataclass(frozen=True)
class About:
    """What a file says of itself."""

    rate: float | None  # frames a second, on average
    duration: float | None  # s


@dataclass(frozen=True)
class Sound:
    """Samples in -1 .. 1."""

    waveform: torch.Tensor  # (1, channels, samples), one or two channels
    rate: int  # samples a second


@dataclass(frozen=True)
class Selection:
    """Which frames of a video are loaded. The timeline is the video at `fps`, its first frame being number 0."""

    start: float = 0.0  # seconds, or a frame of the timeline
    start_in: Literal["seconds", "frames"] = "seconds"
    frames: int = 0  # at most so many; 0: all
    stride: int = 1  # of the timeline, every stride-th
    fps: float = 0.0  # 0: the video's own
    longest_side: int = 0  # px, to which larger frames are brought down; 0: as they are

    def __post_init__(self) -> None:
        if self.start_in not in ("seconds", "frames"):
            raise InputError(f"start_in is {self.start_in!r}; it must be 'seconds' or 'frames'.")
        if self.start < 0 or self.frames < 0 or self.stride < 1 or self.fps < 0 or self.longest_side < 0:
            raise InputError(
                f"start {self.start:g}, frames {self.frames}, stride {self.stride}, fps {self.fps:g} and longest_side "
                f"{self.longest_side} cannot be: none may be negative, and the stride is at least 1."
            )

    def first(self, fps: float) -> int:
        """The frame of the timeline that is nearest to the start."""
        return round(self.start * fps if self.start_in == "seconds" else self.start)


@dataclass(frozen=True)
class Footage:
    """Frames of a video, `fps` a second, and the sound from the first of them to the end of the last."""

    images: torch.Tensor  # (n, H, W, 3) float32 in [0, 1]
    fps: float
    times: list[float]  # s in the file, of each frame
    sound: Sound | None


# The file


def container(source: Readable) -> str:
    """FFmpeg's name for what the first bytes say. Left to guess, it would also open a playlist, which names other files."""
    with source.open() as stream:
        start = stream.read(12)
    if start[:4] == EBML:
        return "matroska"
    if start[4:8] in ISO_BOXES:
        return "mp4"
    if start[:4] == b"RIFF" and start[8:12] == b"AVI ":
        return "avi"
    if start[:6] in (b"GIF87a", b"GIF89a"):
        return "gif"
    raise InputError(f"{source.name} is not a video: its content is neither MP4 or MOV nor MKV or WebM, AVI or GIF.")


def about(source: Readable) -> About:
    """Rate and length by the file's own words. Raises InputError where it is no video."""
    import av

    try:
        with source.open() as stream, av.open(stream, "r", container(source)) as video:
            track = video_track(video, source)
            rates = [float(rate) for rate in (track.average_rate, track.guessed_rate) if rate]
            duration = float(track.duration * track.time_base) if track.duration else (video.duration or 0) / av.time_base
    except InputError:
        raise
    except (av.FFmpegError, OSError, ValueError, IndexError, MemoryError) as error:
        raise InputError(f"{source.name} cannot be read as a video ({error}).") from error
    return About(next((rate for rate in rates if rate <= FASTEST), None), duration or None)


def decode(source: Readable, since: float | None = None) -> Iterator[Shown]:
    """Every frame that the file shows, or those from the key frame before `since` s on, if its index is right.

    Raises InputError where it is no video, or damaged from here on.
    """
    import av

    before, broken = None, False
    try:
        with source.open() as stream, av.open(stream, "r", container(source)) as video:
            track = video_track(video, source)
            rate, ratio = track.average_rate, float(track.sample_aspect_ratio or 1)
            if since is not None:
                video.seek(round(since / track.time_base), stream=track)
            for i, frame in enumerate(video.decode(track)):
                if frame.is_corrupt:
                    broken = True
                    continue
                if frame.time is None and not (rate and since is None):
                    raise InputError(f"{source.name} says neither when its frames are shown nor how many a second there are.")
                size = frame.width, frame.height, frame.rotation
                yield Shown(
                    frame, ratio, float(i / rate if frame.time is None else frame.time), broken or before not in (None, size)
                )
                before, broken = size, False
    except InputError:
        raise
    except (av.FFmpegError, OSError, ValueError, IndexError, MemoryError) as error:
        raise InputError(f"{source.name} cannot be read as a video ({error}).") from error


def decode_near(source: Readable, seconds: float) -> tuple[Iterator[Shown], float | None]:
    """Frames that begin at or before `seconds` after the first one, and the time of that first one in the file.

    Where the file cannot be searched, all frames and None.
    """
    first = next(decode(source), None)
    if first is None or container(source) not in ("mp4", "matroska"):
        return decode(source), None
    frames = decode(source, max(first.time, first.time + seconds - MARGIN))
    try:
        shown = next(frames, None)
    except InputError:  # of the search: if the file is damaged, plain decoding will say so
        shown = None
    if shown is None or shown.time > first.time + seconds:
        return decode(source), None
    return chain([shown], frames), first.time


def video_track(video: Any, source: Readable) -> Any:
    """The first av.VideoStream of an open av.container.InputContainer."""
    if not video.streams.video or video.streams.video[0].codec_context is None:  # PyAV #2344: else it crashes
        raise InputError(
            f"{source.name} has no video that can be decoded: {len(video.streams.audio)} of its "
            f"{len(video.streams)} streams are sound."
        )
    return video.streams.video[0]


def upright(shown: Shown, longest_side: int = 0) -> np.ndarray:
    """(H, W, 3) uint8 RGB, with square pixels and turned as the file says; longest_side px at most if that is above 0."""
    frame = shown.frame
    width, height = max(1, round(frame.width * shown.ratio)), frame.height
    smaller = 0 < longest_side < max(width, height)
    if smaller:
        width, height = fit(width, height, longest_side)
    picture = (
        frame.to_ndarray(format="rgb24")
        if (width, height) == (frame.width, frame.height)
        else frame.reformat(width=width, height=height, format="rgb24", interpolation="AREA" if smaller else "BICUBIC").to_ndarray()
    )
    return np.ascontiguousarray(np.rot90(picture, round(frame.rotation / 90) % 4))  # counterclockwise, both


def fit(width: int, height: int, longest_side: int) -> tuple[int, int]:
    """Width and height with the longer of them longest_side px."""
    scale = longest_side / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


# Frames by their timestamps


class Timed(Protocol):
    """A frame with its time in s, and whether nothing joins it to the one before."""

    @property
    def time(self) -> float: ...

    @property
    def anew(self) -> bool: ...


T = TypeVar("T", bound=Timed)


def resample(
    frames: Iterable[T], fps: float, longest_hold: float | None = None, origin: float | None = None
) -> Iterator[tuple[T, float, bool, bool]]:
    """Frames at any times -> (frame, time, fresh, joined) every 1 / fps s, the nearest in time.

    Time is counted from the first frame, or from `origin` s, at or before it. fresh: not the frame of the one before once
    more; joined: follows on the one before. Frames that go back in time are left out. After a gap of more than longest_hold
    s, and of 1.5 frames, and where a frame is `anew`, time starts anew; with None it never does, and the frame before such
    a gap stands until its middle.
    """
    gap, rest = None if longest_hold is None else max(longest_hold, 1.5 / fps), 1e-3 / fps
    before, last, start, n = None, None, 0.0, 0

    def shown_until(end: float) -> Iterator[tuple[T, float, bool, bool]]:
        nonlocal last, n
        while start + n / fps < end:
            yield before, start + n / fps, before is not last, n > 0
            last, n = before, n + 1

    for shown in frames:
        if before is None:
            start = shown.time if origin is None else origin + ceil((shown.time - origin) * fps - 1e-3) / fps
        elif shown.time <= before.time:
            continue
        elif gap is not None and (shown.anew or shown.time - before.time > gap):
            yield from shown_until(before.time + rest)
            start, n = shown.time, 0
        else:
            yield from shown_until((before.time + shown.time) / 2)
        before = shown
    if before is not None:
        yield from shown_until(before.time + rest)


def chosen(
    frames: Iterable[T], fps: float, selection: Selection, name: str, tick: Callable[[int], None], origin: float | None = None
) -> Iterator[tuple[T, float]]:
    """The selection's frames with their times in the file. tick(n) before every frame of the timeline, chosen or not.

    frames may begin anywhere before the range if `origin`, the time of the very first in s, is told.

    Raises InputError, with the numbers, where the range starts behind the last frame. Decoding ends with the range.
    """
    first, given, n = selection.first(fps), 0, 0
    for shown, time, _, _ in resample(frames, fps, None, origin):
        origin = time if origin is None else origin
        n = round((time - origin) * fps) + 1
        tick(n)
        if n <= first or (n - 1 - first) % selection.stride:
            continue
        yield shown, time
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


# Loading


def load_video(source: Readable, selection: Selection, most: float | None = None, callback: Progress | None = None) -> Footage:
    """The chosen frames of a file and their sound. Frames before and between them are dropped one by one as they are decoded.

    most: bytes that loading may take. callback(done, total) at every frame of the timeline; what it raises ends the loading.
    Raises InputError where the file is no video or damaged, gives no frame rate, changes the size of its picture, where the
    range is behind its end, or the frames would take more than `most` bytes.
    """
    said = about(source)
    fps = selection.fps or said.rate
    if not fps:
        raise InputError(f"{source.name} does not say how many frames a second it has. Set fps, to 25 for example.")
    progress = Ticks(selection, fps, said.duration, callback)
    pictures: list[np.ndarray] = []
    times, before = [], None
    ahead, frames, origin = selection.first(fps) / fps, decode(source), None
    if ahead > SEARCHED:
        frames, origin = decode_near(source, ahead)
    for shown, time in chosen(frames, fps, selection, source.name, progress.frame, origin):
        if before is not shown:
            before, picture = shown, upright(shown, selection.longest_side)
            check_picture(pictures[0].shape if pictures else None, picture.shape, time, source.name)
        if not pictures and int(shown.frame.color_trc) in HDR:
            log.warning("%s is HDR (%s): its colours will look washed out.", source.name, HDR[int(shown.frame.color_trc)])
        pictures.append(picture)
        times.append(time)
        check_room(max(len(pictures), progress.expected), picture.shape, most, source.name)
    images = torch.empty(len(pictures), *pictures[0].shape)
    for i in range(len(pictures)):
        torch.div(torch.from_numpy(pictures[i]), 255, out=images[i])
        pictures[i] = None
    fps /= selection.stride
    return Footage(images, fps, times, read_sound(source, times[0], len(times) / fps, progress.sound))


@dataclass(frozen=True)
class Still:
    """A frame that is already a picture."""

    number: int
    time: float
    anew: bool = False


def select_frames(
    images: torch.Tensor, rate: float, sound: Sound | None, selection: Selection, callback: Progress | None = None
) -> Footage:
    """As load_video, for frames (n, H, W, C) at `rate` a second that are in memory already; C of 1, 3 or more is kept."""
    fps = selection.fps or rate
    progress = Ticks(selection, fps, len(images) / rate, callback)
    stills = (Still(i, i / rate) for i in range(len(images)))
    picked = list(chosen(stills, fps, selection, "The video", progress.frame))
    out, height, width = [], *images.shape[1:3]
    smaller = 0 < selection.longest_side < max(width, height)
    if smaller:
        width, height = fit(width, height, selection.longest_side)
    for still, _ in picked:
        picture = images[still.number].float()
        if smaller:
            picture = F.interpolate(picture.movedim(-1, 0)[None], (height, width), mode="area")[0].movedim(0, -1)
        out.append(picture)
    times, fps = [time for _, time in picked], fps / selection.stride
    if sound is not None:
        begin, samples = round(times[0] * sound.rate), round(len(times) / fps * sound.rate)
        sound = Sound(sound.waveform[..., begin : begin + samples], sound.rate)
    return Footage(torch.stack(out), fps, times, sound)


class Ticks:
    """Progress over the timeline up to the last chosen frame, as far as the file's words go."""

    def __init__(self, selection: Selection, fps: float, duration: float | None, callback: Progress | None):
        first, stride = selection.first(fps), selection.stride
        whole = round(duration * fps) if duration else None
        wanted = first + (selection.frames - 1) * stride + 1 if selection.frames else None
        self.total = min((n for n in (whole, wanted) if n), default=1)
        self.expected = max(0, -(-(self.total - first) // stride))  # frames that will be kept, 0 where nobody knows
        self.callback = callback

    def frame(self, n: int) -> None:
        if self.callback is not None:
            self.callback(min(n, self.total), self.total)

    def sound(self) -> None:
        self.frame(self.total)


def check_picture(first: tuple[int, ...] | None, size: tuple[int, ...], time: float, name: str) -> None:
    if first not in (None, size):
        raise InputError(
            f"The picture of {name} changes its size at {time:.2f} s, from {first[1]}x{first[0]} to {size[1]}x{size[0]} px. "
            "Load the parts before and after it one by one."
        )


def check_room(frames: int, size: tuple[int, ...], most: float | None, name: str) -> None:
    """Raises InputError where `frames` frames of size (H, W, 3) take more than `most` bytes while they are loaded."""
    need = frames * size[0] * size[1] * size[2] * LOADED
    if most is not None and need > most:
        raise InputError(
            f"{frames} frames of {size[1]}x{size[0]} px of {name} take {need / 2**30:.1f} GB while they are loaded, and "
            f"{most / 2**30:.1f} GB are free. Set frames, a stride, a lower fps or longest_side."
        )


def read_sound(source: Readable, start: float, seconds: float, tick: Callable[[], None] | None = None) -> Sound | None:
    """The first sound track from `start` s of the file on, `seconds` long, silent where it has none; None without a track.

    Tracks of more than two channels are mixed down to stereo, which is what the host writes. Sound that cannot be decoded is
    left out with a warning. tick() about once a second of sound.
    """
    import av

    try:
        with source.open() as stream, av.open(stream, "r", container(source)) as media:
            if not media.streams.audio or media.streams.audio[0].codec_context is None:
                return None
            track = media.streams.audio[0]
            rate, channels = track.rate, 1 if track.channels == 1 else 2
            waveform = np.zeros((channels, max(1, round(seconds * rate))), np.float32)
            resampler = av.AudioResampler(format="fltp", layout="mono" if channels == 1 else "stereo", rate=rate)
            place, ticked = None, 0.0
            for frame in media.decode(track):
                if frame.time is not None and frame.time > start + seconds:
                    break
                at = place if frame.time is None else round((frame.time - start) * rate)
                if place is None or abs(at - place) > 0.05 * rate:  # clocks of 1 ms are not gaps
                    place = at or 0
                for piece in resampler.resample(frame):
                    samples = piece.to_ndarray()  # (channels, n)
                    low, high = max(0, place), min(waveform.shape[1], place + samples.shape[1])
                    if low < high:
                        waveform[:, low:high] = samples[:, low - place : high - place]
                    place += samples.shape[1]
                if tick is not None and (frame.time or 0.0) >= ticked + 1:
                    ticked = frame.time
                    tick()
    except (av.FFmpegError, OSError, IndexError, MemoryError) as error:
        log.warning("The sound of %s cannot be read (%s): it is left out.", source.name, error)
        return None
    return Sound(torch.from_numpy(waveform)[None], rate)
