"""The number format of matrix products in training."""

from contextlib import AbstractContextManager, nullcontext

import torch

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def precision_of(name: str | None, device: torch.device) -> torch.dtype:
    """The named one; by default bf16 on a CUDA GPU and fp32 elsewhere."""
    return PRECISIONS[name or ("bf16" if device.type == "cuda" else "fp32")]


def autocast(device: torch.device, precision: torch.dtype) -> AbstractContextManager:
    """Matrix products in `precision`; float32 changes nothing, on any device."""
    return nullcontext() if precision == torch.float32 else torch.autocast(device.type, precision)
