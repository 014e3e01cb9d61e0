"""Shading of the visible fragments: key light with shadow map, fill, rim, sky and ground; own terms for skin, hair and eyes."""

import numpy as np
import torch
import torch.nn.functional as F

from .atlas import CAVITY, GLOSS, HAIRY, RGB, SPECULAR, UNDER
from .figure import Figure
from .identity import Light
from .labels import EYE_LABEL, HAIR_LABEL
from .raster import rasterize

SHADOW_SIZE = 160  # px of the shadow map
SHADOW_REACH = 1.5  # its width over the frame's
SHADOW_BIAS = (0.07, 0.15)  # dm: no shadow below, full shadow above
SHADOW_FAR = 30.0  # dm
TAPS = ((0.0, 0.0), (1.0, 0.4), (-1.0, -0.4), (0.4, -1.0), (-0.4, 1.0))


def shadow_axes(direction: np.ndarray) -> torch.Tensor:
    """A shadow map's axes (3, 3), on the CPU, for a light in this direction (3,)."""
    toward = torch.as_tensor(direction, dtype=torch.float32)
    right = F.normalize(torch.linalg.cross(torch.tensor([0.0, 1.0, 0.0]), toward), dim=0)
    return torch.stack([right, torch.linalg.cross(toward, right), toward])


def shadow_maps(figure: Figure, points: torch.Tensor, axes: torch.Tensor, frame: float) -> torch.Tensor:
    """Depth toward the light (T, R, R), 0 where nothing is. points (T, C, 3) in view axes; axes: see shadow_axes."""
    scale = SHADOW_SIZE / (frame * SHADOW_REACH)
    x, y, z = (points @ axes.T.to(points.device)).unbind(-1)
    flat = torch.stack([SHADOW_SIZE / 2 + scale * x, SHADOW_SIZE / 2 - scale * y, SHADOW_FAR + z], -1)
    faces = figure.faces[figure.shades]
    one_sided = torch.zeros(len(faces), dtype=torch.bool, device=points.device)  # front faces cast the shadow
    return rasterize(flat, faces, one_sided, SHADOW_SIZE, SHADOW_SIZE, figure.keep)[1]


def key_light_visibility(
    maps: torch.Tensor, axes: torch.Tensor, position: torch.Tensor, frame_of: torch.Tensor, frame: float, softness: float
) -> torch.Tensor:
    """The share of the key light (N,) that reaches positions (3, N) of frames (N,)."""
    scale = SHADOW_SIZE / (frame * SHADOW_REACH)
    x, y, z = (dot(position, axis.tolist()) for axis in axes)
    column, row, depth = SHADOW_SIZE / 2 + scale * x, SHADOW_SIZE / 2 - scale * y, SHADOW_FAR + z
    table, start = maps.reshape(-1), frame_of * SHADOW_SIZE**2
    radius, total = 0.9 + 2.2 * softness, 0
    for across, down in TAPS:
        c, r = ((value + shift * radius).long().clamp(0, SHADOW_SIZE - 1) for value, shift in ((column, across), (row, down)))
        nearer = table.index_select(0, start + r * SHADOW_SIZE + c) - depth
        total = total + ((nearer - SHADOW_BIAS[0]) / (SHADOW_BIAS[1] - SHADOW_BIAS[0])).clamp(0, 1)
    return 1 - total / len(TAPS) * (1 - 0.35 * softness)


def dot(vectors: torch.Tensor, other) -> torch.Tensor:
    """(N,) of vectors (3, N) with three numbers or (3, N)."""
    return vectors[0] * other[0] + vectors[1] * other[1] + vectors[2] * other[2]


def unit(vectors: torch.Tensor, least: float = 1e-9) -> torch.Tensor:
    """(3, N) of length 1; shorter where they were shorter than `least`."""
    return vectors / dot(vectors, vectors).sqrt().clamp_min(least)


def shade(
    texels: torch.Tensor,
    normal: torch.Tensor,
    position: torch.Tensor,
    label: torch.Tensor,
    visibility: torch.Tensor,
    openness: torch.Tensor,
    light: Light,
    distance: float,
) -> torch.Tensor:
    """Linear light (3, N) of samples.

    texels (CHANNELS, N); normal, position (3, N) in view axes; label (N,); visibility (N,) of the key light; openness (N,) of the
    mouth.
    """

    def constant(value) -> torch.Tensor:
        return torch.as_tensor(value, dtype=torch.float32, device=texels.device)[:, None]

    view = unit(constant([0.0, 0.0, distance]) - position)
    facing = dot(normal, view)
    inward = facing < 0  # the inside of hair or cloth
    normal = torch.where(inward, -normal, normal)
    albedo = texels[RGB] * torch.where(inward, 0.45, 1.0)
    under, hairy, cavity = texels[UNDER], texels[HAIRY], texels[CAVITY]
    eye = label == EYE_LABEL
    visibility = torch.where(eye, 0.5 + 0.5 * visibility, visibility)

    # Diffuse: a soft light wraps around the terminator, and subsurface scattering makes it redder.
    toward = light.key_direction.tolist()
    lambert = dot(normal, toward)
    wrap = 0.05 + 0.25 * light.softness + under * constant([0.32, 0.16, 0.12])
    received = ((lambert + wrap) / (1 + wrap)).clamp_min(0) * visibility * constant(light.key)
    if light.fill.any():
        received = received + ((dot(normal, light.fill_direction.tolist()) + 0.3) / 1.3).clamp_min(0) * constant(light.fill)
    up = 0.5 + 0.5 * normal[1]
    received = received + constant(light.ground) + up * constant(light.sky - light.ground)
    dim = 1 - cavity * (1 - openness)

    # Specular: of the key light; on hair across the strands, which run down the head (Kajiya and Kay).
    half = unit(view + constant(light.key_direction))
    peak = dot(normal, half).clamp_min(1e-4)
    plain = texels[SPECULAR] * 0.7 * torch.exp(texels[GLOSS] * 256 * torch.log(peak))
    along = unit(constant([0.0, 1.0, 0.0]) - normal * normal[1], 0.15)
    across = (1 - dot(along, half).square()).clamp_min(0) ** 18
    band = 0.12 * across * (lambert + 0.3).clamp(0, 1) * (0.12 + texels[RGB].mean(0) * 2)
    highlight = torch.where((label == HAIR_LABEL) & (hairy > 0.5), band, plain)
    highlight = highlight * (0.25 + 0.75 * visibility) * torch.where(inward, 0.2, 1.0)
    colour = (albedo * received + highlight * constant(light.key)) * dim
    if light.rim.any():
        glow = (1 - facing.abs()).clamp(0, 1) ** 3 * (dot(normal, light.rim_direction.tolist()) * 0.7 + 0.5).clamp(0, 1)
        colour = colour + glow * (1 - cavity) * torch.where(eye, 0.2, 1.0) * constant(light.rim) * (0.25 + albedo)
    return colour * light.exposure


def tone(linear: torch.Tensor) -> torch.Tensor:
    """Linear light to displayed colours in 0..1: a soft shoulder, then gamma 2.2."""
    return ((1 - torch.exp(-1.15 * linear.clamp_min(0))) / 0.80).clamp(0, 1) ** (1 / 2.2)
