"""What the reading of a video could leave in this process: threads, descriptors, and processes that decode.

Other threads are none of its: those of libraries and of pytest-xdist.
"""

import gc
import os
import threading
import time
from contextlib import contextmanager, suppress

import psutil

DECODER = "realportrait_core.video.child"  # in the command line of each, also where the host has given the pack another name
# Ours, and those in which asyncio waits for a process and which end a moment after it: waitpid-0 in older Pythons.
THREADS = ("video ", "waitpid-", "asyncio-waitpid-")
PATIENCE = 10.0  # s for what is ending


def decoders() -> list[psutil.Process]:
    """The processes that decode now."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            if DECODER in " ".join(child.cmdline()):
                found.append(child)
    return found


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(THREADS)]


def descriptors() -> list[str]:
    """The open ones, each with its file where the system tells."""
    found = []
    for number in os.listdir("/dev/fd"):
        with suppress(OSError):
            os.fstat(int(number))  # that of this listing is closed again
            try:
                file = os.readlink(f"/dev/fd/{number}")
            except OSError:
                file = "?"
            found.append(f"{number} {file}")
    return found


@contextmanager
def nothing_left():
    """Fails, with their names, where threads, processes or descriptors of a reading outlive the block. What is ending is waited
    for.
    """
    known, opened = {*threads(), *decoders()}, descriptors()

    def left() -> list:
        now = descriptors()
        more = [one for one in now if one not in opened] if len(now) > len(opened) else []
        return [one for one in threads() + decoders() if one not in known] + more

    yield
    deadline = time.monotonic() + PATIENCE
    while left() and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.02)
    assert not left(), f"A reading has left {left()}."
