"""Training with damaged samples, of one picture alone, and killed while it writes its checkpoint."""

import json
import logging
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fuzzing import memory_folder
from safetensors.torch import load_file, save_file
from toy import CLIPS, FRAMES, TOY, folder, run, sample, vid2vid  # noqa: F401, fixtures

from realportrait_core.checkpoint import read_header
from realportrait_core.errors import InputError
from realportrait_core.train import loop
from realportrait_core.train.batch import draw, load_item, read_index
from realportrait_core.train.data.prepare import weights_fingerprint
from realportrait_core.train.data.sample import save_sample
from realportrait_core.train.loading import batches
from realportrait_core.train.report import Report
from realportrait_core.train.world import SINGLE_PROCESS

TRAIN = Path(__file__).with_name("killed_training.py")


@pytest.fixture
def spoilt(folder, tmp_path) -> Path:
    """The four samples of the toy folder, one cut short, and one with NaN in its latents."""
    made = tmp_path / "samples"
    shutil.copytree(folder, made)
    cut, poisoned = made / "videos" / "clip 0.safetensors", made / "videos" / "clip 1.safetensors"
    cut.write_bytes(cut.read_bytes()[:-100])
    tensors, metadata = load_file(poisoned), read_header(poisoned).metadata
    tensors["latents"][:] = torch.nan
    save_file(tensors, poisoned, metadata)
    return made


def test_damaged_samples_are_left_out_and_counted(spoilt, vid2vid, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    index = read_index(spoilt, 64)
    assert [path.stem for path in index.paths] == ["ü", "clip 1", "clip 2"]
    assert "1 of 4 training samples are damaged and left out" in caplog.text and "clip 0.safetensors is cut short" in caplog.text
    stream = batches(index, CLIPS, 0, 0, 1000, 0, 1)
    drawn = [next(stream) for _ in range(6)]
    stream.close()
    assert all(len(batch) in (2, 4) and torch.isfinite(batch.z).all() for batch in drawn)  # as many portraits as ever
    told = [record.getMessage() for record in caplog.records if "another takes its place" in record.getMessage()]
    assert len(told) == 1 and "clip 1.safetensors" in told[0] and "1 of 2 training samples are damaged" in told[0]
    trained = run(index, vid2vid, tmp_path / "a.ckpt")
    assert all(torch.isfinite(value).all() for value in trained.values())
    again = run(index, vid2vid, tmp_path / "b.ckpt")
    assert all(torch.equal(trained[name], again[name]) for name in trained)


def test_a_run_resumed_among_damaged_samples_ends_as_one_that_was_not(spoilt, vid2vid, tmp_path, monkeypatch):
    index = read_index(spoilt, 64)
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)

    class Stopping(Report):
        def step(self, step, spent, scalars):
            if step == 4:  # the checkpoint is one of 3 steps then
                raise KeyboardInterrupt

    whole = run(index, vid2vid, tmp_path / "whole.ckpt")
    with pytest.raises(KeyboardInterrupt):
        run(index, vid2vid, tmp_path / "stopped.ckpt", report=Stopping(SINGLE_PROCESS))
    assert torch.load(tmp_path / "stopped.ckpt", weights_only=True)["step"] == 3
    ended = run(index, vid2vid, tmp_path / "stopped.ckpt")
    assert all(torch.equal(ended[name], value) and torch.isfinite(value).all() for name, value in whole.items())
    resumed = [next(batches(index, CLIPS, 0, step, 1000, 0, 1)) for step in (3, 4)]
    stream = batches(index, CLIPS, 0, 0, 1000, 0, 1)
    uninterrupted = [next(stream) for _ in range(5)][3:]
    stream.close()
    assert all(torch.equal(a.z, b.z) and torch.equal(a.noise, b.noise) for a, b in zip(resumed, uninterrupted))


def test_where_no_sample_is_whole_the_training_ends_with_a_sentence(spoilt, tmp_path):
    for path in (spoilt / "pictures" / "ü.safetensors", spoilt / "videos" / "clip 2.safetensors"):
        path.unlink()
    index = read_index(spoilt, 64)
    with pytest.raises(InputError, match="None of the 1 training samples that can give such clips is whole"):
        next(batches(index, CLIPS, 0, 0, 1000, 0, 1))
    index.paths[0].write_bytes(b"{}")
    with pytest.raises(InputError, match="All 2 training samples are damaged: .*clip 0.safetensors.*Make them anew"):
        read_index(spoilt, 64)


def test_a_training_of_one_picture(vid2vid, tmp_path):
    """Single frames are trained with it; clips take a video, and that is said."""
    note = {"vid2vid": weights_fingerprint(vid2vid)}
    save_sample(tmp_path / "samples" / "only.safetensors", sample("image", 2, [0], 7), note)
    index = read_index(tmp_path / "samples", 64)
    assert len(index.paths) == 1
    trained = run(index, vid2vid, tmp_path / "a.ckpt", FRAMES, steps=3)
    assert all(torch.isfinite(value).all() for value in trained.values())
    with pytest.raises(InputError, match="No sample can give clips of 4 frames.*it takes a video of 4 frames.*of 1 samples has 2"):
        run(index, vid2vid, tmp_path / "b.ckpt", replace(CLIPS, shapes=CLIPS.shapes[:1]))


def test_a_sample_that_is_damaged_is_named_by_itself(spoilt):
    index = read_index(spoilt, 64)
    stage = replace(CLIPS, shapes=CLIPS.shapes[:1])
    items = [item for step in range(20) for item in draw(index, stage, 0, step, 1000) if index.paths[item.sample].stem == "clip 1"]
    with pytest.raises(ValueError, match="clip 1.safetensors is damaged: .* values of latents are not finite"):
        load_item(index, items[0])


# Killed while the checkpoint is written


@pytest.fixture
def checkpoints():
    """In memory where the system has such a folder: some hundred megabytes are written."""
    with memory_folder() as folder:
        yield folder


def test_killed_in_the_middle_of_its_checkpoint(checkpoints):
    """SIGKILL while the temporary file is open: the checkpoint before it is whole, and the run ends as one that was not killed."""
    steps, whole, killed = 6, checkpoints / "whole.ckpt", checkpoints / "killed.ckpt"
    run = subprocess.run([sys.executable, str(TRAIN), str(checkpoints), str(steps)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["part"], "no kill fell into a write"
    assert 0 < found["before"] < steps
    ends = [torch.load(path, weights_only=True) for path in (whole, killed)]
    assert ends[0]["step"] == ends[1]["step"] == steps and not killed.with_suffix(".partial").exists()
    for part in ("model", "average"):
        torch.testing.assert_close(ends[1][part], ends[0][part], atol=0, rtol=0)
