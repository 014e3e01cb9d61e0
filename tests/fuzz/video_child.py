"""Reads the videos that its standard input names, one a line, and answers each by a line: what became of it.

A process of its own, because FFmpeg may crash on a damaged file. SIGALRM ends it where a file takes too long.
"""

import resource
import signal
import sys
from itertools import islice
from pathlib import Path

from realportrait_core.errors import InputError
from realportrait_core.video.decoding import decode, upright
from realportrait_core.video.reading import read_sound
from realportrait_core.video.source import VideoFile, probe

SECONDS = 30
MEMORY = 4 * 2**30  # bytes of address space: a damaged header may claim any size
FRAMES, SIDE = 12, 64


def read(path: Path) -> str:
    source = VideoFile(path.name, path)
    try:
        probe(source)
        sound = list(islice(read_sound(source, 0.0, 1.0, lambda n: None), 9))
        assert len(sound) in (0, 2) and all(piece.waveform.size for piece in sound[1:]), sound  # of a second: form and samples
        frames = 0
        for decoded in islice(decode(source), FRAMES):
            picture = upright(decoded, SIDE)
            assert picture.ndim == 3 and picture.shape[2] == 3 and picture.dtype == "uint8"
            frames += 1
        return f"{frames} frames"
    except InputError as error:
        return f"refused: {str(error).encode('ascii', 'replace').decode()[:200]!r}"
    except BaseException as error:  # what must not come
        return f"FAILED: {type(error).__name__} {str(error)[:200]!r}"


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for line in sys.stdin:
        signal.alarm(SECONDS)
        answer = read(Path(line.rstrip("\n")))
        signal.alarm(0)
        print(answer, flush=True)


if __name__ == "__main__":
    main()
