"""Hats and headscarves, as surfaces at rest above the skull, in dm."""

import torch

from .identity import Clothes
from .noise import noise, smoothstep
from .rig import Rig
from .skull import MEAN_RADIUS, Skull, curve, skull
from .surface import Surface, grid_faces, open_surface, uncut

DOME = (97, 22)  # columns and rows of a hat


def hat(rig: Rig, shape: torch.Tensor, clothes: Clothes) -> list[Surface]:
    kind = clothes.hat
    if not kind:
        return []
    device, head = shape.device, skull(rig, shape)
    columns, rows = DOME
    azimuth = torch.linspace(-torch.pi, torch.pi, columns, device=device)
    s = torch.linspace(0, 1, rows, device=device)[None].expand(columns, -1)
    flat = torch.full((columns, rows), 0.12, device=device)
    if kind == "beanie":
        edge = torch.deg2rad(curve(azimuth, ((0, 57), (50, 64), (90, 84), (180, 104))))
        cuff = 0.05 * smoothstep(0.70, 0.74, s) - 0.05 * smoothstep(0.97, 1.0, s)
        return [dome(head, edge, flat + cuff, lift=0.12)]
    if kind == "cap":
        edge = torch.deg2rad(curve(azimuth, ((0, 58), (60, 64), (100, 78), (180, 90))))
        return [dome(head, edge, flat, lift=0.05), brim(head, edge, 0.12, 68.0, 0.85, -0.10)]
    if kind == "brim":
        edge = torch.deg2rad(curve(azimuth, ((0, 58), (90, 72), (180, 86))))
        return [dome(head, edge, flat + 0.03, lift=0.32), brim(head, edge, 0.10, 180.0, 0.62, -0.05)]
    if kind == "turban":
        edge = torch.deg2rad(curve(azimuth, ((0, 55), (50, 60), (90, 84), (180, 108))))
        wraps = 0.04 * torch.sin(s * 24 + azimuth[:, None].cos() * 4)
        return [dome(head, edge, flat + 0.20 * smoothstep(0.25, 0.7, s) * smoothstep(1.0, 0.9, s) + wraps + 0.02, lift=0.15)]
    if kind == "headband":
        low = torch.deg2rad(curve(azimuth, ((0, 57), (90, 68), (180, 92))))
        band = dome(head, low, flat + 0.04 * torch.sin(torch.pi * ((s - 0.72) / 0.28).clamp(0, 1)) + 0.06)
        return [open_surface(band.vertices, band.faces, band.uv, (s - 0.72).reshape(-1))]
    return [headscarf(head, azimuth)]


def headscarf(head: Skull, azimuth: torch.Tensor) -> Surface:
    """Over the head, closed under the chin, hanging to the shoulders. azimuth (A,) of its columns."""
    device, columns = azimuth.device, len(azimuth)
    rows = 44
    long = torch.linspace(0, 3.3, rows, device=device)[None].expand(columns, -1)
    around = azimuth[:, None].expand(-1, rows)
    angle = (long / MEAN_RADIUS).clamp_max(1.62)
    down = (long - 1.62 * MEAN_RADIUS).clamp_min(0)
    positions = head.points(around, angle, 0.10)
    folds = noise(torch.stack([around.sin(), around.cos(), down * 0.3], -1), 1.2, 0.7)[..., 0].clamp(-2, 2)
    # Under the chin it is drawn in to the neck; lower down it lies on shoulders and chest.
    front = around.cos().clamp_min(0)
    level = torch.stack([around.sin(), torch.zeros_like(around), around.cos()], -1)
    pull = (
        -0.42 * torch.exp(-(((down - 1.15) / 0.45) ** 2)) * (0.35 + 0.65 * front)
        + 0.35 * smoothstep(1.2, 1.9, down)
        + 0.05 * folds * smoothstep(0.2, 1, down)
    )
    positions = positions + level * pull[..., None]
    positions = torch.stack([positions[..., 0], positions[..., 1] - down, positions[..., 2]], -1)
    template = positions - head.points(azimuth[:1] * 0, azimuth[:1] * 0, 0.0) + torch.tensor([0.0, 1.1, 0.05], device=device)
    opening = ((template[..., 0] / 0.70) ** 2 + ((template[..., 1] + 0.40) / 1.02) ** 2).sqrt() - 1
    keep = torch.where(template[..., 2] > 0.1, opening, 1.0)
    uv = torch.stack([around / (2 * torch.pi) + 0.5, long / 3.3], -1)
    return open_surface(positions.reshape(-1, 3), grid_faces(columns, rows, device), uv.reshape(-1, 2), keep.reshape(-1))


def dome(head: Skull, edge: torch.Tensor, thickness: torch.Tensor, lift: float = 0.0) -> Surface:
    """A hat on the skull, from the crown to an angle (A,) in radians; thickness (A, R) dm, R from crown to edge."""
    device = edge.device
    columns, rows = DOME
    azimuth = torch.linspace(-torch.pi, torch.pi, columns, device=device)[:, None].expand(-1, rows)
    s = torch.linspace(0, 1, rows, device=device)[None]
    angle = s * edge[:, None]
    positions = head.points(azimuth, angle, thickness)
    positions = positions + torch.stack(
        [torch.zeros_like(angle), lift * (1 - s**2) * torch.ones_like(angle), torch.zeros_like(angle)], -1
    )
    uv = torch.stack([azimuth / (2 * torch.pi) + 0.5, s.expand_as(azimuth)], -1)
    faces = grid_faces(columns, rows, device)
    positions = positions.reshape(-1, 3)
    return Surface(positions, faces, uv.reshape(-1, 2), *uncut(positions))


def brim(head: Skull, edge: torch.Tensor, thickness: float, reach: float, width: float, droop: float) -> Surface:
    """A hat's brim: from its edge (A,) outward, `reach` degrees to either side of the front."""
    columns, rows = len(edge), 8
    azimuth = torch.linspace(-torch.pi, torch.pi, columns, device=edge.device)[:, None].expand(-1, rows)
    angle = edge[:, None].expand(-1, rows)
    root = head.points(azimuth, angle, thickness)
    t = torch.linspace(0, 1, rows, device=edge.device)[None].expand(columns, -1)
    wide = width * (torch.ones_like(t) if reach >= 180 else 1 - (torch.rad2deg(azimuth.abs()) / reach).clamp(0, 1) ** 2.5)
    level = torch.stack([azimuth.sin() * 0.9, torch.zeros_like(azimuth), azimuth.cos()], -1)
    positions = root + level * (wide * t)[..., None]
    sag = droop * t + (0.10 * (azimuth.sin() ** 2) * t if reach >= 180 else -0.12 * azimuth.sin() ** 2 * t)
    positions = torch.stack([positions[..., 0], positions[..., 1] + sag, positions[..., 2]], -1)
    keep = torch.where(wide > 0.02, 1.0, -1.0)
    uv = torch.stack([azimuth / (2 * torch.pi) + 0.5, 0.8 + 0.19 * t], -1)
    return open_surface(positions.reshape(-1, 3), grid_faces(columns, rows, edge.device), uv.reshape(-1, 2), keep.reshape(-1))
