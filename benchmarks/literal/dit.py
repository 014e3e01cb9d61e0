"""A denoising step of STDiT2 with reference attention and the motion ControlNet, as the equations have it.

Every step embeds the positions, the picture's size and the motion, runs the portrait through the backbone in parallel with the
frames, and joins its keys and values to those of each frame. Conditional frames are modulated as in the public STDiT2: all tokens
are computed with the frames' t and with t = 0, and a mask selects one of the two for each.
"""

from dataclasses import dataclass
from math import sqrt

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor

from realportrait_core.dit import ClipShape, RealPortraitDiT
from realportrait_core.dit.attention import Attention
from realportrait_core.dit.block import MLP, Block
from realportrait_core.dit.embed import PatchEmbed, position_embedding, rope, rotate


@dataclass(frozen=True)
class Times:
    """The embedded timesteps of B clips: of noised frames and of frames without noise."""

    noised: Tensor  # (B, C)
    clean: Tensor  # (B, C)
    mask: Tensor  # (B, L) bool: frames with noise


@dataclass(frozen=True)
class Tokens:
    """Tokens (B, L S, C) and the number of frames L."""

    x: Tensor
    frames: int


def step(
    model: RealPortraitDiT,
    z_t: Tensor,
    t: Tensor,
    shape: ClipShape,
    z_r: Tensor,
    motion: Tensor,
    conditional: Tensor,
    own_motion: Tensor | None = None,
) -> Tensor:
    """The prediction (B, L, c, h, w), float32, for every frame of B clips.

    z_t          (B, L, 4, h, w) noised latents, conditional frames clean
    t            (B,) the timestep of the noised frames
    z_r          (B, 4, h, w) the portraits' latents
    motion       (B, L, m, h, w) motion latents, from the motion mapper
    conditional  (B, L) bool: these frames count as t = 0
    own_motion   (B, m, h, w) the portraits' own, for networks with reference_motion
    """
    frames, (h, w), dtype = z_t.shape[1], z_t.shape[-2:], model.x_embedder.proj.weight.dtype
    time, clean = (model.t_embedder(value, dtype) for value in (t, torch.zeros_like(t)))  # (B, C)
    size = torch.cat(
        [embed_number(model.csize_embedder, n, z_t) for n in (shape.height, shape.width)]
        + [embed_number(model.ar_embedder, shape.aspect, z_t)],
        -1,
    )  # (1, C)
    length = embed_number(model.fl_embedder, shape.frames, z_t) + embed_number(model.fps_embedder, shape.fps, z_t)
    space, over_time = Times(time + size, clean + size, ~conditional), Times(time + length, clean + length, ~conditional)

    x = embed(model, model.x_embedder, z_t, shape)
    c = embed(model, motion_embedder(model), motion, shape)
    r = embed(model, model.x_embedder, z_r[:, None], shape)
    if own_motion is not None:
        r = r + linear(model.conditioner.reference_proj, embed(model, motion_embedder(model), own_motion[:, None], shape))
    none_noised = torch.zeros(len(z_r), 1, dtype=torch.bool, device=z_r.device)
    r_space, r_time = Times(space.noised, space.clean, none_noised), Times(over_time.noised, over_time.clean, none_noised)

    for i, base in enumerate(model.blocks):
        if 1 <= i <= len(model.controlnet):
            control = model.controlnet[i - 1]
            c = x + linear(control.before_proj, c) if i == 1 else c
            c, _ = block(model, control.copied_block, Tokens(c, frames), space, over_time, None)
            x = x + linear(control.after_proj, c)
        r, key_value = block(model, base, Tokens(r, 1), r_space, r_time, None)  # Eq. 5, 6
        x, _ = block(model, base, Tokens(x, frames), space, over_time, key_value)  # Eq. 4, 2
    x = final_layer(model, Tokens(x, frames), time, clean + size, ~conditional)
    rows, p = model.x_embedder.grid(h, w)[0], model.cfg.patch
    x = rearrange(x, "b (l i j) (p q c) -> b l c (i p) (j q)", l=frames, i=rows, p=p, q=p)
    return x[..., :h, :w].float()


def embed_number(embedder, number: float, like: Tensor) -> Tensor:
    """(1, size)."""
    return embedder(torch.tensor([number], dtype=torch.float32, device=like.device), like.dtype)[None]


def motion_embedder(model: RealPortraitDiT) -> PatchEmbed:
    return model.x_embedder if model.conditioner is None else model.conditioner.embedder


def embed(model: RealPortraitDiT, embedder: PatchEmbed, z: Tensor, shape: ClipShape) -> Tensor:
    """(B, L, c, h, w) -> tokens with positions (B, L S, C)."""
    rows, columns = embedder.grid(*z.shape[-2:])
    position = position_embedding(rows, columns, model.cfg.hidden, shape.height, shape.width, model.cfg.input_sq_size, z.device)
    return rearrange(embedder(z) + position.to(z), "b l s c -> b (l s) c")


def block(
    model: RealPortraitDiT, weights: Block, tokens: Tokens, space: Times, over_time: Times, reference: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Spatial attention, temporal attention, MLP -> tokens (B, L S, C), and K, V of the spatial attention."""
    x, frames = tokens.x, tokens.frames
    rows = [weights.scale_shift_table + model.t_block(t).unflatten(-1, (6, -1)) for t in (space.noised, space.clean)]
    shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = zip(*(r.unbind(1) for r in rows))  # each of noised, of clean
    out, key_value = spatial_attention(
        weights.attn, rearrange(modulate(tokens, shift, scale, space.mask), "b (l s) c -> (b l) s c", l=frames), reference
    )
    x = x + gated(Tokens(rearrange(out, "(b l) s c -> b (l s) c", l=frames), frames), gate, space.mask)

    rows = [
        weights.scale_shift_table_temporal + model.t_block_temp(t).unflatten(-1, (3, -1))
        for t in (over_time.noised, over_time.clean)
    ]
    shift, scale, gate = zip(*(r.unbind(1) for r in rows))
    out = modulate(Tokens(x, frames), shift, scale, over_time.mask)
    out = temporal_attention(weights.attn_temp, rearrange(out, "b (l s) c -> (b s) l c", l=frames), model.cfg.qk_norm_legacy)
    x = x + gated(Tokens(rearrange(out, "(b s) l c -> b (l s) c", b=len(x)), frames), gate, over_time.mask)

    out = mlp(weights.mlp, modulate(Tokens(x, frames), shift_mlp, scale_mlp, space.mask))
    return x + gated(Tokens(out, frames), gate_mlp, space.mask), key_value


def choose(mask: Tensor, noised: Tensor, clean: Tensor) -> Tensor:
    """Tokens (B, L S, C): those of noised frames from `noised`, the others from `clean`; mask (B, L)."""
    mask = repeat(mask, "b l -> b (l s) 1", s=noised.shape[1] // mask.shape[1])
    return torch.where(mask, noised, clean)


def modulate(tokens: Tokens, shift: tuple[Tensor, Tensor], scale: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
    """LN(x) (1 + scale) + shift."""
    x = F.layer_norm(tokens.x, tokens.x.shape[-1:], eps=1e-6)
    return choose(mask, *(x * (1 + b[:, None]) + a[:, None] for a, b in zip(shift, scale)))


def gated(tokens: Tokens, gate: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
    return choose(mask, *(g[:, None] * tokens.x for g in gate))


def spatial_attention(
    weights: Attention, x: Tensor, reference: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """x (B L, S, C); reference: K_r, V_r (B, heads, S, d)."""
    q, k, v = split_heads(weights, x)
    q, k = rms_norm(weights.q_norm, q), rms_norm(weights.k_norm, k)
    keys, values = k, v
    if reference is not None:  # Eq. 4
        keys, values = (torch.cat([own, r.repeat_interleave(len(own) // len(r), 0)], 2) for own, r in zip((k, v), reference))
    return linear(weights.proj, rearrange(attention(q, keys, values), "n h s d -> n s (h d)")), (k, v)


def temporal_attention(weights: Attention, x: Tensor, rotate_first: bool) -> Tensor:
    """x (B S, L, C)."""
    q, k, v = split_heads(weights, x)
    angles = rope(x.shape[1], q.shape[-1], x.device)
    if rotate_first:
        q, k = (rms_norm(norm, rotate(part, *angles)) for norm, part in ((weights.q_norm, q), (weights.k_norm, k)))
    else:
        q, k = (rotate(rms_norm(norm, part), *angles) for norm, part in ((weights.q_norm, q), (weights.k_norm, k)))
    return linear(weights.proj, rearrange(attention(q, k, v), "n h l d -> n l (h d)"))


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(d)) V (Eq. 1)."""
    return ((q @ k.transpose(-1, -2)) / sqrt(q.shape[-1])).softmax(-1) @ v


def split_heads(weights: Attention, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Q, K, V (N, heads, S, d)."""
    return rearrange(linear(weights.qkv, x), "n s (three h d) -> three n h s d", three=3, h=weights.heads).unbind(0)


def rms_norm(norm, x: Tensor) -> Tensor:
    y = x.float()
    return (y * torch.rsqrt(y.square().mean(-1, keepdim=True) + 1e-6)).to(x.dtype) * norm.weight


def mlp(weights: MLP, x: Tensor) -> Tensor:
    return linear(weights.fc2, F.gelu(linear(weights.fc1, x), approximate="tanh"))


def linear(layer, x: Tensor) -> Tensor:
    return F.linear(x, layer.weight, layer.bias)


def final_layer(model: RealPortraitDiT, tokens: Tokens, noised: Tensor, clean: Tensor, mask: Tensor) -> Tensor:
    """As in the public STDiT2, conditional frames are modulated twice: by the frames' t, and the result by t = 0."""
    layer = model.final_layer
    (shift, scale), (shift_clean, scale_clean) = ((layer.scale_shift_table + t[:, None]).unbind(1) for t in (noised, clean))
    x = modulate(tokens, (shift, shift), (scale, scale), mask)
    again = modulate(Tokens(x, tokens.frames), (shift_clean, shift_clean), (scale_clean, scale_clean), mask)
    return linear(layer.linear, choose(mask, x, again))
