"""Light on the visible samples: a key light with a shadow map, a fill, a rim, sky and ground; skin, hair and eyes shine differently."""

import torch
import torch.nn.functional as F

from .figure import EYE_LABEL, HAIR_LABEL, Figure
from .identity import Light
from .noise import step
from .paint import CAVITY, GLOSS, HAIRY, RGB, SPECULAR, UNDER
from .raster import rasterize

SHADOW_SIZE = 192           # px of the shadow map
SHADOW_REACH = 1.5          # its width over the frame's
SHADOW_BIAS = (0.07, 0.15)  # dm: no shadow below, full shadow above
SHADOW_FAR = 30.0           # dm
TAPS = ((0.0, 0.0), (1.0, 0.4), (-1.0, -0.4), (0.4, -1.0), (-0.4, 1.0))


def shadow_maps(figure: Figure, points: torch.Tensor, toward: torch.Tensor, frame: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Depth toward the light (T, R, R), 0 where nothing is; and the map's axes (3, 3). points (T, C, 3) in view axes."""
    up = torch.tensor([0.0, 1.0, 0.0], device=toward.device)
    right = F.normalize(torch.linalg.cross(up, toward), dim=0)
    axes = torch.stack([right, torch.linalg.cross(toward, right), toward])
    scale = SHADOW_SIZE / (frame * SHADOW_REACH)
    x, y, z = (points @ axes.T).unbind(-1)
    flat = torch.stack([SHADOW_SIZE / 2 + scale * x, SHADOW_SIZE / 2 - scale * y, SHADOW_FAR + z], -1)
    faces = figure.faces[figure.shades]
    both = torch.ones(len(faces), dtype=torch.bool, device=points.device)
    return rasterize(flat, faces, both, SHADOW_SIZE, SHADOW_SIZE, figure.keep)[1], axes


def lit(maps: torch.Tensor, axes: torch.Tensor, place: torch.Tensor, frame_of: torch.Tensor, frame: float, softness: float) -> torch.Tensor:
    """How much of the key light reaches samples (N,) at place (N, 3) of frames (N,)."""
    scale = SHADOW_SIZE / (frame * SHADOW_REACH)
    x, y, z = (place @ axes.T).unbind(-1)
    column, row, depth = SHADOW_SIZE / 2 + scale * x, SHADOW_SIZE / 2 - scale * y, SHADOW_FAR + z
    table, start = maps.reshape(-1), frame_of * SHADOW_SIZE ** 2
    spread, total = 0.9 + 2.2 * softness, 0
    for across, down in TAPS:
        c, r = (column + across * spread).long(), (row + down * spread).long()
        index = start + r.clamp(0, SHADOW_SIZE - 1) * SHADOW_SIZE + c.clamp(0, SHADOW_SIZE - 1)
        total = total + step(SHADOW_BIAS[1], SHADOW_BIAS[0], table[index] - depth)
    return total / len(TAPS)


def shade(texels: torch.Tensor, normal: torch.Tensor, place: torch.Tensor, label: torch.Tensor, reached: torch.Tensor,
          openness: torch.Tensor, light: Light, distance: float) -> torch.Tensor:
    """Linear light (N, 3) of samples.

    texels (N, CHANNELS); normal, place (N, 3) in view axes; label (N,); reached (N,) of the key light; openness (N,) of the mouth.
    """
    def constant(value) -> torch.Tensor:
        return torch.as_tensor(value, dtype=torch.float32, device=texels.device)

    view = F.normalize(constant([0.0, 0.0, distance]) - place, dim=1)
    facing = (normal * view).sum(1)
    inward = facing < 0                                                                 # the far side of hair or cloth
    normal = torch.where(inward[:, None], -normal, normal)
    facing = facing.abs()
    albedo = texels[:, RGB] * torch.where(inward, 0.45, 1.0)[:, None]
    under, hairy, cavity = texels[:, UNDER], texels[:, HAIRY], texels[:, CAVITY]
    shine = hairy * (label == HAIR_LABEL)
    eye = label == EYE_LABEL
    reached = torch.where(eye, 0.5 + 0.5 * reached, reached)

    # Diffuse: light wraps round a soft lamp's terminator, and goes redder under the skin.
    key_direction = constant(light.key_direction)
    lambert = normal @ key_direction
    wrap = 0.05 + 0.25 * light.softness + under[:, None] * constant([0.32, 0.16, 0.12])
    key = ((lambert[:, None] + wrap) / (1 + wrap)).clamp_min(0) * reached[:, None] * constant(light.key)
    fill = ((normal @ constant(light.fill_direction) + 0.3) / 1.3).clamp_min(0)[:, None] * constant(light.fill)
    up = 0.5 + 0.5 * normal[:, 1:2]
    ambient = constant(light.sky) * up + constant(light.ground) * (1 - up)
    dim = 1 - cavity * (1 - openness)
    diffuse = albedo * (key + fill + ambient) * dim[:, None]

    # Highlights of the key light; on hair across the strands, which run down the head.
    half = F.normalize(view + key_direction, dim=1)
    peak = (normal * half).sum(1).clamp_min(0)
    gloss = texels[:, GLOSS] * 256
    plain = texels[:, SPECULAR] * 0.7 * torch.exp(gloss * torch.log(peak.clamp_min(1e-4)))
    along = constant([0.0, 1.0, 0.0]) - normal * normal[:, 1:2]
    along = along / along.norm(dim=1, keepdim=True).clamp_min(0.15)
    across = (1 - (along * half).sum(1) ** 2).clamp_min(0) ** 18
    band = 0.12 * across * (lambert + 0.3).clamp(0, 1) * (0.4 + texels[:, RGB].mean(1) * 2)
    highlight = torch.where(shine > 0.5, band, plain) * (0.25 + 0.75 * reached) * torch.where(inward, 0.2, 1.0) * dim
    glow = (1 - facing).clamp(0, 1) ** 3 * ((normal @ constant(light.rim_direction)) * 0.7 + 0.5).clamp(0, 1)
    rim = (glow * (1 - cavity))[:, None] * constant(light.rim) * (0.25 + albedo)
    return (diffuse + highlight[:, None] * constant(light.key) + rim * (1 - 0.8 * eye.float())[:, None]) * light.exposure


def tone(linear: torch.Tensor) -> torch.Tensor:
    """Linear light to displayed colours in 0..1: a soft shoulder, then gamma 2.2."""
    return ((1 - torch.exp(-1.15 * linear.clamp_min(0))) / 0.80).clamp(0, 1) ** (1 / 2.2)
