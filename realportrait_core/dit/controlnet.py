"""The motion ControlNet: copies of the backbone's first blocks beside it, as in PixArt-delta."""

from torch import Tensor, nn

from .block import Block, Modulation


class ControlBlock(nn.Module):
    """Control block i (from 1), a copy of backbone block i; its residual enters the input of backbone block i + 1.

    The first one also holds `before_proj`, which lays the motion's tokens on the backbone's stream. There is no reference
    here: the paper puts reference attention "within the DiT backbone".
    """

    def __init__(self, block: Block, hidden: int, first: bool, *, operations, dtype=None, device=None):
        super().__init__()
        if first:
            self.before_proj = operations.Linear(hidden, hidden, dtype=dtype, device=device)
        self.copied_block = block
        self.after_proj = operations.Linear(hidden, hidden, dtype=dtype, device=device)

    def forward(self, c: Tensor, m: Modulation) -> tuple[Tensor, Tensor]:
        """c (B, L, S, C) -> the control stream and the residual for the backbone, both (B, L, S, C)."""
        c = self.copied_block(c, m)
        return c, self.after_proj(c)
