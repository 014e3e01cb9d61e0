"""Frames that repeat, as those of a static portrait, or of a clip that is played forwards and backwards."""

import hashlib

import torch
from torch import Tensor


def unique(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """The frames (U,) that are the first of their picture, and for each frame (L,) the number of its picture among them."""
    known: dict[bytes, int] = {}
    first: list[int] = []
    number: list[int] = []
    for i, picture in enumerate(pictures):
        key = hashlib.blake2b(picture.contiguous().numpy()).digest()
        if key not in known:
            known[key] = len(first)
            first.append(i)
        number.append(known[key])
    return torch.tensor(first), torch.tensor(number)
