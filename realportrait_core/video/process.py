"""Another process, whose answers are read here. asyncio starts it: a fork by hand is unsafe beside CUDA's threads, and
`multiprocessing` would run the host's main module again.
"""

import asyncio
import logging
import os
import sys
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing, suppress
from io import BufferedReader
from queue import Empty, SimpleQueue
from threading import Semaphore, Thread
from typing import Any, BinaryIO, Generic, TypeVar

Answer = TypeVar("Answer")

AHEAD = 2  # answers that are read before they are asked for: a frame, and the tick after it
SLICE = 0.25  # s of waiting, after which the caller may give up
PATIENCE = 5.0  # s for a killed process to end: one that waits for a network drive ends when that answers

log = logging.getLogger(__name__)

NO_WINDOW = 0x08000000 if sys.platform == "win32" else 0  # CREATE_NO_WINDOW


def new_loop() -> asyncio.AbstractEventLoop:
    """A loop that can start processes, whatever policy the host has set."""
    if sys.platform == "win32":
        return asyncio.ProactorEventLoop()
    return asyncio.SelectorEventLoop()


class ChildProcess(Generic[Answer]):
    """A running program; leaving its `with` block ends it at once.

    read: gives the next answer on its standard output, by blocking, and None where that ends. A thread of its own calls it: on all
    systems alike, the wait for a thread can be given up, and that for a pipe cannot. source: its standard input, an open file;
    None: a pipe that ends with this process. Raises OSError where it cannot be started.
    """

    def __init__(self, arguments: list[str], read: Callable[[BufferedReader], Answer | None], source: BinaryIO | None = None):
        reading, writing = os.pipe()
        output, end = open(reading, "rb"), open(writing, "wb")
        self.code: int | None = None
        self._process: Any = None  # asyncio's
        self._killed = False
        self._answers: SimpleQueue[Answer | Exception | None] = SimpleQueue()
        self._room = Semaphore(AHEAD)
        started: Future = Future()
        # A node runs inside an event loop that belongs to the host: ours has a thread of its own, which waits for the end.
        self._thread = Thread(target=self._run, args=(arguments, source, end, started), name="video process", daemon=True)
        self._thread.start()
        try:
            self.pid: int = started.result()
        except BaseException:
            output.close()
            raise
        self._reader = Thread(target=self._read, args=(read, output), name="video answers", daemon=True)
        self._reader.start()

    def _run(self, arguments: list[str], source: BinaryIO | None, end: BinaryIO, started: Future) -> None:
        try:
            with closing(new_loop()) as self._loop:
                self._loop.run_until_complete(self._wait(arguments, source, end, started))
        except BaseException as error:  # whatever it is, the other thread waits for it
            end.close()
            if not started.done():
                started.set_exception(OSError(f"{type(error).__name__}: {error}"))

    async def _wait(self, arguments: list[str], source: BinaryIO | None, end: BinaryIO, started: Future) -> None:
        reading, writing = os.pipe()
        with open(writing, "wb"):  # which the system closes, whatever ends this process
            with end, open(reading, "rb") as silent:  # closed here, both pipes end with the child
                self._process = await asyncio.create_subprocess_exec(
                    *arguments, stdin=source or silent, stdout=end, creationflags=NO_WINDOW
                )
            started.set_result(self._process.pid)
            self.code = await self._process.wait()

    def _read(self, read: Callable[[BufferedReader], Answer | None], output: BufferedReader) -> None:
        answer: Answer | Exception | None
        with output:
            while True:
                self._room.acquire()
                if self._killed:
                    return
                try:
                    answer = read(output)
                except Exception as error:
                    answer = error
                self._answers.put(answer)
                if answer is None or isinstance(answer, Exception):
                    return

    def answer(self, interrupt: Callable[[], None]) -> Answer | None:
        """The next answer, None after the last. interrupt() every SLICE s until it comes. Raises what that or `read` raises."""
        while True:
            try:
                answer = self._answers.get(timeout=SLICE)
                break
            except Empty:
                interrupt()
        self._room.release()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def wait(self, interrupt: Callable[[], None]) -> int:
        """Its exit status, once it has ended: negative for a signal. interrupt() every SLICE s until then."""
        while self._thread.is_alive():
            interrupt()
            self._thread.join(SLICE)
        return self.code

    def kill(self) -> None:
        """Ends it at once, if it still runs, and closes its output."""

        def end() -> None:
            if self._process.returncode is None:
                with suppress(ProcessLookupError):
                    self._process.kill()

        self._killed = True
        self._room.release()
        with suppress(RuntimeError):  # the loop is closed: it has ended
            self._loop.call_soon_threadsafe(end)
        self._thread.join(PATIENCE)
        if self._thread.is_alive():
            log.warning("Process %d cannot be ended before the file or device that it waits for answers.", self.pid)
            return
        self._reader.join(PATIENCE)

    def __enter__(self) -> "ChildProcess[Answer]":
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
