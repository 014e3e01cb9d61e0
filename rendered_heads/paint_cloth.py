"""Clothes painted into the atlas: patterns, and the details of each neckline."""

import torch

from .atlas import mix, texel
from .garments import neckline
from .identity import Clothes, Identity
from .noise import noise, smoothstep


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
        shirt = smoothstep(0.02, -0.02, x.abs() - opening.clamp_min(0)) * (z > 0.2)
        cloth = mix(cloth, (0.75 + 0.2 * third).expand_as(cloth), shirt)
        tie = smoothstep(0.015, -0.015, x.abs() - (0.10 + 0.10 * (5.6 - y).clamp(0, 1))) * shirt
        cloth = mix(cloth, second.expand_as(cloth) * (0.8 + 0.4 * (torch.sin((x + y) * 26) > 0)[:, None]), tie)
        lapel = torch.exp(-(((x.abs() - opening - 0.28) / 0.02) ** 2)) * (z > 0.2) * (y < 5.4)
        cloth = mix(cloth, cloth * 0.45, lapel)
    elif clothes.neckline == "shirt":
        placket = torch.exp(-(((x.abs() - 0.09) / 0.012) ** 2)) * (z > 0.3)
        buttons = smoothstep(0.035, 0.025, (x**2 + ((y % 0.4) - 0.2) ** 2).sqrt()) * (z > 0.3)
        cloth = mix(mix(cloth, cloth * 0.6, placket * 0.7), (0.9 - 0.6 * first).expand_as(cloth), buttons)
    elif clothes.neckline == "hoodie":
        cords = smoothstep(0.03, 0.02, (x.abs() - 0.22).abs()) * (z > 0.3) * (y > 4.7)
        cloth = mix(cloth, (0.85 * third + 0.1).expand_as(cloth), cords)
    hem = smoothstep(0.11, 0.09, inside) * (clothes.neckline not in ("shirt", "jacket"))
    cloth = cloth * (1 + 0.02 * weave) * (1 - 0.3 * hem * (0.7 + 0.3 * torch.sin(x * 60)))[:, None]
    return texel(cloth, specular=0.03, gloss=10)


def pattern(points: torch.Tensor, clothes: Clothes) -> tuple[torch.Tensor, torch.Tensor]:
    """Shares (M,) of the second and the third colour."""
    x, y, z = (points * clothes.scale).unbind(1)
    none = torch.zeros_like(x)

    def bands(value: torch.Tensor, low: float) -> torch.Tensor:
        return smoothstep(low - 0.12, low + 0.12, torch.sin(value))

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
        return smoothstep(0.35, 0.27, (((x * 4) % 1 - 0.5) ** 2 + ((y * 4 + 0.5 * torch.floor(x * 4)) % 1 - 0.5) ** 2).sqrt()), none
    if kind == "floral":
        field = noise(points * clothes.scale, 1.1, clothes.scale)
        return smoothstep(0.5, 0.8, field[:, 0]), smoothstep(1.0, 1.2, field[:, 1])
    if kind == "camouflage":
        field = noise(points * clothes.scale, 0.5, clothes.scale)
        return smoothstep(0.1, 0.2, field[:, 0]), 0.6 * smoothstep(0.5, 0.6, field[:, 1])
    if kind == "knit":
        return 0.6 * bands(y * 55 + 2 * torch.sin(x * 55).abs(), 0.2), none
    if kind == "letters":  # a broad band and a block on the chest
        block = (
            smoothstep(0.32, 0.30, x.abs()) * smoothstep(0.22, 0.20, (points[:, 1] - 4.75).abs()) * bands(x * 30, -0.2) * (z > 0)
        )
        return block, smoothstep(0.10, 0.09, (points[:, 1] - 4.3).abs())
    return none, none
