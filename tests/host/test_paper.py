"""The paper's network, 907.6 M parameters, through the nodes on a CPU: one step of 16 frames of 512 px within 10 GB.

Whole it takes minutes and is left out by default: `python scripts/test.py -m slow -s tests/host/test_paper.py` prints its
peak and its time. What always runs has a few blocks and two frames, and bounds the whole by what these take.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from realportrait_core.config import PAPER
from realportrait_core.dit import RealPortraitDiT

SCRIPT = Path(__file__).resolve().parent / "paper.py"
BUDGET = 10e9  # bytes
FRAME = 1024 * PAPER.dit.hidden * 4  # bytes of a frame's tokens in float32
KEY_VALUE = 2 * FRAME  # of the portrait, in each block

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="a process's peak is read, and set back, as Linux does it"
)


def step(blocks: int, control_blocks: int, frames: int, weight_dtype: str) -> dict:
    command = [sys.executable, SCRIPT, *map(str, (blocks, control_blocks, frames)), weight_dtype]
    # Memory that was freed is given back to the system at once, so that it is not counted.
    env = dict(os.environ, CUDA_VISIBLE_DEVICES="", MALLOC_MMAP_THRESHOLD_="1000000")
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["shape"] == [frames, 4, 64, 64] and found["finite"] and found["spread"] > 0
    return found


@pytest.fixture(scope="module")
def few(host):
    """4 blocks, 2 of control, 2 frames."""
    return step(4, 2, 2, "default")


def parameters() -> int:
    return sum(value.numel() for value in RealPortraitDiT(PAPER.dit, device="meta").state_dict().values())


def test_no_block_leaves_anything_behind(few):
    """The peak of a later block, with control or without, is that of the one before it."""
    peaks = few["peaks"]
    assert list(peaks) == ["block 0", "control 0", "block 1", "control 1", "block 2", "block 3", "end"]
    assert abs(peaks["block 2"] - peaks["block 1"]) < FRAME and peaks["block 3"] < peaks["block 2"] + FRAME


def test_the_whole_network_fits_into_10_gb(few):
    """By what a few of its blocks take: loading holds a file and its copy in float32; a step, what grows with the frames."""
    assert few["loaded"] - few["process"] < 1.1 * 4 * few["parameters"]
    loading = (few["loading"] - few["process"]) / few["parameters"]  # bytes: 2 of the file's fp16, 4 loaded
    assert few["process"] + max(loading, 8) * parameters() < BUDGET  # 8: of a file in float32
    passing = max(few["peaks"].values()) - few["loaded"] - 4 * KEY_VALUE
    whole = few["process"] + 4 * parameters() + PAPER.dit.depth * KEY_VALUE + PAPER.dit.clip_frames / 2 * passing
    assert whole < BUDGET


@pytest.mark.slow
@pytest.mark.parametrize("weight_dtype", ["default", "bf16"])
def test_a_whole_step_of_a_whole_clip(host, weight_dtype):
    found = step(PAPER.dit.depth, PAPER.dit.control_depth, PAPER.dit.clip_frames, weight_dtype)
    assert found["parameters"] == parameters()
    peak = max(found["loading"], *found["peaks"].values())
    print(
        f"\nPAPER, weights {weight_dtype}: 16 frames of 512 px, 1 step through the nodes in {found['seconds']:.0f} s on "
        f"{torch.get_num_threads()} threads; {peak / 1e9:.2f} GB at the peak ({found['loading'] / 1e9:.2f} while loading, "
        f"{found['loaded'] / 1e9:.2f} loaded, {found['process'] / 1e9:.2f} the host alone)."
    )
    assert peak < BUDGET
