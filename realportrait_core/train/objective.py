"""The paper's objective: the diffusion loss of backbone, motion ControlNet and motion mapper together.

Stage 1: single frames; portrait and driving frames come from one clip or from one picture. Stage 2: clips of L frames, whose
first and last frames are sometimes conditional: no noise, t = 0, no loss. Face Vid2vid and VAE are frozen in both.
"""

import torch
from torch import nn

from ..diffusion.objective import diffusion_loss, noise_clip
from ..diffusion.schedule import Schedule
from ..dit.model import RealPortraitDiT
from ..motion_map import MotionMaps
from ..vid2vid.warp import WarpingNetwork
from .batch import Batch, maps_of
from .denoiser import conditional_frames, conditions, denoiser
from .latent_regression import latent_regression_loss
from .loss_weight import frame_weight
from .precision import autocast


class Objective(nn.Module):
    """The loss as one forward pass, which is what DDP and FSDP wrap. Weights of 0 are the paper's."""

    def __init__(
        self,
        dit: RealPortraitDiT,
        schedule: Schedule,
        precision: torch.dtype,
        face: float = 0.0,
        latent_regression: float = 0.0,
        error_reweighting: float = 0.0,
    ):
        super().__init__()
        self.dit, self.schedule, self.precision = dit, schedule, precision
        self.face, self.latent_regression, self.error_reweighting = face, latent_regression, error_reweighting
        self.timesteps = len(schedule)

    def forward(self, batch: Batch, maps: MotionMaps, own: MotionMaps) -> torch.Tensor:
        """The mean loss of the batch's clips."""
        conditional, z = conditional_frames(batch), batch.per_noise(batch.z)  # (B, L), (B, L, 4, h, w)
        z_t = noise_clip(self.schedule, z, batch.t, batch.noise, conditional)
        with autocast(z.device, self.precision):
            reference, motion = conditions(self.dit, batch, maps, own)
            out = denoiser(self.dit, batch, reference, motion)(z_t, batch.t)
        weighted = self.face > 0 or self.error_reweighting > 0
        weight = None  # the paper: every place and frame counts alike
        if weighted or self.latent_regression:  # MINI
            weight = frame_weight(motion, maps, batch.z, self.face, self.error_reweighting)
        loss = diffusion_loss(
            self.schedule,
            out,
            z,
            z_t,
            batch.t,
            batch.noise,
            self.dit.cfg.prediction,
            conditional,
            batch.per_noise(weight) if weighted else None,  # MINI
        ).mean()
        if self.latent_regression:  # MINI
            loss = loss + self.latent_regression * latent_regression_loss(self.dit.cfg, motion, maps, batch.z, weight)
        return loss


def loss_of(objective: nn.Module, warping: WarpingNetwork, batch: Batch, precision: torch.dtype) -> torch.Tensor:
    """The batch's loss; the frozen W warps in the precision of the training."""
    with autocast(batch.z.device, precision):
        maps = maps_of(warping, batch)
    return objective(batch, *maps)
