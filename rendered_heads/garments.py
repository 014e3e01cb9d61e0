"""Clothes over the shoulders, and collars, as surfaces at rest, in dm."""

from dataclasses import dataclass

import torch

from .identity import Clothes
from .noise import noise, smoothstep
from .rig import SKIN, TORSO, Rig, vertices_of
from .surface import Surface, grid_faces, open_surface

HIDDEN = 0.14  # dm below a neckline beyond which skin is not drawn
OVERLAP = 0.30  # dm above it that the cloth's triangles reach before they are cut along the line
SMOOTHINGS = 10
# height in front, height behind, depth of the opening in front, its half width, dm; turned-down collar or hood
CUTS = {
    "crew": (5.52, 5.86, 0.0, 1.0),
    "v": (5.66, 5.88, 1.0, 0.6),
    "scoop": (5.58, 5.80, 0.6, 0.95),
    "turtle": (6.02, 6.12, 0.0, 1.0),
    "boat": (5.42, 5.62, 0.0, 1.0),
    "shirt": (5.74, 5.95, 0.75, 0.32),
    "jacket": (5.74, 5.95, 0.25, 0.25),
    "hoodie": (5.60, 5.90, 0.0, 1.0),
    "tank": (5.95, 6.00, 0.95, 0.75),
}


@dataclass(frozen=True)
class Cloth:
    corners: torch.Tensor  # (K,) corners of the rig that the surface's vertices stand on
    surface: Surface


def neckline(points: torch.Tensor, cut: str) -> torch.Tensor:
    """How far below the neckline (dm) points (..., 3) of the template are: negative on bare skin."""
    front, rear, depth, width = CUTS[cut]
    x, y, z = points[..., 0].abs(), points[..., 1], points[..., 2]
    edge = rear + (front - rear) * smoothstep(-0.2, 0.7, z)
    if depth:
        opening = 1 - (x / width).clamp(0, 1) ** (2 if cut in ("scoop", "tank") else 1)
        edge = edge - depth * opening * smoothstep(0.15, 0.5, z)
    inside = edge - y
    if cut != "tank":  # shoulders are covered, whatever their height
        inside = torch.maximum(inside, (x - (1.35 if cut == "boat" else max(0.80, width * (depth > 0) + 0.05))) * 0.9)
    if cut == "tank":  # bare arms and shoulders
        inside = torch.minimum(torch.minimum(inside, (1.12 - x) * 0.9), (x - 0.66).clamp_min(0) + 5.5 - y)
    return inside


def clothe(rig: Rig, shape: torch.Tensor, normals: torch.Tensor, clothes: Clothes) -> tuple[Cloth, torch.Tensor]:
    """The garment over a neutral shape (W, 3), and which of the rig's triangles (F,) it hides."""
    inside = neckline(rig.vertices, clothes.neckline)  # (W,)
    welded = rig.weld[rig.faces]  # (F, 3)
    skin = rig.part == SKIN
    on = skin & (rig.chart == TORSO) & (inside[welded] > -OVERLAP).all(1)
    hidden = skin & (inside[welded] > HIDDEN).all(1)

    # Smoothed away from the neckline, so that the cloth hangs over the body instead of following it.
    edges = welded[on][:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    ends, starts = torch.cat([edges, edges.flip(1)]).unbind(1)
    degree = (
        torch.zeros(len(shape), device=shape.device).index_add_(0, ends, torch.ones_like(ends, dtype=torch.float32)).clamp_min(1)
    )
    share = (0.75 * smoothstep(0.0, 0.5, inside))[:, None]
    relaxed = shape
    for _ in range(SMOOTHINGS):
        mean = torch.zeros_like(relaxed).index_add_(0, ends, relaxed[starts]) / degree[:, None]
        relaxed = relaxed + share * (mean - relaxed)
    folds = noise(rig.vertices, 0.5, clothes.loose * 20)[:, 0].clamp(-2, 2)
    off = 0.02 + clothes.loose * smoothstep(-0.15, 0.12, inside) + 0.06 * smoothstep(0.1, 0.6, inside) * (1 + 0.35 * folds)
    relaxed = relaxed + normals * off[:, None]

    corners, faces = torch.unique(rig.faces[on], return_inverse=True)
    at = rig.weld[corners]
    return Cloth(corners, Surface(relaxed[at], faces, rig.uv[corners], inside[at], inside[at] < 0.3)), hidden


def collar(rig: Rig, shape: torch.Tensor, clothes: Clothes) -> list[Surface]:
    """Shirt collars, lapel collars and hoods: strips about the neck."""
    kind = clothes.neckline
    if kind not in ("shirt", "jacket", "hoodie"):
        return []
    device = shape.device
    low, high = (5.66, 5.98) if kind != "hoodie" else (5.45, 5.95)
    neck = vertices_of(rig, SKIN, TORSO)
    band = neck[(rig.vertices[neck, 1] > low) & (rig.vertices[neck, 1] < high) & (rig.vertices[neck, 0].abs() < 0.95)]
    ring = shape[band]
    middle = ring.mean(0)
    around = torch.atan2(ring[:, 0] - middle[0], ring[:, 2] - middle[2])
    columns, rows = 73, 9
    azimuth = torch.linspace(-torch.pi, torch.pi, columns, device=device)
    near = torch.exp((torch.cos(azimuth[:, None] - around[None]) - 1) * 40)
    radius = (near @ (ring - middle)[:, [0, 2]].norm(dim=1)) / near.sum(1)
    height = (near @ ring[:, 1]) / near.sum(1)
    radius = radius + (0.06 if kind != "hoodie" else 0.08)
    s = torch.linspace(0, 1, rows, device=device)[None]
    if kind == "hoodie":  # a roll that is thickest behind
        thick = (0.08 + 0.20 * ((1 - azimuth.cos()) / 2)[:, None]) * radius.mean() / 0.75
        turn = (s - 0.25) * 4.6
        out = radius[:, None] + thick * (1 - torch.cos(turn)) * 0.9
        up = height[:, None] - 0.08 + thick * torch.sin(turn) * 1.1
        keep = torch.ones(columns, rows, device=device)
    else:  # up, over, and down again
        fold = torch.where(s < 0.4, s / 0.4, 1 - (s - 0.4) / 0.6 * (1.25 if kind == "shirt" else 1.5))
        out = radius[:, None] + 0.02 + torch.where(s < 0.4, 0.0, 0.13 * ((s - 0.4) / 0.6))
        rise = 0.20 + 0.10 * ((1 - azimuth.cos()) / 2)[:, None]
        up = height[:, None] - 0.04 + rise * fold
        open_front = azimuth.abs()[:, None] - 0.20 - 0.25 * fold.clamp_min(0) + torch.where(s > 0.4, (s - 0.4) * 0.35, 0.0)
        keep = open_front
    positions = torch.stack(
        [middle[0] + azimuth.sin()[:, None] * out, up.expand_as(out), middle[2] + azimuth.cos()[:, None] * out], -1
    )
    uv = torch.stack([azimuth[:, None].expand_as(out) / 6.4 + 0.5, s.expand_as(out)], -1)
    return [open_surface(positions.reshape(-1, 3), grid_faces(columns, rows, device), uv.reshape(-1, 2), keep.reshape(-1))]
