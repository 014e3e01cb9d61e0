"""The header of a safetensors file, read and compared with the file's size before anything is allocated for its tensors.

8 bytes with the length n of a JSON text, the text, then the tensors' bytes without gap or overlap. In the text each tensor has its
type, its shape, and where its bytes begin and end, counted from the end of the text.
"""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import WeightsError

# The format allows headers of 100 MB, of which JSON makes gigabytes in memory. Stable Diffusion XL's has 0.3 MB and 2,500 tensors.
LONGEST_HEADER = 16 * 2**20  # bytes
MOST_TENSORS = 50_000
MOST_DIMENSIONS = 16
LARGEST_EMPTY = 4096  # in the shape of a tensor without values, for whose sizes the file gives no evidence

# Bits of a value of each type that RealPortrait reads, by safetensors' names.
BITS = {
    "F64": 64,
    "F32": 32,
    "F16": 16,
    "BF16": 16,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "I64": 64,
    "I32": 32,
    "I16": 16,
    "I8": 8,
    "U64": 64,
    "U32": 32,
    "U16": 16,
    "U8": 8,
    "BOOL": 8,
}


@dataclass(frozen=True)
class Header:
    """The header of a safetensors file."""

    shapes: dict[str, tuple[int, ...]]
    metadata: dict[str, str]
    dtypes: dict[str, str]  # safetensors' names: F16, BF16, ...


def is_pickle(start: bytes) -> bool:
    """Whether a file's first bytes are those of torch.save, in either format, or of another pickle."""
    return start.startswith(b"PK\x03\x04") or (start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"))


def foreign_format(start: bytes) -> str | None:
    """The format that the first bytes show, where it is not safetensors; None where it may be."""
    if start[4:9] == b"\0\0\0\0{":
        return None  # safetensors; the length before it may by chance begin like a pickle (640) or a page (15392)
    if is_pickle(start):
        return (
            "a pickled PyTorch file (.pth, .ckpt or .pt), which could run code when opened; RealPortrait never opens "
            "one in ComfyUI. Use a .safetensors version of these weights, or make one of LivePortrait's or Open-Sora's files "
            "with `python -m realportrait_core.convert`"
        )
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the weights. Fetch it with `git lfs pull` or download the file itself"
    if start.startswith(b"GGUF"):
        return "a GGUF file, as llama.cpp reads them. RealPortrait reads .safetensors"
    if start.lstrip()[:1] == b"<":
        return "a web page, not the weights. The download needs a direct link"
    if start.lstrip()[:1] == b"{":
        return "a JSON text, such as a config or the index of a sharded file, not the weights. Download these"
    return None


def read_header(path: str | os.PathLike) -> Header:
    """Shapes, types and metadata of a safetensors file.

    Raises WeightsError if it is missing, cut short or something else, if its header is larger than any weights need, or lies: a
    name twice, tensors that overlap, leave gaps, or are not of the size that type and shape give.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"There is no weight file at {path}.")
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            start = file.read(64)
            if what := foreign_format(start):
                raise WeightsError(f"{path} is {what}.")
            length = int.from_bytes(start[:8], "little")
            if size < 8 or length > LONGEST_HEADER:
                raise WeightsError(f"{path} ({size} bytes) is not a safetensors file.")
            if 8 + length > size:
                raise WeightsError(
                    f"{path} is cut short: {size} bytes where the header alone takes {8 + length}. Download it again."
                )
            file.seek(8)
            text = file.read(length)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error}.") from error
    try:
        entries = json.loads(text.decode(), object_pairs_hook=without_repetition, parse_constant=refuse)
        metadata = entries.pop("__metadata__", {})
        if not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError("its metadata are not texts")
        if len(entries) > MOST_TENSORS:
            raise ValueError(f"{len(entries)} tensors, at most {MOST_TENSORS} are read")
        spans = {key: checked_span(key, entry) for key, entry in entries.items()}
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        said = f"a tensor without {error}" if isinstance(error, KeyError) else str(error)
        raise WeightsError(f"{path} is not a safetensors file: its header cannot be read ({said:.300}).") from error
    end = 0
    for key, (begin, after) in sorted(spans.items(), key=lambda item: item[1]):
        if begin != end:
            how = "overlaps the one before" if begin < end else f"leaves a gap of {begin - end} bytes before it"
            raise WeightsError(f"{path} cannot be read: the tensor {key:.200} {how}. Download it again.")
        end = after
    expected = 8 + length + end
    if size < expected:
        raise WeightsError(f"{path} is cut short: {size} bytes of {expected}. Download it again.")
    if size > expected:
        raise WeightsError(f"{path} cannot be read: {size - expected} bytes follow its last tensor. Download it again.")
    shapes = {key: tuple(entry["shape"]) for key, entry in entries.items()}
    return Header(shapes, metadata, {key: entry["dtype"] for key, entry in entries.items()})


def without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. ValueError for a name that is there twice, of which programs take either."""
    entries: dict[str, Any] = {}
    for name, value in pairs:
        if name in entries:
            raise ValueError(f"{name:.200} is there twice")
        entries[name] = value
    return entries


def refuse(constant: str) -> None:
    raise ValueError(f"it holds {constant}")


def checked_span(key: str, entry: Mapping) -> tuple[int, int]:
    """Where the bytes of a tensor begin and end. ValueError, TypeError or KeyError where type, shape and span do not agree."""
    kind, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    numbers = [*shape, begin, end]
    if not isinstance(kind, str) or not all(type(number) is int and 0 <= number < 2**62 for number in numbers):
        raise ValueError(f"{key:.200} has a type that is no text, or sizes that are no whole numbers from 0")
    if len(shape) > MOST_DIMENSIONS:
        raise ValueError(f"{key:.200} has {len(shape)} dimensions, at most {MOST_DIMENSIONS} are read")
    values = math.prod(shape)
    if values == 0 and max(shape) > LARGEST_EMPTY:
        raise ValueError(f"{key:.200} has no values and the shape {shape}")
    if begin > end or (kind in BITS and values * BITS[kind] != 8 * (end - begin)):
        raise ValueError(f"{key:.200} of the type {kind:.20} and the shape {shape} has {end - begin} bytes")
    return begin, end
