"""AutoencoderKL: the VAE of Stable Diffusion 1.5 (Rombach et al. 2022), by which the paper encodes its frames.

Modules are named as in the published checkpoints of LDM; files.py loads diffusers' names too. Latents are the scaled ones, which
the diffusion model sees.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..errors import InputError
from .latent import LATENT_CHANNELS, LATENT_SCALE, check_images, check_latents

WIDTH = 128  # channels at the picture's size in the published weights; 83,653,863 parameters
MULTIPLES = (1, 2, 4, 4)  # of the width, at 1, 1/2, 1/4 and 1/8 of the size
RESIDUALS = 2  # residual blocks a level of the encoder; the decoder has one more
GROUPS = 32  # of the group norms
LEAST_LOG_VARIANCE, MOST_LOG_VARIANCE = -30.0, 20.0


def norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, width, eps=1e-6)


def conv(n_in: int, n_out: int) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, 3, padding=1)


class ResidualBlock(nn.Module):
    """Norm, SiLU and convolution, twice, and a skip."""

    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.norm1, self.conv1 = norm(n_in), conv(n_in, n_out)
        self.norm2, self.conv2 = norm(n_out), conv(n_out, n_out)
        if n_in != n_out:
            self.nin_shortcut = nn.Conv2d(n_in, n_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x
        x = self.conv1(F.silu(self.norm1(x)))
        return skip + self.conv2(F.silu(self.norm2(x)))


class AttentionBlock(nn.Module):
    """Self-attention of one head among all positions, and a skip."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = norm(width)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        q, k, v = (rearrange(layer(y), "b c h w -> b 1 (h w) c") for layer in (self.q, self.k, self.v))
        y = rearrange(F.scaled_dot_product_attention(q, k, v), "b 1 (h w) c -> b c h w", h=x.shape[2])
        return x + self.proj_out(y)


class Middle(nn.Module):
    """At an eighth of the size: residual block, attention, residual block."""

    def __init__(self, width: int):
        super().__init__()
        self.block_1, self.attn_1, self.block_2 = ResidualBlock(width, width), AttentionBlock(width), ResidualBlock(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class Downsample(nn.Module):
    """Half the size by a convolution of stride 2, padded at the right and at the bottom alone, as the weights were trained."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Twice the size: nearest neighbour, then a convolution."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """Residual blocks at one size, and the way to the next size where there is one."""

    def __init__(self, n_in: int, n_out: int, blocks: int):
        super().__init__()
        self.block = nn.ModuleList([ResidualBlock(n_in if i == 0 else n_out, n_out) for i in range(blocks)])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block:
            x = block(x)
        for name in ("downsample", "upsample"):
            x = getattr(self, name)(x) if hasattr(self, name) else x
        return x


class Encoder(nn.Module):
    """Picture (B,3,H,W) in [-1,1] -> mean and log variance of the latent, before quant_conv (B,8,H/8,W/8)."""

    def __init__(self, width: int):
        super().__init__()
        widths = [multiple * width for multiple in MULTIPLES]
        self.conv_in = conv(3, width)
        self.down = nn.ModuleList([Level(n_in, n_out, RESIDUALS) for n_in, n_out in zip([width, *widths], widths)])
        for level, n_out in zip(self.down[:-1], widths):
            level.downsample = Downsample(n_out)
        self.mid = Middle(widths[-1])
        self.norm_out, self.conv_out = norm(widths[-1]), conv(widths[-1], 2 * LATENT_CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)  # (B,c,H,W)
        for level in self.down:
            x = level(x)  # (B,4c,H/8,W/8) in the end
        x = self.mid(x)
        return self.conv_out(F.silu(self.norm_out(x)))  # (B,8,H/8,W/8)


class Decoder(nn.Module):
    """Latent (B,4,h,w), after post_quant_conv -> picture (B,3,8h,8w) around [-1,1]."""

    def __init__(self, width: int):
        super().__init__()
        widths = [multiple * width for multiple in MULTIPLES]
        self.conv_in = conv(LATENT_CHANNELS, widths[-1])
        self.mid = Middle(widths[-1])
        # up[i] works at 1 / 2**i of the size: the last one runs first.
        self.up = nn.ModuleList([Level(n_in, n_out, RESIDUALS + 1) for n_in, n_out in zip([*widths[1:], widths[-1]], widths)])
        for level, n_out in zip(self.up[1:], widths[1:]):
            level.upsample = Upsample(n_out)
        self.norm_out, self.conv_out = norm(width), conv(width, 3)

    def forward(self, z: Tensor) -> Tensor:
        x = self.mid(self.conv_in(z))  # (B,4c,h,w)
        for level in reversed(self.up):
            x = level(x)  # (B,c,8h,8w) in the end
        return self.conv_out(F.silu(self.norm_out(x)))  # (B,3,8h,8w)


@dataclass(frozen=True)
class Posterior:
    """The Gaussian of a picture's latent, scaled: mean and standard deviation (B,4,h,w)."""

    mean: Tensor
    deviation: Tensor


class AutoencoderKL(nn.Module):
    """Encoder and decoder. width: channels at the picture's size; InputError where it is no multiple of GROUPS."""

    def __init__(self, width: int = WIDTH):
        super().__init__()
        if width < 1 or width % GROUPS:
            raise InputError(f"An AutoencoderKL of {width} channels cannot be built: it takes a multiple of {GROUPS}.")
        self.encoder, self.decoder = Encoder(width), Decoder(width)
        self.quant_conv = nn.Conv2d(2 * LATENT_CHANNELS, 2 * LATENT_CHANNELS, 1)
        self.post_quant_conv = nn.Conv2d(LATENT_CHANNELS, LATENT_CHANNELS, 1)

    def posterior(self, images: Tensor) -> Posterior:
        """Images (B,3,H,W) in [0,1], H and W multiples of 8 -> the Gaussian of the scaled latents; else InputError."""
        check_images(images)
        moments = self.quant_conv(self.encoder(2 * images - 1))  # (B,8,h,w)
        mean, log_variance = moments.float().chunk(2, dim=1)
        deviation = torch.exp(0.5 * log_variance.clamp(LEAST_LOG_VARIANCE, MOST_LOG_VARIANCE))
        return Posterior(LATENT_SCALE * mean, LATENT_SCALE * deviation)

    def encode(self, images: Tensor) -> Tensor:
        """Images (B,3,H,W) in [0,1], H and W multiples of 8 -> the posterior's mean, scaled (B,4,H/8,W/8); else InputError."""
        return self.posterior(images).mean

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (B,4,h,w) -> images (B,3,8h,8w) in [0,1]. InputError where there are not 4 channels."""
        check_latents(latents)
        images = self.decoder(self.post_quant_conv(latents / LATENT_SCALE))  # (B,3,8h,8w)
        return (images / 2 + 0.5).clamp(0, 1)
