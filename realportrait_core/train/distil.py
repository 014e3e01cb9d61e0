"""Distillation to few steps, beyond the paper: one step of the student ends where several of its teacher's do.

Progressive distillation (Salimans, Ho 2022) in a single round, with the conditional frames of the paper's second stage. The paper
leaves it to future work that "animation generation efficiency remains relatively low".
"""

import torch
from torch import Tensor, nn

from ..diffusion.objective import diffusion_loss, noise_clip
from ..diffusion.sampling import ddim_step
from ..diffusion.schedule import Schedule, gather, to_epsilon, to_x0
from ..dit.model import RealPortraitDiT
from ..motion_map import MotionMaps
from .batch import Batch
from .denoiser import conditional_frames, conditions, denoiser
from .loss_weight import face_weight
from .precision import autocast

SUBSTEPS = 5  # of the teacher for one of the student's


class Distillation(nn.Module):
    """The loss of a student as one forward pass; dit.cfg.distilled_steps is the number of its steps."""

    def __init__(
        self, dit: RealPortraitDiT, teacher: RealPortraitDiT, schedule: Schedule, precision: torch.dtype, face: float = 0.0
    ):
        super().__init__()
        self.dit, self.teacher, self.precision, self.face = dit, teacher.eval().requires_grad_(False), precision, face
        self.timesteps = len(schedule)
        self.coarse = schedule.trailing(dit.cfg.distilled_steps)
        self.fine = schedule.trailing(dit.cfg.distilled_steps * SUBSTEPS)  # its every SUBSTEPS-th timestep is the student's

    def forward(self, batch: Batch, maps: MotionMaps, own: MotionMaps) -> Tensor:
        """The mean loss of the batch's clips; each clip's t selects one of the student's steps."""
        conditional, cfg = conditional_frames(batch), self.dit.cfg
        step = batch.t * len(self.coarse) // self.timesteps  # (B, L), 0 is the last step of sampling
        start = (step + 1) * SUBSTEPS - 1  # the same timestep in `fine`
        x = noise_clip(self.fine, batch.per_noise(batch.z), start, batch.noise, conditional)
        with autocast(batch.z.device, self.precision):
            with torch.no_grad():
                denoise = denoiser(self.teacher, batch, *conditions(self.teacher, batch, maps, own))
                end = walk(denoise, self.fine, x, start, cfg.prediction, conditional)
            denoise = denoiser(self.dit, batch, *conditions(self.dit, batch, maps, own))
            out = denoise(x, self.coarse.timesteps.to(step.device)[step])
        x_0 = x0_of_step(self.coarse, x, step, end)
        noise = to_epsilon(self.coarse, x, step, x_0)
        return diffusion_loss(  # as in training, with the teacher's x_0; DDIM does not use the variance
            self.coarse,
            out[:, :, : cfg.in_channels],
            x_0,
            x,
            step,
            noise,
            cfg.prediction,
            conditional,
            batch.per_noise(face_weight(maps, batch.z, self.face)) if self.face else None,
        ).mean()


def walk(denoise, schedule: Schedule, x: Tensor, start: Tensor, prediction: str, conditional: Tensor | None) -> Tensor:
    """SUBSTEPS steps of DDIM from x (B, L, 4, h, w) at start (B, L); conditional frames stay."""
    timesteps, given = schedule.timesteps.to(start.device), x
    for t in (start - i for i in range(SUBSTEPS)):
        out = denoise(x, timesteps[t])[:, :, : x.shape[2]]
        x = ddim_step(schedule, x, t, to_x0(schedule, x, t, out, prediction))
        if conditional is not None:
            x = torch.where(conditional[..., None, None, None], given, x)
    return x


def x0_of_step(schedule: Schedule, x: Tensor, step: Tensor, end: Tensor) -> Tensor:
    """The x_0 with which ddim_step goes from x at `step` to `end`: Song, Meng, Ermon 2021, Eq. 12, solved for it."""
    abar, before = gather(schedule.alphas_cumprod, step, x), gather(schedule.alphas_cumprod_prev, step, x)
    kept = ((1 - before) / (1 - abar)).sqrt()  # of the noise
    return (end - kept * x) / (before.sqrt() - kept * abar.sqrt())
