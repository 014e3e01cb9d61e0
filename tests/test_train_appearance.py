"""Losses of decoded pictures, the student of few steps that is trained by them, and draws without the motion."""

import random
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from toy import TOY, sample

from realportrait_core.diffusion.schedule import linear_schedule
from realportrait_core.dit.checkpoint import load_dit, save_dit
from realportrait_core.dit.model import RealPortraitDiT
from realportrait_core.errors import InputError
from realportrait_core.train.appearance import (
    Appearance,
    Balance,
    Discriminator,
    blurred,
    feature_distance,
    relativistic_loss,
    views,
)
from realportrait_core.train.batch import draw, load, maps_of, read_index
from realportrait_core.train.data.prepare import weights_fingerprint
from realportrait_core.train.data.sample import load_sample, save_sample
from realportrait_core.train.denoiser import conditions, denoiser
from realportrait_core.train.initial import from_scratch
from realportrait_core.train.objective import Objective
from realportrait_core.train.run import StageRun, run_stage
from realportrait_core.train.stages import Shape, Stage
from realportrait_core.train.student import CROP, chosen_crops, crops
from realportrait_core.vae import TinyVAE, save_vae
from realportrait_core.vid2vid import FaceVid2Vid
from realportrait_core.vid2vid.checkpoint import save_vid2vid

CPU = torch.device("cpu")
CLIPS = Stage((Shape(2, frames=4), Shape(4, frames=2, stride=3)), steps=6, lr=3e-3, warmup=2, average=0.9)
LARGE = replace(TOY, dit=replace(TOY.dit, input_sq_size=128), image_size=128)  # a crop must fit into the latent


def textured(count: int, seed: int) -> torch.Tensor:
    """(count, 3, 64, 64) in [0, 1]: smooth shapes with fine detail."""
    torch.manual_seed(seed)
    smooth = F.interpolate(torch.rand(count, 3, 8, 8), size=64, mode="bicubic")
    return (0.7 * smooth + 0.3 * torch.rand(count, 3, 64, 64)).clamp(0, 1)


@pytest.fixture(scope="module")
def vid2vid() -> FaceVid2Vid:
    torch.manual_seed(0)
    return FaceVid2Vid(TOY.vid2vid).eval()


@pytest.fixture(scope="module")
def index(tmp_path_factory, vid2vid):
    """Three clips whose pictures are kept, of 128 px."""
    folder, note = tmp_path_factory.mktemp("samples"), {"vid2vid": weights_fingerprint(vid2vid)}
    for i in range(3):
        made = sample("video", 17 + i, [0, 5], i)
        count = len(made)
        pictures = (255 * F.interpolate(textured(count, i), size=128)).byte()
        latents = F.interpolate(made.latents.float(), size=16).half()
        save_sample(folder / f"{i}.safetensors", replace(made, size=128, latents=latents, pictures=pictures), note)
    return read_index(folder, 128)


def nonzero(dit: RealPortraitDiT) -> RealPortraitDiT:
    """A network whose prediction is not zero, as that of a fresh last layer is."""
    torch.nn.init.normal_(dit.final_layer.linear.weight, std=0.3)
    return dit


# The discriminator


def test_the_discriminator_learns_what_is_blurred():
    torch.manual_seed(0)
    judge = Appearance(CPU, torch.float32)
    learned = [float(judge.learn(2 * blurred(x) - 1, 2 * x - 1)) for x in (textured(4, i) for i in range(12))]
    assert learned[0] == pytest.approx(0.69, abs=0.05) and learned[-1] < 0.5
    unseen = 2 * textured(4, 99) - 1
    with torch.no_grad():
        sharp, soft = judge.discriminator(unseen), judge.discriminator(blurred(unseen))
    assert relativistic_loss(soft, sharp) < relativistic_loss(sharp, soft)


def test_a_picture_trained_by_appearance_gets_its_detail_back():
    """From a blurred start, where the term of pixels is smallest for what is right on average."""
    torch.manual_seed(0)
    truth = textured(2, 1)
    judge = Appearance(CPU, torch.float32, warmup=5)
    picture = blurred(truth).clone().requires_grad_()
    optimizer = torch.optim.Adam([picture], 0.01)

    def detail(x: torch.Tensor) -> float:
        return float((x - blurred(x)).detach().square().mean() / (truth - blurred(truth)).square().mean())

    before = detail(picture)
    for _ in range(40):
        loss, _ = judge(picture, truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert before < 0.1 and detail(picture) > 0.3
    assert float((picture - truth).detach().abs().mean()) < float((blurred(truth) - truth).abs().mean())


def test_equal_pictures_have_equal_features_and_no_preference():
    torch.manual_seed(0)
    with torch.no_grad():
        seen = Discriminator()(2 * textured(2, 3) - 1)
    assert feature_distance(seen, seen) == 0 and relativistic_loss(seen, seen) == pytest.approx(0.6931, abs=1e-4)


def test_shares_are_of_the_main_gradient_whatever_the_scale():
    torch.manual_seed(0)
    picture, target = torch.rand(2, 3, 8, 8, requires_grad=True), torch.rand(2, 3, 8, 8)
    main = (picture - target).abs().mean()
    (only_main,) = torch.autograd.grad(main, picture, retain_graph=True)
    for scale in (1e-3, 1e3):
        loss = Balance()(picture, main, {"other": (0.5, scale * picture.square().sum())})
        (whole,) = torch.autograd.grad(loss, picture, retain_graph=True)
        assert float((whole - only_main).norm() / only_main.norm()) == pytest.approx(0.5, rel=1e-3)
        assert float(loss.detach()) == pytest.approx(float(main.detach()), rel=1e-5)


def test_views_are_the_same_part_of_both():
    x, sizes, chance = textured(2, 0), set(), random.Random(0)
    for _ in range(20):
        a, b = views(chance, x, 1 - x)
        torch.testing.assert_close(a, 1 - b, atol=1e-5, rtol=0)
        sizes.add(a.shape[-2:])
    assert len(sizes) > 5 and all(28 <= min(size) and max(size) <= 64 for size in sizes)


def test_a_stopped_discriminator_resumes_exactly():
    def run(judge: Appearance, steps: range) -> torch.Tensor:
        for i in steps:
            torch.manual_seed(i)
            picture = blurred(textured(2, i)).requires_grad_()
            loss, _ = judge(picture, textured(2, i))
        loss.backward()
        return picture.grad

    torch.manual_seed(0)
    whole = Appearance(CPU, torch.float32, warmup=2)
    resumed = Appearance(CPU, torch.float32, warmup=2)
    resumed.load_state_dict(whole.state_dict())
    run(whole, range(4))
    run(resumed, range(4))
    again = Appearance(CPU, torch.float32, warmup=2)
    again.load_state_dict(resumed.state_dict())
    assert torch.equal(run(whole, range(4, 6)), run(again, range(4, 6)))


# Crops


def test_crops_are_parts_of_their_frames():
    torch.manual_seed(0)
    clips = torch.rand(3, 4, 2, 20, 24)
    frames, corners = torch.tensor([[0, 1], [2, 3], [1, 2]]), torch.tensor([[0, 0], [4, 8], [2, 3]])
    cut = crops(clips, frames, corners, 16, 0)
    for b in range(3):
        y, x = corners[b].tolist()
        for k in range(2):
            assert torch.equal(cut[b, k], clips[b, frames[b, k], :, y : y + 16, x : x + 16])
    wide = crops(clips, frames, corners, 16, 2)
    assert torch.equal(wide[..., 2:-2, 2:-2], cut)
    assert torch.equal(wide[0, 0, :, 0, 2:-2], clips[0, 0, :, 0, :16])  # the border again, beyond the frame
    assert torch.equal(wide[1, 0, :, 0, 2:-2], clips[1, 2, :, 2, 8:24])


def test_chosen_frames_are_neighbours_and_noised_where_there_are_such():
    torch.manual_seed(0)
    known = torch.zeros(64, 6, dtype=torch.bool)
    known[:, :2], known[:, 5] = True, True
    frames, corners = chosen_crops(torch.zeros(64, 6, 4, 32, 32), known)
    assert set(map(tuple, frames.tolist())) == {(2, 3), (3, 4)}
    assert corners.min() == 0 and corners.max() == 32 - CROP and (corners == 8).all(1).float().mean() > 0.3
    frames, _ = chosen_crops(torch.zeros(4, 1, 4, 32, 32), None)
    assert frames.eq(0).all()


# The student


def test_a_student_is_trained_by_a_command(index, vid2vid, tmp_path):
    """Weights for 4 steps; mapper and draft stay as they are; a stopped run resumes with its discriminator."""
    torch.manual_seed(0)
    own = replace(LARGE.dit.conditioner, motion_latent=8, draft_widths=(4, 4, 4))
    dit = from_scratch(replace(LARGE.dit, conditioner=own))
    cfg = replace(LARGE, dit=dit.cfg)
    files = {name: tmp_path / f"{name}.safetensors" for name in ("vid2vid", "init", "vae", "out")}
    save_vid2vid(files["vid2vid"], vid2vid, torch.float32)
    save_dit(files["init"], dit, torch.float32)
    save_vae(files["vae"], TinyVAE((4, 4, 4, 4)))
    given = StageRun(
        index.paths[0].parent, files["vid2vid"], files["out"], "mini", files["init"], steps=3, device="cpu", vae=files["vae"]
    )
    given = replace(given, batch=0.5)
    with pytest.raises(InputError, match="give the VAE with --vae"):
        run_stage(replace(given, vae=None), "student", cfg)
    run_stage(given, "student", cfg)
    student, before = load_dit(files["out"]), dit.state_dict()
    assert student.cfg == replace(dit.cfg, distilled_steps=4)
    changed = {
        name.split(".")[name.startswith("conditioner.")]
        for name, value in student.state_dict().items()
        if not torch.equal(value.half(), before[name].half())
    }  # files are in fp16
    assert {"blocks", "controlnet", "embedder", "reference_proj"} <= changed and not {"mapper", "draft"} & changed
    saved = torch.load(files["out"].with_suffix(".ckpt"), weights_only=True)
    assert saved["step"] == 3 and saved["beside"]["steps"] == 3
    run_stage(replace(given, steps=4), "student", cfg)
    assert torch.load(files["out"].with_suffix(".ckpt"), weights_only=True)["beside"]["steps"] == 4


def test_samples_without_pictures_are_refused(index, vid2vid, tmp_path):
    for path in index.paths:
        save_sample(
            tmp_path / "samples" / path.name, replace(load_sample(path), pictures=None), {"vid2vid": weights_fingerprint(vid2vid)}
        )
    files = {name: tmp_path / f"{name}.safetensors" for name in ("vid2vid", "init", "vae", "out")}
    save_vid2vid(files["vid2vid"], vid2vid, torch.float32)
    save_dit(files["init"], from_scratch(LARGE.dit), torch.float32)
    save_vae(files["vae"], TinyVAE((4, 4, 4, 4)))
    given = StageRun(
        tmp_path / "samples", files["vid2vid"], files["out"], "mini", files["init"], steps=1, device="cpu", vae=files["vae"]
    )
    with pytest.raises(InputError, match="these samples keep none: make them with --pictures"):
        run_stage(given, "student", LARGE)


# Draws without the motion


def test_a_share_of_the_draws_is_without_the_motion(index):
    stage = replace(CLIPS, shapes=(Shape(8, frames=2, noises=5),), unmoved=0.25)
    left_out = torch.cat([item.unmoved.flatten() for step in range(30) for item in draw(index, stage, 0, step, 1000)])
    assert len(left_out) == 1200 and 0.2 < left_out.float().mean() < 0.3
    assert not any(item.unmoved.any() for item in draw(index, CLIPS, 0, 0, 1000))


def test_a_draw_without_its_motion_is_the_unconditional_prediction_of_guidance(index, vid2vid):
    """The prediction of a network without control, beside draws of the same batch with theirs."""
    torch.manual_seed(0)
    dit, batch = (
        nonzero(from_scratch(LARGE.dit)),
        load(index, draw(index, replace(CLIPS, shapes=(Shape(2, frames=4),)), 0, 0, 1000)),
    )
    batch = replace(batch, unmoved=torch.tensor([True, False]))
    maps, own = maps_of(vid2vid.warping, batch)
    with torch.no_grad():
        reference, motion = conditions(dit, batch, maps, own)
        out = denoiser(dit, batch, reference, motion)(batch.noise, batch.t)
        moved = denoiser(dit, replace(batch, unmoved=None), reference, motion)(batch.noise, batch.t)
        t = batch.t.float().masked_fill(batch.conditional, 0)
        bare = dit(batch.noise, t, reference.shape, reference, None, batch.conditional)
    torch.testing.assert_close(out[0], bare[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(out[1], moved[1], atol=1e-5, rtol=1e-4)
    assert float((out[0] - moved[0]).abs().max()) > 1e-3


def test_the_objective_learns_both(index, vid2vid):
    torch.manual_seed(0)
    dit, batch = (
        nonzero(from_scratch(LARGE.dit)),
        load(index, draw(index, replace(CLIPS, shapes=(Shape(2, frames=4),)), 0, 0, 1000)),
    )
    maps, own = maps_of(vid2vid.warping, batch)
    objective = Objective(dit, linear_schedule(), torch.float32)
    with torch.no_grad():
        losses = [objective(replace(batch, unmoved=torch.tensor(left_out)), maps, own) for left_out in ([True] * 2, [False] * 2)]
    assert losses[0] != losses[1]
    objective(replace(batch, unmoved=torch.tensor([True, True])), maps, own).backward()
    assert all(p.grad is None or not p.grad.any() for p in dit.controlnet.parameters())
