"""What the process that decodes runs: answers the request of its last argument on its standard output.

FFmpeg can crash on a damaged file, and takes the process with it: this one. `apart.py` starts it.
"""

import logging
import os
import signal
import sys
from pathlib import Path
from threading import Thread
from typing import BinaryIO

from ..errors import InputError
from .reading import read
from .records import Finished, Ready, Record, Refused, Tick, Warned, read_request, write_record
from .source import VideoFile


class Forward(logging.Handler):
    """Warnings go to the process that asked."""

    def __init__(self, answer: BinaryIO):
        super().__init__(logging.WARNING)
        self.answer = answer

    def emit(self, record: logging.LogRecord) -> None:
        write_record(self.answer, Warned(record.getMessage()))


def end_with_parent() -> None:
    """Ends this process, though it may hang in FFmpeg, when the one that asked has ended: nothing else closes standard input."""
    os.read(0, 1)
    os._exit(0)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal reaches both; the other one ends this one
    answer = open(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no record

    def say(record: Record) -> None:
        write_record(answer, record)

    try:
        say(Ready())
        logging.getLogger(__package__).addHandler(Forward(answer))
        name, path, request = read_request(sys.argv[-1])
        source = VideoFile(name, sys.stdin.buffer.read() if path is None else Path(path))
        if path is not None and sys.platform != "win32":  # there, whatever loads a DLL may wait for a thread that reads fd 0
            Thread(target=end_with_parent, daemon=True).start()
        try:
            for record in read(source, request, lambda n: say(Tick(n))):
                say(record)
            say(Finished())
        except InputError as error:
            say(Refused(str(error)))
    except BrokenPipeError:  # nobody listens any more
        os._exit(0)


if __name__ == "__main__":
    main()
