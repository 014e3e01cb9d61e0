"""The paper's two stages on toy samples: what a step draws, resume, several processes, a full disk, the command."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
import yunet

from benchmarks import departures, quality
from benchmarks.parts import random_weights
from realportrait_core.config import MINI, ConditionerConfig, Config, DiTConfig, Vid2VidConfig
from realportrait_core.diffusion.conditional import known_first_frames
from realportrait_core.diffusion.sampling import ddim_step, sample_ddim
from realportrait_core.diffusion.schedule import linear_schedule, target
from realportrait_core.dit.checkpoint import load_dit, save_dit
from realportrait_core.dit.model import RealPortraitDiT
from realportrait_core.errors import InputError
from realportrait_core.eval.protocol import Networks
from realportrait_core.face.detect import FaceDetector
from realportrait_core.generate import motion_maps, render
from realportrait_core.train import __main__ as train_command
from realportrait_core.train import curves, distil, loop
from realportrait_core.train.batch import batches, draw, load, maps_of, read_index
from realportrait_core.train.data import __main__ as prepare_command
from realportrait_core.train.data.prepare import weights_fingerprint
from realportrait_core.train.data.sample import Sample, load_sample, save_sample
from realportrait_core.train.dit import (
    Objective,
    conditions,
    denoiser,
    face_weight,
    frame_weight,
    from_scratch,
    reading_loss,
    train_stage,
)
from realportrait_core.train.loop import Budget, save_atomically
from realportrait_core.train.report import Report
from realportrait_core.train.stage import StageRun, make_objective, run_stage, start
from realportrait_core.train.stages import PAPER_CLIPS, PAPER_FRAMES, Shape, Stage
from realportrait_core.train.world import ALONE
from realportrait_core.vae import TinyVAE
from realportrait_core.vid2vid import FaceVid2Vid
from realportrait_core.vid2vid.checkpoint import load_vid2vid, save_vid2vid
from realportrait_core.vid2vid.keypoints import Pose, rotation_matrix

TOY = Config(
    vid2vid=Vid2VidConfig(
        crop_size=32,
        num_kp=5,
        appearance_width=4,
        reshape_channel=4,
        reshape_depth=2,
        appearance_resblocks=1,
        motion_depths=(1, 1, 1, 1),
        motion_dims=(4, 8, 8, 16),
        dense_width=4,
        dense_max=16,
        dense_blocks=2,
        compress=1,
        mask_kernel=3,
        warped_channels=6,
        generator_blocks=1,
        generator_out=4,
        spade_hidden=4,
        upscale=1,
    ),
    dit=DiTConfig(
        hidden=48,
        depth=2,
        heads=2,
        control_depth=1,
        learned_sigma=False,
        qk_norm_legacy=False,
        input_sq_size=64,
        prediction="v",
        clip_frames=4,
        motion_channels=6,
        motion_widths=(8, 8),
        fps=12.5,
        conditioner=ConditionerConfig(motion_latent=6, reference_motion=True),
    ),
    image_size=64,
)


def conditioned(**changes) -> DiTConfig:
    """TOY's network with another conditioner."""
    return replace(TOY.dit, conditioner=replace(TOY.dit.conditioner, **changes))


FRAMES = Stage((Shape(2, clips=2),), steps=6, lr=3e-3, warmup=2, average=0.9)
CLIPS = Stage((Shape(2, frames=4), Shape(4, frames=2, stride=3)), steps=6, lr=3e-3, warmup=2, average=0.9)


def poses(count: int) -> Pose:
    pitch, yaw, roll = 10 * torch.randn(3, count)
    return Pose(
        torch.randn(count, 5, 3) / 4,
        rotation_matrix(pitch, yaw, roll),
        pitch,
        yaw,
        roll,
        torch.randn(count, 5, 3) / 50,
        torch.full((count, 1), 1.1),
        torch.randn(count, 3) / 50,
    )


def sample(kind: str, frames: int, portraits: list[int], seed: int) -> Sample:
    torch.manual_seed(seed)
    points = torch.tensor([[22.0, 26], [42, 26], [32, 34], [25, 42], [39, 42]]) + torch.randn(frames, 5, 2)
    crop = torch.diag(torch.tensor([8.0, 8.0, 1.0], dtype=torch.float64))
    latents = torch.tensor([1.0, -1.0, 0.5, -0.5])[:, None, None] + 0.3 * torch.randn(frames, 4, 8, 8)
    return Sample(
        kind,
        64,
        latents.half(),
        torch.tensor(portraits),
        torch.randn(len(portraits), 4, 2, 8, 8).half(),
        poses(len(portraits)),
        crop.expand(len(portraits), 3, 3),
        poses(frames),
        points,
        crop,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("samples")
    for i in range(3):
        save_sample(made / "videos" / f"clip {i}.safetensors", sample("video", 9 + i, [0, 5], i), {})
    save_sample(made / "pictures" / "ü.safetensors", sample("image", 2, [0], 7), {})
    return made


@pytest.fixture(scope="module")
def index(folder):
    return read_index(folder, 64)


@pytest.fixture(scope="module")
def vid2vid() -> FaceVid2Vid:
    torch.manual_seed(0)
    return FaceVid2Vid(TOY.vid2vid).eval()


# What a step draws


def test_the_paper_is_the_preset():
    assert PAPER_FRAMES.shapes == (Shape(32),) and PAPER_FRAMES.steps == 20_000
    assert PAPER_CLIPS.shapes == (Shape(4, frames=16),) and PAPER_CLIPS.steps == 30_000


def test_single_frames_come_from_everything_and_never_copy_a_picture(index):
    stage = replace(FRAMES, shapes=(Shape(8, clips=3),))
    seen = set()
    for step in range(40):
        for item in draw(index, stage, 0, step, 1000):
            assert item.frames.shape == (3, 1) and not item.conditional.any()
            seen.add(item.sample)
            if index.video[item.sample]:
                assert len(set(item.frames.flatten().tolist())) == 3
            else:
                assert item.frames.eq(1).all() and item.portrait == 0
    assert seen == set(range(4))


def test_clips_are_consecutive_and_from_videos(index):
    starts = set()
    for step in range(60):
        shape = CLIPS.shapes[step % 2]
        items = draw(index, CLIPS, 1, step, 1000)
        assert len(items) == shape.portraits
        for item in items:
            assert index.video[item.sample] and item.frames.shape == (1, shape.frames)
            assert item.frames.diff(dim=1).eq(shape.stride).all()
            assert 0 <= item.frames.min() and item.frames.max() < index.frames[item.sample]
            starts.add(int(item.frames[0, 0]))
    assert len(starts) > 5


def test_masks_of_a_stage_hide_heads_and_tails_only(index):
    stage = replace(CLIPS, shapes=(Shape(8, frames=4),))
    kinds = {(): 0, (0,): 0, (3,): 0, (0, 3): 0}
    for step in range(150):
        for item in draw(index, stage, 2, step, 1000):
            kinds[tuple(torch.nonzero(item.conditional[0, 0])[:, 0].tolist())] += 1
    share = {kind: count / sum(kinds.values()) for kind, count in kinds.items()}
    for kind, expected in {(): 0.5, (0,): 0.2, (3,): 0.1, (0, 3): 0.2}.items():
        assert abs(share[kind] - expected) < 0.05


def test_times_of_a_step_are_spread_evenly(index):
    for shape in (Shape(5, clips=2), Shape(1, clips=2, draws=5)):
        times = torch.cat([item.t.flatten() for item in draw(index, replace(FRAMES, shapes=(shape,)), 0, 3, 1000)])
        assert sorted((times // 100).tolist()) == list(range(10))


def test_processes_draw_together_what_one_would(index):
    whole = next(batches(index, CLIPS, 0, 1, 1000, rank=0, size=1))
    halves = [next(batches(index, CLIPS, 0, 1, 1000, rank=rank, size=2)) for rank in (0, 1)]
    for name in ("z_r", "z", "noise", "t", "face"):
        joined = torch.stack([getattr(half, name) for half in halves], 1).flatten(0, 1)
        assert torch.equal(joined, getattr(whole, name))


def test_steps_differ_and_seeds_differ(index):
    def noise(seed, step):
        return load(index, draw(index, FRAMES, seed, step, 1000)).noise

    assert torch.equal(noise(0, 4), noise(0, 4))
    assert not torch.equal(noise(0, 4), noise(0, 5)) and not torch.equal(noise(0, 4), noise(1, 4))


def test_maps_of_a_batch_are_those_that_users_get(index, vid2vid):
    """generate.motion_maps on the same keypoints, one portrait at a time."""
    items = draw(index, CLIPS, 0, 0, 1000)
    maps, own = maps_of(vid2vid.warping, load(index, items))
    driven = iter(range(len(maps)))
    for i, item in enumerate(items):
        kept = load_sample(index.paths[item.sample])
        with torch.inference_mode():
            motion = motion_maps(vid2vid, kept.keypoints(item.portrait, item.frames[0]), size=64, framing="whole")
        for frame in range(item.frames.shape[1]):
            here = next(driven)
            torch.testing.assert_close(maps.f[here].half(), motion.maps.f[1 + frame], atol=2e-3, rtol=2e-3)
            torch.testing.assert_close(maps.face[here].double(), motion.maps.face[1 + frame], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(own.f[i].half(), motion.portrait_maps.f[0], atol=2e-3, rtol=2e-3)
        torch.testing.assert_close(own.frame_to_crop[i].double(), motion.portrait_maps.frame_to_crop[0], atol=1e-4, rtol=1e-4)


# The loss


def test_conditional_frames_are_clean_and_do_not_count(index, vid2vid):
    torch.manual_seed(0)
    objective = Objective(from_scratch(TOY.dit), linear_schedule(), torch.float32)
    torch.nn.init.normal_(objective.dit.final_layer.linear.weight, std=0.1)
    batch = load(index, draw(index, CLIPS, 0, 0, 1000))
    maps = maps_of(vid2vid.warping, batch)
    known = torch.zeros_like(batch.conditional)
    known[:, 0] = True
    batch = replace(batch, conditional=known)
    value = objective(batch, *maps)
    other = batch.noise.clone()
    other[:, 0] += 1
    assert torch.equal(objective(replace(batch, noise=other), *maps), value)
    later = batch.t.clone()
    later[:, 0] = 0
    assert torch.equal(objective(replace(batch, t=later), *maps), value)
    other[:, 1] += 1
    assert not torch.equal(objective(replace(batch, noise=other), *maps), value)


def test_faces_weigh_more(index, vid2vid):
    """A loss with a weight is the mean of the errors with that weight; without one, plain."""
    torch.manual_seed(0)
    dit = from_scratch(TOY.dit)
    batch = load(index, draw(index, FRAMES, 0, 0, 1000))
    maps, own = maps_of(vid2vid.warping, batch)
    mask = maps.mask()
    assert mask.any() and not mask.all()
    weight = face_weight(maps, batch.z, 3.0)
    torch.testing.assert_close(weight.mean((1, 2, 3, 4)), torch.ones(len(weight)))
    cells = mask.unflatten(1, (-1, 8)).unflatten(3, (-1, 8))  # (F, h, 8, w, 8)
    inside, outside = cells.all(4).all(2), ~cells.any(4).any(2)
    for at, whole, none in zip(weight.flatten(0, 2), inside, outside):
        if whole.any() and none.any():
            torch.testing.assert_close(at[whole], 4 * at[none].mean().expand_as(at[whole]))
    # The untrained network says v = 0: the loss is the mean square of v, weighted.
    v = target(linear_schedule(), batch.z, batch.t, batch.noise, "v")
    for face, expected in ((0.0, v.square().mean()), (3.0, (weight * v.square()).mean())):
        torch.testing.assert_close(Objective(dit, linear_schedule(), torch.float32, face)(batch, maps, own), expected)


def test_recomputed_blocks_give_the_same_gradients(index, vid2vid):
    from realportrait_core.train.dit import recompute_blocks

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


def test_bf16_is_close_to_fp32(index, vid2vid):
    torch.manual_seed(0)
    dit = from_scratch(TOY.dit)
    torch.nn.init.normal_(dit.final_layer.linear.weight, std=0.1)
    batch = load(index, draw(index, CLIPS, 0, 0, 1000))
    maps = maps_of(vid2vid.warping, batch)
    full, half = (Objective(dit, linear_schedule(), dtype)(batch, *maps) for dtype in (torch.float32, torch.bfloat16))
    assert half.dtype == torch.float32 and full != half
    torch.testing.assert_close(half, full, rtol=0.03, atol=0)


def test_draws_share_what_is_read_of_a_clip(index, vid2vid):
    """The loss of D draws is the mean of D losses of one draw each, motion and portrait read once."""
    torch.manual_seed(0)
    objective = Objective(from_scratch(TOY.dit), linear_schedule(), torch.float32, face=2.0)
    torch.nn.init.normal_(objective.dit.final_layer.linear.weight, std=0.1)
    batch = load(index, draw(index, replace(CLIPS, shapes=(Shape(2, clips=2, frames=4, draws=3),)), 0, 0, 1000))
    assert batch.z.shape[:2] == (4, 4) and batch.noise.shape[:2] == (12, 4) and len(set(batch.t[:, 0].tolist())) == 12
    maps, own = maps_of(vid2vid.warping, batch)
    assert len(maps) == 16
    each = [
        objective(
            replace(batch, **{name: getattr(batch, name)[d::3] for name in ("t", "noise", "conditional", "unmoved")}), maps, own
        )
        for d in range(3)
    ]
    assert len({float(value.detach()) for value in each}) == 3
    torch.testing.assert_close(objective(batch, maps, own), torch.stack(each).mean())


def test_the_mapper_is_asked_for_the_frames_latents_where_it_sees(index, vid2vid):
    batch = load(index, draw(index, CLIPS, 0, 0, 1000))
    maps, own = maps_of(vid2vid.warping, batch)
    z, even = batch.z.flatten(0, 1), face_weight(maps, batch.z, 0.0)
    said = torch.cat([z + 0.5, torch.full_like(z[:, :2], 9.0)], 1)  # the channels after the first four are free
    torch.testing.assert_close(reading_loss(TOY.dit, said, maps, batch.z, even), torch.tensor(0.25))
    seen = torch.nn.functional.avg_pool2d(maps.mask()[:, None].float(), 8)
    assert (seen == 0).any()
    torch.testing.assert_close(reading_loss(TOY.dit, torch.where(seen == 0, 7.0, said), maps, batch.z, even), torch.tensor(0.25))
    torch.manual_seed(0)
    dit = from_scratch(TOY.dit)
    plain = Objective(dit, linear_schedule(), torch.float32)(batch, maps, own)
    both = Objective(dit, linear_schedule(), torch.float32, read=0.3)(batch, maps, own)
    torch.testing.assert_close(both - plain, 0.3 * reading_loss(TOY.dit, dit.motion_latents(maps), maps, batch.z, even))


def test_a_draft_is_asked_for_the_whole_frame_and_more_for_the_face(index, vid2vid):
    batch = load(index, draw(index, CLIPS, 0, 0, 1000))
    maps, _ = maps_of(vid2vid.warping, batch)
    cfg, z = conditioned(draft_widths=(8, 8, 8)), batch.z.flatten(0, 1)
    said = torch.cat([z + 0.5, torch.zeros_like(z[:, :2])], 1)
    torch.testing.assert_close(reading_loss(cfg, said, maps, batch.z, face_weight(maps, batch.z, 3.0)), torch.tensor(0.25))
    seen = torch.nn.functional.avg_pool2d(maps.mask()[:, None].float(), 8)
    inside, outside = (torch.where(where, said, torch.cat([z, said[:, 4:]], 1)) for where in (seen > 0.5, seen <= 0.5))
    plain, weighed = (
        [float(reading_loss(cfg, part, maps, batch.z, face_weight(maps, batch.z, face))) for part in (inside, outside)]
        for face in (0.0, 3.0)
    )
    assert weighed[0] > 1.5 * plain[0] > 0 and 0 < weighed[1] < plain[1]


def test_frames_that_a_draft_misses_weigh_less(index, vid2vid):
    """So that the gradient of a frame's loss is that of a logarithm: the same for the same share of any error."""
    batch = load(index, draw(index, replace(CLIPS, shapes=(Shape(1, frames=4),)), 0, 0, 1000))
    maps, _ = maps_of(vid2vid.warping, batch)
    cfg = conditioned(draft_widths=(8, 8, 8))
    off = torch.tensor([0.1, 0.2, 0.4, 0.8]).view(4, 1, 1, 1)
    said = torch.cat([batch.z[0] + off, torch.zeros_like(batch.z[0, :, :2])], 1).requires_grad_()
    weight = frame_weight(said, maps, batch.z, 0.0, even=0.04)
    assert not weight.requires_grad
    torch.testing.assert_close(weight, (0.04 / (0.04 + off**2)).expand_as(weight[0])[None])
    reading_loss(cfg, said, maps, batch.z, weight).backward()
    slope = said.grad[:, :4].sum((1, 2, 3)) * off.flatten() / 2  # d loss / d log(off) of each frame
    torch.testing.assert_close(slope, (0.04 * off**2 / (0.04 + off**2)).flatten() / 4)
    objective = [Objective(from_scratch(cfg), linear_schedule(), torch.float32, even=even) for even in (0.0, 0.04)]
    objective[1].dit.load_state_dict(objective[0].dit.state_dict())
    plain, evened = (float(each(batch, *maps_of(vid2vid.warping, batch)).detach()) for each in objective)
    assert 0 < evened < plain


def test_weights_without_a_draft_go_on_with_a_silent_one(index, vid2vid, tmp_path):
    torch.manual_seed(0)
    save_dit(tmp_path / "old.safetensors", from_scratch(TOY.dit))
    cfg = replace(TOY, dit=conditioned(draft_widths=(8, 16, 8)))
    old, grown = load_dit(tmp_path / "old.safetensors"), start(cfg, tmp_path / "old.safetensors")
    assert grown.cfg == cfg.dit and all(parameter.requires_grad for parameter in grown.parameters())
    batch = load(index, draw(index, CLIPS, 0, 0, 1000))
    maps, own = maps_of(vid2vid.warping, batch)
    losses = [Objective(dit, linear_schedule(), torch.float32)(batch, maps, own) for dit in (old, grown)]
    torch.testing.assert_close(*losses, rtol=1e-5, atol=0)  # weights of a file and in memory


def learns_alone(dit: RealPortraitDiT, index, vid2vid, folder) -> set[str]:
    """Trains motion mapper and draft by themselves, which must help, and names the weights that have changed."""
    before = {name: value.clone() for name, value in dit.state_dict().items()}
    stage = Stage((Shape(2, frames=4),), steps=60, lr=1e-2, warmup=2, average=0.5, read=1.0, alone=True)
    objective = make_objective(dit, stage, torch.float32)
    batch = load(index, draw(index, stage, 5, 999, 1000))
    maps = maps_of(vid2vid.warping, batch)
    first = float(objective(batch, *maps).detach())
    after = train_stage(objective, stage, index, vid2vid.warping, folder / "maps.ckpt", Budget(steps=60))
    changed = {name for name, value in after.state_dict().items() if not torch.equal(value, before[name])}
    assert float(make_objective(after, stage, torch.float32)(batch, *maps).detach()) < 0.7 * first
    return changed


def test_a_draft_by_itself_learns_and_leaves_the_backbone(index, vid2vid, tmp_path):
    torch.manual_seed(0)
    dit = from_scratch(conditioned(draft_widths=(16, 16, 16)))
    changed = learns_alone(dit, index, vid2vid, tmp_path)
    assert {".".join(name.split(".")[:2]) for name in changed} == {"conditioner.mapper", "conditioner.draft"}
    assert {f"conditioner.draft.{name}.weight" for name in ("fields", "coarse.1.conv2", "leave")} <= changed


@pytest.mark.parametrize("muon", [False, True])
@pytest.mark.parametrize("alone", [False, True], ids=["frames", "alone"])
def test_a_stage_that_does_not_ask_every_weight_goes_on_as_if_not_stopped(index, vid2vid, tmp_path, monkeypatch, alone, muon):
    stage = Stage((Shape(2, clips=2),), steps=6, lr=1e-2, warmup=2, average=0.5, read=1.0, alone=alone, muon=muon)
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)

    class Stopping(Report):
        def step(self, step, spent, scalars):
            if step == 4:  # the checkpoint is one of 3 steps then
                raise KeyboardInterrupt

    def trained(name: str, report: Report | None = None) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        objective = make_objective(from_scratch(conditioned(draft_widths=(16, 16, 16))), stage, torch.float32)
        return train_stage(objective, stage, index, vid2vid.warping, tmp_path / name, Budget(6), report=report).state_dict()

    whole = trained("whole.ckpt")
    with pytest.raises(KeyboardInterrupt):
        trained("stopped.ckpt", Stopping(ALONE))
    assert torch.load(tmp_path / "stopped.ckpt", weights_only=True)["step"] == 3
    resumed = trained("stopped.ckpt")
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_the_mapper_by_itself_learns_and_leaves_the_rest(index, vid2vid, tmp_path):
    torch.manual_seed(0)
    dit = from_scratch(conditioned(motion_blocks=1))
    changed = learns_alone(dit, index, vid2vid, tmp_path)
    assert changed and all(name.startswith(("conditioner.mapper.", "conditioner.deeper.")) for name in changed)
    assert {"conditioner.deeper.0.conv2.weight", "conditioner.deeper.1.weight"} <= changed


# Distillation


def student_of(teacher: RealPortraitDiT, steps: int = 4) -> RealPortraitDiT:
    student = RealPortraitDiT(replace(teacher.cfg, distilled_steps=steps))
    student.load_state_dict(teacher.state_dict())
    return student


def speaking() -> RealPortraitDiT:
    torch.manual_seed(0)
    dit = from_scratch(TOY.dit)
    torch.nn.init.normal_(dit.final_layer.linear.weight, std=0.3)
    return dit.eval()


def test_what_leads_to_an_end_is_its_step_of_ddim():
    torch.manual_seed(0)
    coarse = linear_schedule().trailing(4)
    x, end = torch.randn(2, 4, 2, 4, 8, 8, dtype=torch.float64)
    for step in range(4):
        t = torch.full((4, 2), step)
        torch.testing.assert_close(ddim_step(coarse, x, t, distil.leads_to(coarse, x, t, end)), end)


def test_the_teacher_walks_as_ddim_does(index, vid2vid):
    """Walk after walk from pure noise, the first frame known: sample_ddim with as many steps."""
    teacher, batch = speaking(), load(index, draw(index, replace(CLIPS, shapes=CLIPS.shapes[:1]), 0, 0, 1000))
    conditional = torch.arange(4).expand(2, 4) == 0
    batch = replace(batch, conditional=conditional)
    maps, own = maps_of(vid2vid.warping, batch)
    fine = linear_schedule().trailing(2 * distil.SUBSTEPS)
    with torch.no_grad():
        denoise = denoiser(teacher, batch, *conditions(teacher, batch, maps, own))
        x = torch.where(conditional[..., None, None, None], batch.z, batch.noise)
        for start in (2 * distil.SUBSTEPS - 1, distil.SUBSTEPS - 1):
            x = distil.walk(denoise, fine, x, torch.full_like(batch.t, start), "v", conditional)

        def second(z, t, known):  # the other clip is not looked at
            return denoise(torch.stack([z, z]), torch.stack([t, t]).long())[1]

        whole = sample_ddim(second, batch.noise[1], fine, "v", known=known_first_frames(batch.z[1, :1], batch.z[1]))
    torch.testing.assert_close(x[1], whole)


def test_a_teacher_that_walks_one_step_has_nothing_to_teach(index, vid2vid, monkeypatch):
    teacher, batch = speaking(), load(index, draw(index, CLIPS, 0, 0, 1000))
    maps, own = maps_of(vid2vid.warping, batch)

    def loss() -> torch.Tensor:
        return distil.Distillation(student_of(teacher), teacher, linear_schedule(), torch.float32, 3.0)(batch, maps, own)

    several = loss()
    monkeypatch.setattr(distil, "SUBSTEPS", 1)
    assert loss() < 1e-6 < 1e-4 < several


def test_a_student_comes_nearer_to_its_teacher(index, vid2vid, tmp_path):
    stage = replace(CLIPS, steps=30, lr=1e-3, average=0.5, distil=4)
    teacher = speaking()
    frozen = {name: value.clone() for name, value in teacher.state_dict().items()}
    held_out = [load(index, draw(index, stage, 99, step, 1000)) for step in range(6)]

    @torch.no_grad()
    def distance(student: RealPortraitDiT) -> float:
        measured = distil.Distillation(student, teacher, linear_schedule(), torch.float32)
        return float(sum(measured(batch, *maps_of(vid2vid.warping, batch)) for batch in held_out))

    before = distance(student_of(teacher))
    objective = distil.Distillation(student_of(teacher), teacher, linear_schedule(), torch.float32)
    trained = train_stage(objective, stage, index, vid2vid.warping, tmp_path / "a.ckpt", Budget(30))
    assert trained.cfg.distilled_steps == 4 and distance(trained) < 0.9 * before
    assert all(torch.equal(value, frozen[name]) for name, value in teacher.state_dict().items())


def test_distillation_is_a_command(vid2vid, tmp_path):
    """Teacher in; out come weights that say how many steps they are for. Without a teacher, a sentence."""
    weights = {name: tmp_path / f"{name}.safetensors" for name in ("vid2vid", "teacher", "student")}
    save_vid2vid(weights["vid2vid"], vid2vid)
    save_dit(weights["teacher"], speaking())
    note = {"vid2vid": weights_fingerprint(load_vid2vid(weights["vid2vid"]))}
    save_sample(tmp_path / "samples" / "clip.safetensors", sample("video", 20, [0, 5], 0), note)
    told = StageRun(tmp_path / "samples", weights["vid2vid"], weights["student"], "mini", steps=2, device="cpu")
    with pytest.raises(InputError, match="needs a teacher"):
        run_stage(told, 2, TOY)
    told = replace(told, init=weights["teacher"])
    with pytest.raises(InputError, match="leave --shard away"):
        run_stage(replace(told, shard=True), 2, TOY)
    run_stage(told, 2, TOY)
    student = load_dit(weights["student"])
    assert student.cfg == replace(TOY.dit, distilled_steps=4)
    with pytest.raises(InputError, match="distilled for 4 steps of ddim_trailing; 20 of ddim were asked for"):
        render(student, linear_schedule(), torch.zeros(1, 4, 8, 8), None, steps=20, solver="ddim")


# The loop


def run(index, vid2vid, checkpoint: Path, stage: Stage = CLIPS, steps: int = 6, **options) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    dit = from_scratch(TOY.dit)
    objective = Objective(dit, linear_schedule(), torch.float32)
    return train_stage(objective, stage, index, vid2vid.warping, checkpoint, Budget(steps), **options).state_dict()


def losses(log_text: str) -> list[float]:
    return [float(line.split("loss ")[1].split()[0]) for line in log_text.splitlines() if "  loss " in line]


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
    with pytest.raises(InputError, match="Muon needs whole matrices"):
        run(index, vid2vid, tmp_path / "a.ckpt", replace(CLIPS, muon=True), shard=True)
    with pytest.raises(InputError, match="frames of 64 px; the network is trained at 256 px"):
        read_index(index.paths[0].parent, 256)
    with pytest.raises(InputError, match="no training sample"):
        read_index(tmp_path, 64)
    for wrong in ({}, {"steps": 3, "minutes": 2.0}, {"steps": 0}, {"minutes": -1.0}):
        with pytest.raises(InputError, match="so many steps or so many minutes"):
            Budget(**wrong)


# Other processes


PROGRAM = """
import json, logging, os, sys, torch
sys.path.insert(0, {tests!r}); import conftest
import test_train_stages as toy
from pathlib import Path
from dataclasses import replace
from realportrait_core.train import __main__ as train_command
from realportrait_core.train import curves, loop
from realportrait_core.train.report import Report
from realportrait_core.train.world import enter, leave
torch.set_num_threads(1)
loop.SAVE_EVERY = 0.0
world = enter("cpu")
index = toy.read_index(Path({samples!r}), 64)
torch.manual_seed(0)
vid2vid = toy.FaceVid2Vid(toy.TOY.vid2vid).eval()

class Telling(Report):
    def step(self, step, spent, scalars):
        super().step(step, spent, scalars)
        if self.world.first:
            with open({out!r}, "a") as file:
                file.write(json.dumps([step, scalars["loss"], scalars["norm"]]) + chr(10))

stage = replace(toy.CLIPS, muon={muon})
state = toy.run(index, vid2vid, Path({checkpoint!r}), stage, {steps}, world=world, shard={shard}, report=Telling(world))
leave(world)
"""


def program(tmp_path: Path, folder: Path, name: str, steps: int = 6, muon: bool = False, shard: bool = False) -> list[str]:
    text = PROGRAM.format(
        tests=str(yunet.ROOT / "tests"),
        samples=str(folder),
        out=str(tmp_path / f"{name}.jsonl"),
        muon=muon,
        checkpoint=str(tmp_path / f"{name}.ckpt"),
        steps=steps,
        shard=shard,
    )
    (tmp_path / f"{name}.py").write_text(text)
    return [str(tmp_path / f"{name}.py")]


def told(path: Path) -> list[tuple[int, float]]:
    return [tuple(json.loads(line)[:2]) for line in path.read_text().splitlines()] if path.is_file() else []


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in ("WORLD_SIZE", "RANK", "LOCAL_RANK")}


def test_killed_at_any_moment_a_run_ends_as_one_that_was_not(folder, tmp_path):
    """SIGKILL three times, wherever it is then; losses and checkpoint equal those of one that ran through."""
    steps = 60
    subprocess.run([sys.executable, *program(tmp_path, folder, "whole", steps, muon=True)], check=True, env=environment())
    whole = told(tmp_path / "whole.jsonl")
    assert [step for step, _ in whole] == list(range(1, steps + 1))
    command, reached = [sys.executable, *program(tmp_path, folder, "killed", steps, muon=True)], 0
    for kill_after in (4, 15, 30):
        process = subprocess.Popen(command, env=environment())
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None and reached < kill_after:
            time.sleep(0.01)
            reached = max((step for step, _ in told(tmp_path / "killed.jsonl")[:-1]), default=0)
        assert process.poll() is None, "it ended before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command, check=True, env=environment())
    assert len(told(tmp_path / "killed.jsonl")) >= steps
    assert dict(told(tmp_path / "killed.jsonl")) == dict(whole)
    for step, value in told(tmp_path / "killed.jsonl"):
        assert value == dict(whole)[step]
    ends = [torch.load(tmp_path / f"{name}.ckpt", weights_only=True) for name in ("whole", "killed")]
    for part in ("model", "average"):
        assert all(torch.equal(value, ends[1][part][name]) for name, value in ends[0][part].items())


@pytest.mark.parametrize("shard", [False, True], ids=["ddp", "fsdp2"])
def test_two_processes_give_the_losses_of_one(folder, tmp_path, shard):
    subprocess.run([sys.executable, *program(tmp_path, folder, "one")], check=True, env=environment())
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    half = [*torchrun, *program(tmp_path, folder, "two", shard=shard)]
    done = subprocess.run(half, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    one, two = told(tmp_path / "one.jsonl"), told(tmp_path / "two.jsonl")
    assert [step for step, _ in two] == [1, 2, 3, 4, 5, 6]
    for (_, expected), (_, value) in zip(one, two):
        assert abs(value - expected) < 1e-3 * expected
    alone, together = (torch.load(tmp_path / f"{name}.ckpt", weights_only=True) for name in ("one", "two"))
    assert alone["average"].keys() == together["average"].keys()
    for name, value in alone["average"].items():
        torch.testing.assert_close(together["average"][name], value, atol=2e-3, rtol=0)
    # What two wrote, one can go on with.
    subprocess.run([sys.executable, *program(tmp_path, folder, "two", steps=8)], check=True, env=environment())
    assert told(tmp_path / "two.jsonl")[-1][0] == 8


# From a folder of videos to weights


def test_a_folder_of_videos_becomes_weights(tmp_path, capsys, caplog):
    """The README's way, each command once, in MINI's size and two steps a stage."""
    pytest.importorskip("av")
    bundled = yunet.ROOT / "realportrait_core" / "weights"
    vid2vid, vae = (
        str(bundled / name)
        for name in ("realportrait/realportrait_mini_vid2vid.safetensors", "vae/realportrait_mini_vae.safetensors")
    )
    videos = tmp_path / "my videos"
    videos.mkdir()
    for name in ("800000.mp4", "810000.mp4"):
        (videos / name).symlink_to(yunet.ROOT / "tests" / "data" / name)
    (videos / "portrait.png").symlink_to(yunet.ROOT / "assets" / "portrait.png")
    samples = str(tmp_path / "samples")
    assert (
        prepare_command.main(
            [str(videos), "--out", samples, "--weights", vid2vid, "--vae", vae, "--preset", "mini", "--detector", str(yunet.onnx())]
        )
        == 0
    )
    caplog.set_level(logging.INFO)
    common = ["--samples", samples, "--vid2vid", vid2vid, "--preset", "mini", "--steps", "2", "--batch", "0.25"]
    stage_1, mine = str(tmp_path / "stage1.safetensors"), str(tmp_path / "mine.safetensors")
    assert train_command.main(["frames", *common, "--out", stage_1, "--board", str(tmp_path / "board"), "--vae", vae]) == 0
    assert "3 samples (2 videos, 1 pictures)" in caplog.text and "s a step, 2 steps" in caplog.text
    assert train_command.main(["clips", *common, "--out", mine, "--init", stage_1]) == 0
    dit = load_dit(mine)
    assert dit.cfg == MINI.dit and any(
        not torch.equal(value, load_dit(stage_1).state_dict()[name]) for name, value in dit.state_dict().items()
    )

    assert train_command.main(["frames", *common, "--out", stage_1]) == 1
    assert "1 of the samples are photographs, of which every step encodes a new crop" in caplog.text
    shuffled = FaceVid2Vid(MINI.vid2vid)
    save_vid2vid(tmp_path / "other.safetensors", shuffled)
    common[3] = str(tmp_path / "other.safetensors")
    assert train_command.main(["frames", *common, "--out", stage_1]) == 1
    assert "were made with another Face Vid2vid" in caplog.text
    assert train_command.main(["clips", *common, "--init", vid2vid, "--out", mine]) == 1


# What a training says of itself


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
    run(index, vid2vid, tmp_path / "a.ckpt", report=Report(ALONE, tmp_path / "board"))
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


# What a departure from the paper is worth


def test_each_variant_lacks_what_it_is_named_for():
    tried = departures.variants(MINI.dit)

    def fields(variant: departures.Variant) -> dict:
        own = asdict(variant.cfg.conditioner or ConditionerConfig())
        return asdict(variant.cfg) | {"conditioner": variant.cfg.conditioner is not None} | own

    changed = {
        name: {key for key, value in fields(variant).items() if value != fields(tried[variant.beside])[key]}
        for name, variant in tried.items()
        if variant.beside is not None
    }
    assert changed == {
        "no draft": {"draft_widths"},
        "plain loss": set(),
        "mask_reach 1": {"mask_reach"},
        "motion_blocks 0": {"motion_blocks"},
        "none of them": {"conditioner", "draft_widths", "reference_motion", "mask_reach", "motion_blocks", "motion_latent"},
        "no draft or reference_motion": {"reference_motion"},
        "MINI again": set(),
    }
    for variant in tried.values():
        plan = variant.plan(departures.mini_stages(0.5))
        stages, shares = zip(*plan)
        assert sum(shares) == 1 and [stage.alone for stage in stages] == ([False] if variant.plain else [True, False])
        assert [shape.portraits for shape in stages[-1].shapes] == [2, 1] and (stages[-1].read == 0) == variant.plain


def test_departures_are_trained_for_equal_time_and_set_side_by_side(index, vid2vid):
    """Two variants of random networks, for a second of a core each, on two clips of 4 frames."""
    pytest.importorskip("av")
    networks = Networks(
        vid2vid,
        RealPortraitDiT(TOY.dit),
        random_weights(TinyVAE((4, 4, 4, 4)), "cpu"),
        FaceDetector(yunet.onnx()),
        linear_schedule(),
    )
    clips, _ = quality.prepared_clips(networks, Path(__file__).parent / "data", 2, 4)
    tried = departures.variants(conditioned(draft_widths=(8, 8, 8), motion_blocks=1))
    tried = {name: tried[name] for name in (departures.FULL, "none of them")}
    stages = replace(CLIPS, read=1.0, alone=True), replace(CLIPS, read=1.0)
    began = time.process_time()
    rows = {row.name: row for row in departures.rows(networks, clips, tried, index, stages, 1 / 60, torch.float32)}
    assert time.process_time() - began > 2
    still, full, paper = rows.values()
    assert still.steps == () and len(full.steps) == 2 and len(paper.steps) == 1 and min(full.steps + paper.steps) > 0
    assert full.parameters > paper.parameters
    assert set(full.figures) == {1.0, 1.5} and set(full.figures[1.0]) == {"psnr_db", "keypoint_error_px"}  # no judge was named
    assert full.figures[1.0]["psnr_db"] != paper.figures[1.0]["psnr_db"]
    columns = departures.header().splitlines()[0].count("|")
    lines = [departures.line(row, rows) for row in rows.values()]
    assert all(line.count("|") == columns for line in lines) and "±" in lines[2] and "±" not in lines[1]
    with pytest.raises(InputError, match="two clips"):
        next(departures.rows(networks, clips[:1], tried, index, stages, 1.0, torch.float32))


def test_variants_are_chosen_by_name_with_what_they_are_set_beside():
    tried = departures.variants(MINI.dit)
    assert departures.chosen(tried, None) == tried
    assert list(departures.chosen(tried, "mask_reach 1,plain loss")) == ["MINI", "plain loss", "mask_reach 1"]
    both = "no draft or reference_motion"
    assert list(departures.chosen(tried, both)) == ["MINI", "no draft", both]
    with pytest.raises(InputError, match="no variant 'less'; there are MINI, no draft"):
        departures.chosen(tried, "less")


def test_a_variant_starts_from_the_weights_that_it_has_a_place_for():
    torch.manual_seed(0)
    given = from_scratch(conditioned(draft_widths=(8, 8, 8), motion_blocks=1))
    for variant in departures.variants(given.cfg).values():
        ours, theirs = departures.started(variant.cfg, given).state_dict(), given.state_dict()
        taken = {key for key, value in ours.items() if key in theirs and torch.equal(value, theirs[key])}
        assert {key for key in ours if key.startswith(("blocks.", "controlnet."))} <= taken
        if variant.cfg.conditioner is None:
            assert torch.equal(ours["motion_net.0.weight"], theirs["conditioner.mapper.0.weight"])
        else:
            assert "conditioner.mapper.0.weight" in taken
    whole = departures.started(given.cfg, given).state_dict()
    assert all(torch.equal(value, whole[key]) for key, value in given.state_dict().items())


def test_a_difference_is_known_as_well_as_its_clips_agree():
    assert departures.difference([3.0, 4.0, 8.0], [2.0, 2.0, 5.0]) == pytest.approx((2.0, 1 / 3**0.5))
