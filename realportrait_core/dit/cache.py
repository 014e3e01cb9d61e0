"""Step caching: a denoising step reuses parts of the steps before it, which compute nearly the same. Off by default.

The cache wraps the network from outside. RealPortraitDiT.forward is the exact step and has no part in it; StepCache runs the
same parts in the same order and leaves some of them out.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from math import isfinite

import torch
from torch import Tensor

from ..errors import InputError
from .block import Modulation
from .controlnet import add_control, add_residual
from .embed import ClipShape
from .model import RealPortraitDiT, Reference


@dataclass(frozen=True)
class Caching:
    """How much a step may reuse. With the defaults nothing, and the result is bit-identical.

    Raises InputError for values outside their ranges.
    """

    control_every: int = 1  # the ControlNet runs at every n-th step, its residuals are reused in between
    # First-block cache: a step in which block 0's residual differs from that of the last full step by less than this (mean,
    # relative) leaves out all other blocks, and adds what they added then.
    threshold: float = 0.0

    def __post_init__(self):
        if self.control_every < 1:
            raise InputError(f"The control is refreshed at every {self.control_every}th step; it must be 1 or more.")
        if not (isfinite(self.threshold) and self.threshold >= 0):
            raise InputError(f"The threshold of the first-block cache is {self.threshold}; it must be finite, 0 (off) or more.")


EXACT = Caching()  # nothing is reused


def with_cache(model: RealPortraitDiT, caching: Caching) -> Callable[..., Tensor]:
    """The network for the steps of one clip under one conditioning, called as its forward: itself where nothing is reused."""
    return model if caching == EXACT else partial(StepCache(caching), model)


class StepCache:
    """The state of one clip under one conditioning: use a new one for each.

    It holds a tensor of tokens (B, L, S, C) for each control block, and two more for the first-block cache.
    """

    def __init__(self, caching: Caching):
        self.caching = caching
        self.step = 0  # calls of the network so far
        self.residuals: list[Tensor] = []  # of the ControlNet, computed in step `refreshed`
        self.refreshed: int | None = None
        self.first_change: Tensor | None = None  # by block 0 in the last full step
        self.later_change: Tensor | None = None  # by all other blocks in that step

    def __call__(
        self,
        model: RealPortraitDiT,
        z_t: Tensor,
        t: Tensor,
        shape: ClipShape,
        reference: Reference | None,
        control: Tensor | None,
        conditional: Tensor | None = None,
        strength: float | Tensor = 1.0,
    ) -> Tensor:
        """RealPortraitDiT.forward of `model`, with the arguments and the result described there."""
        model.check(z_t, t, shape, reference, control, conditional)
        x = model.x_embedder(z_t)  # (B, L, S, C)
        constants = model.constants(z_t, shape, x.dtype) if reference is None else reference.constants
        x = x + constants.position_embedding  # (B, L, S, C)
        t = model.t_embedder(t, x.dtype)  # (B, L, C)
        m = model.modulation(t, constants, conditional)  # (B, L, 6, C) and (B, L, 3, C)
        x = self.run_blocks(model, x, m, reference, control, strength)  # (B, L, S, C)
        x = model.final_layer(x, t, constants.clean_embedding + constants.size_embedding, conditional)  # (B, L, S, p p c)
        return model.unpatchify(x, *z_t.shape[-2:])  # (B, L, c, h, w)

    def run_blocks(
        self,
        model: RealPortraitDiT,
        x: Tensor,
        m: Modulation,
        reference: Reference | None,
        control: Tensor | None,
        strength: float | Tensor,
    ) -> Tensor:
        """Tokens x (B, L, S, C) before block 0 -> after the last block, computed or reused."""
        key_values = (None,) * len(model.blocks) if reference is None else reference.blocks
        step, self.step = self.step, self.step + 1
        first = model.blocks[0](x, m, key_values[0])  # (B, L, S, C)
        change = first - x if self.caching.threshold > 0 else None
        if change is not None and self.is_close(change):
            return first + self.later_change
        x = first
        residuals = () if control is None else self.control_residuals(model, first, control, m, step)
        for block, key_value, residual in zip_longest(list(model.blocks)[1:], key_values[1:], residuals):
            if residual is not None:
                x = add_residual(x, residual, strength)
            x = block(x, m, key_value)
        if change is not None:
            self.first_change, self.later_change = change, x - first
        return x

    def is_close(self, change: Tensor) -> bool:
        """Whether block 0 changes its input as it did in the last full step."""
        if self.first_change is None:
            return False
        difference = (change - self.first_change).abs().mean(dtype=torch.float32)
        return bool(difference < self.caching.threshold * self.first_change.abs().mean(dtype=torch.float32))

    def control_residuals(self, model: RealPortraitDiT, x: Tensor, control: Tensor, m: Modulation, step: int) -> Iterable[Tensor]:
        """For the inputs of backbone blocks 1, 2, ..., each (B, L, S, C); x is the output of block 0."""
        if self.caching.control_every == 1:
            return run_controlnet(model, x, control, m)
        if self.refreshed is None or step - self.refreshed >= self.caching.control_every:
            self.residuals, self.refreshed = list(run_controlnet(model, x, control, m)), step
        return self.residuals


def run_controlnet(model: RealPortraitDiT, x: Tensor, control: Tensor, m: Modulation) -> Iterator[Tensor]:
    """The residuals one by one, each computed when it is needed, so that no more than one is in memory."""
    c = add_control(x, control)
    for block in model.controlnet:
        c, residual = block(c, m)
        yield residual
