"""Less memory for the same clip: attention by parts of the queries, the motion's tokens by fewer frames."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..memory import Ladder, halves, pieces
from ..motion_map import MotionMaps
from .attention import Attention, AttentionFunction
from .model import RealPortraitDiT, Reference


class Sparing:
    """The ladders of one run of the network, over all of its clips."""

    def __init__(self, clip_frames: int):
        self.attention = Ladder(
            "Attention of the transformer", (1, 2, 4, 8, 16, 32, 64), ("part for all queries", "parts of the queries")
        )
        self.motion = Ladder("Motion mapper", halves(clip_frames))


def by_queries(attention: AttentionFunction, ladder: Ladder) -> AttentionFunction:
    """The same attention; where memory runs out, for one part of the queries after the other: softmax is over the keys alone."""

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        def in_parts(parts: int) -> Tensor:
            if parts == 1:
                return attention(q, k, v)
            return torch.cat([attention(some, k, v) for some in q.chunk(parts, dim=-2)], dim=1)

        return ladder.run(in_parts)

    return attend


@contextmanager
def sparing_attention(network: nn.Module, ladder: Ladder) -> Iterator[None]:
    """Within it, every attention of the network goes down the ladder where memory runs out."""
    usual = {module: module.attention for module in network.modules() if isinstance(module, Attention)}
    try:
        for module, attention in usual.items():
            module.attention = by_queries(attention, ladder)
        yield
    finally:
        for module, attention in usual.items():
            module.attention = attention


def encode_motion(
    network: RealPortraitDiT, motion: MotionMaps | Tensor, reference: Reference | None, like: Tensor, ladder: Ladder
) -> Tensor:
    """RealPortraitDiT.encode_motion of one clip, on the device and in the dtype of `like`, by as many frames as fit: (L, S, C)."""

    def tokens(part: slice) -> Tensor:
        return network.encode_motion(motion[part].to(like.device, like.dtype), reference)

    parts = [found for found, _ in pieces(len(motion), ladder, tokens)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)
