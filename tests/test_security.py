"""No network at run time and no code from files, on the real host in a sealed process of its own. docs/security.md."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yunet

ROOT = Path(__file__).resolve().parent.parent
SEALED = ROOT / "tests" / "host" / "sealed.py"
# One of each way to a video; of the others one has no weights, and one asks for judges that are fetched.
SHORT = ["animate_liveportrait"]
WORKFLOWS = ["animate_portrait", "animate_portrait_ksampler", "animate_saved_motion", "animate_long_video"]


def start(*arguments: str) -> subprocess.CompletedProcess:
    settings = dict(os.environ, OMP_NUM_THREADS="1")
    return subprocess.run([sys.executable, str(SEALED), *arguments], capture_output=True, text=True, timeout=600, env=settings)


def heard(run: subprocess.CompletedProcess) -> list[str]:
    return [line for line in run.stderr.splitlines() if line.startswith("heard: ")]


# The seals


def test_python_cannot_ask_for_the_network_unheard():
    run = start("attempt", "python")
    assert any("socket.__new__" in line for line in heard(run)), run.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's seal is Linux's")
@pytest.mark.parametrize("kind", ["python", "native", "child"])
def test_the_kernel_stops_what_python_does_not_see(kind):
    """FFmpeg's own protocols, and a child process, which has no hook."""
    run = start("attempt", kind)
    if run.returncode == 0 and not json.loads(run.stdout)["sealed"]:
        pytest.skip("no seccomp here")
    killed = run.returncode == -signal.SIGSYS or kind == "child" and run.returncode == 256 - signal.SIGSYS
    assert killed, (run.returncode, run.stderr)
    assert bool(heard(run)) == (kind == "python")


# The whole line inside of them


@pytest.fixture(scope="module")
def line(host_sources, tmp_path_factory):
    """line("run", workflows) -> what a sealed process found that loaded the pack and ran them; "run-and-open" too."""
    pytest.importorskip("torchsde", reason="this Python has not the host's packages; run python scripts/test.py")

    def run(what: str, workflows: list[str]) -> dict:
        done = start(what, str(tmp_path_factory.mktemp("host")), str(yunet.onnx()), *workflows)
        assert done.returncode == 0, f"{heard(done)}\n{done.stderr[-2000:]}"  # -31: the kernel stopped it
        return json.loads(done.stdout)

    return run


@pytest.fixture(scope="module")
def found(line) -> dict:
    return line("run-and-open", SHORT)


def test_no_network_from_loading_the_nodes_to_the_saved_video(found):
    assert found["ended"] == {name: "success" for name in SHORT} and ".mp4" in found["saved"]
    assert found["asked"] == []


def test_nothing_in_a_file_is_run(found):
    """Pickles of three kinds, object arrays, marshalled code, sources, YAML tags, templates, playlists; each by every loader."""
    assert found["shown"] == 2, "the hook must hear of eval or exec, and of unpickling"
    assert found["ran"] == [] and not found["marker"]


def test_every_such_file_is_refused_in_a_sentence(found):
    """By an error of the pack."""
    assert len(found["refused"]) > 100
    for name, (status, kind, said) in found["refused"].items():
        assert status == "rejected" or status == "error" and ".realportrait_core.errors." in kind, (name, status, kind, said)
        assert len(said) > 40 and "Traceback" not in said, (name, said)


@pytest.mark.nightly
def test_no_network_in_any_way_to_a_video(line):
    """What all of them use together, beside SHORT."""
    found = line("run", WORKFLOWS)
    assert found["ended"] == {name: "success" for name in WORKFLOWS} and found["asked"] == []
    assert {"RealPortraitSampler", "RealPortraitSaveMotion", "RealPortraitLoadMotion", "VAEDecode", "KSampler"} <= set(
        found["used"]
    )
    assert {".mp4", ".safetensors"} <= set(found["saved"])
