"""scripts/demo.py as a stranger calls it, server and all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def demo(host_sources, tmp_path):
    """demo("--frames", "3") -> the finished process; the video goes to tmp_path / out.mp4."""
    import environment

    if not environment.inside():
        pytest.skip("the demo makes .venv/ where there is none: run python scripts/test.py")

    def call(*arguments):
        return subprocess.run(
            [sys.executable, str(ROOT / "scripts" / "demo.py"), "--out", str(tmp_path / "out.mp4"), *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=dict(os.environ, COMFYUI_PATH=str(host_sources)),
        )

    return call


def test_a_video_comes_out(demo, tmp_path):
    import av

    done = demo("--frames", "3", "--steps", "1", "--seed", "5")
    assert done.returncode == 0, done.stdout + done.stderr
    with av.open(str(tmp_path / "out.mp4")) as video:
        assert video.streams.video[0].codec.name == "h264"
        assert sum(1 for _ in video.decode(video=0)) == 3
    assert str(tmp_path / "out.mp4") in done.stdout
    assert "3 frames" in done.stdout and "per clip" in done.stdout


@pytest.mark.slow  # a server of its own, as the other
def test_a_failure_says_why_and_leaves_nothing(demo, tmp_path):
    from PIL import Image

    Image.new("RGB", (256, 256), "green").save(tmp_path / "green.png")
    done = demo("--portrait", str(tmp_path / "green.png"), "--frames", "2")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "no face" in done.stderr.lower()
    assert [file.name for file in tmp_path.iterdir()] == ["green.png"]


@pytest.mark.parametrize(
    "arguments, said",
    [(("--portrait", "nowhere.png"), "does not exist"), (("--frames", "0"), "at least 1"), (("--out", "video.avi"), ".mp4")],
)
def test_wrong_arguments(demo, arguments, said):
    done = demo(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
