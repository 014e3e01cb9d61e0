"""F, the appearance feature extractor: from a face crop to the feature volume f_r."""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from ..config import Vid2VidConfig
from .blocks import ConvNorm, check_crop


class ResBlock3d(nn.Module):
    """Pre-activation residual block of two 3x3x3 convolutions."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv3d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv3d(channels, channels, 3, padding=1)
        self.norm1 = nn.BatchNorm3d(channels)
        self.norm2 = nn.BatchNorm3d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.conv1(F.relu(self.norm1(x), inplace=True))
        h = self.conv2(F.relu(self.norm2(h), inplace=True))
        return h.add_(x)


class AppearanceExtractor(nn.Module):
    """F: (B, 3, S, S) in [0, 1] -> f_r (B, C, D, h, w), h = w = S / 2^appearance_down.

    Layers and names as LivePortrait publishes them. Channel numbers in comments are PAPER's.
    """

    def __init__(self, cfg: Vid2VidConfig):
        super().__init__()
        self.cfg = cfg
        flat = cfg.reshape_channel * cfg.reshape_depth
        widths = [min(flat, cfg.appearance_width * 2**i) for i in range(cfg.appearance_down + 1)]
        self.first = ConvNorm(2, 3, cfg.appearance_width)
        self.down_blocks = nn.ModuleList(ConvNorm(2, a, b) for a, b in zip(widths, widths[1:]))
        self.second = nn.Conv2d(widths[-1], flat, 1)
        self.resblocks_3d = nn.Sequential(
            OrderedDict((f"3dr{i}", ResBlock3d(cfg.reshape_channel)) for i in range(cfg.appearance_resblocks))
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        check_crop(image, self.cfg.crop_size)
        x = self.first(image)  # (B, 64, S, S)
        for block in self.down_blocks:
            x = F.avg_pool2d(block(x), 2)  # (B, 256, h, w)
        x = self.second(x)  # (B, C D, h, w)
        volume = rearrange(x, "b (c d) h w -> b c d h w", c=self.cfg.reshape_channel)
        return self.resblocks_3d(volume)  # (B, C, D, h, w)
