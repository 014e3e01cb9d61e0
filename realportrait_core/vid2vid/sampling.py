"""Trilinear sampling of a volume, also where PyTorch has no grid_sample in three dimensions (Apple's Metal)."""

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
