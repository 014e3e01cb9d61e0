"""Crops of batches of pictures by affine matrices (frame px -> crop px), on the pictures' device."""

import torch
import torch.nn.functional as F

from ...face.crop import CROP, CROP_MIDDLE, pixel_grid


def crop_batch(images: torch.Tensor, frame_to_crop: torch.Tensor, size: int) -> torch.Tensor:
    """(B, 3, S, S), (B, 3, 3) -> (B, 3, size, size), antialiased by sampling at twice the size; on the pictures' device."""
    factor = 2 * size / CROP
    fine = factor * frame_to_crop.to(images.device)[:, :2]  # (B, 2, 3) float64, at twice the size
    fine[..., 2] += (factor - 1) / 2
    rows = 2 / images.shape[-1] * inverted(fine)
    rows[..., 2] += 1 / images.shape[-1] - 1  # px -> [-1, 1] between outer edges
    grid = pixel_grid(rows.to(images.dtype), 2 * size, 2 * size)
    return F.avg_pool2d(F.grid_sample(images, grid, align_corners=False), 2)


def inverted(affine: torch.Tensor) -> torch.Tensor:
    """Inverses of affine matrices (..., 2, 3). Written out, because a solver would synchronise the GPU with the host."""
    (a, b, x), (c, d, y) = (row.unbind(-1) for row in affine.unbind(-2))
    area = a * d - b * c
    a, b, c, d = d / area, -b / area, -c / area, a / area
    return torch.stack([torch.stack([a, b, -a * x - b * y], -1), torch.stack([c, d, -c * x - d * y], -1)], -2)


def to_unit(frame_to_crop: torch.Tensor) -> torch.Tensor:
    """(B, 3, 3) frame px -> crop px as (B, 2, 3) frame px -> the crop's [-1, 1]."""
    unit = 2 / CROP * frame_to_crop[..., :2, :]
    unit[..., 2] += 1 / CROP - 1
    return unit.float()


def jitter(frame_to_crop: torch.Tensor, scale: float, shift: float, degrees: float) -> torch.Tensor:
    """Randomly perturbed crops: by a factor up to 1 +- scale, by +- shift of the side, by +- degrees."""
    batch, device = len(frame_to_crop), frame_to_crop.device
    amount = torch.rand(batch, 4, dtype=torch.float64, device=device) * 2 - 1
    zoom, angle = 1 + scale * amount[:, 0], torch.deg2rad(degrees * amount[:, 1])
    turn = torch.zeros(batch, 3, 3, dtype=torch.float64, device=device)
    turn[:, 0, 0] = turn[:, 1, 1] = zoom * angle.cos()
    turn[:, 0, 1], turn[:, 1, 0] = -zoom * angle.sin(), zoom * angle.sin()
    turn[:, 2, 2].fill_(1)
    centre = torch.full((batch, 2, 1), CROP_MIDDLE, dtype=torch.float64, device=device)
    turn[:, :2, 2:] = centre - turn[:, :2, :2] @ centre + shift * CROP * amount[:, 2:, None]
    return turn @ frame_to_crop
