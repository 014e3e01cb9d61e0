"""TinyVAE: a small autoencoder of SD1.5's latent space, in the layout of TAESD (Ollin Boer Bohan, 2023).

A picture of H x W becomes a latent of 4 x H/8 x W/8. Latents are the scaled ones (0.18215 times those of the SD1.5
VAE), which is what the diffusion model sees, so TinyVAE, TAESD and the SD1.5 VAE (kl.py) can stand in for each other.
The keys of the state are those that ComfyUI's "Load VAE" recognises.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..checkpoint import (
    bundle_metadata,
    config_from_fields,
    load_strictly,
    read_bundle_metadata,
    read_safetensors,
    save,
    sniff,
    wrong_role,
)
from ..errors import WeightsError
from .latent import LATENT_CHANNELS, LATENT_SCALE, check_images, check_latents

WIDTHS = (64, 64, 64, 64)  # channels at 1, 1/2, 1/4 and 1/8 of the size, in the published layout


def conv(n_in: int, n_out: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=bias)


class Block(nn.Module):
    """Three convolutions and a skip."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Sequential(
            conv(width, width), nn.ReLU(inplace=True), conv(width, width), nn.ReLU(inplace=True), conv(width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu_(self.conv(x).add_(x))


class SoftClamp(nn.Module):
    """Keeps latents within -3 and 3, smoothly."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.tanh(z / 3) * 3


def encoder(widths: tuple[int, ...]) -> nn.Sequential:
    """Picture (B,3,H,W) in [0,1] -> latent (B,4,H/8,W/8). `widths` as in WIDTHS."""
    a, b, c, d = widths
    return nn.Sequential(
        conv(3, a),
        Block(a),  # (B,a,H,W)
        conv(a, b, stride=2, bias=False),
        Block(b),
        Block(b),
        Block(b),  # (B,b,H/2,W/2)
        conv(b, c, stride=2, bias=False),
        Block(c),
        Block(c),
        Block(c),  # (B,c,H/4,W/4)
        conv(c, d, stride=2, bias=False),
        Block(d),
        Block(d),
        Block(d),  # (B,d,H/8,W/8)
        conv(d, LATENT_CHANNELS),
    )


def decoder(widths: tuple[int, ...]) -> nn.Sequential:
    """Latent (B,4,h,w) -> picture (B,3,8h,8w), not clamped. `widths` as in WIDTHS."""
    a, b, c, d = widths
    return nn.Sequential(
        SoftClamp(),
        conv(LATENT_CHANNELS, d),
        nn.ReLU(inplace=True),
        Block(d),
        Block(d),
        Block(d),
        nn.Upsample(scale_factor=2),
        conv(d, c, bias=False),  # (B,c,2h,2w)
        Block(c),
        Block(c),
        Block(c),
        nn.Upsample(scale_factor=2),
        conv(c, b, bias=False),  # (B,b,4h,4w)
        Block(b),
        Block(b),
        Block(b),
        nn.Upsample(scale_factor=2),
        conv(b, a, bias=False),  # (B,a,8h,8w)
        Block(a),
        conv(a, 3),
    )


class TinyVAE(nn.Module):
    """Encoder and decoder. Narrower `widths` are faster; `resized` puts them into the published layout."""

    def __init__(self, widths: tuple[int, int, int, int] = WIDTHS):
        super().__init__()
        self.widths = tuple(widths)
        self.taesd_encoder = encoder(self.widths)
        self.taesd_decoder = decoder(self.widths)
        # Not used here: ComfyUI converts its unscaled latents by them.
        self.register_buffer("vae_scale", torch.tensor(LATENT_SCALE))
        self.register_buffer("vae_shift", torch.tensor(0.0))

    def encode(self, images: Tensor) -> Tensor:
        """Images (B,3,H,W) in [0,1], H and W multiples of 8 -> scaled latents (B,4,H/8,W/8); else InputError."""
        check_images(images)
        return self.taesd_encoder(images)  # (B,4,h,w)

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (B,4,h,w) -> images (B,3,8h,8w) in [0,1]. InputError where there are not 4 channels."""
        check_latents(latents)
        return self.taesd_decoder(latents).clamp(0, 1)  # (B,3,8h,8w)


def resized(vae: TinyVAE, widths: tuple[int, int, int, int]) -> TinyVAE:
    """The same function at other widths: added channels are zeros and stay zero throughout, dropped ones must have been.

    WeightsError where a dropped channel is not zero.
    """
    other = TinyVAE(widths)
    source, state = vae.state_dict(), {}
    for name, target in other.state_dict().items():
        shared = tuple(slice(min(sizes)) for sizes in zip(source[name].shape, target.shape))
        state[name] = torch.zeros_like(target)
        state[name][shared] = source[name][shared]
        lost = int(source[name].count_nonzero() - state[name].count_nonzero())
        if lost:
            raise WeightsError(f"A TinyVAE of widths {vae.widths} does not fit into {tuple(widths)}: {name} loses {lost} values.")
    other.load_state_dict(state)
    return other.train(vae.training)


# Files


@dataclass(frozen=True)
class VAEConfig:
    """The config in the metadata of our own file. Files without it, such as TAESD's, are of the full width."""

    widths: tuple[int, ...] = WIDTHS


def save_vae(path: str | Path, vae: TinyVAE) -> None:
    """Writes fp16 weights in the published layout, padded with zeros where `vae` is narrower."""
    state = {name: value.half() for name, value in resized(vae, WIDTHS).state_dict().items()}
    save(path, state, bundle_metadata("vae", VAEConfig(vae.widths)))


def load_tiny_vae(path: str | Path) -> TinyVAE:
    """TinyVAE from one .safetensors file, fp32, of the widths in its metadata. WeightsError where the file does not fit."""
    state, metadata = read_safetensors(path)
    role = sniff(state)
    if role != "vae":
        raise wrong_role(path, role, "vae")
    config = config_from_fields(VAEConfig, read_bundle_metadata(metadata, "vae") or {})
    if len(config.widths) != len(WIDTHS) or not all(1 <= width <= most for width, most in zip(config.widths, WIDTHS)):
        raise WeightsError(f"{path} gives the widths {str(config.widths):.80}; a TinyVAE has {len(WIDTHS)}, at most {WIDTHS}.")
    return resized(_assembled(state), config.widths)


def load_taesd(folder: str | Path) -> TinyVAE:
    """TinyVAE from the published pair taesd_encoder.safetensors and taesd_decoder.safetensors, fp32. Errors as `load_tiny_vae`."""
    state = {"vae_scale": torch.tensor(LATENT_SCALE), "vae_shift": torch.tensor(0.0)}
    for half in ("taesd_encoder", "taesd_decoder"):
        tensors, _ = read_safetensors(Path(folder) / f"{half}.safetensors")
        state |= {f"{half}.{name}": value for name, value in tensors.items()}
    return _assembled(state)


def _assembled(state: dict[str, Tensor]) -> TinyVAE:
    vae = TinyVAE()
    load_strictly(vae, {name: value.float() if value.is_floating_point() else value for name, value in state.items()})
    return vae.eval()
