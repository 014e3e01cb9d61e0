"""The objectives on toy samples: the paper's loss, weights of places and frames, latent regression."""

from dataclasses import replace

import pytest
import torch
from toy import CLIPS, FRAMES, TOY, conditioned, folder, index, vid2vid  # noqa: F401, fixtures

from realportrait_core.diffusion.schedule import linear_schedule, target
from realportrait_core.dit.checkpoint import load_dit, save_dit
from realportrait_core.dit.model import RealPortraitDiT
from realportrait_core.train import loop
from realportrait_core.train.batch import draw, load, maps_of
from realportrait_core.train.budget import Budget
from realportrait_core.train.initial import from_scratch, initial_network
from realportrait_core.train.latent_regression import latent_regression_loss
from realportrait_core.train.loss_weight import face_weight, frame_weight
from realportrait_core.train.objective import Objective
from realportrait_core.train.report import Report
from realportrait_core.train.run import make_objective
from realportrait_core.train.stage import train_stage
from realportrait_core.train.stages import Shape, Stage
from realportrait_core.train.world import SINGLE_PROCESS

# The paper's loss


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
    # The untrained network predicts v = 0: the loss is the mean square of v, weighted.
    v = target(linear_schedule(), batch.z, batch.t, batch.noise, "v")
    for face, expected in ((0.0, v.square().mean()), (3.0, (weight * v.square()).mean())):
        torch.testing.assert_close(Objective(dit, linear_schedule(), torch.float32, face)(batch, maps, own), expected)


def test_bf16_is_close_to_fp32(index, vid2vid):
    torch.manual_seed(0)
    dit = from_scratch(TOY.dit)
    torch.nn.init.normal_(dit.final_layer.linear.weight, std=0.1)
    batch = load(index, draw(index, CLIPS, 0, 0, 1000))
    maps = maps_of(vid2vid.warping, batch)
    full, half = (Objective(dit, linear_schedule(), dtype)(batch, *maps) for dtype in (torch.float32, torch.bfloat16))
    assert half.dtype == torch.float32 and full != half
    torch.testing.assert_close(half, full, rtol=0.03, atol=0)


def test_draws_share_motion_and_portrait_of_a_clip(index, vid2vid):
    """The loss of D draws is the mean of D losses of one draw each, motion and portrait encoded once."""
    torch.manual_seed(0)
    objective = Objective(from_scratch(TOY.dit), linear_schedule(), torch.float32, face=2.0)
    torch.nn.init.normal_(objective.dit.final_layer.linear.weight, std=0.1)
    batch = load(index, draw(index, replace(CLIPS, shapes=(Shape(2, clips=2, frames=4, noises=3),)), 0, 0, 1000))
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


# Latent regression


def test_the_mapper_is_regressed_to_the_frames_latents_inside_its_mask(index, vid2vid):
    batch = load(index, draw(index, CLIPS, 0, 0, 1000))
    maps, own = maps_of(vid2vid.warping, batch)
    z = batch.z.flatten(0, 1)

    def regression(motion: torch.Tensor) -> torch.Tensor:
        return latent_regression_loss(TOY.dit, motion, maps, batch.z, face_weight(maps, batch.z, 0.0))

    predicted = torch.cat([z + 0.5, torch.full_like(z[:, :2], 9.0)], 1)  # the channels after the first four are free
    torch.testing.assert_close(regression(predicted), torch.tensor(0.25))
    seen = torch.nn.functional.avg_pool2d(maps.mask()[:, None].float(), 8)
    assert (seen == 0).any()
    torch.testing.assert_close(regression(torch.where(seen == 0, 7.0, predicted)), torch.tensor(0.25))
    torch.manual_seed(0)
    dit = from_scratch(TOY.dit)
    plain = Objective(dit, linear_schedule(), torch.float32)(batch, maps, own)
    both = Objective(dit, linear_schedule(), torch.float32, latent_regression=0.3)(batch, maps, own)
    torch.testing.assert_close(both - plain, 0.3 * regression(dit.motion_latents(maps)))


def test_a_draft_is_regressed_to_the_whole_frame_and_more_so_to_the_face(index, vid2vid):
    batch = load(index, draw(index, CLIPS, 0, 0, 1000))
    maps, _ = maps_of(vid2vid.warping, batch)
    cfg, z = conditioned(draft_widths=(8, 8, 8)), batch.z.flatten(0, 1)
    predicted = torch.cat([z + 0.5, torch.zeros_like(z[:, :2])], 1)
    torch.testing.assert_close(
        latent_regression_loss(cfg, predicted, maps, batch.z, face_weight(maps, batch.z, 3.0)), torch.tensor(0.25)
    )
    seen = torch.nn.functional.avg_pool2d(maps.mask()[:, None].float(), 8)
    inside, outside = (torch.where(where, predicted, torch.cat([z, predicted[:, 4:]], 1)) for where in (seen > 0.5, seen <= 0.5))
    plain, weighed = (
        [float(latent_regression_loss(cfg, part, maps, batch.z, face_weight(maps, batch.z, face))) for part in (inside, outside)]
        for face in (0.0, 3.0)
    )
    assert weighed[0] > 1.5 * plain[0] > 0 and 0 < weighed[1] < plain[1]


def test_frames_that_a_draft_misses_weigh_less(index, vid2vid):
    """So that the gradient of a frame's loss is that of a logarithm: the same for the same share of any error."""
    batch = load(index, draw(index, replace(CLIPS, shapes=(Shape(1, frames=4),)), 0, 0, 1000))
    maps, _ = maps_of(vid2vid.warping, batch)
    cfg = conditioned(draft_widths=(8, 8, 8))
    off = torch.tensor([0.1, 0.2, 0.4, 0.8]).view(4, 1, 1, 1)
    predicted = torch.cat([batch.z[0] + off, torch.zeros_like(batch.z[0, :, :2])], 1).requires_grad_()
    weight = frame_weight(predicted, maps, batch.z, 0.0, error_reweighting=0.04)
    assert not weight.requires_grad
    torch.testing.assert_close(weight, (0.04 / (0.04 + off**2)).expand_as(weight[0])[None])
    latent_regression_loss(cfg, predicted, maps, batch.z, weight).backward()
    slope = predicted.grad[:, :4].sum((1, 2, 3)) * off.flatten() / 2  # d loss / d log(off) of each frame
    torch.testing.assert_close(slope, (0.04 * off**2 / (0.04 + off**2)).flatten() / 4)
    objective = [Objective(from_scratch(cfg), linear_schedule(), torch.float32, error_reweighting=each) for each in (0.0, 0.04)]
    objective[1].dit.load_state_dict(objective[0].dit.state_dict())
    plain, reweighted = (float(each(batch, *maps_of(vid2vid.warping, batch)).detach()) for each in objective)
    assert 0 < reweighted < plain


def test_weights_without_a_draft_start_with_a_new_one_that_changes_nothing(index, vid2vid, tmp_path):
    torch.manual_seed(0)
    save_dit(tmp_path / "old.safetensors", from_scratch(TOY.dit))
    cfg = replace(TOY, dit=conditioned(draft_widths=(8, 16, 8)))
    old, grown = load_dit(tmp_path / "old.safetensors"), initial_network(cfg, tmp_path / "old.safetensors")
    assert grown.cfg == cfg.dit and all(parameter.requires_grad for parameter in grown.parameters())
    batch = load(index, draw(index, CLIPS, 0, 0, 1000))
    maps, own = maps_of(vid2vid.warping, batch)
    losses = [Objective(dit, linear_schedule(), torch.float32)(batch, maps, own) for dit in (old, grown)]
    torch.testing.assert_close(*losses, rtol=1e-5, atol=0)  # weights of a file and in memory


def train_mapper_only(dit: RealPortraitDiT, index, vid2vid, folder) -> set[str]:
    """Trains motion mapper and draft by themselves, which must help, and names the weights that have changed."""
    before = {name: value.clone() for name, value in dit.state_dict().items()}
    stage = Stage((Shape(2, frames=4),), steps=60, lr=1e-2, warmup=2, average=0.5, latent_regression=1.0, mapper_only=True)
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
    changed = train_mapper_only(dit, index, vid2vid, tmp_path)
    assert {".".join(name.split(".")[:2]) for name in changed} == {"conditioner.mapper", "conditioner.draft"}
    assert {f"conditioner.draft.{name}.weight" for name in ("fields", "coarse.1.conv2", "leave")} <= changed


@pytest.mark.parametrize("muon", [False, True])
@pytest.mark.parametrize("mapper_only", [False, True], ids=["frames", "mapper"])
def test_a_stage_with_weights_without_a_gradient_resumes_exactly(index, vid2vid, tmp_path, monkeypatch, mapper_only, muon):
    stage = Stage(
        (Shape(2, clips=2),), steps=6, lr=1e-2, warmup=2, average=0.5, latent_regression=1.0, mapper_only=mapper_only, muon=muon
    )
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
        trained("stopped.ckpt", Stopping(SINGLE_PROCESS))
    assert torch.load(tmp_path / "stopped.ckpt", weights_only=True)["step"] == 3
    resumed = trained("stopped.ckpt")
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_the_mapper_by_itself_learns_and_leaves_the_rest(index, vid2vid, tmp_path):
    torch.manual_seed(0)
    dit = from_scratch(conditioned(motion_blocks=1))
    changed = train_mapper_only(dit, index, vid2vid, tmp_path)
    assert changed and all(name.startswith(("conditioner.mapper.", "conditioner.deeper.")) for name in changed)
    assert {"conditioner.deeper.0.conv2.weight", "conditioner.deeper.1.weight"} <= changed
