"""A draft of every frame by convolutions, part of MINI's conditioner: motion latents computed from the portrait too.

The motion mapper receives only f_{r->d}, inside the facial mask. For what surrounds the face (hair, shoulders, the background they
uncover) the backbone has to attend to the portrait, which small networks take long to learn. Convolutions learn it in a fraction of
that time, and run once per clip, not at every step.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FIELDS = 2  # displacement fields by which the portrait is warped: one for the head, one for what is behind it


class ResidualBlock(nn.Module):
    """x + conv(SiLU(conv(SiLU(x)))), (L, C, h, w)."""

    def __init__(self, channels: int, conv):
        super().__init__()
        self.conv1, self.conv2 = conv(channels, channels), conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.conv1(F.silu(x))))


class Draft(nn.Module):
    """A U-Net at the latent's size, its half and its quarter; it predicts displacement fields and warps the portrait by them."""

    def __init__(self, motion: int, latent: int, widths: tuple[int, int, int], *, operations, dtype=None, device=None):
        def conv(a: int, b: int, stride: int = 1, kernel: int = 3) -> nn.Module:
            return operations.Conv2d(a, b, kernel, stride=stride, padding=kernel // 2, dtype=dtype, device=device)

        super().__init__()
        fine, middle, coarse = widths
        reference = latent + motion
        self.enter, self.fine_in = conv(motion + reference, fine), ResidualBlock(fine, conv)
        self.halve, self.middle_in = conv(fine, middle, 2), ResidualBlock(middle, conv)
        self.quarter = conv(middle, coarse, 2)
        self.coarse = nn.Sequential(ResidualBlock(coarse, conv), ResidualBlock(coarse, conv))
        self.from_coarse, self.middle_out = conv(coarse, middle, kernel=1), ResidualBlock(middle, conv)
        self.from_middle, self.fine_out = conv(middle, fine, kernel=1), ResidualBlock(fine, conv)
        self.fields = conv(middle, 2 * FIELDS, kernel=1)
        self.carried, self.last = conv(FIELDS * reference, fine), ResidualBlock(fine, conv)
        self.leave = conv(fine + FIELDS * reference, motion, kernel=1)

    @torch.no_grad()
    def initialize(self) -> None:
        """The identity, with displacements of zero."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
                nn.init.zeros_(module.bias)
        for layer in (self.fields, self.leave, *(m.conv2 for m in self.modules() if isinstance(m, ResidualBlock))):
            nn.init.zeros_(layer.weight)

    def forward(self, v: Tensor, reference_features: Tensor) -> Tensor:
        """Motion latents v (F, motion, h, w), features of R portraits (R, latent + motion, h, w) -> (F, motion, h, w).

        The features are z_r with the portraits' own motion latents. R divides F: each portrait serves F / R frames in a row.
        """
        reference = reference_features.repeat_interleave(len(v) // len(reference_features), 0)  # (F, latent + motion, h, w)
        fine = self.fine_in(self.enter(torch.cat([v, reference], 1)))  # (F, fine, h, w)
        middle = self.middle_in(self.halve(F.silu(fine)))  # (F, middle, h / 2, w / 2)
        coarse = self.coarse(self.quarter(F.silu(middle)))  # (F, coarse, h / 4, w / 4)
        middle = self.middle_out(middle + upsample(self.from_coarse(coarse), middle))  # (F, middle, h / 2, w / 2)
        fine = self.fine_out(fine + upsample(self.from_middle(middle), fine))  # (F, fine, h, w)
        fields = upsample(self.fields(F.silu(middle)), fine)  # (F, 2 FIELDS, h, w)
        warped = warp(reference, fields).to(fine.dtype)  # (F, FIELDS (latent + motion), h, w)
        fine = self.last(fine + self.carried(warped))  # (F, fine, h, w)
        return v + self.leave(torch.cat([F.silu(fine), warped], 1))  # (F, motion, h, w)


def upsample(x: Tensor, like: Tensor) -> Tensor:
    """Bilinear, to the height and width of `like`."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear")


def warp(x: Tensor, fields: Tensor) -> Tensor:
    """x (F, c, h, w) sampled at displacements `fields` (F, 2 n, h, w), x and y, in half sides -> (F, n c, h, w)."""
    h, w = x.shape[-2:]
    across, down = ((2 * torch.arange(n, device=x.device, dtype=torch.float32) + 1) / n - 1 for n in (w, h))
    grid = torch.stack([across.expand(h, w), down[:, None].expand(h, w)], -1)  # (h, w, 2)
    displacements = fields.float().unflatten(1, (-1, 2)).permute(1, 0, 3, 4, 2)  # (n, F, h, w, 2)
    return torch.cat([F.grid_sample(x.float(), grid + d, padding_mode="border", align_corners=False) for d in displacements], 1)
