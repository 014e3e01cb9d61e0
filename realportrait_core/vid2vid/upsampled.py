"""A convolution right after a nearest 2x upsampling, at 4/9 of the arithmetic."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .blocks import shortcuts_pay

SMALLEST = 8  # px, below which the four kernels cost more than they save
CONVOLVE = {4: F.conv2d, 5: F.conv3d}
# [of the even pixels, of the odd ones][first of the two source pixels, second][the kernel's 3 taps]
TAPS = (((1, 0, 0), (0, 1, 1)), ((1, 1, 0), (0, 0, 1)))


def convolve_upsampled(conv: nn.Conv2d | nn.Conv3d, x: Tensor) -> Tensor:
    """conv(x upsampled 2x along h and w): (B, C, [D,] h, w) -> (B, K, [D,] 2h, 2w), for 3-wide kernels with a margin of 1.

    Along an axis, the three pixels under the kernel come from two source pixels: from i - 1, i, i at the even pixel 2i, and
    from i, i, i + 1 at the odd one. So the kernel is four kernels of 2 x 2 at the source's size, one for the even and odd
    rows and columns, whose weights are sums of its weights.
    """
    if not shortcuts_pay(x, conv.weight) or min(x.shape[-2:]) < SMALLEST:
        return conv(F.interpolate(x, scale_factor=(1, 2, 2)[-x.ndim + 2 :]))
    h, w = x.shape[-2:]
    taps = torch.tensor(TAPS, dtype=x.dtype)
    kernels = torch.einsum("...ij,api,bqj->ab...pq", conv.weight, taps, taps).flatten(0, 2)  # (2 2 K, C, [3,] 2, 2)
    four = CONVOLVE[x.ndim](x, kernels, padding=1).unflatten(1, (2, 2, -1))  # (B, 2, 2, K, [D,] h + 1, w + 1)
    rows = [torch.stack([four[:, a, b, ..., a : a + h, b : b + w] for b in (0, 1)], -1) for a in (0, 1)]
    y = rearrange(torch.stack(rows, -3), "... h a w b -> ... (h a) (w b)")
    return y + conv.bias.view(-1, *[1] * (x.ndim - 2))
