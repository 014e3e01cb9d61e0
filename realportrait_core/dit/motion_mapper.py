"""The motion mapping network: a map of the frame's size -> a motion latent of the size of the frame's latent."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from ..motion_map import MotionMaps, first_convolution

AT_ONCE = 2             # frames: what a map becomes on its way takes a hundred times the memory of its latent


class MotionMapper(nn.Sequential):
    """"3 convolutional layers with a stride of 2, supporting 8x downsampling"; kernel 3, SiLU between: our choice."""

    def __init__(self, channels: int, widths: tuple[int, int], out: int, *, operations, dtype=None, device=None):
        def down(a: int, b: int) -> nn.Module:
            return operations.Conv2d(a, b, kernel_size=3, stride=2, padding=1, dtype=dtype, device=device)

        super().__init__(down(channels, widths[0]), nn.SiLU(), down(*widths), nn.SiLU(), down(widths[1], out))

    @torch.no_grad()
    def initialize(self) -> None:
        """Kaiming, so that the latent keeps the map's scale through two SiLU; not zero, before_proj already is."""
        for i in (0, 2, 4):
            nn.init.kaiming_normal_(self[i].weight, nonlinearity="relu")
            nn.init.zeros_(self[i].bias)

    def forward(self, maps: MotionMaps | Tensor) -> Tensor:
        """Maps of L frames, lazy or dense (L, channels, H, W) -> (L, out, H / 8, W / 8)."""
        given, wanted = (maps if isinstance(maps, Tensor) else maps.f).shape, self[0].in_channels
        if len(given) != 4 or given[1] != wanted:
            raise InputError(
                f"The motion maps are {tuple(given)}; these weights read (L, {wanted}, height, width). Use the Face Vid2vid "
                "that belongs to them."
            )
        return torch.cat([self.latent(maps[i:i + AT_ONCE]) for i in range(0, len(maps), AT_ONCE)])

    def latent(self, maps: MotionMaps | Tensor) -> Tensor:
        """forward, of all frames at once."""
        if isinstance(maps, Tensor):
            x = self[0](maps)
        else:
            x = first_convolution(maps, self[0].weight.to(maps.f), self[0].bias.to(maps.f))
        return self[4](F.silu(self[2](F.silu(x))))                          # (L, out, H / 8, W / 8)
