"""The atlas of an identity, painted once in the template's space and looked up in every frame."""

import numpy as np
import torch
import torch.nn.functional as F

from .atlas import (
    CHANNELS,
    COLLAR,
    EYE,
    FLAT,
    GLOSS,
    HAIR,
    HAT,
    RGB,
    SIZE,
    SPECULAR,
    TAIL,
    TEETH,
    TONGUE,
    cloth_cover,
    rect,
    skin_cover,
    texel,
)
from .colour import linear
from .hair_styles import STYLES
from .identity import Identity
from .noise import noise, smoothstep
from .paint_cloth import paint_cloth
from .paint_skin import paint_skin
from .rig import Rig


def paint(rig: Rig, identity: Identity, strands: torch.Tensor, scale: float) -> torch.Tensor:
    """The atlas (height * width, CHANNELS) of an identity. strands (columns, rows, 4): see hair.shell."""
    device = rig.vertices.device
    width, height = (round(side * scale) for side in SIZE)
    atlas = torch.zeros(height * width, CHANNELS, device=device)
    cover = skin_cover(rig, scale)
    atlas[cover.texels] = paint_skin(rig, identity, cover)
    texels, points = cloth_cover(rig, scale)
    atlas[texels] = paint_cloth(points, identity)
    picture = atlas.reshape(height, width, CHANNELS)

    def put(chart: int, texels: torch.Tensor) -> None:
        left, top, wide, high = rect(chart, scale)
        picture[top : top + high, left : left + wide] = texels

    def grid(chart: int) -> tuple[torch.Tensor, torch.Tensor]:
        _, _, wide, high = rect(chart, scale)
        v, u = torch.meshgrid(torch.linspace(0, 1, high, device=device), torch.linspace(0, 1, wide, device=device), indexing="ij")
        return u, v

    put(EYE, paint_eye(*grid(EYE), identity.face.iris, identity.face.noise))
    put(TEETH, paint_teeth(*grid(TEETH), identity.face.age))
    put(
        TONGUE,
        texel(
            grid(TONGUE)[0].new_tensor([0.46, 0.12, 0.12]).expand(*grid(TONGUE)[0].shape, 3), specular=0.25, gloss=40, cavity=1.0
        ),
    )
    put(HAIR, paint_strands(strands, grid(HAIR), identity))
    u, v = grid(TAIL)
    around = torch.stack([(u * 2 * torch.pi).sin(), (u * 2 * torch.pi).cos(), torch.zeros_like(u)], -1)
    put(TAIL, hair_texels(around, v, identity))
    put(HAT, paint_hat(*grid(HAT), identity))
    u, v = grid(COLLAR)
    put(
        COLLAR,
        texel(torch.tensor(identity.clothes.colours[0], device=device).float() * (1 - 0.25 * smoothstep(0.85, 1.0, v))[..., None]),
    )
    flat = torch.zeros(*grid(FLAT)[0].shape, CHANNELS, device=device)
    third = flat.shape[1] // 3
    colours = (linear("1c1512"), identity.clothes.glasses_colour, linear("d8b45a"))
    for index, (colour, shine) in enumerate(zip(colours, (0.0, 0.6, 1.2))):
        flat[:, index * third : (index + 1) * third, RGB] = torch.tensor(colour, device=device).float()
        flat[:, index * third : (index + 1) * third, SPECULAR] = shine
    flat[..., GLOSS] = 60 / 256
    put(FLAT, flat)
    return atlas


def paint_eye(u: torch.Tensor, v: torch.Tensor, iris: np.ndarray, offset: float) -> torch.Tensor:
    """(H, W, CHANNELS) over the front half of an eyeball: (u, v) 0.5 ahead, 1 sideways, v down."""
    x, y = u * 2 - 1, 1 - v * 2
    radius, angle = (x**2 + y**2).sqrt(), torch.atan2(y, x)
    rim, pupil = 0.46, 0.17
    rays = noise(torch.stack([angle.sin(), angle.cos(), radius], -1), 2.2, offset)[..., 0]
    colour = torch.as_tensor(iris, dtype=torch.float32, device=u.device)
    inner = colour * (1.55 + 0.4 * rays - 0.9 * ((radius - pupil) / (rim - pupil)).clamp(0, 1))[..., None].clamp(0.3, 2.4)
    inner = inner * (1 - 0.8 * smoothstep(rim - 0.10, rim, radius))[..., None]
    veins = 0.05 * noise(torch.stack([x * 2, y * 2, x * 0], -1), 2.0, offset)[..., 1].clamp(0, 2)
    white = torch.tensor([0.93, 0.89, 0.86], device=u.device) * (1 - 0.35 * smoothstep(0.55, 1.0, radius) - veins)[..., None]
    eye = white + (inner - white) * smoothstep(rim + 0.02, rim - 0.02, radius)[..., None]
    eye = eye * (1 - 0.985 * smoothstep(pupil + 0.03, pupil - 0.02, radius))[..., None]
    eye = eye * (1 - 0.35 * smoothstep(0.15, 0.6, y))[..., None]  # the upper lid's shade
    return texel(eye, specular=0.9, gloss=220)


def paint_teeth(u: torch.Tensor, v: torch.Tensor, age: float) -> torch.Tensor:
    """Upper teeth in the left half of the chart, lower in the right; v from gum to edge of each."""
    across = (u * 2) % 1 - 0.5
    gaps = torch.exp(-(((torch.sin(across.abs().sqrt() * 19 * torch.sign(across))).abs() / 0.16) ** 2))
    stain = float(np.clip((age - 20) / 120, 0, 0.5))
    tooth = torch.tensor([0.86, 0.82 - 0.12 * stain, 0.74 - 0.35 * stain], device=u.device) * (1 - 0.22 * gaps)[..., None]
    gum = torch.tensor([0.42, 0.13, 0.13], device=u.device)
    colour = gum + (tooth - gum) * smoothstep(0.28, 0.40, v)[..., None]
    return texel(colour * (1 - 0.6 * smoothstep(0.30, 0.50, across.abs()))[..., None], specular=0.35, gloss=60, cavity=0.75)


def hair_texels(across: torch.Tensor, along: torch.Tensor, identity: Identity) -> torch.Tensor:
    """Strands: across (..., 3) tells them apart, along (...) runs down them."""
    hair = identity.hair
    colour = torch.as_tensor(hair.colour, dtype=torch.float32, device=across.device)
    lumps = STYLES[hair.style].curl * 8
    coordinates = across + torch.stack([0.06 * along, 0.10 * along * (1 + lumps), 0 * along], -1)
    coarse, fine = noise(coordinates, 1.5, hair.noise), noise(coordinates, 5.5, hair.noise)
    contrast = hair.streaks + (0.25 if lumps else 0.0)
    light = 1 + contrast * (0.75 * coarse[..., 0] + 0.75 * fine[..., 0]) + 0.08 * fine[..., 1]
    tint = 1 + 0.10 * coarse[..., 1:2] * torch.tensor([1.0, 0.2, -0.6], device=across.device)
    return texel(colour * light.clamp(0.25, 2.2)[..., None] * tint, specular=0.12, gloss=30, hairy=1.0)


def paint_strands(strands: torch.Tensor, grid: tuple[torch.Tensor, torch.Tensor], identity: Identity) -> torch.Tensor:
    """(H, W, CHANNELS) of the hair's shell: its strands' directions interpolated over the chart."""
    u, v = grid
    table = strands.permute(2, 1, 0)[None]  # (1, 4, rows, columns)
    field = F.grid_sample(table, torch.stack([u * 2 - 1, v * 2 - 1], -1)[None], align_corners=True)[0].permute(1, 2, 0)
    return hair_texels(field[..., :3], field[..., 3], identity)


def paint_hat(u: torch.Tensor, v: torch.Tensor, identity: Identity) -> torch.Tensor:
    clothes = identity.clothes
    first, second = torch.as_tensor(clothes.hat_colours, dtype=torch.float32, device=u.device)
    around = torch.stack([(u * 2 * torch.pi).sin(), (u * 2 * torch.pi).cos(), v], -1)
    share = torch.zeros_like(u)
    if clothes.hat == "beanie":
        share = 0.5 * smoothstep(-0.2, 0.4, torch.sin(u * 2 * torch.pi * 34)) + 0.3 * smoothstep(0.70, 0.72, v)
    elif clothes.hat == "cap":
        share = torch.exp(-((torch.sin(u * torch.pi * 6) / 0.06) ** 2)) * 0.6 + 0.5 * smoothstep(0.80, 0.81, v)
    elif clothes.hat == "brim":
        share = smoothstep(0.60, 0.62, v) * smoothstep(0.80, 0.78, v)
    elif clothes.hat in ("turban", "scarf", "headband"):
        share = (
            0.5 * smoothstep(0.2, 0.9, torch.sin(v * 40 + around[..., 1] * 4))
            if clothes.hat == "turban"
            else smoothstep(0.6, 0.9, noise(around, 1.2, clothes.scale)[..., 0])
        )
    colour = first + (second - first) * share[..., None]
    return texel(colour * (1 + 0.07 * noise(around, 4.0)[..., :1]), specular=0.03, gloss=10)
