"""The depth of a photograph's head: of the face by its mesh, of hair, ears and neck by extrapolation from the face's outline.

Each triangle of the mesh is sampled at a fixed set of points, which are accumulated in cells of the picture: a z-buffer without
loops, sorting or shapes that depend on the data. Around the face the depth starts at the outline's, so that there is no step that
would tear, and falls back to the pivot's depth like an ellipsoid's.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .sampling import blur, pixels, smoothstep
from .topology import POINTS, Topology

STEP = 2  # px, side of the cells on which depth and motion, both smooth, are computed
SMOOTH = 1.2  # cells, sigma of the depth's smoothing
NEARER = 0.1  # face widths of depth over which a surface's weight falls by a factor e
# Near the outline the mesh is steep and would tear: within EDGE face widths it is smoothed by EDGE_SMOOTH cells.
EDGE, EDGE_SMOOTH = 0.10, 3.0
OUTSIDE = 0.004  # weight of the extrapolation, beside 1 for the mesh
# Lengths beyond the outline, upwards, sideways and downwards: in heights of the face, its widths, its heights.
BACK = (0.45, 0.25, 0.16)  # over which hair, ears and throat recede to the pivot's depth
WHOLE = (0.50, 0.32, 0.04)  # up to which everything moves with the head
FADE = (0.45, 0.45, 0.50)  # over which that fades out: shoulders and background stay
PIVOT = 0.45  # face widths from the chin into the head, of the axis of rotation


@dataclass(frozen=True)
class Surface:
    """Of B photos; h = side / STEP."""

    depth: Tensor  # (B, h, h) px, smaller is nearer
    canonical: Tensor  # (B, 2, h, h) cm: the canonical face's point there, x right and y up
    share: Tensor  # (B, h, h) in 0..1, share of the head's motion that a cell follows
    pivot: Tensor  # (B, 3) px, centre of rotation
    axes: Tensor  # (B, 3, 3) rows: the head's unit vectors to the right, down and inwards, in the picture's axes
    unit: Tensor  # (B,) px a cm of the canonical face


def cross(a: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.cross(a, b, dim=-1)


def head_frame(mesh: Tensor, topology: Topology) -> tuple[Tensor, Tensor, Tensor]:
    """The axes (B, 3, 3), the unit (B,) px a cm and the chin (B, 3) of mesh (B, P, 3), by the outline's four extreme points."""
    left, right, top, bottom = mesh[:, topology.ends].unbind(1)
    rest_left, rest_right, rest_top, rest_bottom = topology.rest[topology.ends].unbind(0)
    down = F.normalize(bottom - top, dim=-1)
    across = right - left
    rightwards = F.normalize(across - (across * down).sum(-1, keepdim=True) * down, dim=-1)
    axes = torch.stack([rightwards, down, cross(rightwards, down)], 1)
    wide = across.norm(dim=-1) / (rest_right - rest_left).norm()
    high = (bottom - top).norm(dim=-1) / (rest_top - rest_bottom).norm()
    return axes, (wide * high).sqrt(), bottom


def lattice(count: int, device: torch.device) -> Tensor:
    """Barycentric weights (count^2, 3) of points evenly over a triangle: the centres of its count^2 parts."""
    i, j = torch.meshgrid(*2 * [torch.arange(count, device=device)], indexing="ij")
    upward = (i + j < count).flatten()  # the other half of the square, mirrored, gives the downward parts
    i, j = i.flatten() + 1 / 3, j.flatten() + 1 / 3
    i, j = (torch.where(upward, x, count - 1 / 3 - x) for x in (i, j))
    return torch.stack([i, j, count - i - j], 1) / count


def splat(mesh: Tensor, topology: Topology, side: int) -> Tensor:
    """Coverage, weight, weighted depth and weighted canonical x, y of every cell (B, 5, h, h), by the triangles that face the
    camera."""
    photos, cells = len(mesh), side // STEP
    weights = lattice(max(3, round(side / 40)), mesh.device)  # (L, 3)
    a, b, c = (mesh[:, topology.triangles[:, i]] for i in range(3))  # (B, F, 3)
    area = (c[..., 0] - a[..., 0]) * (b[..., 1] - a[..., 1]) - (b[..., 0] - a[..., 0]) * (c[..., 1] - a[..., 1])
    area = area.clamp_min(0) / (2 * STEP**2 * len(weights))  # cells, per point
    values = torch.cat([mesh[:, :POINTS], topology.rest[:, :2].expand(photos, -1, -1)], 2)  # x y z, canonical x y
    corners = values[:, topology.triangles]  # (B, F, 3, 5)
    x, y, *rest = torch.einsum("lk,bfkv->vbfl", weights, corners).flatten(2)  # (B, F L) each
    nearest = mesh[:, :POINTS, 2].amin(1)[:, None]
    left, right, _, _ = mesh[:, topology.ends].unbind(1)
    width = (right - left).norm(dim=-1)[:, None]
    area = area.repeat_interleave(len(weights), 1)  # (B, F L)
    front = torch.exp((nearest - rest[0]) / (NEARER * width)) * area
    channels = torch.stack([area, front, *(front * v for v in rest)], 1)  # (B, 5, F L)

    # Bilinear splatting into the four nearest cells, so that nothing jumps as a face moves.
    x, y = ((v + 0.5) / STEP - 0.5 for v in (x, y))
    column, row = x.floor(), y.floor()
    right, low = x - column, y - row
    total = channels.new_zeros(photos, 5, cells * cells)
    for dx, part_x in ((0, 1 - right), (1, right)):
        for dy, part_y in ((0, 1 - low), (1, low)):
            i, j = row + dy, column + dx
            inside = (i >= 0) & (i < cells) & (j >= 0) & (j < cells)
            cell = (i.clamp(0, cells - 1) * cells + j.clamp(0, cells - 1)).long()
            share = torch.where(inside, part_x * part_y, 0)
            total.scatter_add_(2, cell[:, None].expand(-1, 5, -1), channels * share[:, None])
    return total.unflatten(2, (cells, cells))


def nearest_outline(places: Tensor, outline: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """The distance of positions (2, h, w) to polygons (B, O, 2), and the values (B, O, V) at the nearest points of their edges.

    Returns (B, h, w) px and (B, V, h, w).
    """
    height, width = places.shape[1:]
    start, edge = outline, outline.roll(-1, 1) - outline  # (B, O, 2)
    length = edge.square().sum(-1).clamp_min(1e-12)
    x, y = places.flatten(1)
    dx, dy = x - start[..., :1], y - start[..., 1:]  # (B, O, h w)
    along = ((dx * edge[..., :1] + dy * edge[..., 1:]) / length[..., None]).clamp(0, 1)
    apart = (dx - along * edge[..., :1]).square() + (dy - along * edge[..., 1:]).square()
    squared, which = apart.min(1)  # (B, h w)
    along = along.gather(1, which[:, None])  # (B, 1, h w)
    first, second = (v.mT.gather(2, which[:, None].expand(-1, v.shape[2], -1)) for v in (values, values.roll(-1, 1)))
    found = torch.lerp(first, second, along)  # (B, V, h w)
    return squared.sqrt().unflatten(1, (height, width)), found.unflatten(2, (height, width))


def inside_polygon(places: Tensor, outline: Tensor) -> Tensor:
    """Whether positions (2, h, w) lie inside polygons (B, O, 2): (B, h, w), by the edges that a ray to the right crosses."""
    x, y = (v[None, None] for v in places.flatten(1))
    ax, ay = (outline[..., i, None] for i in (0, 1))
    bx, by = (outline.roll(-1, 1)[..., i, None] for i in (0, 1))
    spans = (ay > y) != (by > y)
    crosses = spans & (x < ax + (y - ay) * (bx - ax) / torch.where(spans, by - ay, 1))
    return (crosses.sum(1) % 2 == 1).unflatten(1, places.shape[1:])


def by_direction(away: Tensor, amounts: tuple[float, float, float], width: Tensor, height: Tensor) -> Tensor:
    """A length in px (B, h, w), interpolated between those upwards, sideways and downwards by the direction away (B, 2, h, w)."""
    up, side, down = (x * y[:, None, None] for x, y in zip(amounts, (height, width, height)))
    squared = away.square()
    return squared[:, 0] * side + squared[:, 1] * torch.where(away[:, 1] < 0, up, down)


def read_surface(mesh: Tensor, topology: Topology, side: int) -> Surface:
    """The Surface of photos of `side` px from their mesh (B, 468 or 478, 3) px."""
    axes, unit, chin = head_frame(mesh, topology)
    cells = side // STEP
    left, right, top, _ = mesh[:, topology.ends].unbind(1)
    width, height = (right - left).norm(dim=-1), (chin - top).norm(dim=-1)  # (B,)
    pivot = chin + PIVOT * width[:, None] * axes[:, 2]

    # Around the face, on coarser cells: everything there is smooth.
    coarse = pixels(cells // 2, cells // 2, mesh.device, 2 * STEP)
    middle = (left + right + top + chin)[:, :2] / 4
    flat = F.normalize(axes[:, :2, :2], dim=-1)  # rows: right, down in the picture
    offset = coarse - middle[:, :, None, None]  # (B, 2, h/2, w/2)
    turned = torch.einsum("bij,bjhw->bihw", flat, offset)
    own = turned / unit[:, None, None, None] * turned.new_tensor([1.0, -1.0])[:, None, None]  # cm, if the face were flat
    around = mesh[:, topology.outline]  # (B, O, 3)
    own_around = torch.einsum("bij,boj->boi", flat, around[..., :2] - middle[:, None])
    own_around = own_around / unit[:, None, None] * turned.new_tensor([1.0, -1.0])
    correction = topology.rest[topology.outline, :2] - own_around
    away, found = nearest_outline(coarse, around[..., :2], torch.cat([around[..., 2:], correction], 2))
    at_edge = torch.exp(-(away / (EDGE * width[:, None, None])).square())
    away = torch.where(inside_polygon(coarse, around[..., :2]), 0, away)  # (B, h/2, w/2) px beyond the outline
    direction = F.normalize(turned / torch.stack([width, height], 1)[:, :, None, None], dim=1)
    back = smoothstep(away / by_direction(direction, BACK, width, height))
    depth = torch.lerp(found[:, 0], pivot[:, 2, None, None].expand_as(back), back)
    whole, fade = (by_direction(direction, amounts, width, height) for amounts in (WHOLE, FADE))
    share = 1 - smoothstep((away - whole) / fade)
    outer = torch.cat([depth[:, None], own + found[:, 1:], share[:, None], at_edge[:, None]], 1)
    outer = F.interpolate(blur_inside(outer, 1.0), size=(cells, cells), mode="bilinear", align_corners=False)

    covered, weight, inner = blur(splat(mesh, topology, side), SMOOTH).split((1, 1, 3), 1)
    inner = inner / weight.clamp_min(1e-12)  # depth, canonical x y
    trust = covered / (covered + OUTSIDE)
    joined = torch.lerp(outer[:, :3], inner, trust)
    smoother = blur_inside(joined[:, :1], EDGE_SMOOTH)[:, 0]
    return Surface(torch.lerp(joined[:, 0], smoother, outer[:, 4]), joined[:, 1:], outer[:, 3], pivot, axes, unit)


def blur_inside(image: Tensor, sigma: float) -> Tensor:
    """`blur`, normalised at the border, whose cells are not darkened."""
    return blur(image, sigma) / blur(torch.ones_like(image[:1, :1]), sigma)
