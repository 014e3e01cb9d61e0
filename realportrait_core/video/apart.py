"""Videos read in a process of their own: FFmpeg can crash on a damaged file (PyAV #2344), which is then an error here."""

import logging
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO

from ..errors import InputError
from .process import ChildProcess
from .reading import read
from .records import Finished, Ready, Record, Refused, Request, Shown, Tick, VideoInfo, Warned, read_record, request_text
from .source import VideoFile

ROOT = Path(__file__).resolve().parents[2]
MODULE = "realportrait_core.video.child"
# -I and -S: no other program's environment and no site-packages but those of PyAV and numpy, which the arguments name.
PROGRAM = f"import runpy, sys; sys.path += sys.argv[1:-1]; runpy.run_module({MODULE!r}, run_name='__main__')"

log = logging.getLogger(__name__)


class NoProcess(Exception):
    """No process can be started that decodes."""


class DecoderCrash(InputError):
    """The process that decodes a video has ended before it was done."""


def ignore(frame: int) -> None:
    """No progress is wanted."""


def go_on() -> None:
    """Nothing interrupts the reading."""


def read_apart(
    source: VideoFile, request: Request, tick: Callable[[int], None] = ignore, interrupt: Callable[[], None] = go_on
) -> Generator[Any, None, None]:
    """The records of `reading.read`, in a process that ends with this iterator: close it where it may be left early.

    interrupt() before each tick, and every `process.SLICE` s while the decoder gives nothing, as where FFmpeg hangs or a network
    drive does not answer. Both may raise, to stop. Where no process can be started, the video is read in this one, with a warning.
    Raises InputError as `reading.read` does, and DecoderCrash where the process dies.
    """

    def ticked(n: int) -> None:
        interrupt()
        tick(n)

    try:
        child = start(source, request, interrupt)
    except NoProcess as error:
        log.warning("No process can be started to decode %s (%s): it is decoded in this one.", source.name, error)
        yield from read(source, request, ticked)
        return
    frames = 0
    with child:
        while not isinstance(record := next_record(child, source.name, frames, interrupt), Finished):
            if isinstance(record, Tick):
                ticked(record.frame)
            elif isinstance(record, Warned):
                log.warning("%s", record.text)
            elif isinstance(record, Refused):
                raise InputError(record.text)
            else:
                frames += isinstance(record, Shown)
                yield record


def probe_apart(source: VideoFile, interrupt: Callable[[], None] = go_on) -> VideoInfo:
    """As `source.probe`, in a process of its own; interrupt as in `read_apart`."""
    with closing(read_apart(source, Request(), interrupt=interrupt)) as records:
        return next(records)


@dataclass(frozen=True)
class Unreadable:
    """What the process has sent is no record."""

    text: str


def read_answer(output: BufferedReader) -> Record | Unreadable | None:
    """As `read_record`, without its errors: those that a caller meets are his own, out of interrupt()."""
    try:
        return read_record(output)
    except (ValueError, TypeError, KeyError) as error:
        return Unreadable(str(error))


def start(source: VideoFile, request: Request, interrupt: Callable[[], None]) -> ChildProcess[Record | Unreadable]:
    """The process, ready to decode. Raises NoProcess."""
    import av
    import numpy

    path = None if isinstance(source.content, bytes) else os.path.abspath(source.content)
    folders = dict.fromkeys([*(str(Path(package.__file__).parents[1]) for package in (av, numpy)), str(ROOT)])
    arguments = [sys.executable, "-I", "-S", "-c", PROGRAM, *folders, request_text(source.name, path, request)]
    try:
        with content_file(source) as content:
            child = ChildProcess(arguments, read_answer, content)
    except (OSError, ValueError) as error:
        raise NoProcess(str(error)) from error
    try:
        answer = child.answer(interrupt)
        if answer is None:
            raise NoProcess(f"{sys.executable} ended with exit status {child.wait(interrupt)}")
        if not isinstance(answer, Ready):
            raise NoProcess(f"{sys.executable} has sent {answer}")
    except BaseException:
        child.kill()
        raise
    return child


@contextmanager
def content_file(source: VideoFile) -> Iterator[BinaryIO | None]:
    """The bytes of a video that is in memory as an open file; None for one on disk."""
    if not isinstance(source.content, bytes):
        yield None
        return
    with TemporaryFile() as file:
        file.write(source.content)
        file.seek(0)
        yield file


def next_record(child: ChildProcess[Record | Unreadable], name: str, frames: int, interrupt: Callable[[], None]) -> Record:
    """Raises DecoderCrash, with the number of frames that came before, where the process has died."""
    answer = child.answer(interrupt)
    if answer is None:
        raise DecoderCrash(crash_text(name, frames, child.wait(interrupt)))
    if isinstance(answer, Unreadable):
        raise DecoderCrash(f"The process that decodes {name} has sent {answer.text}, after {frames} frames.")
    return answer


def crash_text(name: str, frames: int, code: int) -> str:
    """What has happened, by the exit status, and what to do."""
    try:
        cause = signal.Signals(-code).name if code < 0 else f"exit status {code:#x}"
    except ValueError:
        cause = f"signal {-code}"
    after = f"after {frames} frame{'s' * (frames != 1)}"
    if cause == "SIGKILL":
        return (
            f"The process that decodes {name} was killed {after} (SIGKILL), probably because memory ran out. Close other programs, "
            "or load fewer or smaller frames."
        )
    return (
        f"The decoder crashed on {name} {after} ({cause}): the file is damaged, or FFmpeg cannot handle it. Load the part before "
        "it, or convert the file with another program."
    )
