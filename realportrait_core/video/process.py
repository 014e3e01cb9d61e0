"""Another process, whose standard output is read here. asyncio starts it: a fork by hand is unsafe beside CUDA's threads, and
`multiprocessing` would run the host's main module again.
"""

import asyncio
import os
import sys
from concurrent.futures import Future
from contextlib import closing, suppress
from threading import Thread
from typing import Any, BinaryIO

NO_WINDOW = 0x08000000 if sys.platform == "win32" else 0  # CREATE_NO_WINDOW


def new_loop() -> asyncio.AbstractEventLoop:
    """A loop that can start processes, whatever policy the host has set."""
    if sys.platform == "win32":
        return asyncio.ProactorEventLoop()
    return asyncio.SelectorEventLoop()


class ChildProcess:
    """A running program; leaving its `with` block ends it at once. `output` is its standard output, read by blocking.

    source: its standard input, an open file; None: empty. Raises OSError where it cannot be started.
    """

    def __init__(self, arguments: list[str], source: BinaryIO | None = None):
        reading, writing = os.pipe()
        self.output, end = open(reading, "rb"), open(writing, "wb")
        self.code: int | None = None
        self._process: Any = None  # asyncio's
        started: Future = Future()
        # A node runs inside an event loop that belongs to the host: ours has a thread of its own, which waits for the end.
        self._thread = Thread(target=self._run, args=(arguments, source, end, started), name="video process", daemon=True)
        self._thread.start()
        try:
            self.pid: int = started.result()
        except BaseException:
            self.output.close()
            raise

    def _run(self, arguments: list[str], source: BinaryIO | None, end: BinaryIO, started: Future) -> None:
        try:
            with closing(new_loop()) as self._loop:
                self._loop.run_until_complete(self._wait(arguments, source, end, started))
        except BaseException as error:  # whatever it is, the other thread waits for it
            end.close()
            if not started.done():
                started.set_exception(OSError(f"{type(error).__name__}: {error}"))

    async def _wait(self, arguments: list[str], source: BinaryIO | None, end: BinaryIO, started: Future) -> None:
        with end, open(os.devnull, "rb") as nothing:  # closed here, the pipe ends with the child
            self._process = await asyncio.create_subprocess_exec(
                *arguments, stdin=source or nothing, stdout=end, creationflags=NO_WINDOW
            )
        started.set_result(self._process.pid)
        self.code = await self._process.wait()

    def wait(self) -> int:
        """Its exit status, once it has ended: negative for a signal."""
        self._thread.join()
        return self.code

    def kill(self) -> None:
        """Ends it at once, if it still runs, and closes its output."""

        def end() -> None:
            if self._process.returncode is None:
                with suppress(ProcessLookupError):
                    self._process.kill()

        self.output.close()
        with suppress(RuntimeError):  # the loop is closed: it has ended
            self._loop.call_soon_threadsafe(end)
        self._thread.join()

    def __enter__(self) -> "ChildProcess":
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
