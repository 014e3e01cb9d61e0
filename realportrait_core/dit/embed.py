"""Embeddings: patches and their positions, timesteps, and the size and length of a clip."""

from dataclasses import dataclass
from math import log, sqrt

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..errors import InputError

FREQUENCIES = 256  # channels of a sinusoidal embedding before its MLP


@dataclass(frozen=True)
class ClipShape:
    """A clip's size and length as the network receives them: height and width in px, frames, frames a second."""

    height: int
    width: int
    frames: int
    fps: float

    @property
    def aspect(self) -> float:
        """Width over height, as in STDiT2's training; its sampling scripts use the inverse."""
        return self.width / self.height

    def __post_init__(self):
        if min(self.height, self.width, self.frames, self.fps) <= 0:
            raise InputError(
                f"A clip of {self.width}x{self.height} px, {self.frames} frames at {self.fps} fps: all four must be above 0."
            )


def sinusoid(x: Tensor, channels: int = FREQUENCIES) -> Tensor:
    """[cos | sin] of x (...) at frequencies 1 .. 1e-4 -> (..., channels), float32; the last of an odd number of channels is 0."""
    half = channels // 2
    freqs = torch.exp(torch.arange(half, dtype=torch.float32, device=x.device) * (-log(10000) / half))
    angles = x.float()[..., None] * freqs
    return F.pad(torch.cat([angles.cos(), angles.sin()], dim=-1), (0, channels % 2))


def sincos_2d(h: int, w: int, channels: int, scale: float = 1.0, base: int | None = None, device=None) -> Tensor:
    """Positions (h w, channels), float32, ordered [sin w | cos w | sin h | cos h].

    Pictures of every size span the range 0 .. base/scale: equal positions are equal places in the picture.
    """
    freqs = 10000 ** -(torch.arange(0, channels // 2, 2, dtype=torch.float32, device=device) / (channels // 2))

    def axis(n: int) -> Tensor:
        steps = torch.arange(n, dtype=torch.float32, device=device) / scale
        angles = (steps if base is None else steps * (base / n))[:, None] * freqs
        return torch.cat([angles.sin(), angles.cos()], dim=-1)  # (n, channels / 2)

    rows, columns = axis(h)[:, None].expand(h, w, -1), axis(w)[None].expand(h, w, -1)
    return rearrange(torch.cat([columns, rows], dim=-1), "h w c -> (h w) c")


def position_embedding(h: int, w: int, channels: int, height: int, width: int, input_sq_size: int, device=None) -> Tensor:
    """STDiT2's positions (h w, channels) of the tokens of a picture of height x width px; integers at input_sq_size."""
    return sincos_2d(h, w, channels, sqrt(height * width) / input_sq_size, round(sqrt(h * w)), device)


def rope(frames: int, dim: int, device=None) -> tuple[Tensor, Tensor]:
    """cos and sin (frames, dim / 2), float32, of the rotary embedding over time."""
    freqs = 10000 ** -(torch.arange(0, dim, 2, dtype=torch.float32, device=device) / dim)
    angles = torch.arange(frames, dtype=torch.float32, device=device)[:, None] * freqs
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs (x0, x1), (x2, x3) .. of x (..., L, d) by the angles of their frame, in float32."""
    a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2).to(x.dtype)


class PatchEmbed(nn.Module):
    """Latents (..., c, h, w) -> tokens (..., S, C); an odd side is padded with zeros at the right or the bottom."""

    def __init__(self, channels: int, patch: int, hidden: int, *, operations, dtype=None, device=None):
        super().__init__()
        self.patch = patch
        size = (1, patch, patch)
        self.proj = operations.Conv3d(channels, hidden, kernel_size=size, stride=size, dtype=dtype, device=device)

    @torch.no_grad()
    def initialize(self) -> None:
        """As a linear layer."""
        nn.init.xavier_uniform_(self.proj.weight.flatten(1))
        nn.init.zeros_(self.proj.bias)

    def grid(self, h: int, w: int) -> tuple[int, int]:
        """Rows and columns of tokens."""
        return -(-h // self.patch), -(-w // self.patch)

    def forward(self, z: Tensor) -> Tensor:
        """(..., c, h, w) -> (..., S, C)."""
        lead, (h, w) = z.shape[:-3], z.shape[-2:]
        z = F.pad(z.flatten(0, -4), (0, -w % self.patch, 0, -h % self.patch))  # (N, c, h, w)
        tokens = self.proj(z[:, :, None])  # (N, C, 1, h', w')
        return rearrange(tokens, "n c 1 h w -> n (h w) c").unflatten(0, lead)


class TimestepEmbedder(nn.Module):
    """Numbers (...) -> vectors (..., size): a sinusoidal embedding in float32, whatever the network's dtype, then an MLP."""

    def __init__(self, size: int, *, operations, dtype=None, device=None):
        super().__init__()
        self.mlp = nn.Sequential(
            operations.Linear(FREQUENCIES, size, dtype=dtype, device=device),
            nn.SiLU(),
            operations.Linear(size, size, dtype=dtype, device=device),
        )

    def forward(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        return self.mlp(sinusoid(x).to(dtype))


class SizeEmbedder(TimestepEmbedder):
    """n numbers (n) -> their n vectors joined (n size)."""

    def forward(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        return super().forward(x, dtype).flatten(-2)
