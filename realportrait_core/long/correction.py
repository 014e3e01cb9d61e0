"""Conditional latents corrected against the portrait, so that errors do not add up from clip to clip."""

from torch import Tensor


def correct_tail(latents: Tensor, portrait: Tensor, strength: float) -> Tensor:
    """Conditional latents (n, 4, h, w) moved towards the portrait's (1, 4, h, w) by strength 0 .. 1; 0 returns them as they are."""
    return (
        latents
        if strength == 0
        else latents + strength * (portrait.mean((2, 3), keepdim=True) - latents.mean((2, 3), keepdim=True))
    )
