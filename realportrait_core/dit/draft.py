"""A draft of every frame, by convolutions, before the backbone begins: motion latents that have seen the portrait. Not in the
paper.

The motion mapper sees f_{r->d} alone, inside the facial mask. What surrounds the face (hair, shoulders, the background they
uncover) the backbone must find in the portrait by attention, which small networks take long to learn. Convolutions learn it in
a fraction of that time, and run once per clip where the backbone runs in every step.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FIELDS = 2  # ways in which a place may be carried from the portrait to the frame: the head, and what is behind it


class ResidualBlock(nn.Module):
    """x + conv(SiLU(conv(SiLU(x)))), (L, C, h, w)."""

    def __init__(self, channels: int, conv):
        super().__init__()
        self.conv1, self.conv2 = conv(channels, channels), conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.conv1(F.silu(x))))


class Draft(nn.Module):
    """A U-Net over the latent's size, its half and its quarter, which also carries the portrait along fields that it finds."""

    def __init__(self, motion: int, latent: int, widths: tuple[int, int, int], *, operations, dtype=None, device=None):
        def conv(a: int, b: int, stride: int = 1, kernel: int = 3) -> nn.Module:
            return operations.Conv2d(a, b, kernel, stride=stride, padding=kernel // 2, dtype=dtype, device=device)

        super().__init__()
        fine, middle, coarse = widths
        still = latent + motion
        self.enter, self.fine_in = conv(motion + still, fine), ResidualBlock(fine, conv)
        self.halve, self.middle_in = conv(fine, middle, 2), ResidualBlock(middle, conv)
        self.quarter = conv(middle, coarse, 2)
        self.coarse = nn.Sequential(ResidualBlock(coarse, conv), ResidualBlock(coarse, conv))
        self.from_coarse, self.middle_out = conv(coarse, middle, kernel=1), ResidualBlock(middle, conv)
        self.from_middle, self.fine_out = conv(middle, fine, kernel=1), ResidualBlock(fine, conv)
        self.fields = conv(middle, 2 * FIELDS, kernel=1)
        self.carried, self.last = conv(FIELDS * still, fine), ResidualBlock(fine, conv)
        self.leave = conv(fine + FIELDS * still, motion, kernel=1)

    @torch.no_grad()
    def initialize(self) -> None:
        """It starts as the identity, with the portrait where it is."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
                nn.init.zeros_(module.bias)
        for layer in (self.fields, self.leave, *(m.conv2 for m in self.modules() if isinstance(m, ResidualBlock))):
            nn.init.zeros_(layer.weight)

    def forward(self, m: Tensor, still: Tensor) -> Tensor:
        """Motion latents m (F, motion, h, w) and, of R portraits, z_r with their own motion latents, still (R, latent + motion,
        h, w) -> (F, motion, h, w). R divides F: each portrait serves F / R frames in a row."""
        still = still.repeat_interleave(len(m) // len(still), 0)  # (F, latent + motion, h, w)
        fine = self.fine_in(self.enter(torch.cat([m, still], 1)))
        middle = self.middle_in(self.halve(F.silu(fine)))
        coarse = self.coarse(self.quarter(F.silu(middle)))
        middle = self.middle_out(middle + enlarge(self.from_coarse(coarse), middle))
        fine = self.fine_out(fine + enlarge(self.from_middle(middle), fine))
        moved = carry(still, enlarge(self.fields(F.silu(middle)), fine)).to(fine.dtype)  # (F, FIELDS (latent + motion), h, w)
        fine = self.last(fine + self.carried(moved))
        return m + self.leave(torch.cat([F.silu(fine), moved], 1))


def enlarge(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear")


def carry(still: Tensor, fields: Tensor) -> Tensor:
    """still (F, c, h, w) fetched from places `fields` (F, 2 n, h, w) away, x and y, 1 being half a side: (F, n c, h, w)."""
    h, w = still.shape[-2:]
    x, y = ((2 * torch.arange(n, device=still.device, dtype=torch.float32) + 1) / n - 1 for n in (w, h))
    here = torch.stack([x.expand(h, w), y[:, None].expand(h, w)], -1)  # (h, w, 2)
    away = fields.float().unflatten(1, (-1, 2)).permute(1, 0, 3, 4, 2)  # (n, F, h, w, 2)
    return torch.cat([F.grid_sample(still.float(), here + field, padding_mode="border", align_corners=False) for field in away], 1)
