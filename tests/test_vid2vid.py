"""F, M, W and G against the original networks, and as equations."""

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from full_size import filled, keypoint_change, picture
from golden import find, load, state

from realportrait_core.config import MINI, PAPER, Vid2VidConfig
from realportrait_core.errors import InputError
from realportrait_core.vid2vid import FaceVid2Vid, warp
from realportrait_core.vid2vid.appearance import AppearanceExtractor
from realportrait_core.vid2vid.blocks import fold_norms
from realportrait_core.vid2vid.checkpoint import fuse_spectral_norm
from realportrait_core.vid2vid.generator import Generator
from realportrait_core.vid2vid.keypoints import transform
from realportrait_core.vid2vid.motion import MotionExtractor
from realportrait_core.vid2vid.sampling import gather_trilinear, sample_volume
from realportrait_core.vid2vid.warp import WarpingNetwork, coordinate_grid, gaussians, head_turn

# Times the float32 error of the original itself, as its JSON records it, on one machine; 12.5 was seen with kernels for AVX2.
ROOM = 20
F_SMALL = Vid2VidConfig(
    crop_size=64, dense_blocks=3, appearance_width=8, reshape_channel=8, reshape_depth=4, appearance_resblocks=2
)
M_SMALL = Vid2VidConfig(crop_size=64, dense_blocks=3, motion_depths=(2, 1, 2, 1), motion_dims=(16, 24, 32, 48))
W_SMALL = Vid2VidConfig(
    crop_size=128, dense_blocks=3, reshape_channel=8, reshape_depth=8, dense_width=8, dense_max=32, warped_channels=32
)
G_SMALL = Vid2VidConfig(warped_channels=8, generator_out=4)
TINY = Vid2VidConfig(
    crop_size=32,
    num_kp=5,
    appearance_width=4,
    reshape_channel=4,
    reshape_depth=3,
    appearance_resblocks=1,
    motion_depths=(1, 1, 1, 1),
    motion_dims=(8, 8, 8, 8),
    dense_width=4,
    dense_max=8,
    dense_blocks=2,
    compress=2,
    mask_kernel=3,
    warped_channels=6,
    generator_blocks=1,
    generator_out=4,
    spade_hidden=8,
    upscale=1,
)


def error(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    return float((a - b).detach().abs().max())


def with_weights(network: torch.nn.Module, weights: dict) -> torch.nn.Module:
    network.load_state_dict(weights, strict=True)
    return network.eval().requires_grad_(False)


# Parity


def test_appearance_is_the_original():
    tensors, about = load("motion", "F_small")
    f = with_weights(AppearanceExtractor(F_SMALL), state(tensors))
    assert error(f(tensors["in/image"]), tensors["out/f_s"]) < ROOM * about["f64_max_abs_err"]


def test_motion_is_the_original():
    tensors, about = load("motion", "M_small")
    m = with_weights(MotionExtractor(M_SMALL), state(tensors))
    raw = m.raw(tensors["in/image"])
    for name, tolerance in about["f64_max_abs_err"].items():
        assert error(raw[name], tensors[f"out/{name}"]) < ROOM * tolerance, name


def test_warping_is_the_original():
    tensors, about = load("motion", "W_small")
    w = with_weights(WarpingNetwork(W_SMALL), state(tensors))
    middle = {}
    w.third.register_forward_hook(lambda module, args, out: middle.update(warped=args[0], third=out))
    w.fourth.register_forward_hook(lambda module, args, out: middle.update(fourth=out))
    warped = w(tensors["in/feature_3d"], tensors["in/kp_driving"], tensors["in/kp_source"])
    tolerance = {name: ROOM * value for name, value in about["f64_max_abs_err"].items()}
    assert error(warped.deformation, tensors["out/deformation"]) < tolerance["deformation"]
    assert error(warped.occlusion, tensors["out/occlusion_map"]) < tolerance["occlusion_map"]
    assert error(warped.out, tensors["out/out"]) < tolerance["out"]
    assert error(middle["warped"], tensors["mid/warped_3d"].flatten(1, 2)) < tolerance["out"]
    assert error(middle["third"], tensors["mid/third"]) < tolerance["out"]
    assert error(middle["fourth"], tensors["mid/fourth"]) < tolerance["out"]


def test_warping_with_its_norms_folded_in_is_the_original():
    tensors, about = load("motion", "W_small")
    w = fold_norms(with_weights(WarpingNetwork(W_SMALL), state(tensors)))
    assert not any(isinstance(module, (torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)) for module in w.modules())
    warped = w(tensors["in/feature_3d"], tensors["in/kp_driving"], tensors["in/kp_source"])
    assert error(warped.out, tensors["out/out"]) < ROOM * about["f64_max_abs_err"]["out"]


def test_the_first_norms_of_the_residual_blocks_stay():
    tensors, about = load("motion", "F_small")
    f = fold_norms(with_weights(AppearanceExtractor(F_SMALL), state(tensors)))
    assert sum(isinstance(module, torch.nn.BatchNorm3d) for module in f.modules()) == F_SMALL.appearance_resblocks
    assert error(f(tensors["in/image"]), tensors["out/f_s"]) < ROOM * about["f64_max_abs_err"]


def test_generator_with_fused_spectral_norm_is_the_original():
    tensors, about = load("motion", "G_small")
    g = with_weights(Generator(G_SMALL), fuse_spectral_norm(state(tensors)))
    assert error(g(tensors["in/feature"]), tensors["out/image"]) < ROOM * about["f64_max_abs_err"]


def test_paper_preset_has_the_published_keys_and_shapes():
    published = json.loads(find("motion", "full_keys.json").read_text(encoding="utf-8"))["keys"]
    with torch.device("meta"):
        model = FaceVid2Vid(PAPER.vid2vid)
    parts = {
        "appearance_feature_extractor": model.appearance,
        "motion_extractor": model.motion,
        "warping_module": model.warping,
        "spade_generator": model.generator,
    }
    for name, network in parts.items():
        wanted = {
            key.replace("weight_orig", "weight"): tuple(shape)
            for key, (shape, _) in published[name].items()
            if not key.endswith(("weight_u", "weight_v"))
        }
        assert {key: tuple(value.shape) for key, value in network.state_dict().items()} == wanted, name


@pytest.mark.slow  # 130 M parameters
def test_full_size_chain_is_the_original():
    tensors, about = load("motion", "full_size")
    recorded = about["f32_vs_f64_max_abs_err"]
    source, driving = picture("source"), picture("driving")
    m = filled(MotionExtractor, "motion_extractor")
    for short, keypoints, image in (("src", "x_s", source), ("drv", "x_drv", driving)):
        for name, value in m.raw(image).items():
            assert error(value, tensors[f"out/{short}_{name}"]) < ROOM * recorded["M"][name], (short, name)
        assert error(transform(m(image)), tensors[f"out/{keypoints}"]) < 2e-6

    f_r = filled(AppearanceExtractor, "appearance_feature_extractor")(source)
    assert error(f_r[..., ::2, ::2], tensors["out/f_s_s2"]) < ROOM * recorded["f_s"]

    x_s = transform(m(source))
    x_d = x_s + keypoint_change()
    w = filled(WarpingNetwork, "warping_module")
    middle = {}
    heads = w.dense_motion_network.heads
    w.dense_motion_network.heads = lambda features: middle.setdefault("heads", heads(features))
    w.third.register_forward_hook(lambda module, args, out: middle.update(warped=args[0]))
    w.fourth.register_forward_hook(lambda module, args, out: middle.update(fourth=out))
    warped = w(f_r, x_d, x_s)
    assert error(warped.deformation, tensors["out/deformation"]) < ROOM * recorded["W"]["deformation"]
    assert error(warped.occlusion, tensors["out/occlusion_map"]) < ROOM * recorded["W"]["occlusion_map"]
    assert error(warped.out, tensors["out/f_r2d"]) < ROOM * recorded["W"]["out"]
    assert error(middle["heads"][0].softmax(1)[..., ::4, ::4], tensors["out/mask_s4"]) < ROOM * recorded["W"]["deformation"]
    assert error(middle["warped"][..., ::4, ::4], tensors["out/warped_3d_s4"]) < ROOM * recorded["W"]["out"]
    assert error(middle["fourth"][..., ::4, ::4], tensors["out/fourth_s4"]) < ROOM * recorded["W"]["out"]

    image = filled(Generator, "spade_generator")(warped.out)
    assert error(image[..., ::2, ::2], tensors["out/image_s2"]) < 2 * ROOM * recorded["G"]  # W's error comes on top
    assert error(image[..., 192:320, 192:320], tensors["out/image_patch"]) < 2 * ROOM * recorded["G"]


# Equations


@pytest.fixture(scope="module")
def tiny() -> FaceVid2Vid:
    """A small set with random weights and random batch statistics, so that no layer is near the identity."""
    torch.manual_seed(0)
    model = FaceVid2Vid(TINY)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    return model.eval().requires_grad_(False)


def faces(n: int, seed: int) -> torch.Tensor:
    return torch.rand(n, 3, TINY.crop_size, TINY.crop_size, generator=torch.Generator().manual_seed(seed))


def points(n: int, seed: int) -> torch.Tensor:
    return torch.rand(n, TINY.num_kp, 3, generator=torch.Generator().manual_seed(seed)) * 1.6 - 0.8


def test_undriven_keypoints_leave_the_feature_in_place(tiny):
    f_r, x = tiny.appearance(faces(1, 0)), points(1, 1)
    deformation = tiny.warping(f_r, x, x).deformation
    assert torch.equal(deformation[0], coordinate_grid(TINY.reshape_depth, 8, 8, x.device))


def test_one_common_shift_moves_no_further_than_the_shift(tiny):
    """Every sparse motion but the background's is the same, so the dense one lies between none and all of it."""
    f_r, x_s = tiny.appearance(faces(1, 0)), points(1, 1)
    shift = torch.tensor([0.2, -0.1, 0.05])
    deformation = tiny.warping(f_r, x_s + shift, x_s).deformation[0]
    share = (deformation - coordinate_grid(TINY.reshape_depth, 8, 8, x_s.device)) / -shift
    assert share.min() > 0 and share.max() < 1
    assert error(share[..., :2], share[..., 1:]) < 1e-5


# Where a keypoint's surroundings turn with the head


@pytest.fixture(scope="module")
def turning() -> FaceVid2Vid:
    torch.manual_seed(0)
    return FaceVid2Vid(replace(TINY, first_order=True)).eval().requires_grad_(False)


def turns(n: int, seed: int) -> torch.Tensor:
    """Rotations (n, 3, 3)."""
    q, _ = torch.linalg.qr(torch.randn(n, 3, 3, generator=torch.Generator().manual_seed(seed)).double())
    return (q * torch.linalg.det(q)[:, None, None]).float()


def test_head_turn_finds_rotation_and_zoom():
    x, turn = points(5, 1), turns(5, 2)
    zoom = torch.tensor([0.5, 0.8, 1.0, 1.3, 2.0])[:, None, None]
    assert error(head_turn(x, zoom * x @ turn + 0.3), zoom * turn) < 1e-5


def test_head_turn_never_mirrors():
    x = points(4, 1)
    mirrored = x * torch.tensor([-1.0, 1.0, 1.0])
    assert (torch.linalg.det(head_turn(x, mirrored)) > 0).all()


def test_a_rigid_motion_is_followed_everywhere_that_is_not_background(turning):
    """All keypoints then agree, so a cell lies between staying and the head's own motion, by one share for x, y and z."""
    f_r, x_d, turn = turning.appearance(faces(1, 0)), 0.5 * points(1, 1), turns(1, 3)
    shift = torch.tensor([0.2, -0.1, 0.05])
    deformation = turning.warping(f_r, x_d, 0.9 * x_d @ turn + shift).deformation[0]
    grid = coordinate_grid(TINY.reshape_depth, 8, 8, x_d.device, centred=True)
    whole = 0.9 * grid @ turn[0] + shift - grid
    share = ((deformation - grid) * whole).sum(-1, keepdim=True) / whole.square().sum(-1, keepdim=True)
    assert 0 < share.min() and share.max() < 1
    assert error(deformation - grid, share * whole) < 1e-5


def test_centred_the_identity_samples_the_feature_itself(turning):
    f_r, x = turning.appearance(faces(1, 0)), points(1, 1)
    deformation = turning.warping(f_r, x, x).deformation
    assert error(F.grid_sample(f_r, deformation, align_corners=False), f_r) < 1e-4


# Where the dense motion network looks at a coarser feature


@pytest.fixture(scope="module")
def coarse() -> FaceVid2Vid:
    torch.manual_seed(0)
    return FaceVid2Vid(replace(TINY, dense_down=1, dense_blocks=1, first_order=True)).eval().requires_grad_(False)


def test_coarse_motion_moves_the_fine_feature(coarse):
    f_r, x = coarse.appearance(faces(1, 0)), points(1, 1)
    assert coarse.warping.compress(f_r).shape[3:] == (4, 4) and f_r.shape[3:] == (8, 8)
    still = coarse.warping(f_r, x, x)
    assert still.out.shape[2:] == still.occlusion.shape[2:] == still.deformation.shape[2:4] == (8, 8)
    assert error(F.grid_sample(f_r, still.deformation, align_corners=False), f_r) < 1e-4
    assert not torch.allclose(coarse.warping(f_r, x + 0.1, x).out, still.out)


def test_a_linear_motion_stays_linear_on_finer_cells(coarse):
    """Shifts are interpolated between the centres of coarse cells; beyond the outermost ones they stay as they are."""
    turn = torch.eye(3) + 0.2 * torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    grids = [coordinate_grid(TINY.reshape_depth, n, n, torch.device("cpu"), centred=True) for n in (4, 8)]
    fine = coarse.warping.refined((grids[0] @ turn + 0.3)[None], (8, 8))[0]
    inner = (slice(None), slice(1, -1), slice(1, -1))
    assert error(fine[inner], (grids[1] @ turn + 0.3)[inner]) < 1e-6


def literal_warp(w: WarpingNetwork, f_r: torch.Tensor, x_d: torch.Tensor, x_s: torch.Tensor):
    """W for one frame as the paper tells it: K+1 copies of the feature, K+1 whole motions, no shared work."""
    dense = w.dense_motion_network
    compressed = F.relu(dense.norm(dense.compress(f_r)))
    depth, height, width = f_r.shape[2:]
    z, y, x = (2 * torch.arange(n) / (n - 1) - 1 for n in (depth, height, width))
    grid = torch.stack(
        (x.expand(depth, height, width), y[:, None].expand(depth, height, width), z[:, None, None].expand(depth, height, width)), -1
    )
    motions, candidates = [grid], [torch.zeros(1, 1, depth, height, width)]
    candidates.append(F.grid_sample(compressed, grid[None], mode="bilinear", padding_mode="zeros", align_corners=False))
    for k in range(x_d.shape[1]):
        heat = [torch.exp(-0.5 * ((grid - points[0, k]) ** 2).sum(-1) / 0.01) for points in (x_d, x_s)]
        motions.append(grid - x_d[0, k] + x_s[0, k])
        candidates.append((heat[0] - heat[1])[None, None])
        candidates.append(F.grid_sample(compressed, motions[-1][None], align_corners=False))
    features = dense.hourglass(torch.cat(candidates, 1))
    mask = dense.mask(features).softmax(1)[0]  # (K+1, D, h, w)
    deformation = (mask[..., None] * torch.stack(motions)).sum(0)[None]  # (1, D, h, w, 3)
    occlusion = torch.sigmoid(dense.occlusion(features.reshape(1, -1, height, width)))
    warped = F.grid_sample(f_r, deformation, align_corners=False).reshape(1, -1, height, width)
    h = F.leaky_relu(w.third.norm(w.third.conv(warped)), 0.01)
    return w.fourth(h) * occlusion, occlusion, deformation


def test_warping_is_its_literal_form(tiny):
    f_r, x_s, x_d = tiny.appearance(faces(1, 0)), points(1, 1), points(1, 2)
    out, occlusion, deformation = literal_warp(tiny.warping, f_r, x_d, x_s)
    warped = tiny.warping(f_r, x_d, x_s)
    assert error(warped.deformation, deformation) < 1e-5
    assert error(warped.occlusion, occlusion) < 1e-5
    assert error(warped.out, out) < 1e-5


def sampled_with_gradients(sample, volume, grid, weights):
    """What `sample` gives, and the gradients of its weighted sum by volume and grid."""
    volume, grid = volume.clone().requires_grad_(), grid.clone().requires_grad_()
    out = sample(volume, grid)
    (out * weights).sum().backward()
    return out.detach(), volume.grad, grid.grad


def test_the_own_gather_is_grid_sample():
    """Values and gradients: inside, across every border, far outside, and exactly on the centres of cells."""
    generator = torch.Generator().manual_seed(0)
    volume = torch.randn(2, 3, 4, 5, 7, generator=generator, dtype=torch.float64)
    scattered = torch.rand(2, 6, 8, 9, 3, generator=generator, dtype=torch.float64) * 3 - 1.5
    scattered[0, 0, 0, 0] = torch.tensor([1e6, 0.0, 0.0])
    scattered[1, 0, 0, 0] = torch.tensor([0.0, -1e6, 0.5])
    steps = [(torch.arange(-1, n + 1, dtype=torch.float64) * 2 + 1) / n - 1 for n in (4, 5, 7)]
    z, y, x = torch.meshgrid(*steps, indexing="ij")
    centres = torch.stack((x, y, z), -1).expand(2, -1, -1, -1, -1)
    for grid in (scattered, centres):
        weights = torch.randn(2, 3, *grid.shape[1:4], generator=generator, dtype=torch.float64)
        own = sampled_with_gradients(gather_trilinear, volume, grid, weights)
        wanted = sampled_with_gradients(lambda v, g: F.grid_sample(v, g, align_corners=False), volume, grid, weights)
        assert max(error(a, b) for a, b in zip(own, wanted)) < 1e-12
    assert torch.equal(sample_volume(volume, scattered), F.grid_sample(volume, scattered, align_corners=False))


def test_warping_on_metal_is_the_same(tiny, monkeypatch):
    f_r, x_s, x_d = tiny.appearance(faces(1, 0)), points(1, 1), points(3, 2)
    wanted = tiny.warping(f_r, x_d, x_s)
    monkeypatch.setattr(warp, "sample_volume", gather_trilinear)
    assert error(tiny.warping(f_r, x_d, x_s).out, wanted.out) < 1e-5


def test_heatmaps_are_gaussians_on_the_grid():
    x = points(2, 3)
    grid = coordinate_grid(3, 8, 6, x.device)
    distance = ((grid - x[:, :, None, None, None]) ** 2).sum(-1)
    assert error(gaussians(x, 3, 8, 6), torch.exp(-0.5 * distance / 0.01)) < 1e-6


def test_heatmaps_hold_no_denormal_numbers():
    """Convolutions over them take a processor five times as long."""
    heat = gaussians(points(2, 3), 4, 32, 32)
    assert ((heat == 0) | (heat >= torch.finfo(torch.float32).tiny)).all() and (heat == 0).any()


def test_one_portrait_is_shared_over_the_driving_frames(tiny):
    f_r, x_s, x_d = tiny.appearance(faces(1, 0)), points(1, 1), points(3, 2)
    shared = tiny.warping(f_r, x_d, x_s)
    at_hand = tiny.warping(f_r, x_d, x_s, tiny.warping.compress(f_r))
    repeated = tiny.warping(f_r.repeat(3, 1, 1, 1, 1), x_d, x_s.repeat(3, 1, 1))
    alone = torch.cat([tiny.warping(f_r, x_d[i : i + 1], x_s).out for i in range(3)])
    assert torch.equal(shared.out, at_hand.out)
    assert error(shared.out, repeated.out) < 1e-5
    assert error(shared.out, alone) < 1e-5
    assert error(shared.out[:1], shared.out[1:2]) > 1e-3


def test_faces_of_a_batch_do_not_mix(tiny):
    images = faces(3, 4)
    one_by_one = [tiny.motion(images[i : i + 1]) for i in range(3)]
    assert error(transform(tiny.motion(images)), torch.cat([transform(p) for p in one_by_one])) < 1e-5
    assert error(tiny.appearance(images)[1:2], tiny.appearance(images[1:2])) < 1e-5


def test_generator_paints_between_black_and_white_at_four_times_the_feature(tiny):
    f = torch.randn(2, TINY.warped_channels, 8, 8, generator=torch.Generator().manual_seed(5)) * 3
    image = tiny.generator(f)
    assert image.shape == (2, 3, 32, 32)
    assert 0 <= image.min() < image.max() <= 1


def test_spade_normalises_each_picture_on_its_own():
    """SPADE with no gain and no bias of its own is an instance norm."""
    torch.manual_seed(0)
    norm = Generator(TINY).up_0.norm_0
    torch.nn.init.zeros_(norm.mlp_gamma.weight)
    torch.nn.init.zeros_(norm.mlp_gamma.bias)
    torch.nn.init.zeros_(norm.mlp_beta.weight)
    torch.nn.init.zeros_(norm.mlp_beta.bias)
    x = torch.randn(2, 2 * TINY.warped_channels, 8, 8) * 3 + 1
    y = norm(x, torch.randn(2, TINY.warped_channels, 4, 4))
    assert error(y.mean((2, 3)), torch.zeros(2, x.shape[1])) < 1e-5
    assert error(y.var((2, 3), unbiased=False), torch.ones(2, x.shape[1])) < 1e-3


def test_half_precision_keeps_the_geometry_in_float32(tiny):
    torch.manual_seed(0)
    low = FaceVid2Vid(TINY).eval().requires_grad_(False)
    low.load_state_dict(tiny.state_dict())
    low.bfloat16()
    f_r = low.appearance(faces(1, 0).bfloat16())
    pose = low.motion(faces(1, 6).bfloat16())
    warped = low.warping(f_r, points(1, 2), points(1, 1))
    assert (warped.deformation.dtype, transform(pose).dtype) == (torch.float32, torch.float32)
    assert warped.out.dtype == torch.bfloat16
    exact = tiny.warping(tiny.appearance(faces(1, 0)), points(1, 2), points(1, 1))
    assert error(warped.deformation, exact.deformation) < 0.05
    assert warped.out.isfinite().all()


def test_mini_trains_through_all_four_networks():
    torch.manual_seed(0)
    cfg = MINI.vid2vid
    model = FaceVid2Vid(cfg).train()
    portrait, driver = torch.rand(2, 2, 3, cfg.crop_size, cfg.crop_size)
    warped = model.warping(model.appearance(portrait), transform(model.motion(driver)), transform(model.motion(portrait)))
    picture = model.generator(warped.out)
    assert warped.out.shape == (2, cfg.warped_channels, cfg.feature_size, cfg.feature_size)
    side = 4 * cfg.feature_size * cfg.upscale
    assert picture.shape == (2, 3, side, side)
    F.l1_loss(picture, F.interpolate(driver, size=side)).backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not silent
    # t_z is never used; and the layers behind a zero-initialised gain see their first gradient one step later.
    still = [name for name, p in model.named_parameters() if not p.grad.any()]
    assert all("grn" in name or name.endswith("conv.bias") for name in still), still


def test_untrained_keypoints_start_apart_and_inside_the_crop():
    torch.manual_seed(0)
    x = transform(MotionExtractor(MINI.vid2vid).eval()(torch.rand(1, 3, 128, 128)))[0]
    distance = torch.cdist(x, x) + 10 * torch.eye(len(x))
    assert distance.min() > 0.02
    assert x.abs().max() < 1.5


# Bad input


@pytest.mark.parametrize("shape", [(1, 3, 31, 32), (1, 4, 32, 32), (3, 32, 32), (1, 3, 64, 64), (1, 32, 32, 3)])
def test_wrong_crops_are_refused_with_both_shapes(tiny, shape):
    for network in (tiny.appearance, tiny.motion):
        with pytest.raises(InputError, match=r"\(B, 3, 32, 32\)") as caught:
            network(torch.zeros(shape))
        assert str(shape) in str(caught.value)


@pytest.mark.parametrize(
    "f_r, x_d, x_s, message",
    [
        ((1, 4, 3, 8, 8), (1, 21, 3), (1, 5, 3), r"x_d .*\(B, 5, 3\)"),
        ((1, 4, 3, 8, 8), (1, 5, 3), (1, 5, 2), r"x_s .*\(B, 5, 3\)"),
        ((1, 3, 4, 8, 8), (1, 5, 3), (1, 5, 3), r"f_r .*\(B, 4, 3, h, w\)"),
        ((1, 4, 3, 6, 8), (1, 5, 3), (1, 5, 3), "multiples of 4"),
        ((2, 4, 3, 8, 8), (3, 5, 3), (1, 5, 3), "f_r holds 2 faces for 3 driving frames"),
        ((1, 4, 3, 8, 8), (3, 5, 3), (2, 5, 3), "x_s holds 2 faces for 3 driving frames"),
    ],
)
def test_warping_refuses_what_does_not_fit(tiny, f_r, x_d, x_s, message):
    with pytest.raises(InputError, match=message):
        tiny.warping(torch.zeros(f_r), torch.zeros(x_d), torch.zeros(x_s))


def test_generator_refuses_another_feature(tiny):
    with pytest.raises(InputError, match=r"\(B, 6, h, w\)"):
        tiny.generator(torch.zeros(1, 7, 8, 8))


@pytest.mark.parametrize("crop_size", [0, -128, 100, 4096])
def test_impossible_crop_sizes_are_refused(crop_size):
    with pytest.raises(InputError, match=str(crop_size)):
        Vid2VidConfig(crop_size=crop_size)
