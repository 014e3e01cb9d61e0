"""Skin painted into the atlas, in the template's space: complexion, lips, lids, brows, beard and scalp."""

import numpy as np
import torch

from .atlas import Cover, mix, texel
from .hair import scalp
from .hair_styles import STYLES
from .identity import Face, Identity
from .noise import noise, smoothstep
from .rig import HEAD, MOUTH, SOCKET, Rig


def blob(points: torch.Tensor, x: float, y: float, radius: float) -> torch.Tensor:
    """1 at a point of the face's front and at its mirror image, falling off within a radius, dm."""
    away = (points[:, 0].abs() - x) ** 2 + (points[:, 1] - y) ** 2
    return torch.exp(-away / radius**2) * (points[:, 2] > 0.6)


def paint_skin(rig: Rig, identity: Identity, cover: Cover) -> torch.Tensor:
    """(M, CHANNELS)."""
    face, points, device = identity.face, cover.points, cover.points.device

    def colour(value) -> torch.Tensor:
        return torch.as_tensor(np.asarray(value), dtype=torch.float32, device=device)

    fine = noise(points, 2.4, face.noise)
    x, y, z = points.unbind(1)
    side = x.abs()
    skin = colour(face.skin) * (1 + 0.018 * fine[:, :1])
    red = (0.55 * blob(points, 0.42, 6.93, 0.24) + 0.55 * blob(points, 0, 6.93, 0.15) + 0.3 * blob(points, 0, 6.25, 0.2)).clamp(
        0, 1
    )
    red = torch.maximum(red, 0.35 * (rig_ear(rig, cover)))
    skin = mix(skin, skin * colour((1.08, 0.74, 0.72)), red * face.flush * (0.9 - 0.5 * face.dark))
    skin = mix(
        skin, skin * colour((0.72, 0.62, 0.66)), 0.35 * blob(points, 0.31, 7.16, 0.13) + 0.30 * blob(points, 0.16, 7.27, 0.09)
    )
    skin = mix(skin, skin * 0.72, age_lines(points, face.age))
    if face.freckles:
        spots = blob(points, 0.25, 7.0, 0.42)
        near = (spots > 0.02).nonzero()[:, 0]
        spots[near] *= smoothstep(1.1, 1.7, noise(points[near], 5.5, face.noise)[:, 1])
        skin = mix(skin, skin * colour((0.62, 0.45, 0.36)), spots * face.freckles)
    mole = smoothstep(0.03, 0.02, ((x - float(face.mole[0])) ** 2 + (y - float(face.mole[1])) ** 2).sqrt()) * (z > 1.0)
    skin = mix(skin, colour((0.06, 0.03, 0.02)), 0.8 * mole)
    # Lips, darker where they meet; lids with a line along the lashes.
    lips = smoothstep(0.25, 0.75, cover.lips)
    skin = mix(
        skin, mix(skin * colour((0.9, 0.6, 0.6)), colour(face.lips).expand_as(skin), torch.full_like(lips, face.lipstick)), lips
    )
    skin = mix(skin, skin * 0.55, lips * torch.exp(-(((y - 6.695) / 0.02) ** 2)) * 0.5)
    lids = cover.lids * (y > 7.2)
    skin = mix(skin, colour(face.shadow) * 0.5 + 0.4 * skin, blob(points, 0.32, 7.36, 0.14) * face.shadow_strength)
    skin = mix(skin, skin * 0.62, lids * 0.5)
    line = smoothstep(0.075, 0.03, ((points - nearest_eye(rig, points)).norm(dim=1) - 0.145).abs()) * (cover.chart == HEAD)
    skin = mix(skin, skin * 0.22, 0.65 * line * lids)

    hair = colour(identity.hair.colour)
    brows = eyebrows(points, face)
    skin = mix(skin, (hair * 0.55 + 0.003).expand_as(skin), brows)
    beard = beard_cover(points, face.beard, fine) * (1 - lips)
    strength = 0.45 if face.beard == "stubble" else 0.92
    grain = (0.8 + 0.25 * fine[:, 1:2]).clamp(0.3, 1.3)
    skin = mix(skin, hair * 0.7 * grain + 0.002, beard * strength)
    hairy = beard * (face.beard != "stubble")
    style = STYLES[identity.hair.style]
    if style.top:
        inside = scalp(points, style, identity.hair.hairline)
        ragged, edge = torch.zeros_like(inside), (inside.abs() < 0.12).nonzero()[:, 0]
        ragged[edge] = 0.025 * noise(points[edge] * colour((2.6, 0.6, 2.6)), 1.6, identity.hair.noise)[:, 0].clamp(-2, 2)
        strength = 0.72 if style.top < 0.04 and not style.ridge else 0.96
        on_scalp = (
            smoothstep(-0.015, 0.045, inside + ragged)
            * ((side < 0.97) & (cover.chart == HEAD))
            * (1 - smoothstep(0.3, 0.7, rig_ear(rig, cover)))
        )
        skin = mix(skin, hair * (0.85 + 0.12 * fine[:, 1:2]), on_scalp * strength)
        hairy = torch.maximum(hairy, on_scalp * strength)

    # Ambient occlusion: under the chin, beside the nose, in and behind the ears, in the nostrils.
    occlusion = 0.5 * smoothstep(6.30, 6.0, y) * smoothstep(0.1, 0.6, z) * smoothstep(5.3, 5.7, y) + 0.35 * blob(
        points, 0.16, 6.86, 0.06
    )
    occlusion = (
        occlusion + 0.3 * blob(points, 0.0, 6.58, 0.05) + 0.25 * smoothstep(0.75, 0.65, side) * smoothstep(0.2, -0.1, z) * (y < 6.6)
    )
    skin = skin * (1 - occlusion.clamp(0, 0.7))[:, None]
    specular = 0.16 * (1 - 0.8 * hairy) + 0.25 * lips * face.lipstick
    painted = texel(skin, specular=specular, gloss=18 + 40 * lips, under=(1 - hairy), hairy=hairy)
    inner = (cover.chart == MOUTH).float()
    flesh = texel(colour((0.30, 0.055, 0.05)).expand_as(skin), specular=0.1, gloss=40, under=0.3, cavity=1.0)
    painted = painted + (flesh - painted) * inner[:, None]
    socket = (cover.chart == SOCKET)[:, None]
    return torch.where(socket, painted * torch.tensor([0.4, 0.25, 0.25] + [1.0] * 5, device=device), painted)


def rig_ear(rig: Rig, cover: Cover) -> torch.Tensor:
    """1 on the ears."""
    x, y, z = cover.points.unbind(1)
    away = ((x.abs() - 0.82) / 0.10) ** 2 + ((y - 7.09) / 0.30) ** 2 + ((z - 0.20) / 0.26) ** 2
    return (cover.chart == HEAD) * smoothstep(1.5, 0.8, away.sqrt()) * smoothstep(0.68, 0.74, x.abs())


def nearest_eye(rig: Rig, points: torch.Tensor) -> torch.Tensor:
    """The centre of the eyeball on each point's side."""
    left, right = rig.vertices[rig.eyes].mean(1)
    return torch.where(points[:, :1] > 0, left, right)


def age_lines(points: torch.Tensor, age: float) -> torch.Tensor:
    """Folds beside the mouth, on the forehead and at the corners of the eyes, 0..1."""
    x, y, z = points.unbind(1)
    side, strength = x.abs(), float(np.clip((age - 25) / 45, 0, 1))
    fold = torch.exp(-(((side - (0.22 + 0.42 * (6.95 - y))) / 0.022) ** 2)) * smoothstep(6.95, 6.88, y) * smoothstep(6.55, 6.68, y)
    forehead = (
        torch.exp(-((torch.sin((y + 0.06 * torch.cos(x * 3)) * 33) - 1) ** 2) / 0.05)
        * smoothstep(7.58, 7.64, y)
        * smoothstep(7.98, 7.86, y)
        * smoothstep(0.5, 0.3, side)
    )
    crow = (
        torch.exp(-((torch.sin(torch.atan2(y - 7.26, side - 0.36) * 9) - 1) ** 2) / 0.08)
        * torch.exp(-(((side - 0.60) / 0.08) ** 2))
        * smoothstep(0.16, 0.10, (y - 7.25).abs())
    )
    bags = torch.exp(-(((y - (7.10 - 0.10 * torch.cos((side - 0.31) * 6))) / 0.014) ** 2)) * smoothstep(
        0.2, 0.12, (side - 0.31).abs()
    )
    return strength * (0.75 * fold + 0.55 * forehead + 0.55 * crow + 0.5 * bags).clamp(0, 1) * (z > 0.6)


def eyebrows(points: torch.Tensor, face: Face) -> torch.Tensor:
    thickness, height, arch, strength = face.brow
    x, y, z = points.unbind(1)
    side = x.abs()
    middle = height + arch * torch.sin((side - 0.10).clamp(0, 0.5) * 4.6) - 0.12 * (side - 0.42).clamp(0, 1)
    half = thickness * (1.15 - 0.9 * ((side - 0.12) / 0.45).clamp(0, 1))
    cover = (
        smoothstep(1.1, 0.5, (y - middle).abs() / half.clamp_min(0.012))
        * smoothstep(0.08, 0.15, side)
        * smoothstep(0.60, 0.52, side)
        * (z > 0.8)
    )
    inside = (cover > 0).nonzero()[:, 0]
    hairs = noise(torch.stack([side * 2 + y * 1.4, y, z], 1)[inside], 5.0, face.noise)[:, 0]
    cover[inside] *= strength + 0.10 * hairs
    return cover.clamp(0, 0.97)


def beard_cover(points: torch.Tensor, kind: str, fine: torch.Tensor) -> torch.Tensor:
    """0..1, of the template."""
    if not kind:
        return torch.zeros_like(points[:, 0])
    return smoothstep(-0.03, 0.09, beard_depth(points, kind) + 0.012 * fine[:, 0])


def beard_depth(points: torch.Tensor, kind: str) -> torch.Tensor:
    """How far (dm) inside the beard points (M, 3) of the template are."""
    x, y, z = points.unbind(1)
    side = x.abs()
    upper = 6.74 + 0.62 * (side - 0.38).clamp(0, 1)  # rises to the sideburns
    jaw = torch.minimum(torch.minimum(upper - y, (z - 0.25) * 0.8), (y - 6.05 + 0.2 * (z - 1.0).clamp(-1, 0)) * 0.9)
    upper_lip = 0.075 - torch.maximum((y - 6.835 + 0.18 * (side - 0.05).clamp_min(0)).abs(), (side - 0.26).clamp_min(0) * 0.7)
    upper_lip = torch.where((z > 1.1) & (y < 6.9), upper_lip, -1.0)
    if kind == "moustache":
        return upper_lip
    chin = torch.minimum(jaw, 0.26 - side)
    if kind == "chin":
        return chin
    if kind == "goatee":
        ring = 0.09 - ((side - 0.30).abs() + (y - 6.66).abs() * 0.25)
        return torch.maximum(torch.maximum(upper_lip, chin), torch.where(z > 1.0, torch.minimum(ring, (y - 6.2) * 0.9), -1.0))
    return torch.maximum(jaw, upper_lip)
