"""Hair as a shell about the skull: columns of strands that run from the crown along the head and then hang.

A column stands at an azimuth (0 in front, + to the subject's left); a strand's length is measured in dm from the crown. The
shell is cut where the strands end, which also opens it over the face. Tails, buns and plaits are separate closed surfaces.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from .noise import noise, step
from .rig import HEAD, SKIN, Rig, vertices_of

if TYPE_CHECKING:
    from .identity import Hair

COLUMNS, ROWS = 104, 38
CENTRE = (0.0, 7.35, 0.12)  # dm, of the template's skull
LONGEST = 5.6  # dm along a strand
FALL = 96.0  # degrees from the crown where long hair leaves the skull and hangs
# The hairline: (degrees of azimuth, degrees from the crown). Temples, sideburns before the ears, over the ears, the nape.
HAIRLINE = ((0, 59), (26, 60), (42, 64), (54, 78), (60, 98), (71, 102), (77, 86), (98, 84), (112, 98), (140, 120), (180, 125))
GRID = (36, 19)  # samples of the skull's radius over azimuth and angle from the crown


@dataclass(frozen=True)
class Style:
    """Thickness in dm, lengths in dm beyond the hairline (negative: receding); None hangs no hair over that part."""

    men: float  # how often
    women: float
    top: float
    side: float
    back: float
    front: float = 0.0  # length of a fringe
    temples: float = 0.0  # length beside the face, before the ears
    sides: float = 0.0  # length over the ears
    nape: float = 0.0  # length at the back
    flow: tuple[float, float, float] = (0.0, 0.9, -0.45)  # the pole the strands spring from
    opening: float = 58.0  # degrees of azimuth where hair beside the face begins
    curl: float = 0.0  # dm of lumps
    wave: float = 0.0  # dm of waves along hanging strands
    ragged: float = 0.06  # dm of unevenness at the tips
    flare: float = 0.0  # how much hanging hair widens, of its radius
    quiff: float = 0.0  # dm of extra height over the forehead
    ridge: float = 0.0  # dm of a mohawk's height
    bald: float = 0.0  # degrees about the crown without hair
    extra: str = ""  # bun, twin buns, ponytail, pigtails, plaits, topknot
    under_hat: bool = True


CROWN, PART, BACK = (0.0, 0.9, -0.45), (1.0, 0.0, 0.0), (0.0, 0.25, 0.97)
STYLES = {
    "bald": Style(0.5, 0.05, 0, 0, 0),
    "buzz": Style(1.2, 0.1, 0.03, 0.025, 0.03),
    "crop": Style(1.6, 0.3, 0.12, 0.07, 0.10, front=0.12, ragged=0.10),
    "crew": Style(1.4, 0.1, 0.08, 0.035, 0.05, quiff=0.05),
    "side part": Style(1.6, 0.2, 0.20, 0.08, 0.12, front=0.05, flow=PART),
    "slick back": Style(0.9, 0.3, 0.13, 0.07, 0.13, nape=0.2, flow=BACK),
    "quiff": Style(1.0, 0.2, 0.24, 0.05, 0.08, quiff=0.3, flow=BACK, under_hat=False),
    "curly short": Style(1.0, 0.6, 0.32, 0.18, 0.26, front=0.1, sides=0.1, nape=0.2, curl=0.07, ragged=0.12),
    "afro": Style(0.5, 0.6, 0.68, 0.58, 0.66, front=0.0, sides=0.25, nape=0.35, curl=0.05, ragged=0.05, under_hat=False),
    "mohawk": Style(0.25, 0.1, 0.03, 0.02, 0.03, ridge=0.5, flow=BACK, under_hat=False),
    "bowl": Style(0.4, 0.6, 0.22, 0.22, 0.22, front=0.42, temples=0.1, sides=0.45, nape=0.1, ragged=0.03),
    "receding": Style(0.8, 0.0, 0.06, 0.07, 0.10, front=-0.5, bald=0.0),
    "tonsure": Style(0.6, 0.0, 0.05, 0.09, 0.12, front=-0.9, bald=46.0),
    "pixie": Style(0.2, 0.9, 0.22, 0.10, 0.14, front=0.34, temples=0.08, sides=0.12, nape=0.05, ragged=0.14, flow=PART),
    "bob": Style(0.1, 1.2, 0.16, 0.27, 0.27, temples=1.0, sides=1.15, nape=0.55, flow=PART, ragged=0.05, flare=0.06),
    "bob with fringe": Style(0.0, 1.0, 0.16, 0.27, 0.27, front=0.42, temples=0.95, sides=1.05, nape=0.5, ragged=0.05, opening=52),
    "shoulder": Style(0.15, 1.2, 0.14, 0.27, 0.28, temples=1.7, sides=1.9, nape=1.4, flow=PART, ragged=0.14, wave=0.04, flare=0.05),
    "long straight": Style(0.15, 1.4, 0.12, 0.24, 0.26, temples=2.8, sides=3.0, nape=2.6, flow=PART, ragged=0.2, flare=0.05),
    "long wavy": Style(0.08, 1.4, 0.15, 0.30, 0.32, temples=2.4, sides=2.7, nape=2.4, flow=PART, wave=0.09, ragged=0.2, flare=0.1),
    "long curly": Style(
        0.08, 1.2, 0.24, 0.34, 0.34, front=0.1, temples=1.9, sides=2.1, nape=1.9, curl=0.09, wave=0.05, ragged=0.2, flare=0.16
    ),
    "long with fringe": Style(0.0, 1.0, 0.14, 0.25, 0.26, front=0.42, temples=2.3, sides=2.6, nape=2.4, ragged=0.16, opening=52),
    "ponytail": Style(0.1, 1.0, 0.07, 0.06, 0.08, flow=(0.0, 0.4, -0.92), extra="ponytail", under_hat=False),
    "bun": Style(0.15, 0.9, 0.07, 0.06, 0.08, flow=(0.0, 0.4, -0.92), extra="bun", under_hat=False),
    "topknot": Style(0.4, 0.5, 0.06, 0.03, 0.04, flow=(0.0, 1.0, 0.05), extra="topknot", under_hat=False),
    "twin buns": Style(0.0, 0.5, 0.08, 0.07, 0.08, front=0.3, flow=PART, extra="twin buns", under_hat=False),
    "pigtails": Style(0.0, 0.5, 0.08, 0.08, 0.08, front=0.3, flow=PART, extra="pigtails", under_hat=False),
    "plaits": Style(0.0, 0.6, 0.07, 0.07, 0.08, flow=PART, extra="plaits"),
}


@dataclass(frozen=True)
class Surface:
    """A triangle mesh with a place in the atlas. keep: cut where negative (see raster)."""

    vertices: torch.Tensor  # (V, 3) dm at rest
    faces: torch.Tensor  # (F, 3)
    uv: torch.Tensor  # (V, 2) in 0..1 of its chart
    keep: torch.Tensor  # (V,)
    open: torch.Tensor  # (V,) bool: its inside can be seen


@dataclass(frozen=True)
class Skull:
    """A head's surface as tables over azimuth and angle from the crown: the template's, and how far an identity's is from it."""

    centre: torch.Tensor  # (3,) dm, of the template
    table: torch.Tensor  # (1, 4, GRID[1], GRID[0] + 1): radius; displacement of this identity

    def place(self, azimuth: torch.Tensor, angle: torch.Tensor, thickness: torch.Tensor | float) -> torch.Tensor:
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


def hairline_angle(azimuth: torch.Tensor, receding: float) -> torch.Tensor:
    """Radians from the crown where the hair ends on the skin; receding in degrees, in front only."""
    back = receding * torch.cos(azimuth).clamp_min(0) * (1 + 0.6 * torch.sin(2 * azimuth.abs()).clamp_min(0))
    return torch.deg2rad(curve(azimuth, HAIRLINE) - back)


def scalp(points: torch.Tensor, style: Style, receding: float) -> torch.Tensor:
    """How far inside the hairline (radians) points (..., 3) of the template are: what is painted in the hair's colour."""
    azimuth, angle = heading(points, torch.tensor(CENTRE, device=points.device))
    front = max(-style.front, 0.0) * 57.0
    inside = hairline_angle(azimuth, receding + front) - angle
    if style.bald:
        inside = torch.minimum(inside, angle - np.radians(style.bald) * (azimuth.cos() * 0.5 + 0.6))
    return inside


def shell(rig: Rig, shape: torch.Tensor, hair: Hair, hat: str) -> tuple[Surface, torch.Tensor]:
    """The hair of an identity; and for its texture the direction and length of the strands, (columns, rows, 4)."""
    style, device = STYLES[hair.style], shape.device
    head = skull(rig, shape)
    azimuth = torch.linspace(-torch.pi, torch.pi, COLUMNS + 1, device=device)[:, None].expand(-1, ROWS + 1)  # (A, R)
    ends = strand_ends(style, hair, azimuth[:, :1])  # (A, 1) dm
    longest = float(ends.max()) + 0.25
    # Rows are denser where the hair lies on the skull.
    length = torch.linspace(0, 1, ROWS + 1, device=device)[None] ** 1.2 * longest
    length = length.expand(COLUMNS + 1, -1)
    mean_radius = 1.02
    angle = length / mean_radius
    fall = np.radians(FALL if style.sides > 0.4 else 150.0)
    on_skull = angle.clamp_max(fall)
    hanging = (angle - fall).clamp_min(0) * mean_radius  # dm below where it leaves the skull

    side = azimuth.sin().abs() ** 2
    back = (-azimuth.cos()).clamp_min(0)
    low = step(0.7, 1.5, on_skull)
    thickness = style.top * (1 - low) + low * (
        style.side * side + style.back * back + 0.5 * (style.side + style.top) * (1 - side) * (1 - back)
    )
    thickness = thickness + style.quiff * torch.exp(-(((on_skull - 0.65) / 0.3) ** 2)) * azimuth.cos().clamp_min(0) ** 2
    thickness = thickness * hair.volume
    if hat:
        thickness = thickness * step(0.9, 1.4, on_skull) * 0.8 + 0.02
    outward = directions(azimuth, on_skull)
    if style.ridge and not hat:
        thickness = thickness + style.ridge * step(0.26, 0.12, (outward[..., 0]).abs()) * step(1.9, 1.5, on_skull)
    if style.flow == PART and not hat:  # a furrow along the parting
        offset = (outward[..., 0] * 1.0 - (0.0 if style.temples else hair.part)).abs()
        thickness = thickness * (1 - 0.6 * step(0.10, 0.0, offset) * step(1.5, 0.9, on_skull) * (outward[..., 2] > -0.3))

    left = ends - length  # (A, R) dm to the tip
    lumps = noise(outward - 0.8 * torch.stack([torch.zeros_like(hanging), hanging, torch.zeros_like(hanging)], -1), 1.0, hair.noise)
    clumps = noise(torch.stack([azimuth.sin(), azimuth.cos(), 0.15 * length], -1), 1.6, hair.noise)
    thickness = (
        thickness
        + (0.18 * thickness).clamp_max(0.035) * lumps[..., 0].clamp(-2, 2)
        + style.curl * lumps[..., 1].clamp(-1.5, 1.5) * step(0.0, 0.3, left)
    )
    # Thin toward a hairline on the skin, so that no gap opens there; hanging tips keep some body.
    on_skin = step(0.25, 0.0, hanging) * step(0.25, 0.05, ends - head_length(azimuth[:, :1], hair))
    thickness = thickness * (1 - on_skin * step(0.6, 0.0, left)) + 0.02
    tips = 1 - 0.4 * step(0.5, 0.0, left) * (hanging > 0)
    # Beside the face the shell starts close to the skin, so that one does not look under it.
    degrees = torch.rad2deg(azimuth.abs())
    border = step(style.opening - 26, style.opening - 4, degrees) * step(style.opening + 40, style.opening + 8, degrees)
    tips = tips * (1 - 0.7 * border * step(0.3, 1.15, angle)) * (1 - 0.35 * azimuth.cos().clamp_min(0) * step(0.3, 1.2, angle))

    place = head.place(azimuth, on_skull, thickness.clamp_min(0.015) * tips)
    drop = torch.zeros_like(place)
    drop[..., 1] = -hanging
    level = torch.stack([azimuth.sin(), torch.zeros_like(azimuth), azimuth.cos()], -1)
    swing = style.flare * hanging * step(0, 0.8, hanging) - 0.10 * step(0.5, 1.6, hanging) * (1 - side)
    swing = swing + style.wave * torch.sin(hanging * 5.5 + clumps[..., 0] * 1.2) * step(0.0, 0.6, hanging)
    swing = swing + 0.05 * clumps[..., 1] * step(0.2, 1.2, hanging)
    place = place + drop + level * swing[..., None]
    # Hair beside the face lies behind its edge and comes a little closer to the neck.
    beside = step(0.1, 0.9, hanging) * side
    place[..., 0] = place[..., 0] * (1 - 0.08 * beside)
    place[..., 2] = place[..., 2] - 0.10 * beside

    ring = torch.stack([azimuth.sin(), azimuth.cos(), torch.zeros_like(azimuth)], -1)[:, 0]  # the same all along a strand
    uneven = 0.6 * noise(ring, 1.6, hair.noise)[:, 2] + 0.5 * noise(ring, 5.0, hair.noise)[:, 0]
    ragged = style.ragged * uneven[:, None]
    keep = left + ragged
    if style.bald:
        keep = torch.minimum(keep, (angle - np.radians(style.bald) * (azimuth.cos() * 0.5 + 0.6)) * 1.0 + 0.4 * ragged)
    flow = torch.tensor(style.flow, device=device)
    pole = flow / flow.norm()
    across = outward - (outward @ pole)[..., None] * pole
    across = across / across.norm(dim=-1, keepdim=True).clamp_min(0.05)
    strand = torch.cat([across, length[..., None]], -1)

    column, row = torch.meshgrid(torch.arange(COLUMNS + 1), torch.arange(ROWS + 1), indexing="ij")
    uv = torch.stack([column / COLUMNS, row / ROWS], -1).to(device)
    opened = ((hanging > 0) | (left < 0.5) | (border > 0.05) | (thickness > 0.3)).reshape(-1)
    shell_faces = grid_faces(COLUMNS + 1, ROWS + 1, device)
    return Surface(place.reshape(-1, 3), shell_faces, uv.reshape(-1, 2).float(), keep.reshape(-1), opened), strand


def head_length(azimuth: torch.Tensor, hair: Hair) -> torch.Tensor:
    """dm from the crown to the hairline."""
    return hairline_angle(azimuth, hair.hairline) * 1.02


def strand_ends(style: Style, hair: Hair, azimuth: torch.Tensor) -> torch.Tensor:
    """dm from the crown to the tips, over azimuth."""
    degrees = torch.rad2deg(azimuth.abs())
    edge = head_length(azimuth, hair)
    fringe = style.front * (1 + (0.35 * float(np.sign(hair.part)) * torch.sin(azimuth) if style.flow == PART else 0.0))
    beyond = torch.where(degrees < style.opening, fringe * step(style.opening + 4, style.opening - 16, degrees), 0.0)
    knots = (
        (style.opening, style.temples),
        (style.opening + 14, style.temples),
        (92, style.sides),
        (125, style.nape),
        (180, style.nape),
    )
    hang = curve(azimuth, knots) * (hair.length if style.sides > 0.4 else 1.0)
    opened = step(style.opening - 3, style.opening + 3, degrees)
    return edge + beyond * (1 - opened) + hang * opened


def grid_faces(columns: int, rows: int, device: torch.device | str) -> torch.Tensor:
    """Triangles (F, 3) of a grid of vertices [column, row], outside up."""
    column, row = torch.meshgrid(torch.arange(columns - 1), torch.arange(rows - 1), indexing="ij")
    a, b = column * rows + row, (column + 1) * rows + row
    quads = torch.stack([a, a + 1, b + 1, b], -1).reshape(-1, 4)
    return torch.cat([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]]).to(device)


def uncut(place: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Surface.keep and Surface.open (V,) of what is not cut; both sides are drawn."""
    return torch.ones(len(place), device=place.device), torch.ones(len(place), dtype=torch.bool, device=place.device)


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


def extras(rig: Rig, shape: torch.Tensor, hair: Hair) -> list[Surface]:
    """Buns, tails and plaits."""
    style, device = STYLES[hair.style], shape.device
    if not style.extra:
        return []
    head = skull(rig, shape)
    rng = np.random.default_rng(int(hair.noise * 1e6))

    def on_head(azimuth: float, angle: float) -> np.ndarray:
        turn = torch.tensor([[np.radians(azimuth)], [np.radians(angle)]], device=device, dtype=torch.float32)
        return head.place(turn[0], turn[1], 0.0)[0].cpu().numpy()

    paths, size = [], hair.volume
    if style.extra in ("bun", "topknot"):
        root = on_head(180.0, rng.uniform(25, 75)) if style.extra == "bun" else on_head(180.0, 12.0)
        paths.append((root, None, 0.34 * size if style.extra == "bun" else 0.26 * size))
    elif style.extra == "twin buns":
        paths += [(on_head(side * 75.0, 42.0), None, 0.28 * size) for side in (-1, 1)]
    elif style.extra == "ponytail":
        root, long = on_head(180.0, rng.uniform(45, 80)), rng.uniform(1.2, 2.4)
        t = np.linspace(0, 1, 24)[:, None]
        sway = rng.uniform(-0.5, 0.5)
        path = root + np.concatenate([sway * t**1.5, 0.25 * np.sin(np.pi * t) - long * t**1.6, -0.55 * np.sin(1.8 * t)], 1)
        paths.append((path, 0.26 * size * np.sin(np.pi * np.clip(t[:, 0] * 0.86 + 0.10, 0, 1)) ** 0.6, 0.0))
    else:
        low = style.extra == "plaits"
        for side in (-1, 1):
            root, long = on_head(side * (110.0 if low else 95.0), 92.0 if low else 62.0), rng.uniform(1.3, 2.3)
            t = np.linspace(0, 1, 40)[:, None]
            away = side * (0.10 if low else 0.42) * np.sin(2.0 * t)
            path = root + np.concatenate(
                [away, (0.0 if low else 0.15) * np.sin(np.pi * t) - long * t**1.3, 0.22 * t if low else 0.12 * t], 1
            )
            body = np.sin(np.pi * np.clip(t[:, 0] * 0.84 + 0.12, 0, 1)) ** 0.6
            width = 0.13 * size * body * (1 + 0.25 * np.abs(np.sin(long * 9 * t[:, 0]))) if low else 0.22 * size * body
            paths.append((path, width, 0.0))
    found = []
    for path, width, ball in paths:
        if ball:
            t = np.linspace(0.02, 0.98, 16)
            out = path - on_head(0.0, 0.0) + (0.0, 1.0, 0.0)
            out /= np.linalg.norm(out)
            middle = path + out * ball * 0.75
            path, width = middle + out * (np.cos(np.pi * t) * ball)[:, None], np.sin(np.pi * t) * ball
        vertices, outward = tube(np.asarray(path), np.asarray(width), 18)
        place = torch.from_numpy(vertices).float().to(device)
        ripple = noise(place, 2.2, hair.noise)[:, :1].clamp(-2, 2)
        place = place + 0.02 * ripple * torch.from_numpy(outward).float().to(device)
        rows = len(path)
        column, row = torch.meshgrid(torch.arange(19), torch.arange(rows), indexing="ij")
        uv = torch.stack([column / 18, row / max(rows - 1, 1)], -1).reshape(-1, 2).float().to(device)
        found.append(Surface(place, grid_faces(19, rows, device), uv, *uncut(place)))
    return found
