"""Correction of drift: the conditional frames get back the colours and the contrast that the first clip had.

The first clip starts from the portrait alone. What differs between a network's pictures and the portrait from the start is no
drift, and does not come back at each join. What hair and background gain and lose as the head turns is averaged over the clip.
"""

from dataclasses import replace

import torch
from torch import Tensor

from .state import ContinuationState


def colours_of(latents: Tensor) -> list[float]:
    """Mean, then standard deviation, of each channel of a clip's latents (n, 4, h, w)."""
    values = latents.double()
    return torch.cat([values.mean((0, 2, 3)), values.std((0, 2, 3), correction=0)]).tolist()


def correct(state: ContinuationState, found: list[float], strength: float) -> ContinuationState:
    """The state after a clip with the colours `found`, its conditional frames corrected.

    strength: 0 to 1, of the way to the colours of the first clip, which the state keeps.
    """
    if not state.colours:
        return replace(state, colours=found)
    return replace(state, latents=moved(state.latents, found, state.colours, strength))


def moved(latents: Tensor, found: list[float], wanted: list[float], strength: float) -> Tensor:
    """Latents (n, 4, h, w) of a clip with the colours `found`, by `strength` of the way to those wanted."""
    mean, deviation = latents.new_tensor(found).view(2, 4, 1, 1)
    wanted_mean, wanted_deviation = latents.new_tensor(wanted).view(2, 4, 1, 1)
    gain = 1 + strength * (wanted_deviation / deviation.clamp(min=1e-6) - 1)
    return (latents - mean) * gain + mean + strength * (wanted_mean - mean)
