"""What a request asks for, read from a video in this process. It needs PyAV and numpy, but no torch: `child.py` runs it."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..errors import InputError
from .decoding import HDR, decode, decode_near, upright
from .records import Content, Request, Samples, Shown, SoundFormat
from .source import VideoFile, VideoInfo, opened, probe
from .timeline import Selection, select

HIGHEST_RATE = 768_000  # samples of sound a second
SEARCHED = 5.0  # s; a range that starts later is reached by a seek to the key frame before it

log = logging.getLogger(__name__)


def read(source: VideoFile, request: Request, tick: Callable[[int], None]) -> Iterator[Content]:
    """The records that answer the request. tick(n) before frame n of the timeline, counted from 1, and for each second of sound.

    Frames come after a VideoInfo, samples after a SoundFormat; nothing comes where there is no sound.
    Raises InputError where the file is no video or damaged, gives no frame rate, changes its picture's size, or where the
    range is behind its end. Sound that cannot be read is left out with a warning.
    """
    if request.sound is not None:
        yield from read_sound(source, *request.sound, tick)
        return
    info = probe(source)
    yield info
    if request.selection is not None:
        yield from read_frames(source, request.selection, info, tick)


def timeline_rate(source: VideoFile, selection: Selection, info: VideoInfo) -> float:
    """Frames a second of the timeline. Raises InputError where neither file nor selection says it."""
    rate = selection.fps or info.rate
    if not rate:
        raise InputError(f"{source.name} does not declare a frame rate. Set fps, to 25 for example.")
    return rate


def read_frames(source: VideoFile, selection: Selection, info: VideoInfo, tick: Callable[[int], None]) -> Iterator[Shown]:
    """The selected frames. Those before and between them are dropped as they are decoded."""
    fps, read_to = timeline_rate(source, selection, info), 0

    def count(n: int) -> None:
        nonlocal read_to
        read_to = n
        tick(n)

    ahead, frames, origin = selection.first(fps) / fps, decode(source), None
    if ahead > SEARCHED:
        frames, origin = decode_near(source, ahead)
    before, size = None, None
    for decoded, time in select(frames, fps, selection, source.name, count, origin):
        if decoded is before:
            yield Shown(time, None)
            continue
        before, picture = decoded, upright(decoded, selection.longest_side)
        check_picture(size, picture.shape, time, source.name)
        if size is None and int(decoded.frame.color_trc) in HDR:
            log.warning("%s is HDR (%s): its colours will look washed out.", source.name, HDR[int(decoded.frame.color_trc)])
        size = picture.shape
        yield Shown(time, picture)
    if not selection.frames:
        warn_of_missing(source.name, read_to / fps, info.duration)


def warn_of_missing(name: str, seconds: float, declared: float | None) -> None:
    """Of a file that was cut short FFmpeg reads what is there, and for most containers says nothing."""
    if declared is not None and seconds < min(declared - 1, 0.9 * declared):
        log.warning(
            "The picture of %s ends after %.2f s of %.2f s that the file declares: if it was cut short, copy it again.",
            name,
            seconds,
            declared,
        )


def check_picture(first: tuple[int, ...] | None, size: tuple[int, ...], time: float, name: str) -> None:
    """Raises InputError where a picture of size (H, W, 3) is not of the first one's."""
    if first not in (None, size):
        raise InputError(
            f"The picture of {name} changes its size at {time:.2f} s, from {first[1]}x{first[0]} to {size[1]}x{size[0]} px. "
            "Load the parts before and after it one by one."
        )


def read_sound(source: VideoFile, start: float, seconds: float, tick: Callable[[int], None]) -> Iterator[SoundFormat | Samples]:
    """The first audio stream from `start` s of the file on, `seconds` long, silent where it has none; nothing without a stream.

    More than two channels are mixed down to stereo, which is what the host writes.
    """
    import av

    try:
        with opened(source) as media:
            if not media.streams.audio:
                return
            track = sound_track(media)
            form = SoundFormat(track.rate, 1 if track.channels == 1 else 2)
            parts = placed(media, track, form, source.name, start, seconds, tick)
            pieces = in_pieces(parts, form, max(1, round(seconds * form.rate)))
            first = next(pieces)
            yield form
            yield Samples(first)
            yield from map(Samples, pieces)
    except InputError:
        raise
    except (av.FFmpegError, OSError, ValueError, IndexError, MemoryError) as error:
        log.warning("The sound of %s cannot be read (%s): it is left out.", source.name, error)


def sound_track(media: Any) -> Any:
    """The first av.AudioStream of an open container. Raises ValueError where it has none that can be decoded."""
    for track in media.streams.audio:
        if track.codec_context is not None and 0 < track.rate <= HIGHEST_RATE and track.channels > 0:
            return track
    raise ValueError("its codec, sample rate or number of channels is not one that can be decoded")


def placed(
    media: Any, track: Any, form: SoundFormat, name: str, start: float, seconds: float, tick: Callable[[int], None]
) -> Iterator[tuple[int, np.ndarray]]:
    """Decoded samples (channels, n) of a stream, with the place of the first of them after `start`, in samples.

    They end with a warning where the file is damaged, and with FFmpeg's error if that is before the first of them.
    """
    import av

    rate, resampled = form.rate, Resampled(form)
    position, ticked = None, 0.0  # position: of the next sample
    try:
        for frame in media.decode(track):
            if frame.time is not None and frame.time > start + seconds:
                return
            declared = position if frame.time is None else round((frame.time - start) * rate)
            if position is None or abs(declared - position) > 0.05 * rate:  # clocks of 1 ms are not gaps
                position = declared or 0
            for samples in resampled(frame):
                yield position, samples
                position += samples.shape[1]
            if (frame.time or 0.0) >= ticked + 1:
                ticked = frame.time
                tick(0)
    except (av.FFmpegError, OSError, ValueError, IndexError, MemoryError) as error:
        if position is None:
            raise
        log.warning("The sound of %s cannot be read beyond %.2f s (%s): it is silent there.", name, start + position / rate, error)


class Resampled:
    """Decoded frames -> samples (channels, n) of one form, whatever the rate and the channels of each frame: a broadcast changes
    them in the middle, which FFmpeg's resampler takes for an error or leaves as they are.
    """

    def __init__(self, form: SoundFormat):
        self.form = form
        self.own: tuple[str, str, int] | None = None  # of the frames that the resampler is for
        self.resampler: Any = None

    def __call__(self, frame: Any) -> Iterator[np.ndarray]:
        import av

        own = frame.format.name, frame.layout.name, frame.sample_rate
        if own != self.own:
            layout = "mono" if self.form.channels == 1 else "stereo"
            self.own, self.resampler = own, av.AudioResampler(format="fltp", layout=layout, rate=self.form.rate)
        return (piece.to_ndarray() for piece in self.resampler.resample(frame))


def in_pieces(parts: Iterator[tuple[int, np.ndarray]], form: SoundFormat, total: int) -> Iterator[np.ndarray]:
    """Placed samples as `total` samples without gaps, a second at a time. What a clock that goes back repeats is left out."""
    begin, done = 0, 0  # of the piece; of the samples that are in place

    def silence() -> np.ndarray:
        return np.zeros((form.channels, min(form.rate, total - begin)), np.float32)

    piece = silence()
    for position, samples in parts:
        if position < done:
            position, samples = done, samples[:, done - position :]
        while samples.shape[1] and position < total:
            while position >= begin + piece.shape[1]:
                yield piece
                begin += piece.shape[1]
                piece = silence()
            n = min(samples.shape[1], begin + piece.shape[1] - position)
            piece[:, position - begin : position - begin + n] = samples[:, :n]
            done = position = position + n
            samples = samples[:, n:]
    while begin < total:
        yield piece
        begin += piece.shape[1]
        piece = silence()
