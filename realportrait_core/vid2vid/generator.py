"""G, the generator: a SPADE decoder (Park et al. 2019) of f_{r->d}. Only evaluation and training need it."""

import torch
import torch.nn.functional as F
from torch import nn

from ..config import Vid2VidConfig
from ..errors import InputError
from .upsampled import convolve_upsampled

SLOPE = 0.2


class SPADE(nn.Module):
    """Instance norm whose gain and bias at each pixel are predicted from the feature map."""

    def __init__(self, channels: int, label_channels: int, hidden: int):
        super().__init__()
        self.mlp_shared = nn.Sequential(nn.Conv2d(label_channels, hidden, 3, padding=1), nn.ReLU())
        self.mlp_gamma = nn.Conv2d(hidden, channels, 3, padding=1)
        self.mlp_beta = nn.Conv2d(hidden, channels, 3, padding=1)

    def forward(self, x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        h = self.hidden(label, x.shape[2:])
        return torch.addcmul(self.mlp_beta(h), F.instance_norm(x), self.mlp_gamma(h).add_(1))

    def hidden(self, label: torch.Tensor, size: torch.Size) -> torch.Tensor:
        """mlp_shared of the label at `size`: its own, or a power of two times that."""
        if label.shape[2:] == size:
            return self.mlp_shared(label)
        half = F.interpolate(label, size=tuple(n // 2 for n in size))
        return F.relu(convolve_upsampled(self.mlp_shared[0], half), inplace=True)


class SPADEResBlock(nn.Module):
    """Two normalised convolutions; a third one on the shortcut where the width changes."""

    def __init__(self, in_channels: int, out_channels: int, label_channels: int, hidden: int):
        super().__init__()
        middle = min(in_channels, out_channels)
        self.conv_0 = nn.Conv2d(in_channels, middle, 3, padding=1)
        self.conv_1 = nn.Conv2d(middle, out_channels, 3, padding=1)
        self.norm_0 = SPADE(in_channels, label_channels, hidden)
        self.norm_1 = SPADE(middle, label_channels, hidden)
        self.changes_width = in_channels != out_channels
        if self.changes_width:
            self.conv_s = nn.Conv2d(in_channels, out_channels, 1, bias=False)
            self.norm_s = SPADE(in_channels, label_channels, hidden)

    def forward(self, x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        shortcut = self.conv_s(self.norm_s(x, label)) if self.changes_width else x
        h = self.conv_0(F.leaky_relu(self.norm_0(x, label), SLOPE, inplace=True))
        h = self.conv_1(F.leaky_relu(self.norm_1(h, label), SLOPE, inplace=True))
        return h.add_(shortcut)


class Generator(nn.Module):
    """G: f_{r->d} (B, Cw, h, w) -> picture (B, 3, 4h * upscale, 4w * upscale) in [0, 1].

    Public files keep spectral norm as weight_orig, weight_u, weight_v; the loader fuses the three into the plain
    weights here, which is exact. Channel numbers in comments are PAPER's.
    """

    def __init__(self, cfg: Vid2VidConfig):
        super().__init__()
        self.cfg = cfg
        label, hidden = cfg.warped_channels, cfg.spade_hidden
        width = 2 * label
        self.fc = nn.Conv2d(label, width, 3, padding=1)
        self.middle_names = [f"G_middle_{i}" for i in range(cfg.generator_blocks)]
        for name in self.middle_names:
            self.add_module(name, SPADEResBlock(width, width, label, hidden))
        self.up_0 = SPADEResBlock(width, width // 2, label, hidden)
        self.up_1 = SPADEResBlock(width // 2, cfg.generator_out, label, hidden)
        if cfg.upscale > 1:
            to_pixels = nn.Conv2d(cfg.generator_out, 3 * cfg.upscale**2, 3, padding=1)
            self.conv_img: nn.Module = nn.Sequential(to_pixels, nn.PixelShuffle(cfg.upscale))
        else:
            self.conv_img = nn.Conv2d(cfg.generator_out, 3, 3, padding=1)

    def forward(self, f: torch.Tensor) -> torch.Tensor:
        if f.ndim != 4 or f.shape[1] != self.cfg.warped_channels:
            raise InputError(f"The feature has the shape {tuple(f.shape)}; it must be (B, {self.cfg.warped_channels}, h, w).")
        x = self.fc(f)  # (B, 512, h, w)
        for name in self.middle_names:
            x = getattr(self, name)(x, f)
        x = self.up_0(F.interpolate(x, scale_factor=2), f)  # (B, 256, 2h, 2w)
        x = self.up_1(F.interpolate(x, scale_factor=2), f)  # (B, 64, 4h, 4w)
        return torch.sigmoid(self.conv_img(F.leaky_relu(x, SLOPE)))  # (B, 3, H, W)
