"""Smooth random fields: one periodic volume of band-limited noise, equal on every machine."""

import functools

import numpy as np
import torch
import torch.nn.functional as F

SIDE = 48  # samples a period
PERIOD = 2.0  # of the volume's coordinate
CHANNELS = 3


@functools.cache
def volume() -> torch.Tensor:
    """(1, 3, SIDE + 1, SIDE + 1, SIDE + 1), mean 0 and deviation 1 in each channel; the last sample repeats the first."""
    waves = np.fft.fftfreq(SIDE) * SIDE
    radius = np.sqrt(waves[:, None, None] ** 2 + waves[None, :, None] ** 2 + waves[None, None, :] ** 2)
    spectrum = np.where((radius > 2) & (radius < 16), np.maximum(radius, 1) ** -1.5, 0)
    white = np.random.default_rng(20).standard_normal((CHANNELS, SIDE, SIDE, SIDE))
    field = np.fft.ifftn(np.fft.fftn(white, axes=(1, 2, 3)) * spectrum, axes=(1, 2, 3)).real
    field /= field.std((1, 2, 3), keepdims=True)
    return torch.from_numpy(np.pad(field, ((0, 0), (0, 1), (0, 1), (0, 1)), mode="wrap").astype(np.float32))[None]


@functools.cache
def volume_on(device: torch.device) -> torch.Tensor:
    return volume().to(device)


def noise(points: torch.Tensor, frequency: float, offset: float = 0.0) -> torch.Tensor:
    """Three smooth fields of about N(0, 1) at points (..., 3). The finest detail is 1 / (8 frequency) across."""
    coordinates = (points * frequency + offset) % PERIOD - 1
    grid = coordinates.reshape(1, -1, 1, 1, 3)
    field = F.grid_sample(volume_on(points.device), grid, align_corners=True, padding_mode="border")
    return field[0, :, :, 0, 0].T.reshape(*points.shape[:-1], CHANNELS)


def smoothstep(low: float | torch.Tensor, high: float | torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """0 below low, 1 above high, smooth between; low may exceed high."""
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)
