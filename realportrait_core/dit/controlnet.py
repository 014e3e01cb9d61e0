"""The motion ControlNet: copies of the backbone's first blocks beside it, as in PixArt-delta."""

import torch
from torch import Tensor, nn

from .block import Block, Modulation


class ControlBlock(nn.Module):
    """Counted from 1: control block i is a copy of backbone block i, and its residual is added to the input of block i + 1.

    The first one also holds `before_proj`, the projection of the motion tokens that are added to the backbone's. There is no
    reference attention here: the paper has it "within the DiT backbone".
    """

    def __init__(self, block: Block, hidden: int, first: bool, *, operations, dtype=None, device=None):
        super().__init__()
        if first:
            self.before_proj = operations.Linear(hidden, hidden, dtype=dtype, device=device)
        self.copied_block = block
        self.after_proj = operations.Linear(hidden, hidden, dtype=dtype, device=device)

    def forward(self, c: Tensor, m: Modulation) -> tuple[Tensor, Tensor]:
        """c (B, L, S, C) -> c after the block and the residual for the backbone, both (B, L, S, C)."""
        c = self.copied_block(c, m)
        return c, self.after_proj(c)


def add_control(x: Tensor, control: Tensor) -> Tensor:
    """The ControlNet's input: x (B, L, S, C) after the first backbone block, plus control tokens (L, S, C) or (B L, S, C)."""
    return x + control.to(x).unflatten(0, (-1, x.shape[1]))


def add_residual(x: Tensor, residual: Tensor, strength: float | Tensor) -> Tensor:
    """x + strength residual, (B, L, S, C); a number is multiplied and added in one pass over memory."""
    return x + strength * residual if isinstance(strength, Tensor) else torch.add(x, residual, alpha=strength)
