"""Training in toy sizes on the two clips of tests/data: ground truth, loop, every stage, the files at the end."""

import itertools
import logging
import math
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import toy_sizes
import yunet
from test_head_rotation import made_up_face
from torch import nn

from realportrait_core.checkpoint import read_safetensors, save
from realportrait_core.config import ConditionerConfig, Config, DiTConfig, Vid2VidConfig
from realportrait_core.dit.checkpoint import load_dit, save_dit
from realportrait_core.errors import InputError
from realportrait_core.face.crop import rescale
from realportrait_core.face.detect import FaceDetector
from realportrait_core.head_rotation.dataset import read_photos
from realportrait_core.train import loop
from realportrait_core.train.appearance import Appearance
from realportrait_core.train.average import recalibrate
from realportrait_core.train.budget import Budget
from realportrait_core.train.data.frozen import freeze_segment
from realportrait_core.train.data.sample import load_sample
from realportrait_core.train.initial import from_scratch
from realportrait_core.train.loop import fit
from realportrait_core.train.mini import __main__ as command
from realportrait_core.train.mini import decoder, motion, prepare, recipe, samples
from realportrait_core.train.mini.crops import jitter, to_unit
from realportrait_core.train.mini.decoder import WIDTHS, train_decoder, widened
from realportrait_core.train.mini.export import export
from realportrait_core.train.mini.head_truth import NUM_KP, SURFACE, load_truth, truth_in_crops
from realportrait_core.train.mini.motion import Standardised, draw_faces, heads_loss, motion_error, train_motion
from realportrait_core.train.mini.photo_supervision import PhotoSet
from realportrait_core.train.mini.photos import read_pictures
from realportrait_core.train.mini.renderer import (
    Renderer,
    fit_readout,
    keypoint_weight,
    painting_loss,
    scale_down,
    train_renderer,
    warp_faces,
)
from realportrait_core.train.mini.renderer import draw_faces as draw_renderer_faces
from realportrait_core.train.mini.run import DISTILLED_FILE, DIT_FILE, VAE_FILE, VID2VID_FILE, RecipeRun
from realportrait_core.train.mini.samples import blend_with_true_poses
from realportrait_core.train.mini.store import Store, open_store
from realportrait_core.train.muon import between_features, orthogonal
from realportrait_core.vae import TinyVAE
from realportrait_core.vid2vid import FaceVid2Vid
from realportrait_core.vid2vid.blocks import ConvNorm
from realportrait_core.vid2vid.checkpoint import load_vid2vid, save_vid2vid
from realportrait_core.vid2vid.keypoints import angle_between, rotation_angles, rotation_matrix, transform
from realportrait_core.vid2vid.motion import MotionExtractor, pose_from_raw

CLIPS = yunet.ROOT / "tests" / "data"
NAMES = ("800000", "810000")
TOY = Config(
    vid2vid=Vid2VidConfig(**toy_sizes.VID2VID | dict(num_kp=NUM_KP, compress=1)),
    dit=DiTConfig(
        **toy_sizes.DIT
        | dict(
            input_sq_size=256,
            clip_frames=4,
            conditioner=ConditionerConfig(motion_latent=6, reference_motion=True, draft_widths=(8, 8, 8)),
        )
    ),
    image_size=256,
)


class Stopped(Exception):
    """The machine went down."""


@pytest.fixture
def seconds(monkeypatch):
    """A clock by which every step takes a second, so that `fit` for n / 60 minutes takes n steps; each is saved."""
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=itertools.count().__next__))
    monkeypatch.setattr(loop, "SAVE_EVERY", 1.0)


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    """What `prepare` makes; the points are the projected truth, so that no detector is needed."""
    pytest.importorskip("av")
    folder = tmp_path_factory.mktemp("cache")
    prepare.decode_clips(CLIPS, folder)
    points = []
    for name in NAMES:
        with np.load(CLIPS / f"{name}.npz") as file:
            eyes, surface = file["eyes2d"].astype(np.float32), file["verts2d"].astype(np.float32)
        points.append(np.concatenate([eyes[:, ::-1], surface[:, [0, 95, 59]]], 1) - 0.5)
    np.save(folder / "points.npy", np.stack(points))
    return folder


@pytest.fixture(scope="module")
def store(cache) -> Store:
    return open_store(cache, CLIPS)


@pytest.fixture(scope="module")
def vid2vid() -> FaceVid2Vid:
    torch.manual_seed(0)
    return FaceVid2Vid(TOY.vid2vid).eval()


# Truth


@pytest.fixture(scope="module")
def crops() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Clip, frame and a shifted, zoomed, rolled crop of it."""
    torch.manual_seed(0)
    clips, frames = torch.tensor([0, 0, 1, 1, 1]), torch.tensor([0, 13, 5, 17, 23])
    return clips, frames, to_unit(jitter(rescale(2.0).expand(5, 3, 3), scale=0.2, shift=0.1, degrees=40.0))


def test_keypoints_of_the_truth_lie_on_the_rendered_head(crops):
    """x = s (x_c R + delta) + t gives the surface points and the eyes where the file has them."""
    heads, names = load_truth(CLIPS)
    assert names == list(NAMES)
    clips, frames, frame_to_unit = crops
    pose, _ = truth_in_crops(heads, clips, frames, frame_to_unit)
    found = transform(pose)
    torch.testing.assert_close(
        found, pose.scale[:, :, None] * (pose.canonical @ pose.rotation + pose.expression) + pose.translation[:, None]
    )
    for i, (clip, frame) in enumerate(zip(clips.tolist(), frames.tolist())):
        with np.load(CLIPS / f"{names[clip]}.npz") as file:
            pixels = torch.from_numpy(file["verts2d"][frame, list(SURFACE)].astype(np.float32)) - 0.5
            eyes = torch.from_numpy(file["eyes2d"][frame].astype(np.float32)) - 0.5
        expected = pixels @ frame_to_unit[i, :, :2].T + frame_to_unit[i, :, 2]
        torch.testing.assert_close(found[i, : len(SURFACE), :2], expected, atol=2e-5, rtol=0)
        near = found[i, len(SURFACE) :, :2] - (eyes @ frame_to_unit[i, :, :2].T + frame_to_unit[i, :, 2]).repeat(2, 1)
        assert near.norm(dim=-1).max() < 0.1  # iris and lid are within an eye's radius of its centre


def test_depth_of_the_truth_is_that_of_the_head(crops):
    """s times the surface point's depth about the head's origin; nearer the camera is smaller."""
    heads, _ = load_truth(CLIPS)
    clips, frames, frame_to_unit = crops
    pose, everywhere = truth_in_crops(heads, clips, frames, frame_to_unit)
    torch.testing.assert_close(transform(pose)[:, : len(SURFACE), 2], everywhere[:, list(SURFACE), 2], atol=1e-5, rtol=0)
    nose, ears = 0, (75, 21)
    assert (everywhere[:, nose, 2] < everywhere[:, list(ears), 2].amin(1)).all()


def test_rotation_of_the_truth_is_a_rotation_with_its_angles(crops):
    heads, _ = load_truth(CLIPS)
    pose, _ = truth_in_crops(heads, *crops)
    torch.testing.assert_close(pose.rotation @ pose.rotation.mT, torch.eye(3).expand(5, 3, 3), atol=1e-5, rtol=0)
    assert (torch.linalg.det(pose.rotation) > 0).all()
    torch.testing.assert_close(rotation_matrix(*rotation_angles(pose.rotation)), pose.rotation, atol=1e-5, rtol=0)


def test_a_rolled_crop_rolls_the_pose_and_nothing_else():
    heads, _ = load_truth(CLIPS)
    clips, frames = torch.tensor([0, 1]), torch.tensor([3, 9])
    straight = to_unit(rescale(2.0).expand(2, 3, 3))
    turn = torch.tensor([[0.8, -0.6], [0.6, 0.8]])
    plain, _ = truth_in_crops(heads, clips, frames, straight)
    rolled, _ = truth_in_crops(heads, clips, frames, turn @ straight)
    torch.testing.assert_close(rolled.scale, plain.scale, atol=1e-5, rtol=0)
    torch.testing.assert_close(rolled.canonical, plain.canonical)
    torch.testing.assert_close(transform(rolled)[..., :2], transform(plain)[..., :2] @ turn.T, atol=2e-5, rtol=0)
    torch.testing.assert_close(rolled.rotation[:, :, 2], plain.rotation[:, :, 2])


# Arrays


def test_decoded_frames_are_the_video_and_are_not_decoded_twice(cache):
    av = pytest.importorskip("av")
    path = cache / "frames.npy"
    before = path.stat().st_mtime_ns
    frames = prepare.decode_clips(CLIPS, cache)
    assert frames.shape == (2, 24, 256, 256, 3) and path.stat().st_mtime_ns == before
    with av.open(str(CLIPS / "810000.mp4")) as video:
        last = list(video.decode(video=0))[-1].to_ndarray(format="rgb24")
    assert np.array_equal(frames[1, -1], last)
    with pytest.raises(InputError, match="holds 2 clips and 1 are asked for"):
        prepare.decode_clips(CLIPS, cache, limit=1)
    with pytest.raises(InputError, match="no .mp4"):
        prepare.decode_clips(cache, cache)


def test_points_are_missing_where_there_is_no_face_and_a_stopped_run_goes_on(cache, tmp_path):
    pytest.importorskip("cv2")
    faces = np.load(cache / "frames.npy", mmap_mode="r")[:, :2].copy()
    faces[1, 1] = 0
    np.save(tmp_path / "frames.npy", faces)
    begun = np.full((2, 2, 5, 2), np.inf, np.float32)
    begun[0] = 7.0  # as if a run had been stopped after the first clip
    np.save(tmp_path / "points.partial.npy", begun)
    points = prepare.find_points(tmp_path, FaceDetector(yunet.onnx()))
    assert (points[0] == 7).all() and np.isnan(points[1, 1]).all()
    truth = np.load(cache / "points.npy")[1, 0]
    assert np.abs(points[1, 0] - truth).mean() < 10  # an eyeball's centre is not where the eye is seen
    assert sorted(path.name for path in tmp_path.iterdir()) == ["frames.npy", "points.npy"]


# The loop


def regression(seed: int = 0) -> tuple[nn.Module, object]:
    torch.manual_seed(seed)
    model, truth = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 16)), torch.randn(16, 16) / 4

    def loss(step: int):
        x = torch.randn(64, 16)
        return (model(x) - torch.tanh(x @ truth)).square().mean(), {}

    return model, loss


def test_the_loop_learns(seconds, tmp_path):
    model, loss = regression()
    before = loss(0)[0].item()
    model.load_state_dict(fit(model, loss, tmp_path / "run.ckpt", budget=Budget(minutes=2.5), lr=1e-2, decay=0.9, warmup=10))
    assert loss(0)[0].item() < 0.3 * before


def test_steps_that_are_not_finite_are_skipped(seconds, tmp_path):
    model, loss = regression()
    seen = []

    def poisoned(step: int):
        seen.append([parameter.detach().clone() for parameter in model.parameters()])
        value, scalars = loss(step)
        return value * (math.inf if step == 1 else math.nan if step == 2 else 1.0), scalars

    average = fit(model, poisoned, tmp_path / "run.ckpt", budget=Budget(minutes=5 / 60), lr=1e-2)
    same = [all(torch.equal(a, b) for a, b in zip(before, after)) for before, after in itertools.pairwise(seen)]
    assert same == [False, True, True, False]
    assert all(torch.isfinite(value).all() for value in average.values())
    assert torch.load(tmp_path / "run.ckpt", weights_only=True)["skipped"] == 2


def test_a_stopped_run_ends_as_one_that_was_not(seconds, tmp_path):
    def run(name: str, stop_at: int | None):
        model, loss = regression()

        def stopping(step: int):
            if step == stop_at:
                raise Stopped
            return loss(step)

        return fit(model, stopping, tmp_path / name, budget=Budget(minutes=8 / 60), lr=1e-2)

    whole = run("whole.ckpt", None)
    with pytest.raises(Stopped):
        run("stopped.ckpt", 5)
    torch.rand(100)  # the state of the random numbers comes with the checkpoint
    resumed = run("stopped.ckpt", None)
    assert whole.keys() == resumed.keys() and all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert torch.load(tmp_path / "stopped.ckpt", weights_only=True)["step"] == 8


def test_recalibrated_batch_norms_hold_the_mean_over_the_batches():
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(3)
    batches = torch.randn(6, 32, 3) * 2 + 5
    recalibrate(norm, lambda step: (norm(batches[step]).sum(), {}), batches=6)
    torch.testing.assert_close(norm.running_mean, batches.mean((0, 1)))
    torch.testing.assert_close(norm.running_var, batches.var(1).mean(0))
    assert norm.momentum == 0.1 and not norm.training


def test_muon_evens_out_singular_values():
    torch.manual_seed(0)
    for shape in ((2, 24, 40), (2, 40, 24)):
        values = torch.linalg.svdvals(orthogonal(torch.randn(shape) @ torch.diag(torch.linspace(0.3, 3, shape[-1]))))
        assert values.min() > 0.3 and values.max() < 1.4
    assert between_features("fc.weight", torch.empty(16, 16)) and not between_features("fc.weight", torch.empty(16, 4, 3, 3))


# Stages


def trained(state: dict[str, torch.Tensor], start: dict[str, torch.Tensor]) -> list[str]:
    """Names of the weights that have moved; all must be finite."""
    assert all(torch.isfinite(value).all() for value in state.values() if value.is_floating_point())
    return [name for name in start if start[name].is_floating_point() and not torch.equal(start[name], state[name])]


def test_motion_learns_from_one_clip_what_holds_on_another(store, seconds, tmp_path, monkeypatch, caplog):
    """Against an M that starts at the mean face the held-out clip's keypoints are 24 % nearer after 30 steps; with mirrored
    pictures, whose truth is wrong, 13 %, and the rotation gets worse."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(motion, "WARMUPS", {"new": 10})
    frames = torch.nonzero(store.found)
    held = frames[frames[:, 0] == 1]
    torch.manual_seed(0)
    start = Standardised(TOY.vid2vid, store.heads.canonical.mean(0)).folded()
    torch.manual_seed(0)
    model = train_motion(store, TOY.vid2vid, tmp_path / "motion.ckpt", 30 / 60, batch=8, holdout=1)
    assert isinstance(model, MotionExtractor) and "held out" in caplog.text
    before, after = (motion_error(each, store, held) for each in (start, model))
    assert after["keypoints_px"] < 0.82 * before["keypoints_px"] and after["mouth_eyes_px"] < 0.82 * before["mouth_eyes_px"]
    assert after["rotation_deg"] < before["rotation_deg"]


@pytest.fixture
def photo_folder(tmp_path) -> Path:
    """Three grey photos of 128 px with a mesh like a face each."""
    folder, generator = tmp_path / "photos", torch.Generator().manual_seed(0)
    folder.mkdir()
    face = made_up_face()
    irises = torch.tensor([[side * 3.2, 2.7, 4.0] for side in (-1, 1) for _ in range(5)])
    mesh = torch.cat([face.rest, irises]) * torch.tensor([3.6, -3.6, -3.6]) + torch.tensor([64.0, 64.0, 0.0])
    for i in range(3):
        cv2.imwrite(str(folder / f"{i:06d}.jpg"), (255 * torch.rand(128, 128, 3, generator=generator)).byte().numpy())
    np.savez(folder / "points.npz", names=np.arange(3), mesh=mesh.expand(3, -1, -1).numpy())
    return folder


def test_motion_goes_on_from_given_weights_on_photos_too(cache, vid2vid, photo_folder, seconds, tmp_path, monkeypatch, caplog):
    """M near where it was, F, W and G as they were, all in one file."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(recipe, "HELD_OUT", 1)
    monkeypatch.setattr(samples, "read_topology", lambda path: made_up_face())
    save_vid2vid(tmp_path / "start.safetensors", vid2vid)
    (tmp_path / "train").symlink_to(CLIPS)
    folder = tmp_path / "cache"
    folder.mkdir()
    for name in ("frames.npy", "points.npy"):
        (folder / name).symlink_to(cache / name)
    run = RecipeRun(
        tmp_path,
        folder,
        tmp_path / "out",
        None,
        start=tmp_path / "start.safetensors",
        photos=photo_folder,
        canonical=tmp_path / "face.obj",
        cfg=TOY,
    )
    recipe.motion(run, 2 / 60)
    assert "held out, photos" in caplog.text
    before, after = (load_vid2vid(path).state_dict() for path in (run.start, run.out / VID2VID_FILE))
    moved = trained(after, before)
    assert moved and all(name.startswith("motion.") for name in moved)
    # The heads' scale is that of standardised features folded in; the trunk's is its own.
    trunk = [name for name in moved if ".stages." in name]
    assert trunk and all((after[name] - before[name]).abs().max() < 0.02 for name in trunk)
    with torch.inference_mode():
        M = load_vid2vid(run.out / VID2VID_FILE).motion
        kept, _ = read_safetensors(folder / "motion.safetensors")
        assert all(torch.equal(kept[name], value) for name, value in M.state_dict().items())


def test_photos_for_motion_that_are_not_there_end_as_one_sentence(store, photo_folder, tmp_path, caplog):
    options = ["--data", str(tmp_path), "--cache", str(tmp_path), "--out", str(tmp_path / "out"), "--minutes", "1"]
    (tmp_path / "empty").mkdir()
    assert command.main(["motion", *options, "--photos", str(tmp_path / "empty")]) == 1
    assert "--canonical" in caplog.text
    assert command.main(["motion", *options, "--photos", str(tmp_path / "empty"), "--canonical", str(tmp_path / "face.obj")]) == 1
    assert "points.npz is missing: a folder of photos needs the face mesh of each" in caplog.text
    few = PhotoSet(read_photos(photo_folder), made_up_face())
    with pytest.raises(InputError, match="There are 3 photos; 20 are held out"):
        train_motion(store, TOY.vid2vid, tmp_path / "motion.ckpt", 1.0, photos=few)
    with pytest.raises(InputError, match="have 26 keypoints; the M to continue from has 21"):
        train_motion(store, TOY.vid2vid, tmp_path / "motion.ckpt", 1.0, start=MotionExtractor(replace(TOY.vid2vid, num_kp=21)))


def test_faces_come_in_pairs_of_one_clip(store):
    torch.manual_seed(0)
    usable = torch.nonzero(store.found)
    images, truth = draw_faces(store, usable, 40, 32, torch.device("cpu"))
    assert images.shape == (40, 3, 32, 32)
    # x_c is a person's own, whatever the crop, and expressions are a frame's.
    torch.testing.assert_close(truth.canonical[::2], truth.canonical[1::2])
    assert (truth.expression[::2] - truth.expression[1::2]).abs().amax((1, 2)).gt(1e-4).float().mean() > 0.5
    assert len(truth.canonical[::2].flatten(1).unique(dim=0)) == len(store.names)


def test_the_loss_of_m_counts_how_expressions_differ(store):
    """An error that both frames of a pair share is forgiven by that term; one that they do not share is not."""
    torch.manual_seed(0)
    _, truth = draw_faces(store, torch.nonzero(store.found), 4, 32, torch.device("cpu"))

    def loss_parts(error: torch.Tensor) -> dict[str, float]:
        raw = {
            "kp": truth.canonical.flatten(1),
            "exp": (truth.expression + error).flatten(1),
            "scale": truth.scale,
            "t": truth.translation,
            **{angle: torch.zeros(4, 66) for angle in ("pitch", "yaw", "roll")},
        }
        return {name: part.item() for name, part in heads_loss(pose_from_raw(raw), truth, torch.ones(NUM_KP, 1))[1].items()}

    changes = [loss_parts(0.1 * torch.tensor(signs)[:, None, None]) for signs in ((1.0, 1, 1, 1), (1.0, -1, 1, -1))]
    assert changes[0]["change"] < 1e-6 and changes[1]["change"] == pytest.approx(0.2, rel=1e-4)
    assert changes[0]["expression"] == pytest.approx(changes[1]["expression"], rel=1e-4)


def test_folded_motion_is_an_ordinary_extractor(store):
    """Standardising the features and folding that into the heads are one function."""
    torch.manual_seed(0)
    model = Standardised(TOY.vid2vid, store.heads.canonical.mean(0)).train()
    images = torch.rand(6, 3, 32, 32)
    model.raw(images)
    model.eval()
    with torch.inference_mode():
        for name, value in model.folded().raw(images).items():
            torch.testing.assert_close(value, model.raw(images)[name], atol=1e-4, rtol=1e-3)


def test_the_renderer_learns_from_one_clip_what_holds_on_another(store, seconds, tmp_path):
    """On the held-out clip the flow's error falls by 21 % in 60 steps (by 12 % if it is supervised by other faces' points), and the
    pictures of G and of the readout improve."""

    def measured(model: Renderer) -> dict[str, float]:
        torch.manual_seed(5)
        with torch.inference_mode():
            faces = draw_renderer_faces(store, torch.tensor([1]), TOY.vid2vid, 4, 4, torch.device("cpu"))
            warped, flow = warp_faces(model, faces, nullcontext)
            parts = painting_loss(model, faces, warped, flow, True, nullcontext)[1]
        return {name: part.item() for name, part in parts.items()}

    torch.manual_seed(0)
    start = Renderer(TOY.vid2vid).eval()
    torch.manual_seed(0)
    model = train_renderer(store, TOY.vid2vid, tmp_path / "renderer.ckpt", 60 / 60, faces=2, drivers=2, holdout=1)
    before, after = measured(start), measured(model)
    assert after["flow"] < 0.84 * before["flow"]
    assert after["picture"] < 0.97 * before["picture"] and after["readout"] < before["readout"]
    # With its M beside it, the state is that of a FaceVid2Vid.
    assert set(FaceVid2Vid(TOY.vid2vid).state_dict()) - set(start.state_dict()) == {
        f"motion.{name}" for name in MotionExtractor(TOY.vid2vid).state_dict()
    }


def test_a_renderer_goes_on_from_given_weights(store, seconds, tmp_path):
    """In bf16 too: each weight stays near where it was, where a start from scratch would be anywhere."""
    torch.manual_seed(1)
    given = FaceVid2Vid(TOY.vid2vid).state_dict()
    model = train_renderer(
        store,
        TOY.vid2vid,
        tmp_path / "renderer.ckpt",
        1 / 60,
        faces=2,
        drivers=2,
        holdout=1,
        lr=1e-5,
        precision=torch.bfloat16,
        start=given,
    )
    matrices = {name: value for name, value in model.state_dict().items() if value.ndim > 1 and name in given}
    assert len(matrices) > 20 and any(not torch.equal(value, given[name]) for name, value in matrices.items())
    for name, value in matrices.items():
        assert value.isfinite().all() and (value - given[name]).norm() < 0.1 * given[name].norm()


def test_a_readout_is_fitted_to_what_f_shows():
    torch.manual_seed(0)
    hidden, readout = (torch.nn.Conv2d(6, 12, 1).requires_grad_(False) for _ in range(2))
    f = torch.randn(3, 6, 8, 8)
    pictures = torch.nn.functional.pixel_shuffle(hidden(f), 2)  # (3, 3, 16, 16)
    large = pictures.repeat_interleave(2, 2).repeat_interleave(2, 3)
    fit_readout(readout, [(SimpleNamespace(out=f), SimpleNamespace(target=large))])
    torch.testing.assert_close(readout.weight, hidden.weight, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(readout.bias, hidden.bias, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.7, 1.0])
def test_poses_of_samples_are_blended_with_the_truth(store, vid2vid, share):
    frames = torch.from_numpy(store.frames[0].copy())
    vae = TinyVAE((4, 4, 4, 4)).eval().requires_grad_(False)
    sample = freeze_segment(vid2vid, vae, frames, store.points[0], store.found[0], 2)
    blended = blend_with_true_poses(sample, store.heads, 0, share)
    every = torch.arange(len(sample))
    for before, after, numbers, crops in (
        (sample.poses, blended.poses, every, sample.driver_crop.expand(len(every), 3, 3)),
        (sample.portrait_poses, blended.portrait_poses, sample.portraits, sample.portrait_crops),
    ):
        truth, _ = truth_in_crops(store.heads, torch.zeros_like(numbers), numbers, to_unit(crops))
        torch.testing.assert_close(after.expression, torch.lerp(before.expression, truth.expression, share))
        turn, left = (angle_between(x.rotation, truth.rotation) for x in (before, after))
        torch.testing.assert_close(left, (1 - share) * turn, atol=0.1, rtol=0.01)
        if share == 1:
            torch.testing.assert_close(transform(after), transform(truth), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_scaled_down_block_is_the_same_function(dims):
    torch.manual_seed(0)
    block = ConvNorm(dims, 3, 5).eval().requires_grad_(False)
    block.norm.running_var.copy_(torch.tensor([1e5, 2.0, 1.0, 0.3, 70_000]))
    block.norm.running_mean.normal_(std=100)
    x = 100 * torch.randn(2, 3, *[6] * dims)
    before = block(x)
    scale_down(block)
    torch.testing.assert_close(block.norm.running_var, torch.tensor([1.0, 1, 1, 0.3, 1]))
    torch.testing.assert_close(block(x), before, rtol=1e-4, atol=1e-4)


def test_the_weight_near_keypoints():
    weight = keypoint_weight(torch.tensor([[[0.5, -0.25, 0.0], [-0.5, 0.75, 0.3]]]), 32)  # x, y, z
    assert weight.shape == (1, 1, 32, 32)
    rows, columns = torch.nonzero(weight[0, 0] > 0.85, as_tuple=True)
    assert set(zip(rows.tolist(), columns.tolist())) == {
        (r, c) for r0, c0 in ((11, 23), (27, 7)) for r in (r0, r0 + 1) for c in (c0, c0 + 1)
    }
    assert weight[0, 0, 0, 0] < 1e-3


# The decoder


def test_a_widened_decoder_is_the_same_and_learns_with_its_new_channels(cache, tmp_path):
    """And the encoder stays bit by bit."""
    torch.manual_seed(0)
    vae, store = TinyVAE((4, 8, 8, 8)), open_store(cache, CLIPS)
    pictures = store.images(torch.tensor([0, 1]), torch.tensor([3, 9]))
    wide = widened(vae, (8, 16, 8, 8))
    with torch.inference_mode():
        latents = vae.encode(pictures)
        torch.testing.assert_close(wide.encode(pictures), latents, atol=1e-6, rtol=1e-5)  # the padded layers sum in another order
        torch.testing.assert_close(wide.taesd_decoder(latents), vae.taesd_decoder(latents))
    wide.taesd_decoder(latents.clone()).square().mean().backward()
    last = wide.taesd_decoder[-1].weight.grad
    assert last[:, 4:].abs().sum() > 0  # the new channels have a gradient from the first step

    before = -10 * (vae.decode(latents.clone()) - pictures).square().mean().log10()
    trained = train_decoder(store, vae, TinyVAE((4, 4, 4, 4)), tmp_path / "d.ckpt", Budget(steps=30), batch=4, side=64, holdout=0)
    assert trained.widths == WIDTHS
    with torch.inference_mode():
        torch.testing.assert_close(trained.encode(pictures), latents, atol=1e-5, rtol=1e-4)
        after = -10 * (trained.decode(latents) - pictures).square().mean().log10()
    assert after > before + 1
    with pytest.raises(InputError, match="Crops of 100 px; they must be of multiples of 8, and at most 256"):
        train_decoder(store, vae, None, tmp_path / "e.ckpt", Budget(steps=1), side=100, holdout=0)


def test_a_decoder_learns_what_pictures_look_like_on_photographs_too(cache, tmp_path):
    """Its pictures get back detail that an error alone leaves out; encoder as before."""
    torch.manual_seed(0)
    vae, store = TinyVAE((4, 8, 8, 8)), open_store(cache, CLIPS)
    photos = np.stack([cv2.resize(np.ascontiguousarray(store.frames[1, t]), (256, 256)) for t in range(3)])
    for i, photo in enumerate(photos):
        cv2.imwrite(str(tmp_path / f"{i}.png"), photo[..., ::-1])
    read = read_pictures(tmp_path)
    assert np.array_equal(read, photos)
    judge = Appearance(torch.device("cpu"), torch.float32, warmup=2)
    before = {name: value.clone() for name, value in widened(vae, WIDTHS).state_dict().items()}
    trained = train_decoder(
        store, vae, None, tmp_path / "d.ckpt", Budget(steps=4), batch=4, side=64, holdout=0, photos=read, appearance=judge
    )
    assert judge.steps == 4 and set(judge.balance.norms) == {"features", "adversarial"}
    state = trained.state_dict()
    assert all(
        torch.equal(value, before[name]) == name.startswith(("taesd_encoder", "vae_"))
        for name, value in state.items()
        if "bias" not in name
    )
    (tmp_path / "wide.png").write_bytes(cv2.imencode(".png", photos[0][:, :128])[1].tobytes())
    with pytest.raises(InputError, match="wide.png is 128x256 px; all must be square and of one size"):
        read_pictures(tmp_path)
    with pytest.raises(InputError, match="holds no photograph"):
        read_pictures(tmp_path / "nowhere")


# The recipe


def test_export_writes_what_users_load(vid2vid, tmp_path):
    run = RecipeRun(CLIPS, tmp_path / "cache", tmp_path / "out", None, cfg=TOY)
    export(run)
    assert not run.out.exists()  # nothing is trained yet
    state = vid2vid.state_dict()
    save(run.cache / "motion.safetensors", vid2vid.motion.state_dict(), {})
    save(run.cache / "renderer.safetensors", {name: state[name] for name in state if not name.startswith("motion.")}, {})
    torch.manual_seed(1)
    first, last = from_scratch(TOY.dit), from_scratch(TOY.dit)
    save_dit(run.cache / "frames.safetensors", first, torch.float32)
    save_dit(run.cache / "clips.safetensors", last, torch.float32)
    export(run)

    loaded = load_vid2vid(run.out / VID2VID_FILE)
    assert loaded.cfg == TOY.vid2vid
    for name, value in loaded.state_dict().items():
        torch.testing.assert_close(value, state[name].half().to(value.dtype) if value.is_floating_point() else state[name])
    dit = load_dit(run.out / DIT_FILE)
    assert dit.cfg == TOY.dit
    assert torch.equal(dit.state_dict()["blocks.0.attn.qkv.weight"], last.blocks[0].attn.qkv.weight.half().float())


def test_the_whole_recipe_in_toy_size(cache, seconds, tmp_path, monkeypatch, caplog):
    """Every step after the VAE, each for a second; a second run finds everything in place."""
    caplog.set_level(logging.INFO)
    folder, data = tmp_path / "cache", tmp_path / "data"
    folder.mkdir()
    data.mkdir()
    (data / "train").symlink_to(CLIPS)
    for name in ("frames.npy", "points.npy"):
        (folder / name).symlink_to(cache / name)
    monkeypatch.setattr(recipe, "HELD_OUT", 1)
    monkeypatch.setattr(decoder, "WIDTHS", (4, 4, 4, 4))
    run = RecipeRun(data, folder, tmp_path / "out", None, cfg=replace(TOY, dit=replace(TOY.dit, clip_frames=3)))
    from realportrait_core.vae import save_vae

    save_vae(run.out / VAE_FILE, TinyVAE((4, 4, 4, 4)))
    recipe.mini(run, minutes=0.1 / 60)
    for name in NAMES:
        made = load_sample(folder / "samples" / f"{name}.safetensors")
        assert made.latents.shape == (24, 4, 32, 32) and made.portraits.tolist() == [0, 12, 23]
    files = sorted(run.out.rglob("*.safetensors"))
    assert sorted(file.relative_to(run.out) for file in files) == sorted([DIT_FILE, DISTILLED_FILE, VID2VID_FILE, VAE_FILE])
    assert list((folder / "clips").glob("samples_*.png"))

    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.ckpt")}
    assert len(before) == 7
    recipe.mini(run, minutes=0.1 / 60)
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*.ckpt")}
    assert caplog.text.count("is there: skipped") >= 5


def test_steps_out_of_order_end_as_one_sentence(cache, tmp_path, caplog):
    options = ["--data", str(tmp_path), "--cache", str(tmp_path / "none"), "--out", str(tmp_path / "out")]
    assert command.main(["motion", *options, "--minutes", "1"]) == 1
    assert "realportrait_core.train.mini prepare" in caplog.text
    assert command.main(["prepare", *options]) == 1
    assert "holds no .mp4 clip" in caplog.text
    run = RecipeRun(tmp_path, cache, tmp_path / "out", None, cfg=TOY)
    (tmp_path / "train").symlink_to(CLIPS)
    with pytest.raises(InputError, match="There are 2 training clips; 20 are held out"):
        recipe.motion(run, 1.0)
    with pytest.raises(InputError, match="holds no training sample"):
        recipe.frames(run, 1.0)
    assert not (tmp_path / "out").exists()


def test_shares_are_the_whole_budget():
    assert sum(recipe.SHARES.values()) == pytest.approx(1.0)
    assert command.parse(["renderer", "--data", "x"]).minutes == pytest.approx(150 * recipe.SHARES["renderer"])
