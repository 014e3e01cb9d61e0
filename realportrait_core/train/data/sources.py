"""The user's videos and images: files in folders, files by name, members of tar shards. Only raw bytes are read here."""

import hashlib
import io
import os
import sys
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Literal

from ...errors import InputError

VIDEOS = (".mp4", ".mov", ".mkv", ".webm")
IMAGES = (".jpg", ".jpeg", ".png", ".webp")
SHARD = ".tar"
HASHED_WHOLE = 64 << 20  # bytes; of a longer file as many are hashed, in PIECES evenly spaced
PIECES = 64

Dropped = Callable[[str, str], None]  # name, why


@dataclass(frozen=True)
class File:
    """A video, an image or a shard on disk."""

    name: str  # below the folder that the user named, that folder's own name first
    path: Path
    size: int  # bytes


@dataclass(frozen=True)
class Source:
    """One video or image. Two may share a name, not the fingerprint, which is of the bytes."""

    name: str
    kind: Literal["video", "image"]
    content: Path | bytes  # a file, or a shard's member
    size: int  # bytes
    fingerprint: str

    def __str__(self) -> str:
        return self.name

    def open(self) -> BinaryIO:
        return io.BytesIO(self.content) if isinstance(self.content, bytes) else self.content.open("rb")

    def read(self) -> bytes:
        return self.content if isinstance(self.content, bytes) else self.content.read_bytes()


def list_files(places: Iterable[str | Path], dropped: Dropped) -> list[File]:
    """Every video, image and shard of the places, files or folders with all that is in them, each folder in order of names.

    Hidden files and folders are left out; a folder that links lead back to is entered once. Raises InputError where a place
    does not exist, is of another kind, or where there is nothing.
    """
    files, places = [], [Path(place) for place in places]
    for place in places:
        if place.is_dir():
            root = place.resolve()
            found = [(path, PurePosixPath(root.name, path.relative_to(place).as_posix())) for path in walk(place, dropped)]
        elif place.suffix.lower() in (*VIDEOS, *IMAGES, SHARD) and place.is_file():
            found = [(place, PurePosixPath(place.name))]
        else:
            raise InputError(
                f"{place} is neither a folder nor a file that can be read here ({', '.join((*VIDEOS, *IMAGES, SHARD))})."
            )
        for path, name in found:
            try:
                files.append(File(printable(name), path, path.stat().st_size))
            except OSError as error:
                dropped(printable(name), f"cannot be read: {error.strerror}")
    if not files:
        raise InputError(f"There is no video, image or tar shard in {', '.join(map(str, places))}.")
    if any(file.path.suffix.lower() == SHARD for file in files):
        tar_reader()
    return files


def walk(folder: Path, dropped: Dropped) -> Iterator[Path]:
    """Files of the three kinds below a folder."""
    seen = set()

    def unreadable(error: OSError) -> None:
        dropped(printable(error.filename), f"cannot be listed: {error.strerror}")

    for here, folders, names in os.walk(folder, onerror=unreadable, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in (*VIDEOS, *IMAGES, SHARD):
                yield Path(here, name)


def printable(name) -> str:
    """A file's name that can be written down: bytes that are no text become question marks."""
    return str(name).encode("utf-8", "replace").decode()


def open_sources(files: Iterable[File], dropped: Dropped) -> Iterator[Source]:
    """The files, and the members of the shards among them, one after the other. What cannot be read is dropped."""
    for file in files:
        if file.path.suffix.lower() == SHARD:
            yield from shard_members(file, dropped)
            continue
        try:
            with file.path.open("rb") as stream:
                digest = fingerprint(stream, file.size)
        except OSError as error:
            dropped(file.name, f"cannot be read: {error.strerror}")
            continue
        yield Source(file.name, kind_of(file.name), file.path, file.size, digest)


def shard_members(file: File, dropped: Dropped) -> Iterator[Source]:
    """KEY.mp4, KEY.jpg ... of a tar shard, each held in memory as the bytes it is: nothing in it is decoded or unpickled."""
    members, read = tar_reader(), 0
    try:
        with file.path.open("rb") as stream:
            for member in members(stream, select_files=lambda name: kind_of(name) is not None):
                name, data = f"{file.name}/{printable(member['fname'])}", member["data"]
                read += 1
                yield Source(name, kind_of(member["fname"]), data, len(data), fingerprint(io.BytesIO(data), len(data)))
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError) as error:
        dropped(file.name, f"the shard is damaged after {read} members ({error})")


def tar_reader():
    """webdataset's iterator over the members of a tar. Raises InputError where the package is not installed."""
    try:
        from webdataset.tariterators import tar_file_iterator
    except ImportError as error:
        raise InputError(
            f"Tar shards are read by the package webdataset, which cannot be imported ({error}). Install it with "
            f"`{sys.executable} -m pip install webdataset`, or unpack the shards into a folder."
        ) from error
    return tar_file_iterator


def kind_of(name: str) -> Literal["video", "image"] | None:
    suffix = PurePosixPath(name).suffix.lower()
    return "video" if suffix in VIDEOS else "image" if suffix in IMAGES else None


def fingerprint(stream: BinaryIO, size: int) -> str:
    """SHA-256 of the bytes in hex; of a file above 64 MiB that of its size and of 64 pieces of a MiB, its ends among them."""
    if size <= HASHED_WHOLE:
        return hashlib.sha256(stream.read()).hexdigest()
    digest, piece = hashlib.sha256(str(size).encode()), HASHED_WHOLE // PIECES
    for i in range(PIECES):
        stream.seek((size - piece) * i // (PIECES - 1))
        digest.update(stream.read(piece))
    return digest.hexdigest()
