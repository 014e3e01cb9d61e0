"""Trilinear sampling of a volume; also without grid_sample in three dimensions, which Apple's Metal lacks, and at shifted grids."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F


def sample_volume(volume: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """volume (B, C, D, H, W) at grid (B, d, h, w, 3) of x, y, z in [-1, 1]: (B, C, d, h, w); zeros outside.

    The cells' outer faces are -1 and 1 (align_corners=False).
    """
    if volume.device.type == "mps":
        return gather_trilinear(volume, grid)
    return F.grid_sample(volume, grid, align_corners=False)


def gather_trilinear(volume: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """The same as F.grid_sample by indexing and arithmetic: the weighted mean of the eight cells around each point."""
    cells = volume.flatten(2)  # (B, C, DHW)
    out = cells.new_zeros(())
    sizes = volume.shape[:1:-1]  # W, H, D, as the grid has x, y, z
    # Far outside, all is zero; the bounds keep the cell indices within an integer.
    positions = [(((g + 1) * n - 1) / 2).clamp(-2, n + 1) for g, n in zip(grid.flatten(1, 3).unbind(-1), sizes)]  # (B, dhw) each
    for corner in range(8):
        index, weight = torch.zeros_like(positions[0]).long(), torch.ones_like(positions[0])
        for axis in (2, 1, 0):  # z, y, x: W runs fastest
            n, low = sizes[axis], positions[axis].floor()
            upper = corner >> axis & 1
            part, cell = positions[axis] - low, low.long() + upper
            weight = weight * (part if upper else 1 - part) * ((cell >= 0) & (cell < n))
            index = index * n + cell.clamp(0, n - 1)
        picked = cells.gather(2, index[:, None].expand(-1, cells.shape[1], -1))  # (B, C, dhw)
        out = out + picked * weight[:, None]
    return out.unflatten(2, grid.shape[1:4])


def sample_shifted(volume: torch.Tensor, axes: Iterable[torch.Tensor], shifts: torch.Tensor) -> torch.Tensor:
    """sample_volume of volume (B, C, D, H, W) at a regular grid, given by its coordinates along z, y and x, moved by each of the
    shifts (B, K, 3), x y z: (B, K, C, d, h, w).

    A shift moves all points alike, so each of the eight weights is a product of one weight for each axis: three small matrices.
    """
    sizes = volume.shape[2:]
    z, y, x = (weights(axis + shift[..., None], n) for axis, shift, n in zip(axes, shifts.flip(-1).unbind(-1), sizes))
    out = volume.flatten(1, 3)[:, None] @ x.mT  # (B, K, C D H, w)
    out = y[:, :, None] @ out.unflatten(2, (-1, sizes[1]))  # (B, K, C D, h, w)
    out = z[:, :, None] @ out.unflatten(2, (-1, sizes[0])).flatten(4)  # (B, K, C, d, h w)
    return out.unflatten(4, (y.shape[2], x.shape[2]))


def weights(at: torch.Tensor, n: int) -> torch.Tensor:
    """Of each of n cells at the coordinates (..., m) in [-1, 1]: (..., m, n)."""
    position = ((at + 1) * n - 1) / 2
    return F.relu(1 - (position[..., None] - torch.arange(n, device=at.device)).abs())
