"""Classifier-free guidance (Ho, Salimans 2022): extrapolation from the prediction without motion to the one with it."""

from math import isfinite

from torch import Tensor

from ..errors import InputError
from .sampling import Denoise


def check_guidance(guidance: float) -> None:
    """Raises InputError where it is below 1 or not finite."""
    if not (isfinite(guidance) and guidance >= 1):
        raise InputError(f"The guidance is {guidance}; it must be finite, 1 (off) or more.")


def guided(conditional: Denoise, unconditional: Denoise, guidance: float) -> Denoise:
    """The denoiser u + guidance (c - u) of c `conditional` and u `unconditional`. With guidance 1 it is c, and u is not called.

    Only the mean is extrapolated; a learned variance is c's. Raises InputError for a guidance below 1 or not finite.
    """
    check_guidance(guidance)
    if guidance == 1:
        return conditional

    def denoise(z: Tensor, t: Tensor, known: Tensor) -> Tensor:  # (L, 4, h, w), (L,), (L,)
        c, u, mean = conditional(z, t, known), unconditional(z, t, known), z.shape[1]
        out = c.clone()
        out[:, :mean] = u[:, :mean] + guidance * (c[:, :mean] - u[:, :mean])
        return out

    return denoise
