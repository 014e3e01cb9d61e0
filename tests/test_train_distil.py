"""Distillation to few steps: the teacher's walk, and a student that comes nearer to it."""

from dataclasses import replace

import pytest
import torch
from toy import CLIPS, TOY, folder, index, sample, vid2vid  # noqa: F401, fixtures

from realportrait_core.animation.rendering import render
from realportrait_core.diffusion.conditional import known_first_frames
from realportrait_core.diffusion.sampling import ddim_step, sample_ddim
from realportrait_core.diffusion.schedule import linear_schedule
from realportrait_core.dit.checkpoint import load_dit, save_dit
from realportrait_core.dit.model import RealPortraitDiT
from realportrait_core.errors import InputError
from realportrait_core.train import distil
from realportrait_core.train.batch import draw, load, maps_of
from realportrait_core.train.budget import Budget
from realportrait_core.train.data.prepare import weights_fingerprint
from realportrait_core.train.data.sample import save_sample
from realportrait_core.train.denoiser import conditions, denoiser
from realportrait_core.train.initial import from_scratch
from realportrait_core.train.run import StageRun, run_stage
from realportrait_core.train.stage import train_stage
from realportrait_core.vid2vid.checkpoint import load_vid2vid, save_vid2vid


def student_of(teacher: RealPortraitDiT, steps: int = 4) -> RealPortraitDiT:
    student = RealPortraitDiT(replace(teacher.cfg, distilled_steps=steps))
    student.load_state_dict(teacher.state_dict())
    return student


def teacher_network() -> RealPortraitDiT:
    torch.manual_seed(0)
    dit = from_scratch(TOY.dit)
    torch.nn.init.normal_(dit.final_layer.linear.weight, std=0.3)
    return dit.eval()


def test_the_x0_of_a_step_leads_to_its_end_by_ddim():
    torch.manual_seed(0)
    coarse = linear_schedule().trailing(4)
    x, end = torch.randn(2, 4, 2, 4, 8, 8, dtype=torch.float64)
    for step in range(4):
        t = torch.full((4, 2), step)
        torch.testing.assert_close(ddim_step(coarse, x, t, distil.x0_of_step(coarse, x, t, end)), end)


def test_the_teacher_walks_as_ddim_does(index, vid2vid):
    """Walk after walk from pure noise, the first frame known: sample_ddim with as many steps."""
    teacher, batch = teacher_network(), load(index, draw(index, replace(CLIPS, shapes=CLIPS.shapes[:1]), 0, 0, 1000))
    conditional = torch.arange(4).expand(2, 4) == 0
    batch = replace(batch, conditional=conditional)
    maps, own = maps_of(vid2vid.warping, batch)
    fine = linear_schedule().trailing(2 * distil.SUBSTEPS)
    with torch.no_grad():
        denoise = denoiser(teacher, batch, *conditions(teacher, batch, maps, own))
        x = torch.where(conditional[..., None, None, None], batch.z, batch.noise)
        for start in (2 * distil.SUBSTEPS - 1, distil.SUBSTEPS - 1):
            x = distil.walk(denoise, fine, x, torch.full_like(batch.t, start), "v", conditional)

        def second(z, t, known):  # the other clip is not used
            return denoise(torch.stack([z, z]), torch.stack([t, t]).long())[1]

        whole = sample_ddim(second, batch.noise[1], fine, "v", known=known_first_frames(batch.z[1, :1], batch.z[1]))
    torch.testing.assert_close(x[1], whole)


def test_a_teacher_that_walks_one_step_has_nothing_to_teach(index, vid2vid, monkeypatch):
    teacher, batch = teacher_network(), load(index, draw(index, CLIPS, 0, 0, 1000))
    maps, own = maps_of(vid2vid.warping, batch)

    def loss() -> torch.Tensor:
        return distil.Distillation(student_of(teacher), teacher, linear_schedule(), torch.float32, 3.0)(batch, maps, own)

    several = loss()
    monkeypatch.setattr(distil, "SUBSTEPS", 1)
    assert loss() < 1e-6 < 1e-4 < several


def test_a_student_comes_nearer_to_its_teacher(index, vid2vid, tmp_path):
    stage = replace(CLIPS, steps=30, lr=1e-3, average=0.5, distil=4)
    teacher = teacher_network()
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
    """Teacher in; out come weights that carry their number of steps. Without a teacher, an InputError."""
    weights = {name: tmp_path / f"{name}.safetensors" for name in ("vid2vid", "teacher", "student")}
    save_vid2vid(weights["vid2vid"], vid2vid)
    save_dit(weights["teacher"], teacher_network())
    note = {"vid2vid": weights_fingerprint(load_vid2vid(weights["vid2vid"]))}
    save_sample(tmp_path / "samples" / "clip.safetensors", sample("video", 20, [0, 5], 0), note)
    given = StageRun(tmp_path / "samples", weights["vid2vid"], weights["student"], "mini", steps=2, device="cpu")
    with pytest.raises(InputError, match="needs a teacher"):
        run_stage(given, "distil", TOY)
    given = replace(given, init=weights["teacher"])
    with pytest.raises(InputError, match="leave --shard away"):
        run_stage(replace(given, shard=True), "distil", TOY)
    run_stage(given, "distil", TOY)
    student = load_dit(weights["student"])
    assert student.cfg == replace(TOY.dit, distilled_steps=4)
    with pytest.raises(InputError, match="distilled for 4 steps of ddim_trailing; 20 of ddim were asked for"):
        render(student, linear_schedule(), torch.zeros(1, 4, 8, 8), None, steps=20, solver="ddim")
