"""Trains the bundled tiny VAE from scratch, with TAESD as the teacher of the latent space.

    python -m realportrait_core.train.mini vae --data HEADS --teacher TAESD --minutes 25

First apart: the decoder learns to turn the teacher's latents into the frames they came from, the encoder to predict the
teacher's latents. Then joint: half of the decoder's input is the encoder's output, and its picture loss trains the encoder too,
so that either VAE can be swapped for the other. No weight of the teacher is copied.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...animation.extraction import device_of
from ...errors import InputError
from ...vae import DOWN, TinyVAE, load_taesd, load_vae, save_vae
from ..budget import Budget
from ..loop import fit
from .motion import CPU
from .prepare import read_frames

log = logging.getLogger(__name__)

WIDTHS = (16, 32, 64, 64)  # narrow where pixels are many: four times faster; padded with zeros when saved
LATENT_WEIGHT = 1.0  # of the encoder's squared latent error
GRADIENT_WEIGHT = 0.5  # of the error of neighbouring pixels' differences: edges, lashes
CHARBONNIER = 0.03  # epsilon of the Charbonnier loss: squared for smaller errors, absolute for larger ones
SHARES = {"apart": 0.55, "joint": 0.45}  # of the minutes
WARMUP = 50  # steps
AVERAGE = 0.995  # decay of the averaged weights


@dataclass(frozen=True)
class Pairs:
    """Frames and the teacher's latents of them."""

    frames: Tensor  # (N,3,H,W) uint8, channels_last
    latents: Tensor  # (N,4,H/8,W/8) fp32


# Data


def sample_frames(data: Path, split: str, per_clip: int, seed: int = 0) -> Tensor:
    """`per_clip` different frames of every clip -> (N,3,H,W) uint8, channels_last. InputError where there are no clips."""
    clips = sorted((data / split).glob("*.mp4"))
    if not clips:
        raise InputError(f"There are no .mp4 clips in {data / split}.")
    rng = np.random.default_rng(seed)
    frames = []
    for clip in clips:
        pictures = read_frames(clip)  # (T,H,W,3)
        chosen = rng.permutation(len(pictures))[:per_clip]
        frames += [pictures[i] for i in chosen]
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)  # (N,3,H,W)


def to_float(frames: Tensor) -> Tensor:
    """uint8 -> fp32 in [0,1], channels_last."""
    return frames.to(torch.float32).div_(255).contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def encode_all(vae: TinyVAE, frames: Tensor, batch: int = 4) -> Tensor:
    device = device_of(vae)
    return torch.cat([vae.encode(to_float(chunk.to(device))).cpu() for chunk in frames.split(batch)])


def teacher_pairs(data: Path, teacher: TinyVAE, split: str, per_clip: int, cache: Path | None = None) -> Pairs:
    """Frames with the teacher's latents, which are kept in the `cache` folder when there is one."""
    frames = sample_frames(data, split, per_clip)
    stored = cache / f"vae_latents_{split}_{per_clip}.pt" if cache else None
    if stored is not None and stored.is_file():
        return Pairs(frames, torch.load(stored, weights_only=True))
    latents = encode_all(teacher, frames)
    if stored is not None:
        stored.parent.mkdir(parents=True, exist_ok=True)
        torch.save(latents, stored)
    return Pairs(frames, latents.clone())


def random_crops(pairs: Pairs, batch: int, side: int) -> tuple[Tensor, Tensor]:
    """`side` in px of the latent -> pictures (B,3,8 side,8 side) in [0,1], latents (B,4,side,side).

    kornia's RandomCrop has one scale; these are the same cells of a picture and of its latent.
    """
    count, _, rows, columns = pairs.latents.shape
    index = torch.randint(count, (batch,))
    top = torch.randint(rows - side + 1, (batch,))
    left = torch.randint(columns - side + 1, (batch,))
    frames, latents = [], []
    for n, y, x in zip(index.tolist(), top.tolist(), left.tolist()):
        frames.append(pairs.frames[n, :, y * DOWN : (y + side) * DOWN, x * DOWN : (x + side) * DOWN])
        latents.append(pairs.latents[n, :, y : y + side, x : x + side])
    return to_float(torch.stack(frames)), torch.stack(latents)


# Losses and figures


def charbonnier(error: Tensor) -> Tensor:
    """Mean of the Charbonnier loss."""
    return ((error.square() + CHARBONNIER**2).sqrt() - CHARBONNIER).mean()


def picture_loss(picture: Tensor, frame: Tensor) -> Tensor:
    """Both (B,3,H,W)."""
    error = picture - frame
    edges = charbonnier(error.diff(dim=2)) + charbonnier(error.diff(dim=3))
    return charbonnier(error) + GRADIENT_WEIGHT * edges


def psnr(picture: Tensor, frame: Tensor) -> Tensor:
    """Both (B,3,H,W) in [0,1] -> dB of each picture (B,). kornia's differs by 2e-6 dB; `train.mini gpu` runs where it is not."""
    return -10 * torch.log10((picture - frame).square().mean((1, 2, 3)))


@torch.inference_mode()
def evaluate(vae: TinyVAE, pairs: Pairs, batch: int = 4) -> dict[str, float]:
    """dB of the round trip and of decoded teacher latents; error of the latents relative to their standard deviation."""
    round_trip, decoded, latent_error, device = [], [], 0.0, device_of(vae)
    for frames, latents in zip(pairs.frames.split(batch), pairs.latents.split(batch)):
        frames, latents = to_float(frames.to(device)), latents.to(device)
        own = vae.encode(frames)
        round_trip.append(psnr(vae.decode(own), frames))
        decoded.append(psnr(vae.decode(latents), frames))
        latent_error += (own - latents).square().sum().item()
    round_trip = torch.cat(round_trip)
    return {
        "round_trip_db": round_trip.mean().item(),
        "worst_db": round_trip.min().item(),
        "teacher_latents_db": torch.cat(decoded).mean().item(),
        "latent_error": (latent_error / pairs.latents.var().item() / pairs.latents.numel()) ** 0.5,
    }


# Training


def losses(vae: TinyVAE, frames: Tensor, latents: Tensor, joint: bool) -> tuple[Tensor, Tensor]:
    """One batch -> (picture loss, latent loss). joint: half of the decoder's input is the encoder's output."""
    own = vae.taesd_encoder(frames)  # (B,4,h,w)
    latent_loss = (own - latents).square().mean()
    half = len(frames) // 2
    given = torch.cat([own[:half], latents[half:]]) if joint else latents
    return picture_loss(vae.taesd_decoder(given), frames), latent_loss


def train_vae(
    data: Path,
    teacher: Path,
    out: Path,
    minutes: float = 25.0,
    batch: int = 4,
    side: int = 12,
    lr: float = 2e-3,
    per_clip: int = 1,
    cache: Path | None = None,
    seed: int = 0,
    device: torch.device = CPU,
) -> dict[str, float]:
    """Trains for `minutes` and writes the averaged weights to `out`; returns the validation figures.

    A stopped run resumes from checkpoints beside `out`. `side`: of the crops, in px of the latent. `per_clip`: frames of every
    training clip. `cache`: folder for the teacher's latents.
    """
    torch.manual_seed(seed)
    taesd = load_taesd(teacher).to(device, memory_format=torch.channels_last)
    train = teacher_pairs(data, taesd, "train", per_clip, cache)
    val = teacher_pairs(data, taesd, "val", 2, cache)
    log.info("%d frames to learn from, %d to validate with", len(train.frames), len(val.frames))
    vae = TinyVAE(WIDTHS).to(device, memory_format=torch.channels_last)
    checkpoints = {part: out.with_suffix(f".{part}.ckpt") for part in SHARES}
    for part, share in SHARES.items():
        vae = fit_pairs(vae, train, part == "joint", checkpoints[part], Budget(minutes=share * minutes), batch, side, lr)
    save_vae(out, vae.cpu())
    figures = evaluate(load_vae(out).to(memory_format=torch.channels_last), val)
    for path in checkpoints.values():
        path.unlink(missing_ok=True)
    log.info("done: %s", figures)
    return figures


def fit_pairs(
    vae: TinyVAE, pairs: Pairs, joint: bool, checkpoint: Path, budget: Budget, batch: int, side: int, lr: float
) -> TinyVAE:
    """`vae` trained on random crops of `pairs`, with averaged weights; convolutions at both ends are AdamW's (loop.fit)."""
    device = device_of(vae)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        frames, latents = (crop.to(device) for crop in random_crops(pairs, batch, side))
        picture, latent = losses(vae, frames, latents, joint)
        scalars = {"picture": picture.item(), "latent": latent.item(), "frames": float(batch)}
        return picture + LATENT_WEIGHT * latent, scalars

    vae.load_state_dict(fit(vae, loss, checkpoint, budget, lr, decay=AVERAGE, warmup=WARMUP))
    return vae
