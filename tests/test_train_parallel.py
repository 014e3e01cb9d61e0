"""Activation checkpointing, DDP and FSDP2: the same training in less memory or more processes, by the command itself."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import toy
from toy import CLIPS, FRAMES, PAPER, TOY, conditioned, folder, index, vid2vid  # noqa: F401, fixtures

from realportrait_core.config import PRESETS
from realportrait_core.diffusion.schedule import linear_schedule
from realportrait_core.dit.checkpoint import load_dit
from realportrait_core.errors import InputError
from realportrait_core.train import run as train_run
from realportrait_core.train.__main__ import main
from realportrait_core.train.batch import draw, load, maps_of
from realportrait_core.train.initial import from_scratch
from realportrait_core.train.latent_regression import LatentRegression
from realportrait_core.train.objective import Objective
from realportrait_core.train.parallel import has_unused, parallelize, recompute_blocks
from realportrait_core.train.run import StageRun, run_stage
from realportrait_core.train.stages import STAGES, Shape, Stage
from realportrait_core.train.world import SINGLE_PROCESS, World
from realportrait_core.vid2vid.checkpoint import save_vid2vid

APART = 1e-4  # of the way that the weights have gone: how far several processes may end from one


@pytest.fixture(autouse=True)
def preset(monkeypatch):
    """In this process, as toy_train.py has it in others."""
    monkeypatch.setitem(PRESETS, "toy", TOY)
    monkeypatch.setitem(STAGES, "toy", toy.STAGES)


@pytest.fixture(scope="module")
def vid2vid_file(vid2vid, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "vid2vid.safetensors"
    save_vid2vid(path, vid2vid, torch.float32)
    return path


# Which weights have a gradient


def without_gradient(objective: torch.nn.Module, index, vid2vid, stage) -> set[str]:
    batch = load(index, draw(index, stage, 0, 0, 1000))
    objective(batch, *maps_of(vid2vid.warping, batch)).backward()
    return {name for name, value in objective.dit.named_parameters() if value.requires_grad and value.grad is None}


@pytest.mark.parametrize(
    "cfg", [PAPER, TOY.dit, conditioned(draft_widths=(8, 8, 8), motion_blocks=1)], ids=["paper", "toy", "draft"]
)
def test_only_single_frames_leave_weights_unused(index, vid2vid, cfg):
    """The softmax over one frame is 1, whatever Q and K: their temporal norms are not used."""

    def objective() -> Objective:
        return Objective(from_scratch(cfg), linear_schedule(), torch.float32)

    norms = {
        f"{block}.attn_temp.{norm}.weight"
        for block in ("blocks.0", "blocks.1", "controlnet.0.copied_block")
        for norm in ("q_norm", "k_norm")
    }
    assert without_gradient(objective(), index, vid2vid, FRAMES) == norms and has_unused(FRAMES)
    assert without_gradient(objective(), index, vid2vid, CLIPS) == set() and not has_unused(CLIPS)
    assert has_unused(replace(CLIPS, shapes=(*CLIPS.shapes, Shape(2))))
    mapper = LatentRegression(from_scratch(cfg), 1000, torch.float32)
    assert without_gradient(mapper, index, vid2vid, CLIPS) == set()


# Activation checkpointing


def test_recomputed_blocks_give_the_same_gradients(index, vid2vid):
    batch = load(index, draw(index, CLIPS, 0, 0, 1000))
    maps = maps_of(vid2vid.warping, batch)

    def gradients(recomputed: bool):
        torch.manual_seed(0)
        objective = Objective(from_scratch(TOY.dit), linear_schedule(), torch.float32)
        torch.nn.init.normal_(objective.dit.final_layer.linear.weight, std=0.1)
        if recomputed:
            recompute_blocks(objective.dit)
        objective(batch, *maps).backward()
        return {name: value.grad for name, value in objective.named_parameters() if value.grad is not None}

    plain, again = gradients(False), gradients(True)
    assert plain.keys() == again.keys() and len(plain) > 50
    for name, value in plain.items():
        torch.testing.assert_close(again[name], value, msg=name)


def test_the_estimate_takes_less_with_recompute(folder, vid2vid_file, tmp_path, monkeypatch):
    """The command's estimate, in bytes of the tensors that its forward passes keep for their backward passes."""
    estimate, kept = train_run.estimate, []

    def counting(objective, *given):
        weights = {parameter.untyped_storage().data_ptr() for parameter in objective.parameters()}
        sizes = []

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            if tensor.untyped_storage().data_ptr() not in weights:
                sizes.append(tensor.numel() * tensor.element_size())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            found = estimate(objective, *given)
        kept.append(sum(sizes))
        return found

    monkeypatch.setattr(train_run, "estimate", counting)
    for recompute in (False, True):
        name = tmp_path / f"{recompute}.safetensors"
        run_stage(StageRun(folder, vid2vid_file, name, "toy", steps=1, device="cpu", recompute=recompute), "clips")
    assert 0 < kept[1] < 0.5 * kept[0]


# Several processes


def options(folder: Path, vid2vid_file: Path, out: Path, steps: int) -> list[str]:
    files = ["--samples", str(folder), "--vid2vid", str(vid2vid_file), "--out", str(out)]
    return ["clips", *files, "--preset", "toy", "--steps", str(steps), "--device", "cpu"]


def torchrun(arguments: list[str]) -> str:
    """Two processes on the CPU (gloo); what they logged."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    program = str(Path(__file__).parent / "toy_train.py")
    clean = {name: value for name, value in os.environ.items() if name not in ("WORLD_SIZE", "RANK", "LOCAL_RANK")}
    done = subprocess.run([*launcher, program, *arguments], env=clean, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr


def assert_same_way(several: Path, one: Path) -> None:
    """The averaged weights of both checkpoints, by how far they have gone from the start."""
    torch.manual_seed(0)
    start = from_scratch(TOY.dit).state_dict()
    a, b = (torch.load(path, weights_only=True) for path in (several, one))
    assert a["step"] == b["step"] and a["average"].keys() == b["average"].keys()
    way = sum(float((value - start[name]).square().sum()) for name, value in b["average"].items()) ** 0.5
    apart = sum(float((a["average"][name] - value).square().sum()) for name, value in b["average"].items()) ** 0.5
    assert way > 0 and apart < APART * way, f"{apart} apart, {way} from the start"


def test_ddp_searches_for_unused_weights_in_single_frames_only(index, vid2vid):
    """DDP of a group of one process; without the search, weights without a gradient end its second step."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:

        def steps(wrapped_for: Stage, given: Stage) -> bool:
            objective = Objective(from_scratch(TOY.dit), linear_schedule(), torch.float32)
            wrapped = parallelize(objective, wrapped_for, World(0, 2, torch.device("cpu")))
            for step in range(3):
                batch = load(index, draw(index, given, 0, step, 1000))
                wrapped(batch, *maps_of(vid2vid.warping, batch)).backward()
            return wrapped.find_unused_parameters

        assert steps(CLIPS, CLIPS) is False and steps(FRAMES, FRAMES) is True
        with pytest.raises(RuntimeError, match="Expected to have finished reduction"):
            steps(CLIPS, FRAMES)
    finally:
        torch.distributed.destroy_process_group()


def test_ddp_ends_where_one_process_does(folder, vid2vid_file, tmp_path):
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    assert main(options(folder, vid2vid_file, one, 6)) == 0
    logged = torchrun(options(folder, vid2vid_file, two, 6))
    assert logged.count("s a step, 6 steps") == 1 and "in each of 2 processes" in logged
    assert_same_way(two.with_suffix(".ckpt"), one.with_suffix(".ckpt"))
    assert load_dit(two).cfg == TOY.dit


def test_sharded_and_recomputed_a_run_ends_where_one_process_does(folder, vid2vid_file, tmp_path, caplog):
    """Two processes resume what one wrote, and one what two wrote."""
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    assert main(options(folder, vid2vid_file, one, 3)) == 0
    shutil.copy(one.with_suffix(".ckpt"), two.with_suffix(".ckpt"))
    assert main(options(folder, vid2vid_file, one, 6)) == 0
    logged = torchrun([*options(folder, vid2vid_file, two, 6), "--shard", "--recompute"])
    assert logged.count("resumed at step 3") == 2
    assert_same_way(two.with_suffix(".ckpt"), one.with_suffix(".ckpt"))
    caplog.set_level("INFO")
    for out in (one, two):
        assert main(options(folder, vid2vid_file, out, 8)) == 0
    assert caplog.text.count("resumed at step 6") == 2
    assert_same_way(two.with_suffix(".ckpt"), one.with_suffix(".ckpt"))


def test_what_several_processes_cannot_do_is_refused():
    objective = Objective(from_scratch(TOY.dit), linear_schedule(), torch.float32)
    with pytest.raises(InputError, match="Muon needs whole matrices"):
        parallelize(objective, replace(CLIPS, muon=True), SINGLE_PROCESS, shard=True)
    with pytest.raises(InputError, match="2 portraits a step cannot be split evenly among 4 processes"):
        parallelize(objective, CLIPS, World(0, 4, torch.device("cpu")))
