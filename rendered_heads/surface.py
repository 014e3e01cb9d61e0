"""Triangle meshes that an identity wears, at rest, and the grids and tubes that they are made of."""

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Surface:
    """A triangle mesh with a chart of the atlas. keep: cut where negative (see raster)."""

    vertices: torch.Tensor  # (V, 3) dm at rest
    faces: torch.Tensor  # (F, 3)
    uv: torch.Tensor  # (V, 2) in 0..1 of its chart
    keep: torch.Tensor  # (V,)
    open: torch.Tensor  # (V,) bool: its inside can be seen


def grid_faces(columns: int, rows: int, device: torch.device | str) -> torch.Tensor:
    """Triangles (F, 3) of a grid of vertices [column, row], outside up."""
    column, row = torch.meshgrid(torch.arange(columns - 1), torch.arange(rows - 1), indexing="ij")
    a, b = column * rows + row, (column + 1) * rows + row
    quads = torch.stack([a, a + 1, b + 1, b], -1).reshape(-1, 4)
    return torch.cat([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]]).to(device)


def uncut(positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Surface.keep and Surface.open (V,) of what is not cut; both sides are drawn."""
    return torch.ones(len(positions), device=positions.device), torch.ones(
        len(positions), dtype=torch.bool, device=positions.device
    )


def tube(path: np.ndarray, radius: np.ndarray | float, sides: int) -> tuple[np.ndarray, np.ndarray]:
    """Vertices ((sides + 1) * N, 3) and outward normals of a pipe along a path (N, 3); radius (N,) or one value."""
    ahead = np.gradient(path, axis=0)
    ahead = ahead / np.linalg.norm(ahead, axis=1, keepdims=True)
    up = np.where(np.abs(ahead[:, 2:]) < 0.9, (0.0, 0.0, 1.0), (0.0, 1.0, 0.0))
    right = np.cross(ahead, up)
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    above = np.cross(right, ahead)
    turn = np.linspace(0, 2 * np.pi, sides + 1)[:, None, None]
    outward = np.cos(turn) * right + np.sin(turn) * above  # (sides + 1, N, 3)
    radius = np.broadcast_to(radius, (len(path),))
    return (path + outward * radius[:, None]).reshape(-1, 3), outward.reshape(-1, 3)


def open_surface(vertices: torch.Tensor, faces: torch.Tensor, uv: torch.Tensor, keep: torch.Tensor) -> Surface:
    """A surface whose inside can be seen."""
    return Surface(vertices, faces, uv, keep.contiguous(), uncut(vertices)[1])


def plain_surface(vertices: np.ndarray, faces: torch.Tensor, device: torch.device | str) -> Surface:
    """A surface of one colour."""
    positions = torch.from_numpy(vertices).float().to(device)
    return Surface(positions, faces, torch.full((len(positions), 2), 0.5, device=device), *uncut(positions))
