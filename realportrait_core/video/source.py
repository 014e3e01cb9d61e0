"""Where a video's bytes come from, and what its container says about it."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from ..errors import InputError

FASTEST = 240.0  # frames a second; a higher declared rate is a clock's, not a camera's

COVER = 0x400  # FFmpeg's disposition of a still picture beside the streams, as players show for a song

ISO_BOXES = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"}
EBML = b"\x1a\x45\xdf\xa3"


class Readable(Protocol):
    """A source of a video's bytes."""

    @property
    def name(self) -> str: ...  # for errors

    def open(self) -> BinaryIO: ...  # a new stream each time


@dataclass(frozen=True)
class VideoFile:
    """A video on disk, or all its bytes."""

    name: str
    content: Path | bytes

    def open(self) -> BinaryIO:
        return io.BytesIO(self.content) if isinstance(self.content, bytes) else self.content.open("rb")


@dataclass(frozen=True)
class VideoInfo:
    """What the container declares."""

    rate: float | None  # frames a second, on average
    duration: float | None  # s
    sound: bool = False  # whether it has a stream of sound


def container(source: Readable) -> str:
    """FFmpeg's name of the format that the first bytes show; left to guess, FFmpeg would open playlists, which name other files.

    Raises InputError for any other content.
    """
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


@contextmanager
def opened(source: Readable) -> Iterator[Any]:
    """The open av container. Titles and the like are not read here, so that they may be in any encoding."""
    import av

    with source.open() as stream, av.open(stream, "r", container(source), metadata_errors="replace") as file:
        yield file


def probe(source: Readable) -> VideoInfo:
    """Declared rate and duration. Raises InputError where the content is no video."""
    import av

    try:
        with opened(source) as video:
            track = video_stream(video, source)
            rates = [float(rate) for rate in (track.average_rate, track.guessed_rate) if rate]
            duration = float(track.duration * track.time_base) if track.duration else (video.duration or 0) / av.time_base
            sound = bool(video.streams.audio)
    except InputError:
        raise
    except (av.FFmpegError, OSError, ValueError, IndexError, MemoryError) as error:
        raise not_read(source, error) from error
    return VideoInfo(next((rate for rate in rates if rate <= FASTEST), None), duration or None, sound)


def not_read(source: Readable, error: Exception) -> InputError:
    """The error for a file of which nothing can be read."""
    return InputError(f"{source.name} cannot be read as a video ({error}). Copy it again, or convert it with another program.")


def video_stream(video: Any, source: Readable) -> Any:
    """The first av.VideoStream of an open container that is no cover. Raises InputError where it has none that can be decoded."""
    covers = [track for track in video.streams.video if track.disposition & COVER]
    # PyAV #2344: reading a stream without codec_context crashes.
    track = next((track for track in video.streams.video if track not in covers and track.codec_context is not None), None)
    if track is None:
        raise InputError(
            f"{source.name} has no video that can be decoded: {len(video.streams.audio)} of its {len(video.streams)} streams are "
            f"sound, {len(covers)} a cover picture. Choose another file, or convert it with another program."
        )
    return track
