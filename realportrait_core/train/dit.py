"""Backbone, control and motion mapper together, in the paper's two stages; Face Vid2vid and VAE stay frozen.

Stage 1: single frames, portrait and driving frames from one clip or from one picture. Stage 2: clips of L frames whose first
and last frames are sometimes known: no noise, t = 0, no loss.
"""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

import torch
import torch.distributed.fsdp as fsdp
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint as recompute

from ..config import DiTConfig
from ..diffusion.objective import diffusion_loss, noise_clip
from ..diffusion.schedule import Schedule
from ..dit.embed import ClipShape
from ..dit.model import RealPortraitDiT, Reference
from ..errors import InputError
from ..motion_map import MotionMaps
from ..vid2vid.warp import WarpingNetwork
from .batch import Batch, Index, batches, maps_of
from .encoders import Encoders
from .loop import Budget, fit
from .report import Report
from .stages import Stage
from .world import ALONE, World

log = logging.getLogger(__name__)

ENDS = (
    "x_embedder",
    "conditioner.embedder",
    "t_embedder",
    "csize_embedder",
    "ar_embedder",
    "fl_embedder",
    "fps_embedder",
    "final_layer",
)


@torch.no_grad()
def from_scratch(cfg: DiTConfig) -> RealPortraitDiT:
    """Without public weights to protect, the control may speak from the first step."""
    dit = RealPortraitDiT(cfg).initialize()
    for layer in [dit.controlnet[0].before_proj, *(c.after_proj for c in dit.controlnet)]:
        nn.init.xavier_uniform_(layer.weight)
    if cfg.reference_motion:
        nn.init.xavier_uniform_(dit.conditioner.reference_proj.weight)
    return dit


class Objective(nn.Module):
    """The loss of the paper's training as one forward pass, which is what DDP and FSDP wrap."""

    def __init__(
        self,
        dit: RealPortraitDiT,
        schedule: Schedule,
        precision: torch.dtype,
        face: float = 0.0,
        read: float = 0.0,
        even: float = 0.0,
    ):
        super().__init__()
        self.dit, self.schedule, self.precision = dit, schedule, precision
        self.face, self.read, self.even = face, read, even
        self.timesteps = len(schedule)

    def forward(self, batch: Batch, maps: MotionMaps, own: MotionMaps) -> torch.Tensor:
        """The mean loss of the batch's clips."""
        conditional, z = known(batch), batch.drawn(batch.z)
        z_t = noise_clip(self.schedule, z, batch.t, batch.noise, conditional)
        with mixed(batch, self.precision):
            reference, motion = conditions(self.dit, batch, maps, own)
            out = denoiser(self.dit, batch, reference, motion)(z_t, batch.t)
        weighed = self.face or self.even
        weight = frame_weight(motion, maps, batch.z, self.face, self.even) if weighed or self.read else None
        loss = diffusion_loss(
            self.schedule,
            out,
            z,
            z_t,
            batch.t,
            batch.noise,
            self.dit.cfg.prediction,
            conditional,
            batch.drawn(weight) if weighed else None,
        ).mean()
        return loss + self.read * reading_loss(self.dit.cfg, motion, maps, batch.z, weight) if self.read else loss


class Reading(nn.Module):
    """The loss of motion mapper and draft alone, by which they learn to see in a map what the frame will look like."""

    def __init__(self, dit: RealPortraitDiT, timesteps: int, precision: torch.dtype, face: float = 0.0, even: float = 0.0):
        super().__init__()
        self.dit, self.timesteps, self.precision, self.face, self.even = dit, timesteps, precision, face, even

    def forward(self, batch: Batch, maps: MotionMaps, own: MotionMaps) -> torch.Tensor:
        with mixed(batch, self.precision):
            features = self.dit.conditioner.reference_features(batch.z_r, own) if self.dit.cfg.drafts else None
            motion = self.dit.motion_latents(maps, features)
        return reading_loss(self.dit.cfg, motion, maps, batch.z, frame_weight(motion, maps, batch.z, self.face, self.even))


def reading_loss(cfg: DiTConfig, motion: torch.Tensor, maps: MotionMaps, z: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """How far the first channels of motion latents (F, motion_latent, h, w) are from the frames' latents z (B, L, 4, h, w).

    f_{r->d} is an appearance, and here it is asked for: inside the mask that the mapper sees, and where a draft has seen the
    portrait, of the whole frame, weighed as in the diffusion loss.
    """
    error = reading_error(motion, z)
    if cfg.drafts:
        return (error * weight).mean()
    reach = 1.0 if cfg.conditioner is None else cfg.conditioner.mask_reach
    mask = mask_share(maps.reaching(reach), z).view_as(error)
    return (error * mask).sum() / mask.sum().clamp_min(1)


def reading_error(motion: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """(B, L, 1, h, w)."""
    said = motion[:, : z.shape[2]].float().unflatten(0, z.shape[:2])
    return (said - z).square().mean(2, keepdim=True)


def known(batch: Batch) -> torch.Tensor | None:
    """Which frames are conditional, (B, L) of B = R N D; None for single frames, which never are."""
    return None if batch.z.shape[1] == 1 else batch.conditional


def mixed(batch: Batch, precision: torch.dtype) -> AbstractContextManager:
    return autocast(batch.z.device, precision)


def autocast(device: torch.device, precision: torch.dtype) -> AbstractContextManager:
    """Matrix products in `precision`; float32 leaves everything as it is, on any device."""
    return nullcontext() if precision == torch.float32 else torch.autocast(device.type, precision)


def loss_of(objective: nn.Module, warping: WarpingNetwork, batch: Batch, precision: torch.dtype) -> torch.Tensor:
    """The batch's loss; the frozen W warps in the precision of the training."""
    with mixed(batch, precision):
        maps = maps_of(warping, batch)
    return objective(batch, *maps)


def motion_readers(dit: RealPortraitDiT) -> list[nn.Module]:
    """What makes the motion latents: the motion mapper, and a draft."""
    if dit.conditioner is None:
        return [dit.motion_net]
    return [part for name, part in dit.conditioner.named_children() if name in ("mapper", "deeper", "draft")]


def conditions(dit: RealPortraitDiT, batch: Batch, maps: MotionMaps, own: MotionMaps) -> tuple[Reference, torch.Tensor]:
    """What the R portraits say, and the motion latents (R N L, motion_latent, h, w) of all frames."""
    shape = ClipShape(batch.size, batch.size, dit.cfg.clip_frames, dit.cfg.fps)
    reference = dit.encode_reference(batch.z_r, shape, own if dit.cfg.reference_motion else None)
    return reference, dit.motion_latents(maps, reference.features)


def denoiser(
    dit: RealPortraitDiT, batch: Batch, reference: Reference, motion: torch.Tensor
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """(x_t (B, L, 4, h, w), t (B, L) int) -> the prediction, float32, under these conditions."""
    conditional, strength = known(batch), moving(batch)
    control = dit.encode_motion_latent(motion, batch.size, batch.size).unflatten(0, batch.z.shape[:2])
    control = batch.drawn(control).flatten(0, 1)  # (B L, S, C)

    def denoise(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        told = t.float() if conditional is None else t.float().masked_fill(conditional, 0)
        return dit(x_t, told, reference.shape, reference, control, conditional, strength).float()

    return denoise


def moving(batch: Batch) -> float | torch.Tensor:
    """1 where a draw has its motion, 0 where it is left out: (B, 1, 1, 1) of B = R N D, or 1 for all."""
    return 1.0 if batch.unmoved is None else (~batch.unmoved)[:, None, None, None].to(batch.z)


def mask_share(maps: MotionMaps, z: torch.Tensor) -> torch.Tensor:
    """How much of every place of latents z (..., h, w) lies inside the facial mask: (F, 1, h, w)."""
    return F.interpolate(maps.mask()[:, None].float(), size=z.shape[-2:], mode="area")


def face_weight(maps: MotionMaps, z: torch.Tensor, face: float) -> torch.Tensor:
    """1 + `face` inside the facial mask, over its mean in each clip: (B, L, 1, h, w) for latents z (B, L, 4, h, w)."""
    weight = (1 + face * mask_share(maps, z)).unflatten(0, z.shape[:2])
    return weight / weight.mean((1, 2, 3, 4), keepdim=True)


def frame_weight(motion: torch.Tensor, maps: MotionMaps, z: torch.Tensor, face: float, even: float) -> torch.Tensor:
    """face_weight (B, L, 1, h, w), and with `even` times even / (even + the draft's error in a frame).

    A few frames of wide turns make most of the error. Weighed so, all improve by the same shares, as figures in dB count.
    """
    weight = face_weight(maps, z, face)
    if not even:
        return weight
    error = (reading_error(motion.detach(), z) * weight).mean((2, 3, 4), keepdim=True)
    return weight * even / (even + error)


def recompute_blocks(dit: RealPortraitDiT) -> None:
    """Activation checkpointing: each block's forward pass runs again in the backward pass, and keeps only its input."""
    for block in (*dit.blocks, *dit.controlnet):
        block.forward = partial(recompute, block.forward, use_reentrant=False)


def spread(objective: Objective, world: World, shard: bool) -> nn.Module:
    """DDP, or FSDP2 with one shard of every weight in each process."""
    if world.size == 1:
        return objective
    if not shard:
        # Stage 1 never asks the temporal mask of conditional frames, so some weights may be without a gradient.
        return DistributedDataParallel(objective, find_unused_parameters=True)
    for block in objective.dit.blocks:
        fsdp.fully_shard(block)
        for method in ("encode", "key_value"):  # the portrait's way through the same weights
            fsdp.register_fsdp_forward_method(block, method)
    for control in objective.dit.controlnet:
        fsdp.fully_shard(control.copied_block)  # its projections are also called from outside: the root's
    return fsdp.fully_shard(objective)


def train_stage(
    objective: nn.Module,
    stage: Stage,
    index: Index,
    warping: WarpingNetwork,
    checkpoint: Path,
    budget: Budget,
    seed: int = 0,
    world: World = ALONE,
    recomputed: bool = False,
    shard: bool = False,
    report: Report | None = None,
    strip: Callable[[RealPortraitDiT, int], None] | None = None,
    encoders: Encoders | None = None,
) -> RealPortraitDiT:
    """One stage from the weights of `objective.dit`; returns them averaged. A stopped run goes on from `checkpoint`.

    objective: Objective, distil.Distillation or student.Student. Every process draws its share of a stage's portraits.
    strip(dit, step) may draw what the averaged weights make.
    """
    uneven = [shape for shape in stage.shapes if shape.portraits % world.size]
    if uneven:
        raise InputError(f"{uneven[0].portraits} portraits a step cannot be split evenly among {world.size} processes.")
    if shard and stage.muon:
        raise InputError("Muon needs whole matrices and FSDP splits them: train with AdamW, or without --shard.")
    for shape in stage.shapes:
        index.usable(shape)
    dit = objective.to(world.device).dit
    if recomputed:
        recompute_blocks(dit)
    spread_out = spread(objective, world, shard)
    warping = warping.to(world.device).eval()
    source, expected = None, -1

    def loss(step: int):
        nonlocal source, expected
        if step != expected:  # the first step, or a resumed one
            source = batches(index, stage, seed, step, objective.timesteps, world.rank, world.size, encoders)
        batch, expected = next(source).to(world.device), step + 1
        value = loss_of(spread_out, warping, batch, objective.precision)
        return value, {"frames": float(batch.t.numel() * world.size)} | {
            name: float(scalar) for name, scalar in getattr(objective, "scalars", {}).items()
        }

    average = fit(
        dit,
        loss,
        checkpoint,
        budget,
        stage.lr,
        decay=stage.average,
        warmup=stage.warmup,
        adam_only=ENDS if stage.muon else None,
        world=world,
        report=report,
        strip=None if strip is None else lambda state, step: strip(averaged(dit, state), step),
        beside=getattr(objective, "appearance", None),
    )
    return averaged(dit, average)


def averaged(dit: RealPortraitDiT, state: dict[str, torch.Tensor]) -> RealPortraitDiT:
    """A network of its own, on the CPU, with the averaged weights."""
    result = RealPortraitDiT(dit.cfg)
    result.load_state_dict({name: value.cpu() for name, value in state.items()})
    return result.eval()
