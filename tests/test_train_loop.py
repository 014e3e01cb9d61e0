"""The training loop: it learns, resumes after any kill, survives a full disk, and reports."""

import json
import logging
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import golden_losses
import pytest
import torch
from toy import CLIPS, FRAMES, TOY, folder, index, run, vid2vid  # noqa: F401, fixtures

from realportrait_core.diffusion.schedule import linear_schedule
from realportrait_core.errors import InputError
from realportrait_core.train import curves, loop
from realportrait_core.train.batch import draw, load, maps_of, read_index
from realportrait_core.train.budget import Budget
from realportrait_core.train.checkpoint import save_atomically
from realportrait_core.train.initial import from_scratch
from realportrait_core.train.objective import Objective
from realportrait_core.train.report import Report
from realportrait_core.train.stages import Shape
from realportrait_core.train.world import SINGLE_PROCESS
from realportrait_core.vid2vid.checkpoint import save_vid2vid


def test_a_stage_learns(index, vid2vid, tmp_path):
    torch.manual_seed(0)
    start = from_scratch(TOY.dit)
    trained = from_scratch(TOY.dit)
    stage = replace(FRAMES, steps=40, average=0.5)
    trained.load_state_dict(run(index, vid2vid, tmp_path / "a.ckpt", stage, steps=40))
    held_out = [load(index, draw(index, stage, 99, step, 1000)) for step in range(6)]
    with torch.no_grad():
        before, after = (
            sum(Objective(dit, linear_schedule(), torch.float32)(batch, *maps_of(vid2vid.warping, batch)) for batch in held_out)
            for dit in (start, trained)
        )
    assert after < 0.9 * before


@pytest.mark.parametrize("muon", [False, True])
def test_a_disk_that_fills_up_leaves_the_last_good_checkpoint(index, vid2vid, tmp_path, monkeypatch, caplog, muon):
    """/dev/full refuses every byte, as a full disk does; the run goes on and only the last save must succeed."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    path = tmp_path / "a.ckpt"
    stage = replace(CLIPS, muon=muon)
    whole = run(index, vid2vid, tmp_path / "whole.ckpt", stage)
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)
    kept, opened = torch.save, []

    def filling(value, file):
        opened.append(value["step"])
        with open("/dev/full", "wb") as full:
            kept(value, full if value["step"] in (3, 4) else file)

    monkeypatch.setattr(torch, "save", filling)
    caplog.set_level(logging.WARNING)
    assert all(torch.equal(value, whole[name]) for name, value in run(index, vid2vid, path, stage).items())
    assert opened == [1, 2, 3, 4, 5, 6, 6] and caplog.text.count("what was there before is kept") == 2
    assert torch.load(path, weights_only=True)["step"] == 6 and not list(tmp_path.glob("*.partial"))

    with pytest.raises(InputError, match="could not be written"):
        with open("/dev/full", "wb"):
            save_atomically({"step": 3, "x": torch.zeros(10**6)}, path)
    assert torch.load(path, weights_only=True)["step"] == 6


def test_a_damaged_checkpoint_is_named(index, vid2vid, tmp_path):
    (tmp_path / "a.ckpt").write_bytes(b"nothing")
    with pytest.raises(InputError, match="a.ckpt is no training checkpoint"):
        run(index, vid2vid, tmp_path / "a.ckpt")


def test_what_cannot_be_trained_is_refused(index, vid2vid, tmp_path):
    for stage, message in (
        (replace(CLIPS, shapes=(Shape(1, frames=16),)), "the longest of 4 samples has 11"),
        (replace(CLIPS, shapes=(Shape(1, frames=4, stride=4),)), "takes a video of 13 frames"),
    ):
        with pytest.raises(InputError, match=message):
            run(index, vid2vid, tmp_path / "a.ckpt", stage)
    with pytest.raises(InputError, match="frames of 64 px; the network is trained at 256 px"):
        read_index(index.paths[0].parent, 256)
    with pytest.raises(InputError, match="no training sample"):
        read_index(tmp_path, 64)
    for wrong in ({}, {"steps": 3, "minutes": 2.0}, {"steps": 0}, {"minutes": -1.0}):
        with pytest.raises(InputError, match="so many steps or so many minutes"):
            Budget(**wrong)


# Killed


def test_killed_at_any_moment_a_run_ends_as_one_that_was_not(folder, vid2vid, tmp_path):
    """The command, SIGKILLed wherever it is then: weights, average and optimizers are bit by bit those of the other run."""
    steps, whole, killed = 24, tmp_path / "whole.ckpt", tmp_path / "killed.ckpt"
    save_vid2vid(tmp_path / "vid2vid.safetensors", vid2vid, torch.float32)

    def start(checkpoint: Path) -> subprocess.Popen:
        return subprocess.Popen(
            [
                *(sys.executable, str(Path(__file__).parent / "toy_train.py"), "frames", "--preset", "toy"),  # with Muon
                *("--samples", str(folder), "--vid2vid", str(tmp_path / "vid2vid.safetensors"), "--steps", str(steps)),
                *("--out", str(checkpoint.with_suffix(".safetensors")), "--device", "cpu"),
            ]
        )

    uninterrupted = start(whole)
    process, deadline = start(killed), time.monotonic() + 600
    while time.monotonic() < deadline and process.poll() is None and step_of(killed) < 5:
        time.sleep(0.01)
    assert process.poll() is None, "it ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 5 <= step_of(killed) < steps
    assert start(killed).wait() == uninterrupted.wait() == 0
    ends = [torch.load(path, weights_only=True) for path in (whole, killed)]
    assert ends[0]["step"] == ends[1]["step"] == steps
    for part in ("model", "average"):
        torch.testing.assert_close(ends[1][part], ends[0][part], atol=0, rtol=0)
    for ours, theirs in zip(ends[1]["optimizers"], ends[0]["optimizers"], strict=True):
        torch.testing.assert_close(ours["state"], theirs["state"], atol=0, rtol=0)


def step_of(checkpoint: Path) -> int:
    return torch.load(checkpoint, weights_only=True)["step"] if checkpoint.is_file() else 0


# Golden losses


@pytest.mark.parametrize("name", sorted(golden_losses.STAGES))
def test_losses_are_those_of_the_golden_curve(tmp_path, name):
    """Whoever changes a number of the training on purpose writes the curve anew: python tests/golden_losses.py."""
    golden = golden_losses.read(name)
    assert golden_losses.losses(name, tmp_path) == pytest.approx(golden, rel=golden_losses.TOLERANCE)


# The report


def test_a_table_of_a_resumed_run_counts_each_step_once(tmp_path):
    rows = ["step,seconds,loss,norm,rate", "10,60,0.5,1,1", "20,120,0.4,1,1", "15,90,0.45,1,1", "20,150,0.3,1,1", ""]
    (tmp_path / "training.csv").write_text("\n".join(rows))
    assert curves.read_table(tmp_path / "training.csv") == ([1.0, 1.5, 2.5], [0.5, 0.45, 0.3])
    assert curves.running_mean([1.0, 2.0, 3.0, 4.0], 2) == [1.0, 1.5, 2.5, 3.5]
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="other.csv is no table of a training"):
        curves.read_table(tmp_path / "other.csv")


def test_the_report_of_a_stage(index, vid2vid, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    run(index, vid2vid, tmp_path / "a.ckpt", report=Report(SINGLE_PROCESS, tmp_path / "board"))
    minutes, values = curves.read_table(tmp_path / "board" / "training.csv")
    assert len(minutes) == 1 and 0.1 < values[0] < 3
    assert "step 6  100 %, 0:00:00 left" in caplog.text and "frames/s" in caplog.text and "GiB" in caplog.text


def test_curves_are_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "training.csv").write_text("step,seconds,loss,norm,rate\n10,60,0.5,1,1\n20,120,0.4,1,1\n")
    rows = {"static portrait": {"psnr_db": 20.0}, "RealPortrait": {"psnr_db": 21.5}}
    (tmp_path / "self.json").write_text(json.dumps({"rows": rows}))
    options = [str(tmp_path / "training.csv"), "--out", str(tmp_path / "curves.png")]
    assert curves.main([*options, "--eval", f"3:{tmp_path / 'self.json'}"]) == 0
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"
    assert curves.main([*options, "--eval", "x:none.json"]) == 1
