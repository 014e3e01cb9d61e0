"""Changes of a head's pose, position and, slightly, expression: single random draws, and smooth paths.

A path is a sum of a few sinusoids of random phase below HIGHEST, so that it is band-limited and the same at any frame rate.
"""

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ..errors import InputError
from .expression import NAMES

WAVES = 5  # sinusoids of a path
SLOWEST, HIGHEST = 0.15, 0.9  # Hz


@dataclass(frozen=True)
class Change:
    """Of heads with any leading axes, (B, N) in `turn`: angles as M's, in degrees; see vid2vid.keypoints.rotation_matrix."""

    yaw: Tensor  # (...)
    pitch: Tensor  # (...)
    roll: Tensor  # (...)
    scale: Tensor  # (...) factor
    shift: Tensor  # (..., 2) px, right and down
    expression: Tensor  # (..., 5) of expression.NAMES, 1 for the whole of each

    def to(self, device: torch.device | str) -> "Change":
        return Change(*(getattr(self, field.name).to(device) for field in fields(self)))

    def __getitem__(self, chosen: slice | int | tuple | Tensor) -> "Change":
        return Change(*(getattr(self, field.name)[chosen] for field in fields(self)))


@dataclass(frozen=True)
class Limits:
    """The largest change of each kind, in both directions; for expressions the lowest and the highest amount."""

    yaw: float = 12.0  # degrees
    pitch: float = 10.0
    roll: float = 8.0
    scale: float = 0.05  # a factor of 1 +- scale
    shift: float = 4.0  # px
    expression: tuple[tuple[float, float], ...] = ((0.0, 1.0), (-0.3, 1.0), (-0.5, 1.0), (-0.5, 1.0), (-0.3, 1.0))


def pose_change(
    yaw: float = 0.0,
    pitch: float = 0.0,
    roll: float = 0.0,
    scale: float = 1.0,
    shift: tuple[float, float] = (0.0, 0.0),
    expression: dict[str, float] | None = None,
) -> Change:
    """One change (1, 1). InputError for an expression that is not in NAMES."""
    unknown = set(expression or {}) - set(NAMES)
    if unknown:
        raise InputError(f"{sorted(unknown)} are no expressions of a turned photo; there are {', '.join(NAMES)}.")
    amounts = [(expression or {}).get(name, 0.0) for name in NAMES]
    return Change(*(torch.tensor([[value]]) for value in (yaw, pitch, roll, scale, shift, amounts)))


def joined(changes: list[Change], dim: int = 1) -> Change:
    """Changes concatenated along an axis."""
    return Change(*(torch.cat([getattr(change, field.name) for change in changes], dim) for field in fields(Change)))


def from_units(unit: Tensor, limits: Limits, device: torch.device | str) -> Change:
    """unit (..., 11) in -1..1 as a Change between the limits."""
    unit = unit.to(device)
    yaw, pitch, roll, scale = (unit[..., i] for i in range(4))
    low, high = (torch.tensor(side, device=unit.device) for side in zip(*limits.expression))
    # Negative amounts scale to the lower limit, positive ones to the upper: 0 stays 0.
    expression = torch.where(unit[..., 6:] < 0, -unit[..., 6:] * low, unit[..., 6:] * high)
    angles = yaw * limits.yaw, pitch * limits.pitch, roll * limits.roll
    return Change(*angles, 1 + scale * limits.scale, unit[..., 4:6] * limits.shift, expression)


def random_changes(
    shape: tuple[int, ...], limits: Limits, generator: torch.Generator, device: torch.device | str = "cpu"
) -> Change:
    """Independent draws, uniform within the limits; each expression is 0 in half of them. Drawn on the generator's device."""
    unit = torch.rand(*shape, 6 + len(NAMES), generator=generator, device=generator.device) * 2 - 1
    chosen = torch.rand(*shape, len(NAMES), generator=generator, device=generator.device) < 0.5
    return from_units(torch.cat([unit[..., :6], unit[..., 6:] * chosen], -1), limits, device)


def smooth_path(
    shape: tuple[int, ...],
    fps: float,
    limits: Limits,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
    from_rest: bool = False,
) -> Change:
    """Paths over the last axis of shape, frames at `fps`: band-limited, within the limits, with a random start.

    from_rest: the first frame is no change at all, exactly. Drawn on the generator's device. InputError for a shape without
    frames or an fps that is not above 0.
    """
    if not shape or shape[-1] < 1 or not fps > 0:
        raise InputError(f"A path takes at least 1 frame and more than 0 frames/s; these are {shape} and {fps}.")
    many = (*shape[:-1], 6 + len(NAMES), WAVES)

    def draw(*size: int) -> Tensor:
        return torch.rand(*size, generator=generator, device=generator.device)

    frequency = SLOWEST * (HIGHEST / SLOWEST) ** draw(*many)
    height = draw(*many) / frequency  # slow waves are the larger ones
    phase = 2 * math.pi * draw(*many)
    time = torch.arange(shape[-1], device=generator.device)[:, None, None] / fps
    waves = height[..., None, :, :] * torch.sin(2 * math.pi * frequency[..., None, :, :] * time + phase[..., None, :, :])
    path = waves.sum(-1)  # (..., T, 11)
    if from_rest:
        path = path - path[..., :1, :]
    # Scaled into the limits by the path's largest value, or by the waves' amplitudes where the path hardly moves.
    largest = path.abs().amax(-2, keepdim=True).maximum(0.5 * height.sum(-1)[..., None, :])
    reach = 0.4 + 0.6 * draw(*many[:-1])[..., None, :]
    return from_units(path / largest.clamp_min(1e-6) * reach, limits, device)
