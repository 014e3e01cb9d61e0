"""The texture atlas: where each surface's chart lies, and what a texel holds.

A texel has CHANNELS values: linear red, green, blue; specular strength; its exponent / 256; how strongly light scatters under the
surface (skin); how strongly it reflects like hair; how deep it lies in the mouth's cavity.
"""

import functools
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .raster import EMPTY, rasterize
from .rig import CHART_RECTS, HEAD, MOUTH, SKIN, SOCKET, TORSO, Rig

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
DILATIONS = 3  # texels painted beyond a chart's edge, so that interpolation meets no empty ones


@dataclass(frozen=True)
class Cover:
    """The texels that show skin, and their positions on the template."""

    texels: torch.Tensor  # (M,) index into the atlas
    points: torch.Tensor  # (M, 3) dm
    lips: torch.Tensor  # (M,)
    lids: torch.Tensor  # (M,)
    chart: torch.Tensor  # (M,) TORSO .. SOCKET


def rect(chart: int, scale: float) -> tuple[int, int, int, int]:
    """A chart's rectangle in the atlas: left, top, width, height in texels."""
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


def flat_uv(colour: int, count: int, device: torch.device | str) -> torch.Tensor:
    """uv (count, 2) of one of FLAT's colours."""
    return torch.tensor([[(colour + 0.5) / 3, 0.5]], device=device).expand(count, 2)


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
    # Just outside a triangle its plane is extrapolated.
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
        index, where, uv = cover_chart(rig, chart, chart, scale)
        texels.append(index)
        points.append(where)
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
