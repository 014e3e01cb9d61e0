"""The motion mapping network: a map of the frame's size -> a motion latent of the size of the frame's latent."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from ..motion_map import MotionMaps, first_convolution

CPU_FRAMES = 2  # frames at once on a CPU: the activations take a hundred times the memory of a latent
GPU_VALUES = 2**28  # values of dense maps at once on a GPU: 128 frames of MINI, 4 of PAPER


class MotionMapper(nn.Sequential):
    """Paper: "3 convolutional layers with a stride of 2, supporting 8x downsampling". Our choice: kernel 3, SiLU in between."""

    def __init__(self, channels: int, widths: tuple[int, int], out: int, *, operations, dtype=None, device=None):
        def conv(a: int, b: int) -> nn.Module:
            return operations.Conv2d(a, b, 3, stride=2, padding=1, dtype=dtype, device=device)

        super().__init__(conv(channels, widths[0]), nn.SiLU(), conv(*widths), nn.SiLU(), conv(widths[1], out))

    @torch.no_grad()
    def initialize(self) -> None:
        """Kaiming, which keeps the map's scale through two SiLU; not zero, since before_proj is."""
        for i in (0, 2, 4):
            nn.init.kaiming_normal_(self[i].weight, nonlinearity="relu")
            nn.init.zeros_(self[i].bias)

    def forward(self, maps: MotionMaps | Tensor) -> Tensor:
        """Maps of L frames, lazy or dense (L, channels, H, W) -> (L, out, H / 8, W / 8)."""
        shape, channels = (maps if isinstance(maps, Tensor) else maps.f).shape, self[0].in_channels
        if len(shape) != 4 or shape[1] != channels:
            raise InputError(
                f"The motion maps are {tuple(shape)}; these weights read (L, {channels}, height, width). Use the Face Vid2vid "
                "that belongs to them."
            )
        height, width = maps.shape[2:] if isinstance(maps, Tensor) else (maps.height, maps.width)
        on_cpu = self[0].weight.device.type == "cpu"
        chunk = CPU_FRAMES if on_cpu else max(CPU_FRAMES, GPU_VALUES // (channels * height * width))
        return torch.cat([self.latents(maps[i : i + chunk]) for i in range(0, len(maps), chunk)])

    def latents(self, maps: MotionMaps | Tensor) -> Tensor:
        """forward for all frames at once."""
        if isinstance(maps, Tensor):
            x = self[0](maps)
        else:
            x = first_convolution(maps, self[0].weight.to(maps.f), self[0].bias.to(maps.f))
        return self[4](F.silu(self[2](F.silu(x))))  # (L, out, H / 8, W / 8)
