"""Files that are whole or not there, wherever a process is killed."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = re.compile(r"\.(?P<name>.+)\.\d+\.part")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """The path to write a file to, which is renamed to `path` once it is on the disk. Makes the folder that `path` is in.

    It lies in a folder of its own, since libraries write temporary files, with names that are not known, beside the file that
    they are asked for. After an error nothing is left; after the end of the process see `remove_partial`. Raises OSError.
    """
    folder = path.with_name(f".{path.name}.{os.getpid()}.part")
    partial = folder / path.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_whole(path: Path, data: bytes) -> None:
    """Raises OSError."""
    with whole_file(path) as partial:
        partial.write_bytes(data)


def remove_partial(folder: Path, is_ours: Callable[[str], object]) -> None:
    """Deletes what killed processes have left of files in the folder whose names are ours. Raises OSError."""
    for path in folder.iterdir():
        name = PARTIAL.fullmatch(path.name)
        if name is None or not is_ours(name["name"]):
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
