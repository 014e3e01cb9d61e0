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


def shortcuts_pay(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether a convolution of x may take a shorter way to the same numbers: in float32, on a CPU, where no gradients are wanted.
    Elsewhere the library's own convolution runs: in half precision it is exact enough only as it is, and on GPUs no shorter way
    has been measured."""
    wanted = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    return x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32 and not wanted


class ConvNorm(nn.Module):
    """relu(norm(conv(x))) at the input's size. The third convolution of W is followed by a leaky ReLU."""

    def __init__(self, dims: int, in_channels: int, out_channels: int, kernel: int = 3, slope: float = 0.0):
        super().__init__()
        self.conv = CONVOLUTION[dims](in_channels, out_channels, kernel, padding=kernel // 2)
        self.norm = BATCH_NORM[dims](out_channels)
        self.slope = slope

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activated(self.conv(x))

    def activated(self, y: torch.Tensor) -> torch.Tensor:
        """From the convolution's result on, which is overwritten where the norm is folded into it."""
        y = self.norm(y)
        return F.leaky_relu(y, self.slope, inplace=True) if self.slope else F.relu(y, inplace=True)


# Names of a convolution, and of the norm right after it.
FOLDED = (("conv", "norm"), ("compress", "norm"), ("conv1", "norm2"))


def fold_norms(network: nn.Module) -> nn.Module:
    """Folds batch norms into the convolutions right before them, in place; in a frozen network each is affine per channel.

    The results are equal up to rounding; the state's keys are no longer those of files. The first norm of each of F's residual
    blocks stays: it reads the sum that the block also adds to.
    """
    for module in network.modules():
        for conv, norm in FOLDED:
            if hasattr(module, conv) and isinstance(getattr(module, norm, None), tuple(BATCH_NORM.values())):
                setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm)))
                setattr(module, norm, nn.Identity())
    return network
