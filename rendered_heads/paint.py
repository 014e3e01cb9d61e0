"""The atlas: everything that colours an identity, painted once in the template's space and looked up in every frame.

A texel has CHANNELS values: linear red, green, blue; specular strength; its exponent / 256; how much light goes under the surface
(skin); how much it shines like hair; how much it lies in the mouth's cavity.
"""

import functools
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from .hair import STYLES, scalp
from .identity import Clothes, Face, Identity, linear
from .noise import noise, step
from .raster import EMPTY, rasterize
from .rig import CHART_RECTS, HEAD, MOUTH, SKIN, SOCKET, TORSO, Rig
from .wear import neckline

CHANNELS = 8
RGB, SPECULAR, GLOSS, UNDER, HAIRY, CAVITY = slice(0, 3), 3, 4, 5, 6, 7
# Charts: name -> (left, top, width, height) in texels for pictures of 256 px.
CLOTH, EYE, TEETH, TONGUE, HAIR, TAIL, HAT, COLLAR, FLAT = range(SOCKET + 1, SOCKET + 10)
LAYOUT = {
    HEAD: (0, 0, 360, 684),
    TORSO: (444, 0, 240, 142),
    MOUTH: (770, 0, 64, 48),
    SOCKET: (770, 52, 40, 24),
    EYE: (770, 80, 96, 96),
    CLOTH: (444, 194, 512, 304),
    HAIR: (444, 502, 384, 160),
    HAT: (444, 730, 256, 100),
    TAIL: (704, 730, 96, 100),
    TEETH: (804, 730, 96, 48),
    TONGUE: (804, 782, 24, 24),
    COLLAR: (870, 80, 86, 24),
    FLAT: (832, 782, 24, 8),
}
SIZE = (960, 832)  # width and height of the whole
LASHES, FRAMES, RINGS = range(3)  # colours of FLAT
DILATIONS = 3  # texels painted beyond a chart's edge, so that interpolation never meets an empty one


@dataclass(frozen=True)
class Cover:
    """Which texels show skin, and where on the template they are."""

    texels: torch.Tensor  # (M,) index into the atlas
    points: torch.Tensor  # (M, 3) dm
    lips: torch.Tensor  # (M,)
    lids: torch.Tensor  # (M,)
    chart: torch.Tensor  # (M,) TORSO .. SOCKET


def rect(chart: int, scale: float) -> tuple[int, int, int, int]:
    """A chart's place in the atlas in texels."""
    return tuple(round(value * scale) for value in LAYOUT[chart])


def to_atlas(uv: torch.Tensor, chart: int, scale: float) -> torch.Tensor:
    """uv (N, 2) in 0..1 of a chart -> texels (N, 2), half a texel inside its border."""
    left, top, width, height = rect(chart, scale)
    inset = torch.tensor([width - 1, height - 1], device=uv.device)
    return uv.clamp(0, 1) * inset + torch.tensor([left + 0.5, top + 0.5], device=uv.device)


def skin_uv(rig: Rig, corners: torch.Tensor, chart: int) -> torch.Tensor:
    """The base mesh's UV of corners (K,) as 0..1 of a chart's rectangle."""
    left, low, right, high = CHART_RECTS[chart]
    start, size = (
        torch.tensor([left, 1 - high], device=corners.device),
        torch.tensor([right - left, high - low], device=corners.device),
    )
    return (rig.uv[corners] - start) / size


def cover_chart(rig: Rig, chart: int, target: int, scale: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Texels (M,), template points (M, 3) and uv (M, 2) of a chart of the base mesh, drawn into the rectangle of `target`."""
    faces = rig.faces[(rig.part == SKIN) & (rig.chart == chart)]
    left, top, width, height = rect(target, scale)
    uv = skin_uv(rig, torch.arange(len(rig.weld), device=rig.uv.device), chart)
    flat = torch.cat([uv * torch.tensor([width - 1, height - 1], device=uv.device) + 0.5, torch.ones_like(uv[:, :1])], 1)  # (C, 3)
    both = torch.ones(len(faces), dtype=torch.bool, device=uv.device)
    hit = rasterize(flat[None], faces, both, height, width)[0][0]
    for _ in range(DILATIONS):
        around = F.max_pool2d(hit[None, None].double(), 3, 1, 1)[0, 0].long()
        hit = torch.where(hit == EMPTY, around, hit)
    row, column = (hit != EMPTY).nonzero(as_tuple=True)
    triangle = faces[hit[row, column]]  # (M, 3)
    a, b, c = (flat[triangle[:, i], :2] for i in range(3))
    at = torch.stack([column + 0.5, row + 0.5], 1)
    area = cross(b - a, c - a)
    area = torch.where(area.abs() < 1e-6, 1e-6, area)
    # Beyond the triangle's edge the plane goes on, but not far.
    beta, gamma = (cross(at - a, c - a) / area).clamp(-0.5, 1.5), (cross(b - a, at - a) / area).clamp(-0.5, 1.5)
    bary = torch.stack([1 - beta - gamma, beta, gamma], 1)
    points = (rig.vertices[rig.weld[triangle]] * bary[..., None]).sum(1)
    where = (flat[triangle, :2] * bary[..., None]).sum(1) / torch.tensor([width, height], device=uv.device)
    atlas_width = round(SIZE[0] * scale)
    return (row + top) * atlas_width + column + left, points, where


def cross(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


@functools.lru_cache(maxsize=2)
def skin_cover(rig: Rig, scale: float) -> Cover:
    """All skin of the atlas; the same for every identity."""
    texels, points, charts, masks = [], [], [], []
    for chart in (TORSO, HEAD, MOUTH, SOCKET):
        index, place, uv = cover_chart(rig, chart, chart, scale)
        texels.append(index)
        points.append(place)
        charts.append(torch.full_like(index, chart))
        grid = (uv * 2 - 1)[None, None]
        seen = F.grid_sample(rig.masks[None], grid, align_corners=False, padding_mode="border")[0, :, 0].T  # (M, 2)
        masks.append(seen * (chart == HEAD))
    lips, lids = torch.cat(masks).unbind(1)
    return Cover(torch.cat(texels), torch.cat(points), lips, lids, torch.cat(charts))


@functools.lru_cache(maxsize=2)
def cloth_cover(rig: Rig, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Texels and template points of the cloth."""
    return cover_chart(rig, TORSO, CLOTH, scale)[:2]


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
        COLLAR, texel(torch.tensor(identity.clothes.colours[0], device=device).float() * (1 - 0.25 * step(0.85, 1.0, v))[..., None])
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


def flat_uv(colour: int, count: int, device: torch.device | str) -> torch.Tensor:
    """uv (count, 2) of one of FLAT's colours."""
    return torch.tensor([[(colour + 0.5) / 3, 0.5]], device=device).expand(count, 2)


def texel(rgb: torch.Tensor, specular=0.0, gloss=20.0, under=0.0, hairy=0.0, cavity=0.0) -> torch.Tensor:
    """Texels (..., CHANNELS) of colours (..., 3); the other values are numbers or (...)."""
    rest = [
        torch.as_tensor(value, dtype=rgb.dtype, device=rgb.device).expand(rgb.shape[:-1])
        for value in (specular, torch.as_tensor(gloss) / 256, under, hairy, cavity)
    ]
    return torch.cat([rgb.expand(*rgb.shape[:-1], 3), torch.stack(rest, -1)], -1)


def mix(a: torch.Tensor, b: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """a (M, 3) where share (M,) is 0, b where it is 1."""
    return a + (b - a) * share[:, None]


def blob(points: torch.Tensor, x: float, y: float, radius: float) -> torch.Tensor:
    """1 at a place of the face's front and, mirrored, on its other side; falling off within a radius, dm."""
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
        spots[near] *= step(1.1, 1.7, noise(points[near], 5.5, face.noise)[:, 1])
        skin = mix(skin, skin * colour((0.62, 0.45, 0.36)), spots * face.freckles)
    mole = step(0.03, 0.02, ((x - float(face.mole[0])) ** 2 + (y - float(face.mole[1])) ** 2).sqrt()) * (z > 1.0)
    skin = mix(skin, colour((0.06, 0.03, 0.02)), 0.8 * mole)
    # Lips, darker where they meet; lids with a line along the lashes.
    lips = step(0.25, 0.75, cover.lips)
    skin = mix(
        skin, mix(skin * colour((0.9, 0.6, 0.6)), colour(face.lips).expand_as(skin), torch.full_like(lips, face.lipstick)), lips
    )
    skin = mix(skin, skin * 0.55, lips * torch.exp(-(((y - 6.695) / 0.02) ** 2)) * 0.5)
    lids = cover.lids * (y > 7.2)
    skin = mix(skin, colour(face.shadow) * 0.5 + 0.4 * skin, blob(points, 0.32, 7.36, 0.14) * face.shadow_strength)
    skin = mix(skin, skin * 0.62, lids * 0.5)
    line = step(0.075, 0.03, ((points - nearest_eye(rig, points)).norm(dim=1) - 0.145).abs()) * (cover.chart == HEAD)
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
            step(-0.015, 0.045, inside + ragged)
            * ((side < 0.97) & (cover.chart == HEAD))
            * (1 - step(0.3, 0.7, rig_ear(rig, cover)))
        )
        skin = mix(skin, hair * (0.85 + 0.12 * fine[:, 1:2]), on_scalp * strength)
        hairy = torch.maximum(hairy, on_scalp * strength)

    # Where little light comes: under the chin, beside the nose, in the ears and behind them, inside nostrils.
    occlusion = 0.5 * step(6.30, 6.0, y) * step(0.1, 0.6, z) * step(5.3, 5.7, y) + 0.35 * blob(points, 0.16, 6.86, 0.06)
    occlusion = occlusion + 0.3 * blob(points, 0.0, 6.58, 0.05) + 0.25 * step(0.75, 0.65, side) * step(0.2, -0.1, z) * (y < 6.6)
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
    return (cover.chart == HEAD) * step(1.5, 0.8, away.sqrt()) * step(0.68, 0.74, x.abs())


def nearest_eye(rig: Rig, points: torch.Tensor) -> torch.Tensor:
    """The centre of the eyeball on each point's side."""
    left, right = rig.vertices[rig.eyes].mean(1)
    return torch.where(points[:, :1] > 0, left, right)


def age_lines(points: torch.Tensor, age: float) -> torch.Tensor:
    """Folds beside the mouth, on the forehead and at the corners of the eyes, 0..1."""
    x, y, z = points.unbind(1)
    side, strength = x.abs(), float(np.clip((age - 25) / 45, 0, 1))
    fold = torch.exp(-(((side - (0.22 + 0.42 * (6.95 - y))) / 0.022) ** 2)) * step(6.95, 6.88, y) * step(6.55, 6.68, y)
    forehead = (
        torch.exp(-((torch.sin((y + 0.06 * torch.cos(x * 3)) * 33) - 1) ** 2) / 0.05)
        * step(7.58, 7.64, y)
        * step(7.98, 7.86, y)
        * step(0.5, 0.3, side)
    )
    crow = (
        torch.exp(-((torch.sin(torch.atan2(y - 7.26, side - 0.36) * 9) - 1) ** 2) / 0.08)
        * torch.exp(-(((side - 0.60) / 0.08) ** 2))
        * step(0.16, 0.10, (y - 7.25).abs())
    )
    bags = torch.exp(-(((y - (7.10 - 0.10 * torch.cos((side - 0.31) * 6))) / 0.014) ** 2)) * step(0.2, 0.12, (side - 0.31).abs())
    return strength * (0.75 * fold + 0.55 * forehead + 0.55 * crow + 0.5 * bags).clamp(0, 1) * (z > 0.6)


def eyebrows(points: torch.Tensor, face: Face) -> torch.Tensor:
    thickness, height, arch, strength = face.brow
    x, y, z = points.unbind(1)
    side = x.abs()
    middle = height + arch * torch.sin((side - 0.10).clamp(0, 0.5) * 4.6) - 0.12 * (side - 0.42).clamp(0, 1)
    half = thickness * (1.15 - 0.9 * ((side - 0.12) / 0.45).clamp(0, 1))
    cover = step(1.1, 0.5, (y - middle).abs() / half.clamp_min(0.012)) * step(0.08, 0.15, side) * step(0.60, 0.52, side) * (z > 0.8)
    inside = (cover > 0).nonzero()[:, 0]
    hairs = noise(torch.stack([side * 2 + y * 1.4, y, z], 1)[inside], 5.0, face.noise)[:, 0]
    cover[inside] *= strength + 0.10 * hairs
    return cover.clamp(0, 0.97)


def beard_cover(points: torch.Tensor, kind: str, fine: torch.Tensor) -> torch.Tensor:
    """0..1, of the template."""
    if not kind:
        return torch.zeros_like(points[:, 0])
    return step(-0.03, 0.09, beard_depth(points, kind) + 0.012 * fine[:, 0])


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


def paint_cloth(points: torch.Tensor, identity: Identity) -> torch.Tensor:
    """(M, CHANNELS) of template points (M, 3)."""
    clothes, device = identity.clothes, points.device
    first, second, third = torch.as_tensor(clothes.colours, dtype=torch.float32, device=device)
    seconds, thirds = pattern(points, clothes)
    cloth = first + (second - first) * seconds[:, None]
    cloth = cloth + (third - cloth) * thirds[:, None]
    weave = torch.sin(points @ torch.tensor([[70.0], [95.0], [60.0]], device=device))
    inside = neckline(points, clothes.neckline)
    x, y, z = points.unbind(1)
    if clothes.neckline == "jacket":  # a shirt and a tie in a deep V
        opening = (1.35 - (5.75 - y)) * 0.42
        shirt = step(0.02, -0.02, x.abs() - opening.clamp_min(0)) * (z > 0.2)
        cloth = mix(cloth, (0.75 + 0.2 * third).expand_as(cloth), shirt)
        tie = step(0.015, -0.015, x.abs() - (0.10 + 0.10 * (5.6 - y).clamp(0, 1))) * shirt
        cloth = mix(cloth, second.expand_as(cloth) * (0.8 + 0.4 * (torch.sin((x + y) * 26) > 0)[:, None]), tie)
        lapel = torch.exp(-(((x.abs() - opening - 0.28) / 0.02) ** 2)) * (z > 0.2) * (y < 5.4)
        cloth = mix(cloth, cloth * 0.45, lapel)
    elif clothes.neckline == "shirt":
        placket = torch.exp(-(((x.abs() - 0.09) / 0.012) ** 2)) * (z > 0.3)
        buttons = step(0.035, 0.025, (x**2 + ((y % 0.4) - 0.2) ** 2).sqrt()) * (z > 0.3)
        cloth = mix(mix(cloth, cloth * 0.6, placket * 0.7), (0.9 - 0.6 * first).expand_as(cloth), buttons)
    elif clothes.neckline == "hoodie":
        cords = step(0.03, 0.02, (x.abs() - 0.22).abs()) * (z > 0.3) * (y > 4.7)
        cloth = mix(cloth, (0.85 * third + 0.1).expand_as(cloth), cords)
    hem = step(0.11, 0.09, inside) * (clothes.neckline not in ("shirt", "jacket"))
    cloth = cloth * (1 + 0.02 * weave) * (1 - 0.3 * hem * (0.7 + 0.3 * torch.sin(x * 60)))[:, None]
    return texel(cloth, specular=0.03, gloss=10)


def pattern(points: torch.Tensor, clothes: Clothes) -> tuple[torch.Tensor, torch.Tensor]:
    """Shares (M,) of the second and the third colour."""
    x, y, z = (points * clothes.scale).unbind(1)
    none = torch.zeros_like(x)

    def bands(value: torch.Tensor, low: float) -> torch.Tensor:
        return step(low - 0.12, low + 0.12, torch.sin(value))

    kind = clothes.pattern
    if kind == "stripes":
        return bands(y * 20, 0.2), none
    if kind == "pinstripes":
        return bands(x * 40, 0.75), none
    if kind == "checks":
        return (bands(x * 14, 0.0) - bands(y * 14, 0.0)).abs(), none
    if kind == "tartan":
        return 0.5 * bands(x * 11, 0.3) + 0.5 * bands(y * 11, 0.3), torch.maximum(bands(x * 11 + 2, 0.93), bands(y * 11 + 2, 0.93))
    if kind == "dots":
        return step(0.35, 0.27, (((x * 4) % 1 - 0.5) ** 2 + ((y * 4 + 0.5 * torch.floor(x * 4)) % 1 - 0.5) ** 2).sqrt()), none
    if kind == "floral":
        field = noise(points * clothes.scale, 1.1, clothes.scale)
        return step(0.5, 0.8, field[:, 0]), step(1.0, 1.2, field[:, 1])
    if kind == "camouflage":
        field = noise(points * clothes.scale, 0.5, clothes.scale)
        return step(0.1, 0.2, field[:, 0]), 0.6 * step(0.5, 0.6, field[:, 1])
    if kind == "knit":
        return 0.6 * bands(y * 55 + 2 * torch.sin(x * 55).abs(), 0.2), none
    if kind == "letters":  # a broad band and a block on the chest
        block = step(0.32, 0.30, x.abs()) * step(0.22, 0.20, (points[:, 1] - 4.75).abs()) * bands(x * 30, -0.2) * (z > 0)
        return block, step(0.10, 0.09, (points[:, 1] - 4.3).abs())
    return none, none


def paint_eye(u: torch.Tensor, v: torch.Tensor, iris: np.ndarray, offset: float) -> torch.Tensor:
    """(H, W, CHANNELS) over the front half of an eyeball: (u, v) 0.5 ahead, 1 sideways, v down."""
    x, y = u * 2 - 1, 1 - v * 2
    radius, angle = (x**2 + y**2).sqrt(), torch.atan2(y, x)
    rim, pupil = 0.46, 0.17
    rays = noise(torch.stack([angle.sin(), angle.cos(), radius], -1), 2.2, offset)[..., 0]
    colour = torch.as_tensor(iris, dtype=torch.float32, device=u.device)
    inner = colour * (1.55 + 0.4 * rays - 0.9 * ((radius - pupil) / (rim - pupil)).clamp(0, 1))[..., None].clamp(0.3, 2.4)
    inner = inner * (1 - 0.8 * step(rim - 0.10, rim, radius))[..., None]
    veins = 0.05 * noise(torch.stack([x * 2, y * 2, x * 0], -1), 2.0, offset)[..., 1].clamp(0, 2)
    white = torch.tensor([0.93, 0.89, 0.86], device=u.device) * (1 - 0.35 * step(0.55, 1.0, radius) - veins)[..., None]
    eye = white + (inner - white) * step(rim + 0.02, rim - 0.02, radius)[..., None]
    eye = eye * (1 - 0.985 * step(pupil + 0.03, pupil - 0.02, radius))[..., None]
    eye = eye * (1 - 0.35 * step(0.15, 0.6, y))[..., None]  # the upper lid's shade
    return texel(eye, specular=0.9, gloss=220)


def paint_teeth(u: torch.Tensor, v: torch.Tensor, age: float) -> torch.Tensor:
    """Upper teeth in the left half of the chart, lower in the right; v from gum to edge of each."""
    across = (u * 2) % 1 - 0.5
    gaps = torch.exp(-(((torch.sin(across.abs().sqrt() * 19 * torch.sign(across))).abs() / 0.16) ** 2))
    stain = float(np.clip((age - 20) / 120, 0, 0.5))
    tooth = torch.tensor([0.86, 0.82 - 0.12 * stain, 0.74 - 0.35 * stain], device=u.device) * (1 - 0.22 * gaps)[..., None]
    gum = torch.tensor([0.42, 0.13, 0.13], device=u.device)
    colour = gum + (tooth - gum) * step(0.28, 0.40, v)[..., None]
    return texel(colour * (1 - 0.6 * step(0.30, 0.50, across.abs()))[..., None], specular=0.35, gloss=60, cavity=0.75)


def hair_texels(across: torch.Tensor, along: torch.Tensor, identity: Identity) -> torch.Tensor:
    """Strands: across (..., 3) tells them apart, along (...) runs down them."""
    hair = identity.hair
    colour = torch.as_tensor(hair.colour, dtype=torch.float32, device=across.device)
    lumps = STYLES[hair.style].curl * 8
    place = across + torch.stack([0.06 * along, 0.10 * along * (1 + lumps), 0 * along], -1)
    coarse, fine = noise(place, 1.5, hair.noise), noise(place, 5.5, hair.noise)
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
        share = 0.5 * step(-0.2, 0.4, torch.sin(u * 2 * torch.pi * 34)) + 0.3 * step(0.70, 0.72, v)
    elif clothes.hat == "cap":
        share = torch.exp(-((torch.sin(u * torch.pi * 6) / 0.06) ** 2)) * 0.6 + 0.5 * step(0.80, 0.81, v)
    elif clothes.hat == "brim":
        share = step(0.60, 0.62, v) * step(0.80, 0.78, v)
    elif clothes.hat in ("turban", "scarf", "headband"):
        share = (
            0.5 * step(0.2, 0.9, torch.sin(v * 40 + around[..., 1] * 4))
            if clothes.hat == "turban"
            else step(0.6, 0.9, noise(around, 1.2, clothes.scale)[..., 0])
        )
    colour = first + (second - first) * share[..., None]
    return texel(colour * (1 + 0.07 * noise(around, 4.0)[..., :1]), specular=0.03, gloss=10)
