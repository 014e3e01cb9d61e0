"""Continues the training of a tiny VAE's decoder at more channels; the latent space stays as it is.

    python -m realportrait_core.train.mini decoder --data HEADS --teacher TAESD --photos DIR

By squared error, or with a perceptual loss (appearance.py), on rendered heads and on photographs. The encoder is not changed, so
that samples and a DiT made with it stay valid. A file of the published layout has 64 channels everywhere, zeros where the network
is narrower: a wider decoder costs no more in ComfyUI.
"""

from pathlib import Path

import numpy as np
import torch

from ...errors import InputError
from ...vae import DOWN, TinyVAE, resized
from ..appearance import Appearance
from ..budget import Budget
from ..loop import fit
from .store import Store
from .vae import picture_loss, psnr

WIDTHS = (32, 64, 64, 64)
TEACHERS = 0.25  # share of the latents from the teacher, so that latents of other VAEs of SD1.5's space stay decodable
ENDS = ("1.", "19.")  # the first and the last convolution, trained by Adam


@torch.no_grad()
def widened(vae: TinyVAE, widths: tuple[int, int, int, int]) -> TinyVAE:
    """The same function with a wider decoder: new channels have random input weights, and output weights of 0."""
    wide = resized(vae, widths)
    narrow = vae.taesd_decoder.state_dict()
    for name, weight in wide.taesd_decoder.named_parameters():
        if weight.ndim == 4:
            new, known = weight[len(narrow[name]) :], narrow[name].shape[1]
            new.normal_(std=(2 / (9 * known)) ** 0.5)
            new[:, known:] = 0
    return wide


def train_decoder(
    store: Store,
    vae: TinyVAE,
    teacher: TinyVAE | None,
    checkpoint: Path,
    budget: Budget,
    batch: int = 8,
    side: int = 96,
    lr: float = 1e-3,
    holdout: int = 20,
    device: torch.device = torch.device("cpu"),
    precision: torch.dtype = torch.float32,
    photos: np.ndarray | None = None,
    appearance: Appearance | None = None,
) -> TinyVAE:
    """`vae` with its decoder trained on crops of side px of all clips but the last `holdout`; without a teacher on its own latents
    alone. photos: (N, S, S, 3) uint8, half of every batch; appearance: the perceptual loss, None for the error alone."""
    clips, frames = len(store.names) - holdout, store.frames.shape[1]
    if side % DOWN or side > store.frames.shape[2]:
        raise InputError(f"Crops of {side} px; they must be of multiples of {DOWN}, and at most {store.frames.shape[2]}.")
    vae = widened(vae, WIDTHS).to(device, memory_format=torch.channels_last)
    teacher = None if teacher is None else teacher.to(device, memory_format=torch.channels_last)
    others = 0 if teacher is None else round(TEACHERS * batch)

    def loss(step: int):
        of_photos = 0 if photos is None else batch // 2
        chosen = torch.randint(clips, (batch - of_photos,)), torch.randint(frames, (batch - of_photos,))
        pictures = store.images(*chosen)
        if of_photos:
            picked = photos[torch.randint(len(photos), (of_photos,)).numpy()]
            pictures = torch.cat([pictures, torch.from_numpy(picked).movedim(-1, 1).float() / 255])
            pictures = pictures[torch.randperm(batch)]
        y, x = torch.randint((store.frames.shape[2] - side) // DOWN + 1, (2,)).mul(DOWN).tolist()
        pictures = pictures[..., y : y + side, x : x + side].to(device).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            with torch.no_grad():
                latents = vae.taesd_encoder(pictures[others:])
                if others:
                    latents = torch.cat([teacher.taesd_encoder(pictures[:others]), latents])
            decoded = vae.taesd_decoder(latents)
        decoded = decoded.float()
        scalars = {"frames": float(batch), "db": psnr(decoded[others:].detach().clamp(0, 1), pictures[others:]).mean().item()}
        if appearance is None:
            return picture_loss(decoded, pictures), scalars
        value, more = appearance(decoded, pictures)
        return value, scalars | {name: float(scalar) for name, scalar in more.items()}

    # Muon for squared error; Adam's smaller steps against a discriminator.
    average = fit(
        vae.taesd_decoder,
        loss,
        checkpoint,
        budget,
        lr,
        decay=0.995,
        warmup=50,
        adam_only=ENDS if appearance is None else None,
        beside=appearance,
    )
    vae.taesd_decoder.load_state_dict(average)
    return vae.cpu().eval()
