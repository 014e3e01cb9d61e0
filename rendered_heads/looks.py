"""Drawing styles of a rendered head, as functions of its layers. Nothing in them depends on the frame's number."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

LOOKS = ("photo", "cel", "comic", "pencil", "charcoal", "watercolour", "oil", "pastel")
GREY = (0.30, 0.59, 0.11)


@dataclass(frozen=True)
class Layers:
    """The layers of T frames, (T, channels, S, S)."""

    picture: torch.Tensor  # (T, 3) displayed colours in 0..1
    albedo: torch.Tensor  # (T, 3) displayed colours without light
    normal: torch.Tensor  # (T, 3) view axes, 0 on the background
    depth: torch.Tensor  # (T, 1) dm toward the camera, 0 on the background
    segment: torch.Tensor  # (T, 1)
    paper: torch.Tensor  # (1, 2) noise in 0..1, fine and coarse; the same in every frame


def stylise(look: str, layers: Layers) -> torch.Tensor:
    """(T, 3, S, S) in 0..1."""
    if look == "photo":
        return layers.picture
    functions = {
        "cel": cel,
        "comic": comic,
        "pencil": pencil,
        "charcoal": charcoal,
        "watercolour": watercolour,
        "oil": oil,
        "pastel": pastel,
    }
    return functions[look](layers).clamp(0, 1)


def grey(picture: torch.Tensor) -> torch.Tensor:
    weights = torch.tensor(GREY, device=picture.device)[None, :, None, None]
    return (picture * weights).sum(1, keepdim=True)


def smooth(picture: torch.Tensor, radius: int) -> torch.Tensor:
    """A box filter, applied twice."""
    for _ in range(2):
        padded = F.pad(picture, (radius,) * 4, mode="replicate")
        picture = F.avg_pool2d(padded, 2 * radius + 1, 1)
    return picture


def gradient(picture: torch.Tensor) -> torch.Tensor:
    """Magnitude of the Sobel gradient (T, 1, S, S), the largest over the channels."""
    p = F.pad(picture, (1,) * 4, mode="replicate")
    across = p[..., :, 2:] - p[..., :, :-2]  # (T, C, S + 2, S)
    down = p[..., 2:, :] - p[..., :-2, :]
    across = (across[..., :-2, :] + 2 * across[..., 1:-1, :] + across[..., 2:, :]) / 4
    down = (down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:]) / 4
    return (across**2 + down**2).sqrt().amax(1, keepdim=True)


def ramp(x: torch.Tensor, low: float, high: float) -> torch.Tensor:
    return ((x - low) / (high - low)).clamp(0, 1)


def outlines(layers: Layers) -> torch.Tensor:
    """1 on contours, creases, and the texture edges of eyes, brows and lips."""
    contour = ramp(gradient(layers.depth), 0.12, 0.35)
    crease = ramp(gradient(layers.normal), 0.45, 1.1)
    drawn = ramp(gradient(layers.albedo), 0.22, 0.5) * (layers.segment > 0)
    return torch.maximum(torch.maximum(contour, 0.55 * crease), drawn).clamp(0, 1)


def lightness(layers: Layers) -> torch.Tensor:
    """How strongly each pixel is lit (T, 1, S, S), about 1."""
    return grey(layers.picture) / grey(layers.albedo).clamp_min(0.03)


def cel(layers: Layers) -> torch.Tensor:
    light = smooth(lightness(layers), 1)
    bands = 0.62 + 0.30 * ramp(light, 0.58, 0.66) + 0.14 * ramp(light, 1.05, 1.12)
    flat = (layers.albedo * bands) ** 0.92
    flat = torch.where(layers.segment > 0, flat, smooth(layers.picture, 2))
    return flat * (1 - 0.85 * outlines(layers))


def comic(layers: Layers) -> torch.Tensor:
    size = layers.picture.shape[-1]
    line = torch.arange(size, device=layers.picture.device) * (256 / size)
    dots = torch.sin((line[None] + line[:, None]) * 1.1) * torch.sin((line[None] - line[:, None]) * 1.1)
    flat = smooth(layers.picture, 1)
    levels = flat + (torch.round(grey(flat) * 6) / 6 - grey(flat))
    vivid = grey(levels) + 1.25 * (levels - grey(levels))
    light = lightness(layers)
    shade = ramp(0.75 - light, 0.0, 0.5) * (layers.segment > 0)
    ink = torch.maximum(ramp(outlines(layers), 0.2, 0.5), (dots > 1 - 1.5 * shade).float() * (shade > 0.02) * 0.6)
    return vivid * (1 - ink)


def pencil(layers: Layers) -> torch.Tensor:
    tone = grey(layers.picture)
    size = tone.shape[-1]
    line = torch.arange(size, device=tone.device) * (256 / size)
    jitter = layers.paper[:, 1:] * 6
    first = torch.sin((line[None] + line[:, None]) * 1.35 + jitter) * 0.5 + 0.5
    second = torch.sin((line[None] - 0.6 * line[:, None]) * 1.5 - jitter) * 0.5 + 0.5
    hatch = ramp(0.72 - tone, 0, 0.5) * first + ramp(0.42 - tone, 0, 0.35) * second
    edges = torch.maximum(outlines(layers), ramp(gradient(tone), 0.06, 0.30))
    paper = 0.96 - 0.05 * layers.paper[:, :1]
    drawing = paper * (1 - 0.75 * edges) * (1 - 0.55 * hatch.clamp(0, 1)) * (0.80 + 0.20 * ramp(tone, 0.0, 0.6))
    return drawing.expand(-1, 3, -1, -1)


def charcoal(layers: Layers) -> torch.Tensor:
    tone = grey(layers.picture)
    grain = layers.paper[:, :1] - 0.5
    rubbed = ramp(smooth(tone, 1) + 0.16 * grain, 0.0, 0.85) ** 0.8
    lines = ramp(gradient(tone) + 0.10 * grain, 0.05, 0.28)
    edges = torch.maximum(ramp(smooth(outlines(layers), 1), 0.05, 0.5), lines)
    tint = torch.tensor([0.95, 0.93, 0.88], device=tone.device)[None, :, None, None]
    return tint * (rubbed * 0.9 + 0.06) * (1 - 0.75 * edges)


def watercolour(layers: Layers) -> torch.Tensor:
    wash = kuwahara(layers.picture, 3)
    wash = grey(wash) + 1.25 * (wash - grey(wash))
    pigment = 1 + 0.22 * (layers.paper[:, 1:] - 0.5) + 0.10 * (layers.paper[:, :1] - 0.5)
    rim = ramp(gradient(smooth(layers.picture, 1)), 0.10, 0.5)
    light = 1 - (1 - wash) * 0.85 * pigment
    return light * (1 - 0.28 * rim) * (1 - 0.25 * outlines(layers))


def oil(layers: Layers) -> torch.Tensor:
    stroke = kuwahara(layers.picture, 3)
    vivid = grey(stroke) + 1.2 * (stroke - grey(stroke))
    relief = grey(stroke) + 0.20 * layers.paper[:, :1]
    emboss = F.pad(relief[..., 1:, 1:] - relief[..., :-1, :-1], (1, 0, 1, 0))
    return vivid + 0.30 * emboss


def pastel(layers: Layers) -> torch.Tensor:
    soft = 0.6 * kuwahara(layers.picture, 2) + 0.4 * layers.picture
    grain = (layers.paper[:, :1] - 0.5) * 0.12
    return (0.10 + 0.88 * soft**0.85 + grain * ramp(1 - soft, 0.0, 0.5)) * (1 - 0.35 * outlines(layers))


def kuwahara(picture: torch.Tensor, radius: int) -> torch.Tensor:
    """Kuwahara filter: the mean of whichever of the four quadrants around a pixel varies least; flat strokes with sharp edges."""
    side = radius + 1
    padded = F.pad(picture, (radius,) * 4, mode="replicate")
    mean = F.avg_pool2d(padded, side, 1)  # (T, 3, S + radius, S + radius)
    variance = (F.avg_pool2d(padded**2, side, 1) - mean**2).sum(1, keepdim=True)
    size = picture.shape[-1]
    corners = [(0, 0), (0, radius), (radius, 0), (radius, radius)]
    means = torch.stack([mean[..., y : y + size, x : x + size] for y, x in corners])
    variances = torch.stack([variance[..., y : y + size, x : x + size] for y, x in corners])
    weights = (1e-4 / (variances + 1e-4)) ** 4
    return (means * weights).sum(0) / weights.sum(0).clamp_min(1e-12)
