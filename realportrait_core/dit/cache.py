"""Approximations of a denoising step by those before it, off unless chosen: neighbouring steps compute nearly the same."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from ..errors import InputError

LaterBlocks = Callable[[Tensor, Iterable[Tensor]], Tensor]  # x after block 0, the control's residuals -> x after the last


@dataclass(frozen=True)
class Caching:
    """How much a step may take over. With the defaults nothing, and the result is bit-identical.

    Raises InputError for values outside their ranges.
    """

    control_every: int = 1  # the ControlNet runs at every n-th step, its residuals serve those in between
    # All blocks but the first are left out, and what they last added is added again, while the first one's own residual
    # differs from that of the last whole step by less than this, relatively, in the mean ("first-block cache").
    threshold: float = 0.0

    def __post_init__(self):
        if self.control_every < 1:
            raise InputError(f"The control is refreshed at every {self.control_every}th step; it must be 1 or more.")
        if not (isfinite(self.threshold) and self.threshold >= 0):
            raise InputError(f"The threshold of the first-block cache is {self.threshold}; it must be finite, 0 (off) or more.")


class StepCache:
    """What the steps of one clip hand on to each other: make a new one for each clip, and for each conditioning of it.

    It holds as many tensors of tokens (B, L, S, C) as there are control blocks, and two more for the first-block cache.
    """

    def __init__(self, caching: Caching):
        self.caching = caching
        self.step = 0  # calls of the network so far
        self.residuals: list[Tensor] = []  # of the control, from step `refreshed`
        self.refreshed: int | None = None
        self.added: Tensor | None = None  # by block 0, and by the later ones, in the last whole step
        self.later: Tensor | None = None

    def __call__(self, x: Tensor, first: Tensor, residuals: Iterable[Tensor], later_blocks: LaterBlocks) -> Tensor:
        """x before block 0 and `first` after it, (B, L, S, C) -> after the last block, computed or taken over.

        The residuals are computed only as they are drawn.
        """
        step, self.step = self.step, self.step + 1
        added = first - x if self.caching.threshold > 0 else None
        if added is not None and self.added is not None and self.near(added):
            return first + self.later
        if self.caching.control_every > 1:
            if self.refreshed is None or step - self.refreshed >= self.caching.control_every:
                self.residuals, self.refreshed = list(residuals), step
            residuals = self.residuals
        out = later_blocks(first, residuals)
        if added is not None:
            self.added, self.later = added, out - first
        return out

    def near(self, added: Tensor) -> bool:
        """Whether block 0 does about what it did in the last whole step."""
        moved = (added - self.added).abs().mean(dtype=torch.float32)
        return bool(moved < self.caching.threshold * self.added.abs().mean(dtype=torch.float32))
