"""What is put on a head: clothes over the shoulders, hats, glasses, earrings. All as surfaces at rest, in dm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from .hair import Skull, Surface, curve, grid_faces, skull, tube, uncut
from .noise import noise, step
from .rig import SKIN, TORSO, Rig, vertices_of

if TYPE_CHECKING:
    from .identity import Clothes

HIDDEN = 0.14  # dm below a neckline from which on no skin is drawn
OVERLAP = 0.30  # dm above it that the cloth's triangles reach, to be cut along the line
SMOOTHINGS = 10
DOME = (97, 22)  # columns and rows of a hat
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
    edge = rear + (front - rear) * step(-0.2, 0.7, z)
    if depth:
        opening = 1 - (x / width).clamp(0, 1) ** (2 if cut in ("scoop", "tank") else 1)
        edge = edge - depth * opening * step(0.15, 0.5, z)
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

    # Smoothed well inside, so that the cloth hangs over the body instead of showing it.
    edges = welded[on][:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    ends, starts = torch.cat([edges, edges.flip(1)]).unbind(1)
    degree = (
        torch.zeros(len(shape), device=shape.device).index_add_(0, ends, torch.ones_like(ends, dtype=torch.float32)).clamp_min(1)
    )
    share = (0.75 * step(0.0, 0.5, inside))[:, None]
    relaxed = shape
    for _ in range(SMOOTHINGS):
        mean = torch.zeros_like(relaxed).index_add_(0, ends, relaxed[starts]) / degree[:, None]
        relaxed = relaxed + share * (mean - relaxed)
    folds = noise(rig.vertices, 0.5, clothes.loose * 20)[:, 0].clamp(-2, 2)
    off = 0.02 + clothes.loose * step(-0.15, 0.12, inside) + 0.06 * step(0.1, 0.6, inside) * (1 + 0.35 * folds)
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
    place = torch.stack([middle[0] + azimuth.sin()[:, None] * out, up.expand_as(out), middle[2] + azimuth.cos()[:, None] * out], -1)
    uv = torch.stack([azimuth[:, None].expand_as(out) / 6.4 + 0.5, s.expand_as(out)], -1)
    return [cut(place.reshape(-1, 3), grid_faces(columns, rows, device), uv.reshape(-1, 2), keep.reshape(-1))]


def dome(head: Skull, edge: torch.Tensor, thickness: torch.Tensor, lift: float = 0.0) -> Surface:
    """A hat on the skull, from the crown to an angle (A,) in radians; thickness (A, R) dm, R from crown to edge."""
    device = edge.device
    columns, rows = DOME
    azimuth = torch.linspace(-torch.pi, torch.pi, columns, device=device)[:, None].expand(-1, rows)
    s = torch.linspace(0, 1, rows, device=device)[None]
    angle = s * edge[:, None]
    place = head.place(azimuth, angle, thickness)
    place = place + torch.stack([torch.zeros_like(angle), lift * (1 - s**2) * torch.ones_like(angle), torch.zeros_like(angle)], -1)
    uv = torch.stack([azimuth / (2 * torch.pi) + 0.5, s.expand_as(azimuth)], -1)
    faces = grid_faces(columns, rows, device)
    place = place.reshape(-1, 3)
    return Surface(place, faces, uv.reshape(-1, 2), *uncut(place))


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
        cuff = 0.05 * step(0.70, 0.74, s) - 0.05 * step(0.97, 1.0, s)
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
        return [dome(head, edge, flat + 0.20 * step(0.25, 0.7, s) * step(1.0, 0.9, s) + wraps + 0.02, lift=0.15)]
    if kind == "headband":
        low = torch.deg2rad(curve(azimuth, ((0, 57), (90, 68), (180, 92))))
        band = dome(head, low, flat + 0.04 * torch.sin(torch.pi * ((s - 0.72) / 0.28).clamp(0, 1)) + 0.06)
        return [cut(band.vertices, band.faces, band.uv, (s - 0.72).reshape(-1))]
    # A scarf: over the head, closed under the chin, hanging to the shoulders.
    rows = 44
    long = torch.linspace(0, 3.3, rows, device=device)[None].expand(columns, -1)
    around = azimuth[:, None].expand(-1, rows)
    angle = (long / 1.02).clamp_max(1.62)
    down = (long - 1.62 * 1.02).clamp_min(0)
    place = head.place(around, angle, 0.10)
    folds = noise(torch.stack([around.sin(), around.cos(), down * 0.3], -1), 1.2, 0.7)[..., 0].clamp(-2, 2)
    # Under the chin it draws in to the neck, lower down it lies on shoulders and chest.
    front = around.cos().clamp_min(0)
    level = torch.stack([around.sin(), torch.zeros_like(around), around.cos()], -1)
    pull = (
        -0.42 * torch.exp(-(((down - 1.15) / 0.45) ** 2)) * (0.35 + 0.65 * front)
        + 0.35 * step(1.2, 1.9, down)
        + 0.05 * folds * step(0.2, 1, down)
    )
    place = place + level * pull[..., None]
    place = torch.stack([place[..., 0], place[..., 1] - down, place[..., 2]], -1)
    template = place - head.place(azimuth[:1] * 0, azimuth[:1] * 0, 0.0) + torch.tensor([0.0, 1.1, 0.05], device=device)
    opening = ((template[..., 0] / 0.70) ** 2 + ((template[..., 1] + 0.40) / 1.02) ** 2).sqrt() - 1
    keep = torch.where(template[..., 2] > 0.1, opening, 1.0)
    uv = torch.stack([around / (2 * torch.pi) + 0.5, long / 3.3], -1)
    return [cut(place.reshape(-1, 3), grid_faces(columns, rows, device), uv.reshape(-1, 2), keep.reshape(-1))]


def brim(head: Skull, edge: torch.Tensor, thickness: float, reach: float, width: float, droop: float) -> Surface:
    """A hat's brim: from its edge (A,) outward, `reach` degrees to either side of the front."""
    columns, rows = len(edge), 8
    azimuth = torch.linspace(-torch.pi, torch.pi, columns, device=edge.device)[:, None].expand(-1, rows)
    angle = edge[:, None].expand(-1, rows)
    root = head.place(azimuth, angle, thickness)
    t = torch.linspace(0, 1, rows, device=edge.device)[None].expand(columns, -1)
    wide = width * (torch.ones_like(t) if reach >= 180 else 1 - (torch.rad2deg(azimuth.abs()) / reach).clamp(0, 1) ** 2.5)
    level = torch.stack([azimuth.sin() * 0.9, torch.zeros_like(azimuth), azimuth.cos()], -1)
    place = root + level * (wide * t)[..., None]
    sag = droop * t + (0.10 * (azimuth.sin() ** 2) * t if reach >= 180 else -0.12 * azimuth.sin() ** 2 * t)
    place = torch.stack([place[..., 0], place[..., 1] + sag, place[..., 2]], -1)
    keep = torch.where(wide > 0.02, 1.0, -1.0)
    uv = torch.stack([azimuth / (2 * torch.pi) + 0.5, 0.8 + 0.19 * t], -1)
    return cut(place.reshape(-1, 3), grid_faces(columns, rows, edge.device), uv.reshape(-1, 2), keep.reshape(-1))


def glasses(rig: Rig, shape: torch.Tensor, clothes: Clothes) -> list[Surface]:
    kind = clothes.glasses
    if not kind:
        return []
    eyes = shape[rig.eyes].mean(1).cpu().numpy()  # (2, 3) left, right
    bridge = rig.vertices
    nose = (bridge[:, 0].abs() < 0.12) & ((bridge[:, 1] - 7.25).abs() < 0.1) & (bridge[:, 2] > 1.0)
    front = float(shape[nose, 2].max()) + 0.05
    wide, high, power = {
        "round": (0.27, 0.25, 2.0),
        "square": (0.265, 0.18, 4.5),
        "oval": (0.29, 0.18, 2.2),
        "half": (0.29, 0.17, 3.0),
        "cat": (0.29, 0.19, 2.6),
    }[kind]
    wide, high = wide * clothes.glasses_size, high * clothes.glasses_size
    thin = 0.016 if kind in ("half", "oval") else 0.024
    turn = np.linspace(-0.2, np.pi + 0.2, 24) if kind == "half" else np.linspace(0, 2 * np.pi, 41)
    pieces = []
    for eye, side in zip(eyes, (1, -1)):
        across = np.sign(np.cos(turn)) * np.abs(np.cos(turn)) ** (2 / power)
        above = np.sign(np.sin(turn)) * np.abs(np.sin(turn)) ** (2 / power)
        lift = 0.06 * np.clip(across * side, 0, 1) ** 2 * np.clip(above, 0, 1) if kind == "cat" else 0.0
        outer = (across * side + 1) / 2
        ring = np.stack([eye[0] + side * 0.02 + wide * across, eye[1] - 0.03 + high * above + lift, front - 0.12 * outer**2], 1)
        pieces.append((ring, thin))
        hinge = np.array([eye[0] + side * (wide + 0.02), eye[1] + 0.04, front - 0.12])
        pieces.append(
            (np.stack([hinge, hinge + (side * 0.13, 0.0, -0.35), [side * (abs(eye[0]) + 0.52), eye[1] - 0.01, 0.28]]), 0.018)
        )
    inner = [eye[0] - side * (wide - 0.03) for eye, side in zip(eyes, (1, -1))]
    middle = eyes.mean(0)
    pieces.append(
        (np.array([[inner[1], middle[1], front], [middle[0], middle[1] + 0.04, front + 0.03], [inner[0], middle[1], front]]), thin)
    )
    found = []
    for path, radius in pieces:
        vertices, _ = tube(np.asarray(path, float), radius, 6)
        found.append(plain(vertices, grid_faces(7, len(path), shape.device), shape.device))
    return found


def earrings(rig: Rig, shape: torch.Tensor) -> list[Surface]:
    found = []
    for side in (1, -1):
        ear = ((rig.ears > 0.5) & (rig.vertices[:, 0] * side > 0)).nonzero()[:, 0]
        lobe = shape[ear[shape[ear, 1].argmin()]].cpu().numpy() + (side * 0.02, -0.05, 0.0)
        t = np.linspace(0.03, 0.97, 8)
        path = lobe + np.stack([0 * t, 0.055 * np.cos(np.pi * t), 0 * t], 1)
        vertices, _ = tube(path, 0.055 * np.sin(np.pi * t), 10)
        found.append(plain(vertices, grid_faces(11, 8, shape.device), shape.device))
    return found


def cut(vertices: torch.Tensor, faces: torch.Tensor, uv: torch.Tensor, keep: torch.Tensor) -> Surface:
    """A surface whose inside can be seen."""
    return Surface(vertices, faces, uv, keep.contiguous(), uncut(vertices)[1])


def plain(vertices: np.ndarray, faces: torch.Tensor, device: torch.device | str) -> Surface:
    """A surface of one colour."""
    place = torch.from_numpy(vertices).float().to(device)
    return Surface(place, faces, torch.full((len(place), 2), 0.5, device=device), *uncut(place))
