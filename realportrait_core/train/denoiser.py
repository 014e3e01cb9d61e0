"""The network as a denoiser of a training batch: what is computed once for each clip, and the function of (x_t, t) that is left."""

from collections.abc import Callable

import torch

from ..animation.mapping import frame_keypoints
from ..config import AblationConfig
from ..dit.embed import ClipShape
from ..dit.model import RealPortraitDiT, Reference
from ..motion_map import MotionMaps
from .batch import Batch


def conditional_frames(batch: Batch) -> torch.Tensor | None:
    """Which frames are conditional, (B, L) of B = R N D; None for single frames, which never are."""
    return None if batch.z.shape[1] == 1 else batch.conditional


def conditions(dit: RealPortraitDiT, batch: Batch, maps: MotionMaps, own: MotionMaps) -> tuple[Reference, torch.Tensor]:
    """The reference features of R portraits, and the motion latents (R N L, motion_latent, h, w) of all frames; of 1-D motion their
    keypoints (R N L, K, 3)."""
    shape = ClipShape(batch.size, batch.size, dit.cfg.clip_frames, dit.cfg.fps)
    reference = dit.encode_reference(batch.z_r, shape, own if dit.cfg.reference_motion else None)
    if isinstance(dit.cfg, AblationConfig) and dit.cfg.keypoints:
        return reference, frame_keypoints(batch.x_d, batch.frame_to_crop[:, None], batch.size).flatten(0, 1)
    return reference, dit.motion_latents(maps, reference.features)


def denoiser(
    dit: RealPortraitDiT, batch: Batch, reference: Reference, motion: torch.Tensor
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """(x_t (B, L, 4, h, w), t (B, L) int) -> the prediction, float32, under these conditions. Conditional frames have t = 0."""
    conditional, strength = conditional_frames(batch), control_strength(batch)
    control = dit.encode_motion_latent(motion, batch.size, batch.size).unflatten(0, batch.z.shape[:2])  # (R N, L, S, C)
    control = batch.per_noise(control).flatten(0, 1)  # (B L, S, C)

    def denoise(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        t = t.float() if conditional is None else t.float().masked_fill(conditional, 0)
        return dit(x_t, t, reference.shape, reference, control, conditional, strength).float()

    return denoise


def control_strength(batch: Batch) -> float | torch.Tensor:
    """1 with the motion, 0 without it: (B, 1, 1, 1) of B = R N D, or 1.0 for all."""
    return 1.0 if batch.unmoved is None else (~batch.unmoved)[:, None, None, None].to(batch.z)
