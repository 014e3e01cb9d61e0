"""The networks of the ablations: 1-D motion by cross-attention, and a reference network of its own."""

from dataclasses import replace

import pytest
import torch
from toy import FRAMES, TOY, folder, index, vid2vid  # noqa: F401, fixtures

from realportrait_core.animation.keypoints import crop_to_keypoints
from realportrait_core.animation.mapping import frame_keypoints, motion_maps
from realportrait_core.animation.rendering import render
from realportrait_core.animation.retargeting import drive_keypoints
from realportrait_core.config import ABLATIONS, MINI, AblationConfig, Config
from realportrait_core.diffusion.schedule import linear_schedule
from realportrait_core.dit.ablation import KeypointDiT, ReferenceNetworkDiT, load_network, network_of, save_network
from realportrait_core.dit.checkpoint import load_dit
from realportrait_core.dit.embed import ClipShape
from realportrait_core.errors import InputError, WeightsError
from realportrait_core.train.batch import draw, load, maps_of
from realportrait_core.train.data.sample import load_sample
from realportrait_core.train.denoiser import conditions
from realportrait_core.train.initial import from_scratch, initial_network
from realportrait_core.train.run import StageRun, make_objective, run_stage
from realportrait_core.train.stages import PLAIN, STAGES

SHAPE = ClipShape(64, 64, 4, 12.5)


def config(**parts) -> AblationConfig:
    return AblationConfig(**vars(replace(TOY.dit, conditioner=None)) | parts)


KEYPOINTS = config(keypoints=5, control_depth=0)
REFERENCE_NETWORK = config(reference_network=True)


def network(cfg):
    torch.manual_seed(0)
    made = from_scratch(cfg).eval().requires_grad_(False)
    torch.nn.init.normal_(made.final_layer.linear.weight, std=0.1)
    for block in made.blocks:
        torch.nn.init.normal_(block.attn_temp.proj.weight, std=0.1)
    return made


def clip(frames: int = 3):
    source = torch.Generator().manual_seed(1)
    z, z_r = torch.randn(1, frames, 4, 8, 8, generator=source), torch.randn(1, 4, 8, 8, generator=source)
    return z, z_r, torch.full((1, frames), 500.0)


# The presets


def test_the_ablations_differ_from_the_plain_network_in_one_part():
    plain = vars(ABLATIONS["plain"].dit)
    assert plain["conditioner"] is None and ABLATIONS["plain"].vid2vid == MINI.vid2vid
    differing = {
        name: {field for field, value in vars(cfg.dit).items() if plain.get(field) != value} for name, cfg in ABLATIONS.items()
    }
    assert differing["keypoints"] - {"reference_network"} == {"keypoints", "control_depth"}
    assert differing["reference_network"] - {"keypoints"} == {"reference_network"}
    assert all(STAGES[name] is PLAIN for name in ABLATIONS)


def test_the_plain_stages_train_by_the_papers_loss_alone():
    for stage in PLAIN.values():
        assert not any((stage.face, stage.latent_regression, stage.error_reweighting, stage.unmoved, stage.distil))


@pytest.mark.parametrize(
    "parts", [{}, {"keypoints": 5}, {"keypoints": 5, "reference_network": True, "control_depth": 0}, {"keypoints": -1}]
)
def test_impossible_ablations_are_refused(parts):
    with pytest.raises(InputError):
        config(**parts)


# 1-D motion


def test_cross_attention_is_the_softmax_over_the_keypoints():
    """In the last block, against the formula written out for one frame and head by head."""
    cross = network(KEYPOINTS).cross_attn[1]
    x, tokens = torch.randn(2, 7, KEYPOINTS.hidden), torch.randn(2, 5, KEYPOINTS.hidden)
    width = KEYPOINTS.hidden // KEYPOINTS.heads
    q, (k, v) = cross.q(x), cross.kv(tokens).chunk(2, dim=-1)
    heads = []
    for head in range(KEYPOINTS.heads):
        part = slice(head * width, (head + 1) * width)
        weight = (q[..., part] @ k[..., part].mT / width**0.5).softmax(-1)
        heads.append(weight @ v[..., part])
    torch.testing.assert_close(cross(x, tokens), cross.proj(torch.cat(heads, -1)), atol=1e-5, rtol=1e-5)


def test_every_keypoint_of_a_frame_moves_that_frame():
    dit, (z, z_r, t) = network(KEYPOINTS), clip(1)
    reference, x_d = dit.encode_reference(z_r, SHAPE), torch.randn(1, 5, 3)
    out = dit(z, t, SHAPE, reference, dit.encode_motion(x_d))
    for k in range(5):
        moved = x_d.clone()
        moved[0, k] += 0.3
        assert not torch.allclose(dit(z, t, SHAPE, reference, dit.encode_motion(moved)), out, atol=1e-6)
    swapped = dit(z, t, SHAPE, reference, dit.encode_motion(x_d.flip(1)))
    assert not torch.allclose(swapped, out, atol=1e-6), "which keypoint is where does not count"


def test_strength_0_is_the_clip_without_motion():
    dit, (z, z_r, t) = network(KEYPOINTS), clip()
    reference, control = dit.encode_reference(z_r, SHAPE), dit.encode_motion(torch.randn(3, 5, 3))
    without = dit(z, t, SHAPE, reference, None)
    torch.testing.assert_close(dit(z, t, SHAPE, reference, control, strength=0.0), without)
    assert not torch.allclose(dit(z, t, SHAPE, reference, control), without, atol=1e-6)


def test_keypoints_are_in_half_sides_of_the_frame():
    """A crop of zoom 2 whose corner is at (10, 20) px of a frame of 64 px."""
    frame_to_crop = torch.tensor([[2.0, 0, -20], [0, 2, -40], [0, 0, 1]], dtype=torch.float64)
    in_frame = torch.tensor([[10.0, 20.0], [31.5, 31.5], [63.5, -0.5]], dtype=torch.float64)
    x_d = torch.cat([crop_to_keypoints(2 * in_frame - torch.tensor([20, 40])), torch.zeros(3, 1)], -1)
    found = frame_keypoints(x_d, frame_to_crop, 64)
    torch.testing.assert_close(found[:, :2], (in_frame - 31.5) / 32)


def test_maps_are_refused_as_keypoints():
    with pytest.raises(InputError, match=r"keypoints \(F, 5, 3\)"):
        network(KEYPOINTS).encode_motion(torch.zeros(2, 6, 64, 64))


def test_training_and_animation_give_the_same_keypoints(folder, index, vid2vid):
    """What a step of training feeds the network is what `render` does for the same portrait and frame."""
    item = draw(index, FRAMES, 0, 0, 1000)[0]
    assert not index.photo[item.sample]
    batch = load(index, [item])
    _, found = conditions(network(KEYPOINTS), batch, *maps_of(vid2vid.warping, batch))
    keypoints = load_sample(index.paths[item.sample]).keypoints(item.portrait, item.frames.flatten())
    motion = motion_maps(vid2vid, drive_keypoints(keypoints, neutral=0), 64, "whole")
    expected = frame_keypoints(motion.x_d, motion.maps.frame_to_crop, 64)
    torch.testing.assert_close(found, expected[1:], atol=1e-5, rtol=1e-5)


def test_a_clip_is_rendered_by_its_keypoints(folder, vid2vid):
    dit = network(KEYPOINTS)
    keypoints = load_sample(sorted(folder.rglob("clip*.safetensors"))[0]).keypoints(0, torch.arange(6))
    motion = motion_maps(vid2vid, drive_keypoints(keypoints, neutral=0), 64, "whole")
    frames = render(dit, linear_schedule(), torch.randn(1, 4, 8, 8), motion, steps=2)
    assert frames.shape == (7, 4, 8, 8) and bool(frames.isfinite().all())


# The reference network


def test_a_copy_of_the_backbone_is_reference_attention():
    """As it is initialised, it is the paper's network; with its own weights changed it is not."""
    apart, (z, z_r, t) = network(REFERENCE_NETWORK), clip()
    apart.reference_blocks.load_state_dict(apart.blocks.state_dict())
    shared = network(replace(TOY.dit, conditioner=None))
    shared.load_state_dict({key: value for key, value in apart.state_dict().items() if not key.startswith("reference_")})
    control = shared.encode_motion(torch.randn(3, 6, 64, 64))

    def out(dit):
        return dit(z, t, SHAPE, dit.encode_reference(z_r, SHAPE), control)

    assert torch.equal(out(apart), out(shared))
    torch.nn.init.normal_(apart.reference_blocks[0].mlp.fc2.weight)
    assert not torch.allclose(out(apart), out(shared), atol=1e-6)


def test_it_can_start_from_the_papers_network(tmp_path):
    """With a copy of the backbone, which gives the same result; the other ablation cannot."""
    plain, (z, z_r, t) = network(replace(TOY.dit, conditioner=None)), clip()
    save_network(tmp_path / "plain.safetensors", plain, torch.float32)
    made = initial_network(Config(TOY.vid2vid, REFERENCE_NETWORK, TOY.image_size), tmp_path / "plain.safetensors")
    control = plain.encode_motion(torch.randn(3, 6, 64, 64))
    outs = [dit(z, t, SHAPE, dit.encode_reference(z_r, SHAPE), control) for dit in (plain, made)]
    assert type(made) is ReferenceNetworkDiT and torch.equal(*outs)
    with pytest.raises(InputError, match="another size or kind"):
        initial_network(Config(TOY.vid2vid, KEYPOINTS, TOY.image_size), tmp_path / "plain.safetensors")


def test_it_has_the_backbones_parameters_once_more():
    def count(module):
        return sum(parameter.numel() for parameter in module.parameters())

    apart = network(REFERENCE_NETWORK)
    assert count(apart) == count(network(replace(TOY.dit, conditioner=None))) + count(apart.blocks) + count(apart.x_embedder)


# Files and training


@pytest.mark.parametrize("cfg", [KEYPOINTS, REFERENCE_NETWORK, replace(TOY.dit, conditioner=None)])
def test_weights_are_saved_and_loaded(cfg, tmp_path):
    made = network(cfg)
    save_network(tmp_path / "x.safetensors", made, torch.float32)
    loaded = load_network(tmp_path / "x.safetensors")
    assert type(loaded) is type(made) and loaded.cfg == cfg
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in made.state_dict().items())


@pytest.mark.parametrize("cfg", [KEYPOINTS, REFERENCE_NETWORK])
def test_the_nodes_loader_refuses_them_and_says_what_they_are_for(cfg, tmp_path):
    save_network(tmp_path / "x.safetensors", network(cfg))
    with pytest.raises(WeightsError, match="an ablation of the paper.*realportrait_core.eval"):
        load_dit(tmp_path / "x.safetensors")


@pytest.mark.parametrize("cfg, kind", [(KEYPOINTS, KeypointDiT), (REFERENCE_NETWORK, ReferenceNetworkDiT)])
def test_every_weight_is_trained_by_the_command(cfg, kind, folder, vid2vid, tmp_path, monkeypatch):
    from realportrait_core.train import run as runs

    monkeypatch.setattr(runs, "load_vid2vid", lambda path: vid2vid)
    monkeypatch.setitem(STAGES, "plain", {"clips": replace(PLAIN["clips"], shapes=(FRAMES.shapes[0],), steps=2)})
    out = tmp_path / "made.safetensors"
    run = StageRun(folder, tmp_path / "vid2vid.safetensors", out, preset="plain", device="cpu")
    run_stage(run, "clips", Config(TOY.vid2vid, cfg, TOY.image_size))
    assert type(load_network(out)) is kind


@pytest.mark.parametrize("cfg", [KEYPOINTS, REFERENCE_NETWORK])
def test_every_weight_has_a_gradient(cfg, index, vid2vid):
    stage = replace(PLAIN["clips"], shapes=(replace(PLAIN["clips"].shapes[0], portraits=1, frames=4, stride=1),))
    objective = make_objective(network_of(cfg).initialize(), stage, torch.float32)
    dit = objective.dit
    for name, parameter in dit.named_parameters():  # nothing starts at zero
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    batch = load(index, draw(index, stage, 0, 0, 1000))
    objective(batch, *maps_of(vid2vid.warping, batch)).backward()
    without = {name for name, parameter in dit.named_parameters() if parameter.grad is None or not parameter.grad.any()}
    # Of the portrait's last block the frames receive K and V alone, and its temporal attention is over one frame.
    last = {name for name in without if name.startswith("reference_blocks.1.")}
    assert not {name for name in without - last if not name.startswith("reference_blocks.0.attn_temp")}
    assert not last & {"reference_blocks.1.attn.qkv.weight", "reference_blocks.1.attn.k_norm.weight"}
