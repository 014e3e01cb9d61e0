"""Equations 1-6: spatial attention with keys and values of the reference, and temporal attention."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .fused import rms_norm, rotate_and_norm

KeyValue = tuple[Tensor, Tensor]  # K, V, each (R, heads, S, d)
AttentionFunction = Callable[[Tensor, Tensor, Tensor], Tensor]  # Q (N, heads, S, d), K, V (N, heads, S', d) -> (N, S, heads d)


def scaled_dot_product(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(d)) V."""
    return rearrange(F.scaled_dot_product_attention(q, k, v), "n h s d -> n s (h d)")


def join_reference(x: Tensor, reference: Tensor) -> Tensor:
    """[K; K_r] or [V; V_r] of Eq. 4: x (N, heads, S, d) and its reference (R, heads, S', d) -> (N, heads, S + S', d).

    Each of the R serves N / R items in a row.
    """
    x = x.unflatten(0, (reference.shape[0], -1))  # (R, N / R, heads, S, d)
    reference = reference[:, None].expand(-1, x.shape[1], -1, -1, -1)
    return torch.cat([x, reference], dim=-2).flatten(0, 1)


class RMSNorm(nn.Module):
    """Root mean square norm of a head, computed in float32."""

    def __init__(self, dim: int, dtype=None, device=None):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim, dtype=dtype, device=device))

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight.to(x))


class Attention(nn.Module):
    """The parameters of spatial and of temporal attention: W_Q, W_K, W_V (Eq. 3), the norms of Q and K, the projection."""

    def __init__(self, hidden: int, heads: int, *, attention: AttentionFunction, operations, dtype=None, device=None):
        super().__init__()
        self.heads, self.attention = heads, attention
        self.qkv = operations.Linear(hidden, 3 * hidden, dtype=dtype, device=device)
        self.q_norm = RMSNorm(hidden // heads, dtype=dtype, device=device)
        self.k_norm = RMSNorm(hidden // heads, dtype=dtype, device=device)
        self.proj = operations.Linear(hidden, hidden, dtype=dtype, device=device)


class SpatialAttention(Attention):
    """Between the tokens of one frame, and to those of its reference: softmax(Q [K; K_r]^T / sqrt(d)) [V; V_r] (Eq. 4)."""

    def queries_keys_values(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (N, S, C) -> Q, K, V (N, heads, S, d), Q and K normed."""
        q, k, v = (rearrange(part, "n s (h d) -> n h s d", h=self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        return self.q_norm(q), self.k_norm(k), v

    def forward(self, x: Tensor, reference: KeyValue | None = None) -> Tensor:
        """x (N, S, C) -> (N, S, C): Eq. 4 with a reference, Eq. 1 without."""
        q, k, v = self.queries_keys_values(x)
        if reference is not None:
            k, v = join_reference(k, reference[0]), join_reference(v, reference[1])
        return self.proj(self.attention(q, k, v))

    def encode(self, x: Tensor) -> tuple[Tensor, KeyValue]:
        """Portraits x (R, S, C) -> their self-attention (R, S, C) (Eq. 5), and K_r, V_r for the frames."""
        q, k, v = self.queries_keys_values(x)
        return self.proj(self.attention(q, k, v)), (k, v)

    def key_value(self, x: Tensor) -> KeyValue:
        """K_r, V_r alone: all that is needed of the reference in the last block."""
        return self.queries_keys_values(x)[1:]


class TemporalAttention(Attention):
    """Between the tokens of all frames at one position."""

    def __init__(
        self, hidden: int, heads: int, *, norm_last: bool, attention: AttentionFunction, operations, dtype=None, device=None
    ):
        super().__init__(hidden, heads, attention=attention, operations=operations, dtype=dtype, device=device)
        self.norm_last = norm_last

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        """x (B, L, S, C) -> (B, L, S, C), Eq. 2 and 6. rope: cos and sin (L, d / 2)."""
        batch, length = x.shape[:2]
        if length == 1:
            return self.proj(self.values(x))  # the softmax of one score is 1, so Q and K and their norms have no effect
        q, k, v = (rearrange(part, "b l s (h d) -> (b s) h l d", h=self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        q, k = self.rotate_and_norm(q, self.q_norm, rope), self.rotate_and_norm(k, self.k_norm, rope)
        return self.proj(rearrange(self.attention(q, k, v), "(b s) l c -> b l s c", b=batch))

    def rotate_and_norm(self, x: Tensor, norm: RMSNorm, rope: tuple[Tensor, Tensor]) -> Tensor:
        """norm_last: RoPE before the norm, as the public STDiT2 was trained; the two do not commute."""
        return rotate_and_norm(x, norm.weight.to(x), rope, self.norm_last)

    def values(self, x: Tensor) -> Tensor:
        """V alone, a third of the work. A Linear that casts its weights itself, as the host's do, has to run as a whole."""
        if type(self.qkv) is not nn.Linear:
            return self.qkv(x).chunk(3, dim=-1)[2]
        hidden = self.proj.in_features
        return F.linear(x, self.qkv.weight[2 * hidden :], self.qkv.bias[2 * hidden :])
