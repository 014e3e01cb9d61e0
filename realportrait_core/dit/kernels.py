"""The operations of fused.py in Triton: each reads its inputs once, computes in float32 and rounds once.

Imported only where Triton runs. Tensors may have any strides and be broadcast.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

EPS = tl.constexpr(1e-6)
ROWS = 16                                               # heads that one program normalises


@triton.jit
def offset(row, L, S, stride_b, stride_l, stride_s):
    """Of the first value of row (b L + l) S + s of a tensor (B, L, S, C)."""
    row = row.to(tl.int64)
    return row // (L * S) * stride_b + row // S % L * stride_l + row % S * stride_s


@triton.jit
def modulate_row(
    y, x, shift, scale, L, S, C,
    y_b, y_l, y_s, y_c, x_b, x_l, x_s, x_c, shift_b, shift_l, shift_s, shift_c, scale_b, scale_l, scale_s, scale_c,
    BLOCK: tl.constexpr,
):
    row, c = tl.program_id(0), tl.arange(0, BLOCK)
    inside = c < C
    x = tl.load(x + offset(row, L, S, x_b, x_l, x_s) + c * x_c, inside, 0.0).to(tl.float32)
    shift = tl.load(shift + offset(row, L, S, shift_b, shift_l, shift_s) + c * shift_c, inside, 0.0).to(tl.float32)
    scale = tl.load(scale + offset(row, L, S, scale_b, scale_l, scale_s) + c * scale_c, inside, 0.0).to(tl.float32)
    x = tl.where(inside, x - tl.sum(x) / C, 0.0)
    x = x * tl.rsqrt(tl.sum(x * x) / C + EPS) * (1 + scale) + shift
    tl.store(y + offset(row, L, S, y_b, y_l, y_s) + c * y_c, x.to(y.dtype.element_ty), inside)


@triton.jit
def add_gated_row(
    y, x, gate, out, L, S, C,
    y_b, y_l, y_s, y_c, x_b, x_l, x_s, x_c, gate_b, gate_l, gate_s, gate_c, out_b, out_l, out_s, out_c,
    BLOCK: tl.constexpr,
):
    row, c = tl.program_id(0), tl.arange(0, BLOCK)
    inside = c < C
    x = tl.load(x + offset(row, L, S, x_b, x_l, x_s) + c * x_c, inside, 0.0).to(tl.float32)
    gate = tl.load(gate + offset(row, L, S, gate_b, gate_l, gate_s) + c * gate_c, inside, 0.0).to(tl.float32)
    out = tl.load(out + offset(row, L, S, out_b, out_l, out_s) + c * out_c, inside, 0.0).to(tl.float32)
    tl.store(y + offset(row, L, S, y_b, y_l, y_s) + c * y_c, (x + gate * out).to(y.dtype.element_ty), inside)


@triton.jit
def rms_norm_rows(
    y, x, weight, cos, sin, rows, L, S, half,
    y_b, y_l, y_s, y_c, x_b, x_l, x_s, x_c, weight_c, cos_s, cos_c, sin_s, sin_c,
    ROTATE: tl.constexpr, NORM_LAST: tl.constexpr, ROWS: tl.constexpr, HALF: tl.constexpr,
):
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None]
    i = tl.arange(0, HALF)[None]                        # of the pair (x_2i, x_2i+1), which is rotated
    inside = (row < rows) & (i < half)
    first = offset(row, L, S, x_b, x_l, x_s) + 2 * i * x_c
    a = tl.load(x + first, inside, 0.0).to(tl.float32)
    b = tl.load(x + first + x_c, inside, 0.0).to(tl.float32)
    w_a = tl.load(weight + 2 * i * weight_c, i < half, 0.0).to(tl.float32)
    w_b = tl.load(weight + (2 * i + 1) * weight_c, i < half, 0.0).to(tl.float32)
    norm = tl.rsqrt(tl.sum(a * a + b * b, axis=1, keep_dims=True) / (2 * half) + EPS)     # the same before and after a rotation
    a, b = a * norm, b * norm
    if not NORM_LAST:
        a, b = a * w_a, b * w_b
    if ROTATE:
        c = tl.load(cos + row % S * cos_s + i * cos_c, inside, 0.0)
        s = tl.load(sin + row % S * sin_s + i * sin_c, inside, 0.0)
        a, b = a * c - b * s, a * s + b * c
    if NORM_LAST:
        a, b = a * w_a, b * w_b
    first = offset(row, L, S, y_b, y_l, y_s) + 2 * i * y_c
    tl.store(y + first, a.to(y.dtype.element_ty), inside)
    tl.store(y + first + y_c, b.to(y.dtype.element_ty), inside)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return by_rows(modulate_row, x, shift, scale)


def add_gated(x: Tensor, gate: Tensor, out: Tensor) -> Tensor:
    return by_rows(add_gated_row, x, gate, out)


def by_rows(kernel, x: Tensor, *others: Tensor) -> Tensor:
    """One program for each token of x (B, L, S, C); broadcast axes have strides of 0."""
    B, L, S, C = x.shape
    y = torch.empty_like(x)
    tensors = [y, x, *(other.expand(x.shape) for other in others)]
    with torch.cuda.device_of(x):
        kernel[(B * L * S,)](
            *tensors, L, S, C, *(stride for tensor in tensors for stride in tensor.stride()), BLOCK=triton.next_power_of_2(C),
        )
    return y


def rms_norm(x: Tensor, weight: Tensor, rope: tuple[Tensor, Tensor] | None = None, norm_last: bool = False) -> Tensor:
    """x (N, heads, S, d), d even; with rope, cos and sin (S, d / 2), also rotated, after the norm or before it."""
    B, L, S, d = x.shape
    y, rows = torch.empty_like(x), B * L * S
    cos, sin = rope or (weight[None], weight[None])     # unused without rope
    with torch.cuda.device_of(x):
        rms_norm_rows[(triton.cdiv(rows, ROWS),)](
            y, x, weight, cos, sin, rows, L, S, d // 2,
            *y.stride(), *x.stride(), *weight.stride(), *cos.stride(), *sin.stride(),
            ROTATE=rope is not None, NORM_LAST=norm_last, ROWS=ROWS, HALF=triton.next_power_of_2(d // 2),
        )
    return y
