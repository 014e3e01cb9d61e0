"""The audio of a part of a video."""

import logging
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

import torch

from .apart import DecoderCrash, go_on, read_apart
from .records import Request, Samples
from .source import VideoFile

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
    pieces: Generator[
        torch.Tensor, None, None
    ]  # (channels, samples) float32 in -1 .. 1, at most a second each; close it where it is left early


def audio_pieces(
    source: VideoFile, start: float, seconds: float, tick: Callable[[], None] = go_on, interrupt: Callable[[], None] = go_on
) -> AudioStream | None:
    """The first audio stream from `start` s of the file on, `seconds` long, silent where it has none; None without a stream.

    More than two channels are mixed down to stereo, which is what the host writes. Audio that cannot be decoded is left out
    with a warning. tick() about once a second of audio; interrupt() as in `apart.read_apart`.
    """
    records = read_apart(source, Request(sound=(start, seconds)), lambda n: tick(), interrupt)
    try:
        form = next(records, None)
    except DecoderCrash as error:
        log.warning("The sound of %s is left out. %s", source.name, error)
        return None
    if form is None:
        return None
    total = max(1, round(seconds * form.rate))
    return AudioStream(form.rate, form.channels, whole(records, source.name, form.channels, total, form.rate))


def whole(records: Iterator[Samples], name: str, channels: int, total: int, rate: int) -> Generator[torch.Tensor, None, None]:
    """The pieces (channels, n) of `total` samples, silent from where the decoder crashes."""
    done = 0
    try:
        for record in records:
            done += record.waveform.shape[1]
            yield torch.from_numpy(record.waveform)
    except DecoderCrash as error:
        log.warning("The sound of %s is silent from its second %.1f on. %s", name, done / rate, error)
        while done < total:
            n = min(rate, total - done)
            done += n
            yield torch.zeros(channels, n)


def read_audio(
    source: VideoFile, start: float, seconds: float, tick: Callable[[], None] = go_on, interrupt: Callable[[], None] = go_on
) -> Audio | None:
    """`audio_pieces` as one."""
    stream = audio_pieces(source, start, seconds, tick, interrupt)
    return None if stream is None else Audio(torch.cat(list(stream.pieces), 1)[None], stream.rate)
