"""Fuzzing with a counted number of cases from a fixed seed: each ends in a valid result or in an error that a user can read.

`@cases(normal=100, nightly=5000)` runs a test twice: with few cases in the default run, with many in the nightly one. Another seed:
REALPORTRAIT_FUZZ_SEED=7 python scripts/test.py --nightly tests/fuzz.
"""

import json
import math
import os
import signal
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

T = TypeVar("T")
SEED = int(os.environ.get("REALPORTRAIT_FUZZ_SEED", 0))
SECONDS = 30  # after which a case counts as hung: a case takes milliseconds
LONGEST_MESSAGE = 4000  # characters of an error


class Hung(BaseException):
    """No Exception, so that nothing that is tested catches it."""


def cases(normal: int, nightly: int):
    """The mark of a test with the argument `count`."""
    runs = [pytest.param(normal, id="normal"), pytest.param(nightly, id="nightly", marks=pytest.mark.nightly)]
    return pytest.mark.parametrize("count", runs)


def fuzz(
    strategy: st.SearchStrategy, check: Callable[[Any], None], count: int, record: Callable[[str, object], None], batch: int = 1
) -> None:
    """Calls check(case) for `count` cases; what it raises, or that it hangs, fails the test with the smallest such case.

    record: pytest's record_property; the run's summary adds the cases of all tests up. batch: so many a call.
    """
    done = 0

    @seed(SEED)
    @settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck), print_blob=False)
    @given(strategy)
    def run(case) -> None:
        nonlocal done
        done += 1
        with in_time(SECONDS * batch):
            check(case)

    run()
    assert done >= count, f"{done} cases were found of {count}"
    record("fuzz cases", done * batch)


@contextmanager
def memory_folder() -> Iterator[Path]:
    """A folder in memory where the system has one: thousands of small files are slow on a disk that others use."""
    shared = Path("/dev/shm")
    with TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else None) as folder:
        yield Path(folder)


@contextmanager
def in_time(seconds: int = SECONDS) -> Iterator[None]:
    """Raises Hung in a block that has not ended by then, where the system has signals."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def stop(number, frame):
        raise Hung(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def outcome(call: Callable[[], T], *errors: type[Exception]) -> T | None:
    """The call's result; None where it raises one of the errors, whose text must be one that can be read. Others pass through."""
    return refusal(call, *errors)[0]


def refusal(call: Callable[[], T], *errors: type[Exception]) -> tuple[T | None, str]:
    """The same, and the error's text, empty where there was none."""
    try:
        return call(), ""
    except errors as error:
        assert 10 < len(str(error)) < LONGEST_MESSAGE, f"no sentence: {error!s:.200}"
        return None, str(error)


# Bytes

EXTREMES = [struct.pack(form, value) for form, value in (("<Q", 2**64 - 1), ("<Q", 2**40), (">I", 2**31), ("<i", -1), ("<Q", 0))]
KINDS = ("set", "flip", "cut", "repeat", "insert", "end", "extreme")


@st.composite
def damaged(draw, whole: bytes, most: int = 6) -> bytes:
    """A file with a few of its bytes changed, lost, repeated, added, or its end missing."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, most))):
        kind, at = draw(st.sampled_from(KINDS)), draw(st.integers(0, max(0, len(data) - 1)))
        value, run = draw(st.integers(0, 255)), draw(st.sampled_from((1, 2, 4, 8, 64)))
        if not data:
            break
        if kind == "set":
            data[at] = value
        elif kind == "flip":
            data[at] ^= 1 << value % 8
        elif kind == "cut":
            del data[at : at + run]
        elif kind == "repeat":
            data[at:at] = data[at : at + run]
        elif kind == "insert":
            data[at:at] = bytes([value]) * run
        elif kind == "end":
            del data[at:]
        else:
            extreme = EXTREMES[value % len(EXTREMES)]
            data[at : at + len(extreme)] = extreme
    return bytes(data)


# Motion templates


def motion_template(frames: int = 2, k: int = 5) -> dict:
    """One of LivePortrait's, as it is before it is pickled."""
    frame = {
        "scale": np.ones((1, 1), np.float32),
        "R": np.eye(3, dtype=np.float32)[None],
        "exp": np.full((1, k, 3), 0.1, np.float32),
        "t": np.zeros((1, 3), np.float32),
    }
    return {
        "n_frames": frames,
        "output_fps": 25,
        "motion": [dict(frame) for _ in range(frames)],
        "c": [np.float64(2), "text", b"y"],
    }


# JSON

NUMBERS = (0, 1, -1, 2, 3, 7, 2**31, 2**40, 10**12, -(2**63), 2**64, 10**30, 0.5, -0.0, 1e300, float("nan"), float("inf"))
TEXTS = (
    "",
    " ",
    "nan",
    "1e999",
    "0, 0, 1, 1",
    "\0",
    "a\0b.safetensors",
    "../../../etc/passwd",
    "..\\..\\x",
    "/etc/passwd",
    "C:\\x.safetensors",
    "CON",
    "nul.safetensors",
    "x" * 5000,
    "ü" * 300,
    "\u202egnp.exe",
    "\ud800",
    "．．／x",
    "e\u0301",
    "%date%",
    "[output]",
    "example: ../README.md",
    "True",
    "largest",
)
junk = st.recursive(
    st.sampled_from([*NUMBERS, *TEXTS, None, True, False]) | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


# safetensors


def split(whole: bytes) -> tuple[dict, bytes]:
    """Header and tensors' bytes of a safetensors file."""
    length = int.from_bytes(whole[:8], "little")
    return json.loads(whole[8 : 8 + length]), whole[8 + length :]


def joined(header: object, buffer: bytes) -> bytes:
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(text)) + text + buffer


SIZE = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "C64": 8, "F4": 1}


@st.composite
def altered(draw, whole: bytes, names: tuple[str, ...] = ()) -> bytes:
    """A safetensors file with some entries of its header changed: such as only one who means harm would write.

    In half of the cases the tensors' bytes are made to fit again, so that what comes after the header's check is reached.
    names: keys of other files.
    """
    header, buffer = split(whole)
    about = dict(header.pop("__metadata__", {}))
    parts = {key: buffer[slice(*entry["data_offsets"])] for key, entry in header.items()}
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(("shape", "dtype", "offsets", "drop", "rename", "add", "junk", "about", "values")))
        key = draw(st.sampled_from(sorted(header))) if header else None
        entry = header.get(key)
        sound = isinstance(entry, dict) and isinstance(entry.get("shape"), list)
        if kind == "shape" and sound:
            size = draw(st.sampled_from((0, 1, 2, 3, 5, 8, 4096, 10**6, 10**12, 2**62, -1, 1.5, "4", None)))
            at = draw(st.integers(0, len(entry["shape"])))
            entry["shape"][at : at + draw(st.integers(0, 1))] = [size]
        elif kind == "dtype" and sound:
            entry["dtype"] = draw(st.sampled_from([*SIZE, "F128", "", None, 7]))
        elif kind == "offsets" and sound:
            entry["data_offsets"] = draw(st.lists(st.sampled_from((0, 1, 4, 8, 10**6, 2**63, -4, 0.5, "0")), max_size=3))
        elif kind == "drop" and header:
            del header[key]
        elif kind == "rename" and header:
            header[draw(st.sampled_from([*sorted(header), *names, "", "__metadata__", "x" * 300]))] = header.pop(key)
        elif kind == "add":
            shape = draw(st.lists(st.sampled_from((0, 1, 3, 64)), max_size=6))
            name = draw(st.sampled_from([*names, "extra", *sorted(header)]))
            header[name] = {"dtype": draw(st.sampled_from(sorted(SIZE))), "shape": shape, "data_offsets": [0, 0]}
        elif kind == "junk" and header:
            header[key] = draw(junk)
        elif kind == "values" and header:
            parts[key] = draw(st.sampled_from((b"\xff", b"\0", b"\x7f\xc0", b"\x01"))) * len(parts.get(key, b""))
        elif kind == "about":
            about = draw(altered_about(about))
    if draw(st.booleans()):
        header, buffer = fitted(header, parts)
    return joined(({"__metadata__": about} if about is not None else {}) | header, buffer)


@st.composite
def altered_about(draw, about: object) -> object:
    """The metadata with one field of the stored config changed, or something else in their place."""
    stored = about.get("realportrait") if isinstance(about, dict) else None
    try:
        info = json.loads(stored)
        inner = info.get("config", info.get("state"))
        fields = info if not isinstance(inner, dict) or not draw(st.integers(0, 2)) else inner
        fields[draw(st.sampled_from(sorted(fields)))] = draw(junk)
        return about | {"realportrait": json.dumps(info)}
    except (TypeError, ValueError, AttributeError):
        return draw(junk)


def fitted(header: dict, parts: dict[str, bytes], most: int = 2**20) -> tuple[dict, bytes]:
    """Header and bytes with offsets that agree with types and shapes, as far as a file of at most `most` bytes allows."""
    buffer = bytearray()
    for key, entry in header.items():
        try:
            sizes = [SIZE[entry["dtype"]], *entry["shape"]]
        except (TypeError, KeyError):
            continue
        if not all(type(size) is int and 0 <= size <= most for size in sizes) or math.prod(sizes) > most:
            continue
        count = math.prod(sizes)
        old = parts.get(key) or b"\0"
        entry["data_offsets"] = [len(buffer), len(buffer) + count]
        buffer += (old * (count // len(old) + 1))[:count]
    return header, bytes(buffer)
