"""A child that is killed, as by `kill -9`: forked, so that it has what this process has imported."""

import os
import signal
import time
from collections.abc import Callable


def killed(work: Callable[[], None], when: Callable[[], bool] = lambda: False) -> bool:
    """Whether a child that does this work was killed, by itself or here as soon as `when` holds; else it has finished.

    This process must have one thread: torch.set_num_threads(1) before anything is computed.
    """
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    ended, status = 0, 0
    while not ended:
        ended, status = os.waitpid(child, os.WNOHANG)
        if not ended and when():
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            break
        time.sleep(0.0005)
    if not os.WIFSIGNALED(status) and os.waitstatus_to_exitcode(status):
        raise SystemExit(f"The child ended with {os.waitstatus_to_exitcode(status)}.")
    return os.WIFSIGNALED(status)
