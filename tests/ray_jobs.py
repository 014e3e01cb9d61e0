"""Workers for Ray's actors, which import this file by its name: a test's own module has none that they could find."""

import threading

from realportrait_core.errors import InputError


def double(job: int) -> int:
    if job < 0:
        raise InputError(f"{job} is negative")
    threading.Event().wait(1.0 if job == 13 else 0.05)
    return 2 * job


def doubler():
    return double


def breaker():
    raise InputError("no such weights")
