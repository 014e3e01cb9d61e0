"""The parts that are measured, each with random weights: what is computed literally, and as we do it."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from realportrait_core.config import ConditionerConfig
from realportrait_core.dit import ClipShape, RealPortraitDiT
from realportrait_core.dit.attention import SpatialAttention, TemporalAttention, join_reference, scaled_dot_product
from realportrait_core.dit.embed import rope
from realportrait_core.dit.motion_mapper import MotionMapper
from realportrait_core.face.crop import clip_crop, face_ellipse
from realportrait_core.motion_map import MotionMaps
from realportrait_core.vid2vid.appearance import AppearanceExtractor
from realportrait_core.vid2vid.blocks import fold_norms
from realportrait_core.vid2vid.generator import Generator
from realportrait_core.vid2vid.motion import MotionExtractor
from realportrait_core.vid2vid.warp import WarpingNetwork

from .literal import dit as literal_dit
from .literal import motion_map as literal_map
from .literal import vid2vid as literal_vid2vid
from .sizes import Sizes

# A face as large as in the pictures of training, on a square of 512 px: eyes, nose, corners of the mouth, x and y in px.
FACE = torch.tensor([[209.0, 195.0], [303.0, 195.0], [256.0, 250.0], [220.0, 295.0], [292.0, 295.0]], dtype=torch.float64)


@dataclass(frozen=True)
class Part:
    """Two ways to one result."""

    name: str
    size: str
    literal: Callable[[], Tensor]
    ours: Callable[[], Tensor]
    faster: float  # at least so many times as fast on the CPU
    leaner: float | None = None  # times less extra memory at its peak
    frames: int | None = None  # of a call, for frames a second: of the networks of Face Vid2vid


def random_weights(network: nn.Module, device: torch.device | str, seed: int = 0) -> nn.Module:
    """No zero anywhere, so that no path is dead; activations of about one."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 1.5)
            elif value.ndim > 1:
                value.normal_(std=value[0].numel() ** -0.5)
            elif value.is_floating_point():
                value.normal_(mean=1.0 if name.endswith("norm.weight") else 0.0, std=0.1)
    return network.to(device).eval().requires_grad_(False)


def some_maps(channels: int, side: int, px: int, frames: int) -> MotionMaps:
    """A face that moves through a square of px, framed as in training."""
    points = (FACE - 256) * px / 512 + px / 2
    points = torch.stack([points + 0.01 * px * i for i in range(frames)])  # (L, 5, 2)
    crop = clip_crop(points)
    return MotionMaps(torch.randn(frames, channels, side, side), crop.expand(frames, 3, 3), face_ellipse(points), px, px)


def step(sizes: Sizes, device: str) -> Part:
    """A denoising step of a clip whose first frame is known, as every clip after the first."""
    cfg, frames, side = sizes.step, sizes.step_frames, sizes.step_px // 8
    model = random_weights(RealPortraitDiT(cfg), device)
    shape = ClipShape(sizes.step_px, sizes.step_px, frames, cfg.fps)
    z_t, z_r = torch.randn(1, frames, cfg.in_channels, side, side), torch.randn(1, cfg.in_channels, side, side)
    maps, own_maps = (some_maps(cfg.motion_channels, 64, sizes.step_px, n).to(device) for n in (frames, 1))
    t, conditional = torch.full((1,), 500.0, device=device), torch.arange(frames, device=device)[None] == 0
    z_t, z_r = z_t.to(device), z_r.to(device)

    reference = model.encode_reference(z_r, shape, own_maps)
    motion = model.motion_latents(maps, reference.features)
    control = model.encode_motion_latent(motion, sizes.step_px, sizes.step_px)
    own_motion = model.conditioner.map_motion(own_maps) if cfg.reference_motion else None
    return Part(
        "denoising step",
        f"{sizes.name}, {cfg.depth}+{cfg.control_depth} blocks, {frames} frames of {sizes.step_px} px",
        literal=lambda: literal_dit.step(model, z_t, t, shape, z_r, motion[None], conditional, own_motion),
        ours=lambda: model(z_t, t[:, None].expand(1, frames), shape, reference, control, conditional),
        faster=1.25,
    )


def motion_map(sizes: Sizes, device: str) -> Part:
    """From f_{r->d} to the motion latent: the map, and the motion mapper that reads it."""
    cfg, frames = sizes.config.dit, sizes.map_frames
    own = cfg.conditioner or ConditionerConfig()
    maps = some_maps(cfg.motion_channels, sizes.config.vid2vid.feature_size, sizes.map_px, frames).reaching(own.mask_reach)
    mapper = random_weights(MotionMapper(cfg.motion_channels, cfg.motion_widths, own.motion_latent, operations=nn), device)
    maps = maps.to(device)
    return Part(
        "motion map",
        f"{sizes.name}, {cfg.motion_channels} channels, {frames} frames of {sizes.map_px} px",
        literal=lambda: literal_map.motion_latent(mapper, maps),
        ours=lambda: mapper(maps),
        faster=8.0,
        leaner=5.0,
    )


def warp(sizes: Sizes, device: str) -> Part:
    """W over driving frames of one portrait."""
    cfg, frames = sizes.config.vid2vid, sizes.vid2vid_frames
    network = random_weights(WarpingNetwork(cfg), device)
    folded = fold_norms(copy.deepcopy(network))
    f_r = torch.randn(1, cfg.reshape_channel, cfg.reshape_depth, cfg.feature_size, cfg.feature_size).to(device)
    x_s = 0.5 * torch.randn(1, cfg.num_kp, 3)
    x_d = (x_s + 0.1 * torch.randn(frames, cfg.num_kp, 3)).to(device)
    x_s = x_s.to(device)
    compressed = folded.compress(f_r)
    return Part(
        "W",
        f"{sizes.name}, {cfg.num_kp} keypoints, {frames} frames",
        literal=lambda: literal_vid2vid.warp(network, f_r, x_d, x_s),
        ours=lambda: folded(f_r, x_d, x_s, compressed).out,
        faster=1.3 if cfg.mask_kernel > 3 else 1.0,  # the gain is in large kernels,
        leaner=0.3,  # whose spectrum is kept
        frames=frames,
    )


def appearance(sizes: Sizes, device: str) -> Part:
    """F, once for a portrait."""
    cfg = sizes.config.vid2vid
    network = random_weights(AppearanceExtractor(cfg), device)
    folded = fold_norms(copy.deepcopy(network))
    image = torch.rand(1, 3, cfg.crop_size, cfg.crop_size).to(device)
    return Part(
        "F",
        f"{sizes.name}, {cfg.crop_size} px",
        literal=lambda: literal_vid2vid.appearance(network, image),
        ours=lambda: folded(image),
        faster=1.0,
        frames=1,
    )


def motion(sizes: Sizes, device: str) -> Part:
    """M over driving frames."""
    cfg, frames = sizes.config.vid2vid, sizes.vid2vid_frames
    network = random_weights(MotionExtractor(cfg), device)
    images = torch.rand(frames, 3, cfg.crop_size, cfg.crop_size).to(device)
    return Part(
        "M",
        f"{sizes.name}, {frames} frames of {cfg.crop_size} px",
        literal=lambda: literal_vid2vid.motion(network, images),
        ours=lambda: torch.cat(list(network.raw(images).values()), 1),
        faster=1.0,
        frames=frames,
    )


def generator(sizes: Sizes, device: str) -> Part:
    """G over the frames that W gives."""
    cfg, frames = sizes.config.vid2vid, sizes.vid2vid_frames
    network = random_weights(Generator(cfg), device)
    f = torch.randn(frames, cfg.warped_channels, cfg.feature_size, cfg.feature_size).to(device)
    return Part(
        "G",
        f"{sizes.name}, {frames} frames of {4 * cfg.feature_size * cfg.upscale} px",
        literal=lambda: literal_vid2vid.generator(network, f),
        ours=lambda: network(f),
        faster=1.0,
        frames=frames,
    )


def attention_in_space(sizes: Sizes, device: str) -> Part:
    """Every frame's tokens over themselves and the portrait's keys and values, which are joined to each frame's own."""
    cfg, frames, tokens = sizes.step, sizes.step_frames, (sizes.step_px // 8 // sizes.step.patch) ** 2
    layer = random_weights(SpatialAttention(cfg.hidden, cfg.heads, attention=scaled_dot_product, operations=nn), device)
    x, portrait = (torch.randn(n, tokens, cfg.hidden).to(device) for n in (frames, 1))
    reference = layer.key_value(portrait)
    return Part(
        "attention in space",
        f"{sizes.name}, {frames} frames of {tokens} tokens and the portrait's",
        literal=lambda: literal_dit.spatial_attention(layer, x, reference)[0],
        ours=lambda: layer(x, reference),
        faster=1.0,
    )


def attention_in_time(sizes: Sizes, device: str) -> Part:
    """Every place over all frames; literally with the places brought to the front and back."""
    cfg, frames, tokens = sizes.step, sizes.step_frames, (sizes.step_px // 8 // sizes.step.patch) ** 2
    layer = random_weights(
        TemporalAttention(cfg.hidden, cfg.heads, norm_last=cfg.qk_norm_legacy, attention=scaled_dot_product, operations=nn), device
    )
    x, turn = torch.randn(1, frames, tokens, cfg.hidden).to(device), rope(frames, cfg.hidden // cfg.heads, device)

    def literal() -> Tensor:
        out = literal_dit.temporal_attention(layer, rearrange(x, "1 l s c -> s l c"), cfg.qk_norm_legacy)
        return rearrange(out, "s l c -> 1 l s c").contiguous()

    return Part(
        "attention in time", f"{sizes.name}, {tokens} places over {frames} frames", literal, lambda: layer(x, turn), faster=1.0
    )


def two_sources(sizes: Sizes, device: str) -> Part:
    """What is not done, since it pays little or nothing: a frame's own keys and the portrait's read apart, without a copy of
    either, and the two results weighed by their shares of the softmax."""
    cfg, frames, tokens = sizes.step, sizes.step_frames, (sizes.step_px // 8 // sizes.step.patch) ** 2
    heads, dim = cfg.heads, cfg.hidden // cfg.heads
    dtype = torch.bfloat16 if device == "cuda" else torch.float32  # flash attention has no float32 there
    q, k, v = (torch.randn(frames, heads, tokens, dim).to(device, dtype) for _ in range(3))
    k_r, v_r = (torch.randn(1, heads, tokens, dim).to(device, dtype) for _ in range(2))
    one = torch.ops.aten
    flash = one._scaled_dot_product_flash_attention if device == "cuda" else one._scaled_dot_product_flash_attention_for_cpu

    def apart() -> Tensor:
        own, log_own = flash(q, k, v)[:2]  # (L, h, S, d), (L, h, S)
        out, log_out = flash(rearrange(q, "l h s d -> 1 h (l s) d"), k_r, v_r)[:2]  # every frame's at once
        out, log_out = (rearrange(x, "1 h (l s) ... -> l h s ...", l=frames) for x in (out, log_out))
        share = torch.sigmoid(log_own - log_out)[..., None].to(out)
        return rearrange(torch.lerp(out, own, share), "l h s d -> l s (h d)")

    return Part(
        "two sources apart",
        f"{sizes.name}, {frames} frames of {tokens} tokens and the portrait's",
        literal=lambda: scaled_dot_product(q, join_reference(k, k_r), join_reference(v, v_r)),
        ours=apart,
        faster=1.0,
    )


PARTS = {
    "step": step,
    "space": attention_in_space,
    "two": two_sources,
    "time": attention_in_time,
    "map": motion_map,
    "appearance": appearance,
    "motion": motion,
    "warp": warp,
    "generator": generator,
}
