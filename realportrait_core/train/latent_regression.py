"""Latent regression, beyond the paper: the first channels of the motion latents are regressed to the frame's own latent.

f_{r->d} is the portrait's appearance in the driving frame's pose, so that a mapper can predict what the frame looks like. It
learns this far sooner than the transformer does, and without it a step takes a fraction of the time.
"""

import torch
from torch import nn

from ..config import DiTConfig
from ..dit.model import RealPortraitDiT
from ..motion_map import MotionMaps
from .batch import Batch
from .loss_weight import frame_weight, latent_error, mask_share
from .precision import autocast


class LatentRegression(nn.Module):
    """The stage `maps`: the loss of motion mapper and draft by themselves. All other weights of `dit` are frozen."""

    def __init__(
        self, dit: RealPortraitDiT, timesteps: int, precision: torch.dtype, face: float = 0.0, error_reweighting: float = 0.0
    ):
        super().__init__()
        self.dit, self.timesteps, self.precision = dit, timesteps, precision
        self.face, self.error_reweighting = face, error_reweighting
        dit.requires_grad_(False)
        for module in motion_modules(dit):
            module.requires_grad_(True)

    def forward(self, batch: Batch, maps: MotionMaps, own: MotionMaps) -> torch.Tensor:
        with autocast(batch.z.device, self.precision):
            features = self.dit.conditioner.reference_features(batch.z_r, own) if self.dit.cfg.drafts else None
            motion = self.dit.motion_latents(maps, features)  # (R N L, motion_latent, h, w)
        weight = frame_weight(motion, maps, batch.z, self.face, self.error_reweighting)
        return latent_regression_loss(self.dit.cfg, motion, maps, batch.z, weight)


def latent_regression_loss(
    cfg: DiTConfig, motion: torch.Tensor, maps: MotionMaps, z: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """Mean squared error of motion latents (F, motion_latent, h, w) against the frames' latents z (B, L, 4, h, w), F = B L.

    A network with a draft has the whole portrait as input: its error counts everywhere, times `weight` (B, L, 1, h, w). Else it
    counts inside the mask that the mapper has as input.
    """
    error = latent_error(motion, z)
    if cfg.drafts:
        return (error * weight).mean()
    reach = 1.0 if cfg.conditioner is None else cfg.conditioner.mask_reach
    mask = mask_share(maps.reaching(reach), z).view_as(error)
    return (error * mask).sum() / mask.sum().clamp_min(1)


def motion_modules(dit: RealPortraitDiT) -> list[nn.Module]:
    """The modules between motion map and motion latent: the mapper, and a draft."""
    if dit.conditioner is None:
        return [dit.motion_net]
    return [part for name, part in dit.conditioner.named_children() if name in ("mapper", "deeper", "draft")]
