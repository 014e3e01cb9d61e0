"""NaN and infinity while sampling: found at their step, and the clip sampled once more in a wider dtype."""

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import NonFiniteError

log = logging.getLogger(__name__)

# fp16 too becomes fp32: bf16 has the range, but an eighth of fp16's precision. Weights in fp8 are computed in one of these.
WIDER = {torch.float16: torch.float32, torch.bfloat16: torch.float32}


def check_finite(x: Tensor, step: int, steps: int) -> None:
    """Raises NonFiniteError where x (L, 4, h, w) of a step, counted from 1, holds NaN or infinity."""
    if torch.isfinite(x).all():
        return
    bad = (~torch.isfinite(x)).flatten(1).any(1)
    where = f"at step {step} of {steps}, in {int(bad.sum())} of {len(x)} frames of the clip"
    raise NonFiniteError(
        f"Sampling became NaN or infinite {where}. Load the model in a wider dtype (weight_dtype fp32), or choose another sampler.",
        step,
        where,
    )


def sample_finite(sample: Callable[[torch.dtype], Tensor], own: torch.dtype, frames: str) -> Tensor:
    """sample(own), or sample(a wider dtype) where that raises NonFiniteError: it is called with the network's dtype of the moment.

    frames: "Frames 0 to 15". Raises NonFiniteError, with all that was tried, where the wider dtype does not help or there is none.
    """
    tried = []
    for dtype in (own, WIDER.get(own)):
        if dtype is None:
            continue
        try:
            return sample(dtype)
        except NonFiniteError as error:
            step, where = error.step, error.where  # not the error: its traceback holds the tensors
        tried.append(f"{where}, in {dtype_name(dtype)}")
        if dtype in WIDER:
            log.warning("%s became NaN or infinite %s: sampled again in %s.", frames, tried[-1], dtype_name(WIDER[dtype]))
    raise NonFiniteError(
        f"{frames} became NaN or infinite {'; then '.join(tried)}. No wider dtype is left: check the portrait and the weights (a "
        "damaged download, a training that diverged), lower the guidance, or choose another sampler.",
        step,
        where,
    )


def dtype_name(dtype: torch.dtype) -> str:
    """fp32, bf16, fp16, as in the loader's menu."""
    return str(dtype).removeprefix("torch.").replace("bfloat", "bf").replace("float", "fp")
