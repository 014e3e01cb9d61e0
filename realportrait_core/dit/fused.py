"""The elementwise operations of a block, each as one pass over memory on a GPU that runs Triton.

Elsewhere, in training, and under torch.compile, which fuses them itself, the PyTorch expressions of this file are used.
"""

import logging
from functools import cache
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from .embed import rotate

log = logging.getLogger(__name__)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """LN(x) (1 + scale) + shift, x (B, L, S, C), the others (B, L, 1, C), B and L possibly 1."""
    if kernels := kernels_for(x, shift, scale):
        return kernels.modulate(x, shift, scale)
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=1e-6), 1 + scale)


def add_gated(x: Tensor, gate: Tensor, out: Tensor) -> Tensor:
    """x + gate out, x and out (B, L, S, C), gate (B, L, 1, C), B and L possibly 1."""
    if kernels := kernels_for(x, gate, out):
        return kernels.add_gated(x, gate, out)
    return torch.addcmul(x, gate, out)


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    """x / sqrt(mean(x^2)) weight over a head's channels, x (N, heads, S, d), weight (d,); the norm in float32."""
    if kernels := kernels_for(x, weight):
        return kernels.rms_norm(x, weight)
    return F.rms_norm(x.float(), x.shape[-1:], eps=1e-6).to(x.dtype) * weight


def rotate_and_norm(x: Tensor, weight: Tensor, rope: tuple[Tensor, Tensor], norm_last: bool) -> Tensor:
    """RMS norm and RoPE of x (N, heads, L, d), rope cos and sin (L, d / 2), float32; norm_last: the norm after the rotation."""
    if kernels := kernels_for(x, weight):
        return kernels.rms_norm(x, weight, rope, norm_last)
    return rms_norm(rotate(x, *rope), weight) if norm_last else rotate(rms_norm(x, weight), *rope)


def kernels_for(x: Tensor, *others: Tensor) -> ModuleType | None:
    """The kernels, where they support these tensors."""
    if torch.compiler.is_compiling() or not x.is_cuda or x.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return None
    if any(other.dtype != x.dtype or other.device != x.device for other in others):
        return None
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, *others)):
        return None  # they have no backward pass
    return kernels_on(x.device)


@cache
def kernels_on(device: torch.device) -> ModuleType | None:
    """The kernels, if one runs on this GPU: Triton may be absent, lack a C compiler, or not support the GPU."""
    if torch.version.hip is None and torch.cuda.get_device_capability(device) < (8, 0):
        return None  # without bfloat16
    try:
        from . import kernels

        trial = torch.ones(1, 1, 1, 16, device=device, dtype=torch.bfloat16)
        kernels.add_gated(trial, trial, trial)
    except Exception as error:  # the PyTorch expressions are used, whatever the error is
        log.info("Triton cannot be used on %s, plain PyTorch is: %s: %s", device, type(error).__name__, error)
        return None
    return kernels
