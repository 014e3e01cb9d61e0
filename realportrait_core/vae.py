"""TinyVAE: a small autoencoder of SD1.5's latent space, in the layout of TAESD (Ollin Boer Bohan, 2023).

A picture of H x W becomes a latent of 4 x H/8 x W/8. Latents are the scaled ones (0.18215 times those of the SD1.5
VAE), which is what the diffusion model sees, so TinyVAE, TAESD and the SD1.5 VAE can stand in for each other.
The keys of the state are those that ComfyUI's "Load VAE" recognises.
"""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from .errors import InputError, WeightsError

LATENT_CHANNELS = 4
LATENT_SCALE = 0.18215       # latent here = 0.18215 * latent of the SD1.5 VAE
DOWN = 8                     # px of the picture per px of the latent
WIDTH = 64                   # channels everywhere in the published layout


def conv(n_in: int, n_out: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=bias)


class Block(nn.Module):
    """Three convolutions and a skip."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Sequential(
            conv(width, width), nn.ReLU(inplace=True),
            conv(width, width), nn.ReLU(inplace=True),
            conv(width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu_(self.conv(x).add_(x))


class SoftClamp(nn.Module):
    """Keeps latents within -3 and 3, smoothly."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.tanh(z / 3) * 3


def encoder(widths: tuple[int, int, int, int]) -> nn.Sequential:
    """Picture (B,3,H,W) in [0,1] -> latent (B,4,H/8,W/8). `widths` are the channels at 1, 1/2, 1/4 and 1/8 of the size."""
    a, b, c, d = widths
    return nn.Sequential(
        conv(3, a), Block(a),                                               # (B,a,H,W)
        conv(a, b, stride=2, bias=False), Block(b), Block(b), Block(b),     # (B,b,H/2,W/2)
        conv(b, c, stride=2, bias=False), Block(c), Block(c), Block(c),     # (B,c,H/4,W/4)
        conv(c, d, stride=2, bias=False), Block(d), Block(d), Block(d),     # (B,d,H/8,W/8)
        conv(d, LATENT_CHANNELS),
    )


def decoder(widths: tuple[int, int, int, int]) -> nn.Sequential:
    """Latent (B,4,h,w) -> picture (B,3,8h,8w), not clamped. `widths` as in `encoder`."""
    a, b, c, d = widths
    return nn.Sequential(
        SoftClamp(), conv(LATENT_CHANNELS, d), nn.ReLU(inplace=True),
        Block(d), Block(d), Block(d), nn.Upsample(scale_factor=2), conv(d, c, bias=False),      # (B,c,2h,2w)
        Block(c), Block(c), Block(c), nn.Upsample(scale_factor=2), conv(c, b, bias=False),      # (B,b,4h,4w)
        Block(b), Block(b), Block(b), nn.Upsample(scale_factor=2), conv(b, a, bias=False),      # (B,a,8h,8w)
        Block(a), conv(a, 3),
    )


class TinyVAE(nn.Module):
    """Encoder and decoder. Narrower `widths` are for training; `widen` puts them into the published layout."""

    def __init__(self, widths: tuple[int, int, int, int] = (WIDTH,) * 4):
        super().__init__()
        self.widths = tuple(widths)
        self.taesd_encoder = encoder(self.widths)
        self.taesd_decoder = decoder(self.widths)
        # Not used here: they tell ComfyUI how its unscaled latents relate to those of this network.
        self.register_buffer("vae_scale", torch.tensor(LATENT_SCALE))
        self.register_buffer("vae_shift", torch.tensor(0.0))

    def encode(self, images: Tensor) -> Tensor:
        """Images (B,3,H,W) in [0,1], H and W multiples of 8 -> scaled latents (B,4,H/8,W/8); else InputError."""
        if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] % DOWN or images.shape[3] % DOWN:
            raise InputError(
                f"TinyVAE encodes images of shape (B, 3, H, W) with H and W multiples of {DOWN}; "
                f"got {tuple(images.shape)}. Crop or resize the picture first."
            )
        return self.taesd_encoder(images)                                   # (B,4,h,w)

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (B,4,h,w) -> images (B,3,8h,8w) in [0,1]. InputError where there are not 4 channels."""
        if latents.ndim != 4 or latents.shape[1] != LATENT_CHANNELS:
            raise InputError(
                f"TinyVAE decodes latents of shape (B, {LATENT_CHANNELS}, h, w), those of SD1.5; got {tuple(latents.shape)}."
            )
        return self.taesd_decoder(latents).clamp(0, 1)                      # (B,3,8h,8w)


def widen(vae: TinyVAE) -> TinyVAE:
    """The same function at the published width: channels that a narrower net lacks are zeros, which stay zero throughout."""
    wide = TinyVAE()
    source = vae.state_dict()
    padded = {}
    for name, target in wide.state_dict().items():
        padded[name] = torch.zeros_like(target)
        padded[name][tuple(slice(size) for size in source[name].shape)] = source[name].to(target.dtype)
    wide.load_state_dict(padded)
    return wide


def narrow(vae: TinyVAE) -> TinyVAE:
    """The same function without the channels that are zero throughout: the inverse of `widen`, and faster."""
    state = vae.state_dict()
    widths = tuple(max(_live_channels(state, level), 1) for level in range(4))
    small = TinyVAE(widths)
    small.load_state_dict({
        name: state[name][tuple(slice(size) for size in target.shape)] for name, target in small.state_dict().items()
    })
    return small


def _live_channels(state: dict[str, Tensor], level: int) -> int:
    """Number of leading channels at 1/2^level of the size that any convolution writes to."""
    into = (("taesd_encoder.0", "taesd_decoder.17"), ("taesd_encoder.2", "taesd_decoder.12"),
            ("taesd_encoder.6", "taesd_decoder.7"), ("taesd_encoder.10", "taesd_decoder.1"))[level]
    blocks = (("taesd_encoder.1", "taesd_decoder.18"),
              *(tuple(f"taesd_encoder.{e + i}" for i in range(3)) + tuple(f"taesd_decoder.{d + i}" for i in range(3))
                for e, d in ((3, 13), (7, 8), (11, 3))))[level]
    written = [f"{name}." for name in into] + [f"{name}.conv.{i}." for name in blocks for i in (0, 2, 4)]
    last = 0
    for prefix in written:
        for name in (prefix + "weight", prefix + "bias"):
            if name in state:
                live = state[name].flatten(1).any(1) if state[name].ndim > 1 else state[name] != 0
                last = max(last, int(live.nonzero().max()) + 1 if live.any() else 0)
    return last


def load_vae(path: str | Path) -> TinyVAE:
    """TinyVAE from one .safetensors file, fp32, without its dead channels. WeightsError where the file does not fit."""
    return narrow(_strict(_read(Path(path)), Path(path)))


def load_taesd(folder: str | Path) -> TinyVAE:
    """TinyVAE from the published pair taesd_encoder.safetensors and taesd_decoder.safetensors, fp32. Errors as `load_vae`."""
    folder = Path(folder)
    state = {"vae_scale": torch.tensor(LATENT_SCALE), "vae_shift": torch.tensor(0.0)}
    for half in ("taesd_encoder", "taesd_decoder"):
        state |= {f"{half}.{name}": value for name, value in _read(folder / f"{half}.safetensors").items()}
    return _strict(state, folder)


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise WeightsError(f"There is no VAE file at {path}.")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise WeightsError(
            f"{path.name} ({path.stat().st_size} bytes) is not a whole .safetensors file: {error}. Fetch it again."
        ) from error


def _strict(state: dict[str, Tensor], path: Path) -> TinyVAE:
    vae = TinyVAE()
    expected = vae.state_dict()
    missing = [name for name in expected if name not in state]
    extra = [name for name in state if name not in expected]
    misfit = [name for name in expected if name in state and state[name].shape != expected[name].shape]
    if missing or extra or misfit:
        raise WeightsError(
            f"{path.name} is not a TAESD autoencoder: {len(missing)} tensors missing {missing[:2]}, "
            f"{len(extra)} unknown {extra[:2]}, {len(misfit)} of another shape {misfit[:2]}."
        )
    bad = [name for name, value in state.items() if not torch.isfinite(value).all()]
    if bad:
        raise WeightsError(f"{path.name} has NaN or infinite values in {len(bad)} tensors, first {bad[0]}. Fetch it again.")
    vae.load_state_dict(state)
    return vae.eval()
