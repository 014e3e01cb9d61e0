"""Sampling of pictures and fields at positions in px. Pixel (0, 0) has its centre at (0, 0)."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def pixels(height: int, width: int, device: torch.device, step: int = 1) -> Tensor:
    """The centres (2, height, width), x then y, of cells of `step` px a side, in px of the whole picture."""
    y, x = (step * torch.arange(n, device=device, dtype=torch.float32) + (step - 1) / 2 for n in (height, width))
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)])


def sample(
    image: Tensor,
    places: Tensor,
    side: int,
    mode: Literal["bilinear", "bicubic"] = "bilinear",
    padding: Literal["border", "reflection"] = "border",
) -> Tensor:
    """image (B, C, h, w) at places (B, 2, H, W), x then y in px of a picture of `side` px, whatever h and w are."""
    grid = (2 * places + 1) / side - 1
    return F.grid_sample(image, grid.permute(0, 2, 3, 1), mode, padding, align_corners=False)


def at_points(field: Tensor, points: Tensor, side: int) -> Tensor:
    """field (B, C, h, w) at points (B, P, 2) in px of a picture of `side` px, bilinear: (B, P, C)."""
    return sample(field, points.mT[:, :, :, None], side)[..., 0].mT


def blur(image: Tensor, sigma: float) -> Tensor:
    """A Gaussian blur of image (B, C, h, w), sigma in px of the image, zeros beyond its border.

    kornia's gaussian_blur2d differs by 4e-7; `train.mini gpu` runs where it is not installed.
    """
    reach = round(3 * sigma)
    x = torch.arange(-reach, reach + 1, device=image.device, dtype=image.dtype)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(image.shape[1], 1, -1)
    image = F.conv2d(image, kernel[:, :, :, None], padding=(reach, 0), groups=image.shape[1])
    return F.conv2d(image, kernel[:, :, None], padding=(0, reach), groups=image.shape[1])


def smoothstep(x: Tensor) -> Tensor:
    """0 below 0, 1 above 1, with a continuous derivative."""
    x = x.clamp(0, 1)
    return x * x * (3 - 2 * x)
