"""Conditional frames: "no noise is added during the diffusion training process, and the diffusion time embedding is set to 0"."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError

# The paper masks "the initial and final frames" at random and gives no numbers: Open-Sora's, without its other masks.
NONE, FIRST, LAST = 0.5, 0.2, 0.1  # the rest: both ends


@dataclass(frozen=True)
class Known:
    """The conditional frames of a clip: those of latents (L, 4, h, w) for which mask (L,) is True."""

    latents: Tensor
    mask: Tensor


def known_first_frames(latents: Tensor, like: Tensor) -> Known:
    """Latents (n, 4, h, w) as the first n frames of a clip shaped as `like` (L, 4, h, w), which continues another.

    Raises InputError unless 1 <= n < L and the latents are of the clip's size.
    """
    given, total = len(latents), len(like)
    if latents.shape[1:] != like.shape[1:] or not 1 <= given < total:
        raise InputError(
            f"Known latents {tuple(latents.shape)} for a clip {tuple(like.shape)}: they must be 1 to {total - 1} frames "
            "of its size."
        )
    mask = torch.arange(total, device=like.device) < given
    return Known(torch.cat([latents.to(like), torch.zeros_like(like[given:])]), mask)


def restore_known(known: Known | None, x: Tensor) -> Tensor:
    """x (L, 4, h, w) with the known frames set to their latents, bit by bit."""
    return x if known is None else torch.where(known.mask[:, None, None, None], known.latents, x)


def training_mask(clips: int, frames: int, generator: torch.Generator | None = None, device: torch.device | str = "cpu") -> Tensor:
    """Conditional frames in training (B, L), bool: none, the first 1 .. L/4, the last 1 .. L/4, or both."""
    kind = torch.rand(clips, 1, generator=generator, device=device)
    first, last = torch.randint(1, max(1, frames // 4) + 1, (2, clips, 1), generator=generator, device=device)
    position = torch.arange(frames, device=device)
    head = (position < first) & ((kind >= NONE) & (kind < NONE + FIRST) | (kind >= NONE + FIRST + LAST))
    tail = (position >= frames - last) & (kind >= NONE + FIRST)
    return (head | tail) & (frames > 2)  # shorter clips would have no noised frame left
