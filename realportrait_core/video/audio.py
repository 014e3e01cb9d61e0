"""The audio of a part of a video."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from .source import Readable, container

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Audio:
    """Samples in -1 .. 1."""

    waveform: torch.Tensor  # (1, channels, samples), one or two channels
    rate: int  # samples a second


@dataclass(frozen=True)
class AudioStream:
    """Audio of which a second at a time is in memory."""

    rate: int  # samples a second
    channels: int  # 1 or 2
    pieces: Iterator[torch.Tensor]  # (channels, samples) float32 in -1 .. 1, at most a second each


def audio_pieces(source: Readable, start: float, seconds: float, tick: Callable[[], None] | None = None) -> AudioStream | None:
    """`read_audio` in pieces."""
    audio = read_audio(source, start, seconds, tick)
    if audio is None:
        return None
    return AudioStream(audio.rate, audio.waveform.shape[1], iter(audio.waveform[0].split(audio.rate, 1)))


def read_audio(source: Readable, start: float, seconds: float, tick: Callable[[], None] | None = None) -> Audio | None:
    """The first audio stream from `start` s of the file on, `seconds` long, silent where it has none; None without a stream.

    More than two channels are mixed down to stereo, which is what the host writes. Audio that cannot be decoded is left out
    with a warning. tick() about once a second of audio.
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
            position, ticked = None, 0.0  # position: of the next sample in the waveform
            for frame in media.decode(track):
                if frame.time is not None and frame.time > start + seconds:
                    break
                declared = position if frame.time is None else round((frame.time - start) * rate)
                if position is None or abs(declared - position) > 0.05 * rate:  # clocks of 1 ms are not gaps
                    position = declared or 0
                for piece in resampler.resample(frame):
                    samples = piece.to_ndarray()  # (channels, n)
                    low, high = max(0, position), min(waveform.shape[1], position + samples.shape[1])
                    if low < high:
                        waveform[:, low:high] = samples[:, low - position : high - position]
                    position += samples.shape[1]
                if tick is not None and (frame.time or 0.0) >= ticked + 1:
                    ticked = frame.time
                    tick()
    except (av.FFmpegError, OSError, IndexError, MemoryError) as error:
        log.warning("The sound of %s cannot be read (%s): it is left out.", source.name, error)
        return None
    return Audio(torch.from_numpy(waveform)[None], rate)
