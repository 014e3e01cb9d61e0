"""An identity's skull as a function of two angles: azimuth (0 in front, positive to the subject's left) and angle from the crown.

Hair and hats are surfaces at some distance above it.
"""

from dataclasses import dataclass

import numpy as np
import torch

from .rig import HEAD, SKIN, Rig, vertices_of

CENTRE = (0.0, 7.35, 0.12)  # dm, of the template's skull
MEAN_RADIUS = 1.02  # dm
GRID = (36, 19)  # samples of the skull's radius over azimuth and angle from the crown


@dataclass(frozen=True)
class Skull:
    """A head's surface as tables over azimuth and angle from the crown: the template's, and how far an identity's is from it."""

    centre: torch.Tensor  # (3,) dm, of the template
    table: torch.Tensor  # (1, 4, GRID[1], GRID[0] + 1): radius; displacement of this identity

    def points(self, azimuth: torch.Tensor, angle: torch.Tensor, thickness: torch.Tensor | float) -> torch.Tensor:
        """Points (..., 3), dm, `thickness` above the skin, for the template's azimuth and angle from the crown in radians."""
        grid = torch.stack([azimuth / torch.pi, (angle / torch.pi * 2 - 1).clamp(-1, 1)], -1).reshape(1, -1, 1, 2)
        field = torch.nn.functional.grid_sample(self.table, grid, align_corners=True, padding_mode="border")[0, :, :, 0]
        radius, shift = field[0].reshape(azimuth.shape), field[1:].T.reshape(*azimuth.shape, 3)
        return self.centre + directions(azimuth, angle) * (radius + thickness)[..., None] + shift


def skull(rig: Rig, shape: torch.Tensor) -> Skull:
    """Of an identity's neutral shape (W, 3)."""
    device = shape.device
    skin = vertices_of(rig, SKIN, HEAD)
    skin = skin[(rig.ears[skin] < 0.3) & (rig.vertices[skin, 1] > 6.2)][::2]
    centre = torch.tensor(CENTRE, device=device)
    away = rig.vertices[skin] - centre
    radius = away.norm(dim=1, keepdim=True)
    azimuth = torch.linspace(-torch.pi, torch.pi, GRID[0] + 1, device=device)
    angle = torch.linspace(0, torch.pi, GRID[1], device=device)
    looking = directions(azimuth[None].expand(GRID[1], -1), angle[:, None].expand(-1, GRID[0] + 1))
    near = torch.exp((looking.reshape(-1, 3) @ (away / radius).T - 1) * 90)  # (cells, S), about 6 degrees wide
    table = near @ torch.cat([radius, shape[skin] - rig.vertices[skin]], 1) / near.sum(1, keepdim=True).clamp_min(1e-20)
    return Skull(centre, table.T.reshape(1, 4, GRID[1], GRID[0] + 1))


def directions(azimuth: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
    """Unit vectors (..., 3) at an azimuth and an angle from the crown, radians."""
    return torch.stack([azimuth.sin() * angle.sin(), angle.cos(), azimuth.cos() * angle.sin()], -1)


def heading(points: torch.Tensor, centre: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Azimuth and angle from the crown, radians, of points (..., 3)."""
    away = points - centre
    return torch.atan2(away[..., 0], away[..., 2]), torch.atan2(away[..., [0, 2]].norm(dim=-1), away[..., 1])


def curve(azimuth: torch.Tensor, knots: tuple[tuple[float, float], ...]) -> torch.Tensor:
    """A value over |azimuth| (radians), piecewise linear between knots (degrees, value)."""
    degrees = torch.rad2deg(azimuth.abs())
    table = np.array(knots, np.float32)  # (n, 2)
    starts, widths, rises = (
        torch.from_numpy(column).to(degrees) for column in (table[:-1, 0], np.diff(table[:, 0]).clip(1e-3), np.diff(table[:, 1]))
    )
    return float(table[0, 1]) + (((degrees[..., None] - starts) / widths).clamp(0, 1) * rises).sum(-1)
