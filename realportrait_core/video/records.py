"""What is read of a video, piece by piece, and the same as bytes on a pipe between two processes: no pickle."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from io import BufferedReader
from math import prod
from struct import Struct
from typing import Any, BinaryIO

import numpy as np

from .source import VideoInfo
from .timeline import Selection

HEAD = Struct("<IQ")  # bytes of a record's JSON, bytes of its array
LONGEST_TEXT, LARGEST_ARRAY = 1 << 20, 1 << 32  # bytes, more of which no record has


@dataclass(frozen=True)
class Request:
    """What is read: the frames of a selection, or the sound of a range; neither: what the container declares."""

    selection: Selection | None = None
    sound: tuple[float, float] | None = None  # start in the file and length, s


@dataclass(frozen=True)
class Shown:
    """A selected frame."""

    time: float  # s, in the file
    pixels: np.ndarray | None  # (H, W, 3) uint8 RGB; None: those of the frame before, again


@dataclass(frozen=True)
class SoundFormat:
    """What all samples after it are."""

    rate: int  # samples a second
    channels: int  # 1 or 2


@dataclass(frozen=True)
class Samples:
    """At most a second of sound, which follows on the samples before."""

    waveform: np.ndarray  # (channels, n) float32 in -1 .. 1


@dataclass(frozen=True)
class Ready:
    """The process that decodes has started."""


@dataclass(frozen=True)
class Tick:
    """Frame number `frame` of the timeline has been decoded, or another second of the sound."""

    frame: int


@dataclass(frozen=True)
class Warned:
    """A line for the log."""

    text: str


@dataclass(frozen=True)
class Refused:
    """The InputError that ended the reading."""

    text: str


@dataclass(frozen=True)
class Finished:
    """All has been read."""


Content = VideoInfo | Shown | SoundFormat | Samples
Record = Content | Ready | Tick | Warned | Refused | Finished
KINDS = {kind.__name__: kind for kind in (VideoInfo, Shown, SoundFormat, Samples, Ready, Tick, Warned, Refused, Finished)}


def write_record(stream: BinaryIO, record: Record) -> None:
    """As HEAD, JSON, the bytes of its array if it has one."""
    values: dict[str, Any] = {field.name: getattr(record, field.name) for field in fields(record)}
    array = np.empty(0, np.uint8)
    for name, value in values.items():
        if isinstance(value, np.ndarray):  # at most one
            array = np.ascontiguousarray(value)
            values[name] = {"shape": array.shape, "dtype": array.dtype.str}
    text = json.dumps({"kind": type(record).__name__, **values}).encode()
    stream.write(HEAD.pack(len(text), array.nbytes) + text)
    stream.write(array.data.cast("B") if array.size else b"")
    stream.flush()


def read_record(stream: BufferedReader) -> Record | None:
    """The next record; None where the stream ends before or in it. Raises ValueError for anything else."""
    head = stream.read(HEAD.size)
    if len(head) < HEAD.size:
        return None
    length, size = HEAD.unpack(head)
    if length > LONGEST_TEXT or size > LARGEST_ARRAY:
        raise ValueError(f"a record of {length} and {size} bytes")
    text = stream.read(length)
    if len(text) < length:
        return None
    values = json.loads(text)
    kind = KINDS[values.pop("kind")]
    for name, value in values.items():
        if isinstance(value, Mapping):
            shape, dtype = tuple(value["shape"]), np.dtype(value["dtype"])
            if dtype.kind not in "uf" or not size or prod(shape) * dtype.itemsize != size:
                raise ValueError(f"an array of {shape} {dtype} in {size} bytes")
            array: np.ndarray = np.empty(shape, dtype)
            if stream.readinto(array.data.cast("B")) < size:
                return None
            values[name] = array
    return kind(**values)


def request_text(name: str, path: str | None, request: Request) -> str:
    """A request for a video file as ASCII; path None: its bytes come otherwise."""
    return json.dumps({"name": name, "path": path, "request": asdict(request)})


def read_request(text: str) -> tuple[str, str | None, Request]:
    """The inverse of `request_text`."""
    values = json.loads(text)
    selection, sound = values["request"]["selection"], values["request"]["sound"]
    request = Request(None if selection is None else Selection(**selection), None if sound is None else tuple(sound))
    return values["name"], values["path"], request
