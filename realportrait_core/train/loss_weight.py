"""Weights of places and frames in a training's loss: 1 everywhere in the paper."""

import torch
import torch.nn.functional as F

from ..motion_map import MotionMaps


def mask_share(maps: MotionMaps, z: torch.Tensor) -> torch.Tensor:
    """The share of every place of latents z (..., h, w) that lies inside the facial mask: (F, 1, h, w)."""
    return F.interpolate(maps.mask()[:, None].float(), size=z.shape[-2:], mode="area")


def face_weight(maps: MotionMaps, z: torch.Tensor, face: float) -> torch.Tensor:
    """1 + `face` inside the facial mask, over its mean in each clip: (B, L, 1, h, w) for latents z (B, L, 4, h, w)."""
    weight = (1 + face * mask_share(maps, z)).unflatten(0, z.shape[:2])  # (B, L, 1, h, w)
    return weight / weight.mean((1, 2, 3, 4), keepdim=True)


def frame_weight(motion: torch.Tensor, maps: MotionMaps, z: torch.Tensor, face: float, error_reweighting: float) -> torch.Tensor:
    """face_weight (B, L, 1, h, w), and with e = `error_reweighting` above 0 times e / (e + the frame's latent_error).

    A few frames of wide turns cause most of the error. With this weight the gradient of a frame's loss is that of a logarithm:
    all frames improve by the same shares, as figures in dB count.
    """
    weight = face_weight(maps, z, face)
    if not error_reweighting:
        return weight
    error = (latent_error(motion.detach(), z) * weight).mean((2, 3, 4), keepdim=True)  # (B, L, 1, 1, 1)
    return weight * error_reweighting / (error_reweighting + error)


def latent_error(motion: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """Squared error (B, L, 1, h, w) of the first channels of motion latents (F, motion_latent, h, w) against z (B, L, 4, h, w)."""
    predicted = motion[:, : z.shape[2]].float().unflatten(0, z.shape[:2])  # (B, L, 4, h, w)
    return (predicted - z).square().mean(2, keepdim=True)
