"""Trains the bundled tiny VAE from scratch, with TAESD as the teacher of the latent space.

    python -m realportrait_core.train.mini vae --data ../shared/data/heads256 --teacher ../shared/taesd --minutes 25

The decoder learns to turn the teacher's latents into the frames they came from, the encoder to produce the teacher's
latents. After `JOINT_FROM` of the time the encoder also answers for the picture, and the decoder sees latents of both, so that
either VAE can be swapped for the other. No weight of the teacher is copied.
"""

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ...animation.extraction import device_of
from ...errors import InputError
from ...vae import DOWN, LATENT_CHANNELS, TinyVAE, load_taesd, load_vae, save_vae
from ..loop import save_atomically
from ..muon import Muon
from .motion import CPU
from .prepare import read_frames

log = logging.getLogger(__name__)

WIDTHS = (16, 32, 64, 64)  # narrow where pixels are many: four times faster; padded with zeros when saved
LATENT_WEIGHT = 1.0  # of the encoder's squared latent error
GRADIENT_WEIGHT = 0.5  # of the error of neighbouring pixels' differences: edges, lashes
KNEE = 0.03  # error at which the pixel loss turns from squared to absolute
JOINT_FROM = 0.55  # of the time
WARMUP_STEPS = 50
CHECKPOINT_SECONDS = 120


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


def to_unit(frames: Tensor) -> Tensor:
    """uint8 -> fp32 in [0,1], channels_last."""
    return frames.to(torch.float32).div_(255).contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def encode_all(vae: TinyVAE, frames: Tensor, batch: int = 4) -> Tensor:
    device = device_of(vae)
    return torch.cat([vae.encode(to_unit(chunk.to(device))).cpu() for chunk in frames.split(batch)])


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


def random_crops(pairs: Pairs, batch: int, side: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """`side` in px of the latent -> pictures (B,3,8 side,8 side) in [0,1], latents (B,4,side,side).

    kornia's RandomCrop has one scale; these are the same cells of a picture and of its latent.
    """
    count, _, rows, columns = pairs.latents.shape
    index = torch.randint(count, (batch,), generator=generator)
    top = torch.randint(rows - side + 1, (batch,), generator=generator)
    left = torch.randint(columns - side + 1, (batch,), generator=generator)
    frames, latents = [], []
    for n, y, x in zip(index.tolist(), top.tolist(), left.tolist()):
        frames.append(pairs.frames[n, :, y * DOWN : (y + side) * DOWN, x * DOWN : (x + side) * DOWN])
        latents.append(pairs.latents[n, :, y : y + side, x : x + side])
    return to_unit(torch.stack(frames)), torch.stack(latents)


# Losses and figures


def knee(error: Tensor) -> Tensor:
    """Squared below KNEE, absolute above; mean over everything."""
    return ((error.square() + KNEE**2).sqrt() - KNEE).mean()


def picture_loss(picture: Tensor, frame: Tensor) -> Tensor:
    """Both (B,3,H,W)."""
    error = picture - frame
    edges = knee(error.diff(dim=2)) + knee(error.diff(dim=3))
    return knee(error) + GRADIENT_WEIGHT * edges


def psnr(picture: Tensor, frame: Tensor) -> Tensor:
    """Both (B,3,H,W) in [0,1] -> dB of each picture (B,). kornia's differs by 2e-6 dB; `train.mini gpu` runs where it is not."""
    return -10 * torch.log10((picture - frame).square().mean((1, 2, 3)))


@torch.inference_mode()
def evaluate(vae: TinyVAE, pairs: Pairs, batch: int = 4) -> dict[str, float]:
    """dB of the round trip and of decoded teacher latents; error of the latents relative to their spread."""
    round_trip, decoded, latent_error, device = [], [], 0.0, device_of(vae)
    for frames, latents in zip(pairs.frames.split(batch), pairs.latents.split(batch)):
        frames, latents = to_unit(frames.to(device)), latents.to(device)
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


# Optimiser


def optimizers(vae: TinyVAE, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for convolutions between hidden features, Adam for those at the ends and for biases."""
    hidden, ends = [], []
    for weight in vae.parameters():
        (hidden if weight.ndim == 4 and min(weight.shape[:2]) > LATENT_CHANNELS else ends).append(weight)
    return [Muon(hidden, lr), torch.optim.Adam(ends, lr / 2, betas=(0.9, 0.98))]


def schedule(step: int, done: float) -> float:
    """Factor of the learning rate; `done` is the share of the time that has gone, 0 to 1."""
    return min(1.0, (step + 1) / WARMUP_STEPS) * max(0.0, min(1.0, 1.4 * (1 - done)))


# Training


def losses(vae: TinyVAE, frames: Tensor, latents: Tensor, joint: bool) -> tuple[Tensor, Tensor]:
    """One batch -> (picture loss, latent loss). In the joint phase half of the decoder's input comes from our encoder."""
    own = vae.taesd_encoder(frames)  # (B,4,h,w)
    latent_loss = (own - latents).square().mean()
    half = len(frames) // 2
    seen = torch.cat([own[:half], latents[half:]]) if joint else latents
    return picture_loss(vae.taesd_decoder(seen), frames), latent_loss


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
    """Trains for `minutes` and writes `out`; resumes from `out` with the suffix .resume. Returns the validation figures.

    `side`: of the crops, in px of the latent. `per_clip`: frames of every training clip. `cache`: folder for the teacher's
    latents.
    """
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    taesd = load_taesd(teacher).to(device, memory_format=torch.channels_last)
    train = teacher_pairs(data, taesd, "train", per_clip, cache)
    val = teacher_pairs(data, taesd, "val", 2, cache)
    brief = Pairs(val.frames[::6], val.latents[::6])
    log.info("%d frames to learn from, %d to validate with", len(train.frames), len(val.frames))

    vae = TinyVAE(WIDTHS).to(device, memory_format=torch.channels_last)
    optims = optimizers(vae, lr)
    base = [optim.param_groups[0]["lr"] for optim in optims]
    step, spent = 0, 0.0
    resume = out.with_suffix(".resume")
    if resume.is_file():
        kept = torch.load(resume, map_location="cpu", weights_only=True)
        vae.load_state_dict(kept["vae"])
        for optim, state in zip(optims, kept["optims"]):
            optim.load_state_dict(state)
        generator.set_state(kept["generator"])
        step, spent = kept["step"], kept["spent"]

    mean, saved, last = None, spent, time.monotonic()
    while spent < 60 * minutes:
        done = spent / (60 * minutes)
        for optim, rate in zip(optims, base):
            optim.param_groups[0]["lr"] = rate * schedule(step, done)
        frames, latents = (crop.to(device) for crop in random_crops(train, batch, side, generator))
        picture, latent = losses(vae, frames, latents, joint=done > JOINT_FROM)
        for optim in optims:
            optim.zero_grad(set_to_none=True)
        (picture + LATENT_WEIGHT * latent).backward()
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        for optim in optims:
            optim.step()
        step += 1
        now = torch.tensor([picture.item(), latent.item()])
        mean = now if mean is None else mean.lerp(now, 0.02)
        spent, last = spent + time.monotonic() - last, time.monotonic()
        if step % 50 == 0:
            log.info("step %d, %.0f s: picture %.4f, latent %.4f", step, spent, *mean.tolist())
        if spent - saved > CHECKPOINT_SECONDS:
            saved = spent
            save_atomically(
                {
                    "vae": vae.state_dict(),
                    "optims": [optim.state_dict() for optim in optims],
                    "generator": generator.get_state(),
                    "step": step,
                    "spent": spent,
                },
                resume,
            )
            log.info("step %d, %.0f s: %s", step, spent, evaluate(vae, brief))
            last = time.monotonic()  # validation is not training time

    save_vae(out, vae.cpu())
    figures = evaluate(load_vae(out).to(memory_format=torch.channels_last), val)
    resume.unlink(missing_ok=True)
    log.info("done after %d steps, %.0f s: %s", step, spent, figures)
    return figures
