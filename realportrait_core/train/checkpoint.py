"""The file from which a stopped training resumes: written atomically, read without executing anything."""

import os
from pathlib import Path
from typing import Protocol

import torch

from ..errors import InputError


class Stateful(Protocol):
    """Anything with a state that a checkpoint can hold."""

    def state_dict(self) -> dict: ...

    def load_state_dict(self, state: dict) -> None: ...


def save_atomically(value: dict, path: Path) -> None:
    """Writes a temporary file next to `path`, then renames it: a killed run leaves the old file or the new one, never a part.

    Raises InputError where it cannot be written (a full disk); the old file is then still there.
    """
    partial = path.with_suffix(".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            torch.save(value, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        partial.unlink(missing_ok=True)
        raise InputError(f"{path} could not be written ({error}); what was there before is kept.") from error


def read_checkpoint(path: Path) -> dict | None:
    """What save_atomically wrote, tensors on the CPU; None where there is no file. InputError for a damaged file."""
    if not path.is_file():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds, an unpickler's among them
        raise InputError(f"{path} is no training checkpoint or is damaged ({error}): delete it to start anew.") from error
