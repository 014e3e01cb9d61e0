"""Damaged videos through the decoder, in a process of the test's own: a crash of FFmpeg there is counted and is no failure."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fuzzing import cases, damaged, fuzz, memory_folder
from hypothesis import strategies as st
from videos import write

TESTS = Path(__file__).resolve().parents[1]
KINDS = {".mp4": "libx264", ".mkv": "libx264", ".webm": "libvpx", ".avi": "mpeg4", ".gif": "gif"}
BATCH = 10  # files of one case of hypothesis
EDGE = 1500  # bytes at both ends, where containers keep what they say of themselves


class Decoder:
    """The child, started again whenever it has died."""

    def __init__(self, folder: Path):
        self.folder, self.child, self.deaths = folder, None, []

    def answer(self, suffix: str, data: bytes) -> str:
        """What became of a video of these bytes, or the signal that ended the child."""
        path = self.folder / f"given{suffix}"
        path.write_bytes(data)
        if self.child is None:
            program = "import conftest, runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')"
            command = [sys.executable, "-c", program, str(TESTS / "fuzz" / "video_child.py")]
            told = dict(os.environ, PYTHONPATH=str(TESTS), OMP_NUM_THREADS="1")
            quiet = dict(stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            self.child = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, env=told, cwd=self.folder, **quiet)
        self.child.stdin.write(f"{path}\n")
        self.child.stdin.flush()
        line = self.child.stdout.readline().strip()
        if not line:
            code = self.child.wait()
            self.deaths.append(code)
            self.child = None
            return f"died with {code}"
        return line

    def close(self) -> None:
        if self.child is not None:
            self.child.stdin.close()
            self.child.wait()


@pytest.fixture(scope="module")
def decoder():
    pytest.importorskip("resource", reason="the memory of a process is limited by POSIX's means")
    with memory_folder() as folder:
        child = Decoder(folder)
        yield child
        child.close()


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> dict[str, bytes]:
    """Small ones of each container."""
    av = pytest.importorskip("av")
    folder, rng = tmp_path_factory.mktemp("videos"), np.random.default_rng(0)
    pictures = [np.kron(rng.integers(0, 256, (4, 4, 3)), np.ones((8, 8, 1))).astype(np.uint8) for _ in range(6)]
    found = {".mp4": write(folder / "sound.mp4", pictures, seconds=0.3).read_bytes()}
    for suffix, codec in KINDS.items():
        path = folder / f"x{suffix}"
        if suffix != ".mp4":
            with av.open(str(path), "w") as video:
                stream = video.add_stream(codec, rate=10)
                stream.width, stream.height, stream.pix_fmt = 32, 32, "rgb8" if suffix == ".gif" else "yuv420p"
                for picture in pictures:
                    video.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=stream.pix_fmt)))
                video.mux(stream.encode())
            found[suffix] = path.read_bytes()
    return found


def of_video(whole: bytes) -> st.SearchStrategy:
    start = damaged(whole[:EDGE]).map(lambda edge: edge + whole[EDGE:])
    end = damaged(whole[-EDGE:]).map(lambda edge: whole[:-EDGE] + edge)
    return damaged(whole) | start | end


@cases(normal=40, nightly=2400)
@pytest.mark.parametrize("suffix", KINDS)
def test_damaged_videos(suffix, decoder, videos, count, record_property):
    assert decoder.answer(suffix, videos[suffix]) == "6 frames"
    before = len(decoder.deaths)

    def check(batch: list[bytes]) -> None:
        for data in batch:
            answer = decoder.answer(suffix, data)
            assert "FAILED" not in answer and answer != "died with -14", answer  # 14: SIGALRM, it hung

    fuzz(st.lists(of_video(videos[suffix]), min_size=BATCH, max_size=BATCH), check, count // BATCH, record_property, BATCH)
    record_property("fuzz decoder crashes", len(decoder.deaths) - before)
