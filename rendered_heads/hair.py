"""Hair as a shell about the skull: columns of strands that run from the crown along the head and then hang.

A column has an azimuth (0 in front, positive to the subject's left); length along a strand is measured in dm from the crown. The
shell is cut where the strands end, which also opens it over the face. Tails, buns and plaits are separate closed surfaces.
"""

from dataclasses import dataclass

import numpy as np
import torch

from .hair_styles import PART, STYLES, Style
from .identity import Hair
from .noise import noise, smoothstep
from .rig import Rig
from .skull import CENTRE, MEAN_RADIUS, curve, directions, heading, skull
from .surface import Surface, grid_faces, tube, uncut

COLUMNS, ROWS = 104, 38
FALL = 96.0  # degrees from the crown where long hair leaves the skull and hangs
# The hairline: (degrees of azimuth, degrees from the crown). Temples, sideburns before the ears, over the ears, the nape.
HAIRLINE = ((0, 59), (26, 60), (42, 64), (54, 78), (60, 98), (71, 102), (77, 86), (98, 84), (112, 98), (140, 120), (180, 125))


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


@dataclass(frozen=True)
class Strands:
    """A grid of A columns of strands with R vertices each."""

    azimuth: torch.Tensor  # (A, R) radians
    length: torch.Tensor  # (A, R) dm from the crown
    left: torch.Tensor  # (A, R) dm to the tip, negative beyond it
    to_hairline: torch.Tensor  # (A, 1) dm from the hairline to the tip
    angle: torch.Tensor  # (A, R) radians from the crown that the length would reach on the skull
    on_skull: torch.Tensor  # (A, R) radians from the crown, at most where the strand leaves the skull
    hanging: torch.Tensor  # (A, R) dm below there
    outward: torch.Tensor  # (A, R, 3)

    @property
    def level(self) -> torch.Tensor:
        """(A, R, 3) horizontal directions away from the head's axis."""
        return torch.stack([self.azimuth.sin(), torch.zeros_like(self.azimuth), self.azimuth.cos()], -1)


def shell(rig: Rig, shape: torch.Tensor, hair: Hair, hat: str) -> tuple[Surface, torch.Tensor]:
    """The hair of an identity; and for its texture the direction and length of the strands, (columns, rows, 4)."""
    style, device = STYLES[hair.style], shape.device
    strands = make_strands(style, hair, device)
    border = beside_face(style, strands)  # (A, R)
    thickness = thickness_of(style, hair, hat, strands)  # (A, R) dm
    height = thickness.clamp_min(0.015) * tapering(strands, border)
    positions = hang(style, hair, strands, skull(rig, shape).points(strands.azimuth, strands.on_skull, height))  # (A, R, 3)

    column, row = torch.meshgrid(torch.arange(COLUMNS + 1), torch.arange(ROWS + 1), indexing="ij")
    uv = torch.stack([column / COLUMNS, row / ROWS], -1).to(device)
    opened = (strands.hanging > 0) | (strands.left < 0.5) | (border > 0.05) | (thickness > 0.3)
    faces = grid_faces(COLUMNS + 1, ROWS + 1, device)
    keep = cut_of(style, hair, strands)
    surface = Surface(positions.reshape(-1, 3), faces, uv.reshape(-1, 2).float(), keep.reshape(-1), opened.reshape(-1))
    return surface, torch.cat([strand_directions(style, strands), strands.length[..., None]], -1)


def make_strands(style: Style, hair: Hair, device: torch.device) -> Strands:
    azimuth = torch.linspace(-torch.pi, torch.pi, COLUMNS + 1, device=device)[:, None].expand(-1, ROWS + 1)  # (A, R)
    ends = strand_ends(style, hair, azimuth[:, :1])  # (A, 1) dm
    longest = float(ends.max()) + 0.25
    # Rows are denser where the hair lies on the skull.
    length = torch.linspace(0, 1, ROWS + 1, device=device)[None] ** 1.2 * longest
    length = length.expand(COLUMNS + 1, -1)
    angle = length / MEAN_RADIUS
    fall = np.radians(FALL if style.sides > 0.4 else 150.0)
    on_skull = angle.clamp_max(fall)
    hanging = (angle - fall).clamp_min(0) * MEAN_RADIUS
    to_hairline = ends - head_length(azimuth[:, :1], hair)
    return Strands(azimuth, length, ends - length, to_hairline, angle, on_skull, hanging, directions(azimuth, on_skull))


def thickness_of(style: Style, hair: Hair, hat: str, strands: Strands) -> torch.Tensor:
    """dm above the skin (A, R): by the style's regions, with quiff, ridge, parting and lumps; thin at the hairline."""
    azimuth, on_skull, outward = strands.azimuth, strands.on_skull, strands.outward
    side, back = azimuth.sin().abs() ** 2, (-azimuth.cos()).clamp_min(0)
    low = smoothstep(0.7, 1.5, on_skull)
    thickness = style.top * (1 - low) + low * (
        style.side * side + style.back * back + 0.5 * (style.side + style.top) * (1 - side) * (1 - back)
    )
    thickness = thickness + style.quiff * torch.exp(-(((on_skull - 0.65) / 0.3) ** 2)) * azimuth.cos().clamp_min(0) ** 2
    thickness = thickness * hair.volume
    if hat:
        thickness = thickness * smoothstep(0.9, 1.4, on_skull) * 0.8 + 0.02
    if style.ridge and not hat:
        thickness = thickness + style.ridge * smoothstep(0.26, 0.12, (outward[..., 0]).abs()) * smoothstep(1.9, 1.5, on_skull)
    if style.flow == PART and not hat:  # a furrow along the parting
        offset = (outward[..., 0] * 1.0 - (0.0 if style.temples else hair.part)).abs()
        furrow = 0.6 * smoothstep(0.10, 0.0, offset) * smoothstep(1.5, 0.9, on_skull) * (outward[..., 2] > -0.3)
        thickness = thickness * (1 - furrow)

    below = torch.zeros_like(outward)
    below[..., 1] = strands.hanging
    lumps = noise(outward - 0.8 * below, 1.0, hair.noise)
    thickness = (
        thickness
        + (0.18 * thickness).clamp_max(0.035) * lumps[..., 0].clamp(-2, 2)
        + style.curl * lumps[..., 1].clamp(-1.5, 1.5) * smoothstep(0.0, 0.3, strands.left)
    )
    # Thin towards a hairline on the skin, so that no gap opens there; hanging tips keep some thickness.
    on_skin = smoothstep(0.25, 0.0, strands.hanging) * smoothstep(0.25, 0.05, strands.to_hairline)
    return thickness * (1 - on_skin * smoothstep(0.6, 0.0, strands.left)) + 0.02


def beside_face(style: Style, strands: Strands) -> torch.Tensor:
    """1 in the columns beside the face (A, R), 0 elsewhere."""
    degrees = torch.rad2deg(strands.azimuth.abs())
    return smoothstep(style.opening - 26, style.opening - 4, degrees) * smoothstep(style.opening + 40, style.opening + 8, degrees)


def tapering(strands: Strands, border: torch.Tensor) -> torch.Tensor:
    """A factor of the thickness (A, R): less at hanging tips; less beside the face, so that the shell's inside is not seen."""
    tips = 1 - 0.4 * smoothstep(0.5, 0.0, strands.left) * (strands.hanging > 0)
    tips = tips * (1 - 0.7 * border * smoothstep(0.3, 1.15, strands.angle))
    return tips * (1 - 0.35 * strands.azimuth.cos().clamp_min(0) * smoothstep(0.3, 1.2, strands.angle))


def hang(style: Style, hair: Hair, strands: Strands, positions: torch.Tensor) -> torch.Tensor:
    """Positions (A, R, 3) above the skull, moved down where strands hang, with flare, waves and clumps."""
    azimuth, hanging = strands.azimuth, strands.hanging
    side = azimuth.sin().abs() ** 2
    clumps = noise(torch.stack([azimuth.sin(), azimuth.cos(), 0.15 * strands.length], -1), 1.6, hair.noise)
    drop = torch.zeros_like(positions)
    drop[..., 1] = -hanging
    swing = style.flare * hanging * smoothstep(0, 0.8, hanging) - 0.10 * smoothstep(0.5, 1.6, hanging) * (1 - side)
    swing = swing + style.wave * torch.sin(hanging * 5.5 + clumps[..., 0] * 1.2) * smoothstep(0.0, 0.6, hanging)
    swing = swing + 0.05 * clumps[..., 1] * smoothstep(0.2, 1.2, hanging)
    positions = positions + drop + strands.level * swing[..., None]
    # Hair beside the face lies behind the face's edge and a little closer to the neck.
    beside = smoothstep(0.1, 0.9, hanging) * side
    positions[..., 0] = positions[..., 0] * (1 - 0.08 * beside)
    positions[..., 2] = positions[..., 2] - 0.10 * beside
    return positions


def cut_of(style: Style, hair: Hair, strands: Strands) -> torch.Tensor:
    """Surface.keep (A, R): negative beyond ragged tips, and on a bald crown."""
    azimuth = strands.azimuth
    ring = torch.stack([azimuth.sin(), azimuth.cos(), torch.zeros_like(azimuth)], -1)[:, 0]  # the same all along a strand
    uneven = 0.6 * noise(ring, 1.6, hair.noise)[:, 2] + 0.5 * noise(ring, 5.0, hair.noise)[:, 0]
    ragged = style.ragged * uneven[:, None]
    keep = strands.left + ragged
    if style.bald:
        keep = torch.minimum(keep, (strands.angle - np.radians(style.bald) * (azimuth.cos() * 0.5 + 0.6)) * 1.0 + 0.4 * ragged)
    return keep


def strand_directions(style: Style, strands: Strands) -> torch.Tensor:
    """(A, R, 3): distance across the strands, which spring from the pole `flow`."""
    flow = torch.tensor(style.flow, device=strands.azimuth.device)
    pole = flow / flow.norm()
    across = strands.outward - (strands.outward @ pole)[..., None] * pole
    return across / across.norm(dim=-1, keepdim=True).clamp_min(0.05)


def head_length(azimuth: torch.Tensor, hair: Hair) -> torch.Tensor:
    """dm from the crown to the hairline."""
    return hairline_angle(azimuth, hair.hairline) * MEAN_RADIUS


def strand_ends(style: Style, hair: Hair, azimuth: torch.Tensor) -> torch.Tensor:
    """dm from the crown to the tips, over azimuth."""
    degrees = torch.rad2deg(azimuth.abs())
    edge = head_length(azimuth, hair)
    fringe = style.front * (1 + (0.35 * float(np.sign(hair.part)) * torch.sin(azimuth) if style.flow == PART else 0.0))
    beyond = torch.where(degrees < style.opening, fringe * smoothstep(style.opening + 4, style.opening - 16, degrees), 0.0)
    knots = (
        (style.opening, style.temples),
        (style.opening + 14, style.temples),
        (92, style.sides),
        (125, style.nape),
        (180, style.nape),
    )
    hang = curve(azimuth, knots) * (hair.length if style.sides > 0.4 else 1.0)
    opened = smoothstep(style.opening - 3, style.opening + 3, degrees)
    return edge + beyond * (1 - opened) + hang * opened


def extras(rig: Rig, shape: torch.Tensor, hair: Hair) -> list[Surface]:
    """Buns, tails and plaits."""
    style, device = STYLES[hair.style], shape.device
    if not style.extra:
        return []
    head = skull(rig, shape)
    rng = np.random.default_rng(int(hair.noise * 1e6))

    def on_head(azimuth: float, angle: float) -> np.ndarray:
        turn = torch.tensor([[np.radians(azimuth)], [np.radians(angle)]], device=device, dtype=torch.float32)
        return head.points(turn[0], turn[1], 0.0)[0].cpu().numpy()

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
        positions = torch.from_numpy(vertices).float().to(device)
        ripple = noise(positions, 2.2, hair.noise)[:, :1].clamp(-2, 2)
        positions = positions + 0.02 * ripple * torch.from_numpy(outward).float().to(device)
        rows = len(path)
        column, row = torch.meshgrid(torch.arange(19), torch.arange(rows), indexing="ij")
        uv = torch.stack([column / 18, row / max(rows - 1, 1)], -1).reshape(-1, 2).float().to(device)
        found.append(Surface(positions, grid_faces(19, rows, device), uv, *uncut(positions)))
    return found
