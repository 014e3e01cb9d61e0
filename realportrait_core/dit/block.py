"""One block of STDiT2 without its text: spatial attention, temporal attention, MLP, each modulated frame by frame."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import AttentionFunction, KeyValue, SpatialAttention, TemporalAttention
from .fused import add_gated, modulate


@dataclass(frozen=True)
class Modulation:
    """adaLN-single: what all blocks share, from each frame's timestep and the clip's size and length. B and L may be 1."""

    spatial: Tensor  # (B, L, 6, C): shift, scale, gate of spatial attention, then of the MLP
    temporal: Tensor  # (B, L, 3, C): shift, scale, gate of temporal attention
    rope: tuple[Tensor, Tensor]  # cos, sin (L, d / 2)


def add_table(table: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
    """A block's own table (n, C), of any dtype and device, added to the shared rows (B, L, n, C) -> n of (B, L, 1, C)."""
    return (rows + table.to(rows)).unsqueeze(-2).unbind(2)


class MLP(nn.Module):
    """C -> ratio C -> C."""

    def __init__(self, hidden: int, ratio: int, *, operations, dtype=None, device=None):
        super().__init__()
        self.fc1 = operations.Linear(hidden, ratio * hidden, dtype=dtype, device=device)
        self.fc2 = operations.Linear(ratio * hidden, hidden, dtype=dtype, device=device)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class Block(nn.Module):
    """x (B, L, S, C) -> (B, L, S, C)."""

    def __init__(
        self,
        hidden: int,
        heads: int,
        mlp_ratio: int,
        *,
        qk_norm_legacy: bool,  # temporal attention applies RoPE before the norm of Q and K
        attention: AttentionFunction,
        operations,
        dtype=None,
        device=None,
    ):
        super().__init__()
        factory = {"operations": operations, "dtype": dtype, "device": device}
        self.attn = SpatialAttention(hidden, heads, attention=attention, **factory)
        self.attn_temp = TemporalAttention(hidden, heads, norm_last=qk_norm_legacy, attention=attention, **factory)
        self.mlp = MLP(hidden, mlp_ratio, **factory)
        self.scale_shift_table = nn.Parameter(torch.zeros(6, hidden, dtype=dtype, device=device))
        self.scale_shift_table_temporal = nn.Parameter(torch.zeros(3, hidden, dtype=dtype, device=device))

    def forward(self, x: Tensor, m: Modulation, reference: KeyValue | None = None) -> Tensor:
        """x (B, L, S, C) -> (B, L, S, C). reference: K_r, V_r of R portraits, R a divisor of B."""
        spatial, mlp = self.spatial_modulation(m)
        x = self.spatial_attention(x, spatial, reference)  # (B, L, S, C), Eq. 4
        x = self.temporal_attention(x, m)  # (B, L, S, C), Eq. 2
        return self.feed_forward(x, mlp)  # (B, L, S, C)

    def encode(self, x: Tensor, m: Modulation) -> tuple[Tensor, KeyValue]:
        """The block for the portraits, x (R, 1, S, C) -> (R, 1, S, C), and their K_r, V_r."""
        (shift, scale, gate), mlp = self.spatial_modulation(m)
        out, key_value = self.attn.encode(modulate(x, shift, scale).flatten(0, 1))  # (R, S, C), Eq. 5
        x = add_gated(x, gate, out.unsqueeze(1))  # (R, 1, S, C)
        x = self.temporal_attention(x, m)  # (R, 1, S, C), Eq. 6
        return self.feed_forward(x, mlp), key_value

    def key_value(self, x: Tensor, m: Modulation) -> KeyValue:
        """K_r, V_r of the portraits x (R, 1, S, C) alone."""
        (shift, scale, _), _ = self.spatial_modulation(m)
        return self.attn.key_value(modulate(x, shift, scale).flatten(0, 1))

    def spatial_modulation(self, m: Modulation) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Shift, scale, gate of spatial attention, and of the MLP."""
        rows = add_table(self.scale_shift_table, m.spatial)
        return rows[:3], rows[3:]

    def spatial_attention(self, x: Tensor, rows: tuple[Tensor, ...], reference: KeyValue | None) -> Tensor:
        shift, scale, gate = rows
        out = self.attn(modulate(x, shift, scale).flatten(0, 1), reference)  # (B L, S, C)
        return add_gated(x, gate, out.unflatten(0, x.shape[:2]))

    def temporal_attention(self, x: Tensor, m: Modulation) -> Tensor:
        shift, scale, gate = add_table(self.scale_shift_table_temporal, m.temporal)
        return add_gated(x, gate, self.attn_temp(modulate(x, shift, scale), m.rope))

    def feed_forward(self, x: Tensor, rows: tuple[Tensor, ...]) -> Tensor:
        shift, scale, gate = rows
        return add_gated(x, gate, self.mlp(modulate(x, shift, scale)))
