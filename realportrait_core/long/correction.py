"""Correction of drift: the conditional frames get back the colours and the contrast in which the first clip shows the face.

The first clip starts from the portrait alone. What differs between a network's pictures and the portrait from the start, such as
their sharpness, is no drift, and what hair and background add as the head turns is outside the facial mask. So where nothing
drifts there is little to correct, and a join stays as it is.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..motion_map import MotionMaps
from .state import ContinuationState


def face_colours(latents: Tensor, maps: MotionMaps) -> list[float]:
    """Mean, then standard deviation, of each channel of latents (n, 4, h, w) within the maps' facial mask; [] if it is empty."""
    weight = F.adaptive_avg_pool2d(maps.mask().cpu().double()[:, None], latents.shape[2:])  # (n, 1, h, w)
    if not bool(weight.sum() > 0):
        return []
    weight, values = weight / weight.sum(), latents.double()
    mean = (weight * values).sum((0, 2, 3))
    variance = (weight * (values - mean[:, None, None]).square()).sum((0, 2, 3))
    return torch.cat([mean, variance.sqrt()]).tolist()


def correct(state: ContinuationState, found: list[float], strength: float) -> ContinuationState:
    """The state after a clip with the colours `found` (`face_colours`), its conditional frames corrected.

    strength: 0 to 1, of the way to the colours of the first clip, which the state keeps.
    """
    first = state.colours
    if not (first and found):
        return replace(state, colours=first or found)
    return replace(state, latents=moved(state.latents, found, first, strength))


def moved(latents: Tensor, found: list[float], wanted: list[float], strength: float) -> Tensor:
    """Latents (n, 4, h, w) of the colours `found`, by `strength` of the way to those wanted."""
    mean, deviation = latents.new_tensor(found).view(2, 4, 1, 1)
    wanted_mean, wanted_deviation = latents.new_tensor(wanted).view(2, 4, 1, 1)
    gain = 1 + strength * (wanted_deviation / deviation.clamp(min=1e-6) - 1)
    return (latents - mean) * gain + mean + strength * (wanted_mean - mean)
