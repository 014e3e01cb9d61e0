"""Building blocks of F and W: convolution, batch norm and ReLU in two or three dimensions."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..errors import InputError

CONVOLUTION = {2: nn.Conv2d, 3: nn.Conv3d}
BATCH_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def check_crop(image: torch.Tensor, size: int) -> None:
    """Raises InputError for anything but face crops (B, 3, size, size)."""
    if image.ndim != 4 or tuple(image.shape[1:]) != (3, size, size):
        raise InputError(f"The face crop has the shape {tuple(image.shape)}; it must be (B, 3, {size}, {size}).")


class ConvNorm(nn.Module):
    """relu(norm(conv(x))) at the input's size. The third convolution of W is followed by a leaky ReLU."""

    def __init__(self, dims: int, in_channels: int, out_channels: int, kernel: int = 3, slope: float = 0.0):
        super().__init__()
        self.conv = CONVOLUTION[dims](in_channels, out_channels, kernel, padding=kernel // 2)
        self.norm = BATCH_NORM[dims](out_channels)
        self.slope = slope

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.leaky_relu(self.norm(self.conv(x)), self.slope) if self.slope else F.relu(self.norm(self.conv(x)))


def fold_norms(network: nn.Module) -> nn.Module:
    """Folds batch norms into the convolutions right before them, in place; in a frozen network each is affine per channel.

    The results are equal up to rounding; the state's keys are no longer those of files. The norms of F's residual blocks stay.
    """
    for module in network.modules():
        for name in ("conv", "compress"):
            if hasattr(module, name) and isinstance(getattr(module, "norm", None), tuple(BATCH_NORM.values())):
                setattr(module, name, fuse_conv_bn_eval(getattr(module, name), module.norm))
                module.norm = nn.Identity()
    return network
