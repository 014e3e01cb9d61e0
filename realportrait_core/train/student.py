"""A student of few steps, beyond the paper, with losses on its own decoded samples.

A clip is sampled from pure noise as at inference, up to a random step. The gradient is that of this last step only: its x_0 is
decoded in crops, which `appearance.Appearance` compares with the true frames; a squared error keeps the latents near the true
ones.
"""

import random

import torch
from torch import Tensor, nn

from ..diffusion.sampling import ddim_step
from ..diffusion.schedule import Schedule, to_x0
from ..dit.model import RealPortraitDiT
from ..errors import InputError
from ..motion_map import MotionMaps
from ..vae import DOWN, TinyVAE
from .appearance import Appearance
from .batch import Batch
from .denoiser import conditional_frames, conditions, denoiser
from .latent_regression import motion_modules
from .loss_weight import face_weight
from .precision import autocast

LATENT = 0.3  # weight of the squared error of the latents
MOVED = 0.5  # weight of the error of frame differences
FACE = 3.0  # extra weight of a place inside the facial mask in the latents' error: 1 + FACE
CROP = 16  # latent px of a decoded crop's side
MARGIN = 2  # latent px around it that are decoded too and cut away: the decoder's receptive field
STEP_SHARES = (0.3, 0.25, 0.2, 0.25)  # how often each step is trained, the last one of sampling first


class Student(nn.Module):
    """The loss as one forward pass; dit.cfg.distilled_steps is the number of its steps."""

    def __init__(self, dit: RealPortraitDiT, vae: TinyVAE, schedule: Schedule, precision: torch.dtype, appearance: Appearance):
        super().__init__()
        self.dit, self.decoder = dit, vae.taesd_decoder.eval().requires_grad_(False)
        self.precision, self.appearance, self.timesteps = precision, appearance, len(schedule)
        self.coarse = schedule.trailing(dit.cfg.distilled_steps)
        self.scalars: dict[str, Tensor] = {}
        # Mapper and draft predict the mean of all frames that fit a map, and stay so: detail is the transformer's part.
        for module in motion_modules(dit):
            module.requires_grad_(False)

    def forward(self, batch: Batch, maps: MotionMaps, own: MotionMaps) -> Tensor:
        """The loss of the batch's clips. InputError where the samples keep no pictures."""
        if batch.pictures is None:
            raise InputError("A student learns from pictures, and these samples keep none: make them with --pictures.")
        conditional = conditional_frames(batch)
        with autocast(batch.z.device, self.precision):
            denoise = denoiser(self.dit, batch, *conditions(self.dit, batch, maps, own))
            x_0 = self.walk(denoise, batch, conditional)  # (B, L, 4, h, w)
            frames, places = chosen_crops(x_0, conditional)
            side = min(CROP, *x_0.shape[-2:])
            fake = self.decode(crops(x_0, frames, places, side, MARGIN))  # (B, 2, 3, H, W)
        truth = crops(batch.per_noise(batch.pictures), frames, places * DOWN, side * DOWN, 0).to(fake) / 255
        looks, self.scalars = self.appearance(fake.flatten(0, 1), truth.flatten(0, 1))
        moved = ((fake[:, 1] - fake[:, 0]) - (truth[:, 1] - truth[:, 0])).abs().mean()
        error = (x_0 - batch.per_noise(batch.z)).square() * batch.per_noise(face_weight(maps, batch.z, FACE))
        if conditional is not None:
            error = error * (~conditional)[..., None, None, None]
        self.scalars |= {"moved": moved.detach(), "latent": error.detach().mean()}
        return looks + MOVED * moved + LATENT * error.mean()

    def walk(self, denoise, batch: Batch, conditional: Tensor | None) -> Tensor:
        """x_0 (B, L, 4, h, w) of the step that is trained, after those before it without a gradient."""
        steps, clean = len(self.coarse), batch.per_noise(batch.z)
        shares = [STEP_SHARES[i * len(STEP_SHARES) // steps] for i in range(steps)]
        (last,) = random.Random(self.appearance.steps).choices(range(steps), shares)

        def keep(x: Tensor) -> Tensor:
            return x if conditional is None else torch.where(conditional[..., None, None, None], clean, x)

        def x0_at(i: int, x: Tensor) -> Tensor:
            t = torch.full(x.shape[:2], i, device=x.device)
            out = denoise(x, self.coarse.timesteps.to(x.device)[t])[:, :, : x.shape[2]]
            return to_x0(self.coarse, x, t, out, self.dit.cfg.prediction)

        x = keep(batch.noise)
        with torch.no_grad():
            for i in range(steps - 1, last, -1):
                x = keep(ddim_step(self.coarse, x, torch.full(x.shape[:2], i, device=x.device), x0_at(i, x)))
        return keep(x0_at(last, x))

    def decode(self, latents: Tensor) -> Tensor:
        """Crops (B, 2, 4, n, n) with their margin -> pictures (B, 2, 3, H, W) without it."""
        pictures = self.decoder(latents.flatten(0, 1)).float().unflatten(0, latents.shape[:2])
        cut = MARGIN * DOWN
        return pictures[..., cut:-cut, cut:-cut]


def chosen_crops(x_0: Tensor, conditional: Tensor | None) -> tuple[Tensor, Tensor]:
    """Two neighbouring frames of each clip (B, 2), and the crop's corner (B, 2) in latent px: half of the crops in the middle,
    where the face is, the others anywhere."""
    count, length, height, width = *x_0.shape[:2], *x_0.shape[-2:]
    score = torch.rand(count, max(1, length - 1), device=x_0.device)
    if conditional is not None and length > 1:
        score = score - (conditional[:, 1:] | conditional[:, :-1]).to(score)  # pairs without a conditional frame first
    first = score.argmax(1)
    frames = torch.stack([first, (first + 1).clamp(max=length - 1)], 1)
    side = min(CROP, height, width)
    rows, columns = height - side, width - side
    anywhere = torch.stack([torch.randint(room + 1, (count,), device=x_0.device) for room in (rows, columns)], 1)
    middle = torch.stack([torch.full((count,), room // 2, device=x_0.device) for room in (rows, columns)], 1)
    return frames, torch.where(torch.rand(count, 1, device=x_0.device) < 0.5, middle, anywhere)


def crops(clips: Tensor, frames: Tensor, corners: Tensor, side: int, margin: int) -> Tensor:
    """clips (B, L, C, H, W), frames (B, 2), corners (B, 2) px -> (B, 2, C, side + 2 margin, side + 2 margin); beyond
    the frame its border is repeated."""
    index = torch.arange(-margin, side + margin, device=clips.device)
    rows = (corners[:, :1] + index).clamp(0, clips.shape[-2] - 1)  # (B, n)
    columns = (corners[:, 1:] + index).clamp(0, clips.shape[-1] - 1)
    which = torch.arange(len(clips), device=clips.device)[:, None, None, None]
    cut = clips.movedim(2, -1)[which, frames[:, :, None, None], rows[:, None, :, None], columns[:, None, None, :]]
    return cut.movedim(-1, 2)
