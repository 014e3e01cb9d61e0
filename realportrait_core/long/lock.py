"""One run at a time in a folder."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import InputError

log = logging.getLogger(__name__)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Makes the folder, and keeps other runs, of this process and of others, out of it until the block ends.

    The system gives the lock back when a process ends, however it ends. A file system without locks is used without one. Raises
    InputError where another run is in the folder, and where it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = opened(folder)
    except OSError as error:
        raise InputError(f"The folder {folder} cannot be used for the video: {error}. Choose another one.") from error
    try:
        try:
            lock(held)
        except (BlockingIOError, PermissionError) as error:
            raise InputError(
                f"Another process is making this video in {folder}. Wait until it is done and run again, or choose another folder."
            ) from error
        except OSError as error:
            log.debug("%s cannot be locked: %s", folder, error)
        yield
    finally:
        os.close(held)


def opened(folder: Path) -> int:
    """What is locked: the folder itself, so that no file is left; on Windows, which opens no folders, a file in it."""
    if sys.platform == "win32":
        return os.open(folder / ".lock", os.O_RDWR | os.O_CREAT)
    return os.open(folder, os.O_RDONLY)


def lock(held: int) -> None:
    """Raises BlockingIOError or PermissionError where it is locked."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(held, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
