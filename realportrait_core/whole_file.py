"""Files that are whole or not there, wherever a process is killed."""

import os
from pathlib import Path


def partial_of(path: Path) -> Path:
    """Where this process writes a file until it is whole."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def finish(partial: Path, path: Path) -> None:
    """Gives a whole file its name, after it has reached the disk."""
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)
