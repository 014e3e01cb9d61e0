"""The square of the portrait that is animated."""

import torch
from torch import Tensor

from ..errors import InputError
from ..face.crop import face_square, upright_square, warp_averaged

FRAMINGS = ("auto", "half-body", "whole")
# MINI's training pictures: the side of the square in extents of the face, and how far its centre lies below the face's.
SIDE_PER_FACE = 2.44
DROP = 0.02  # of the side
# Head to waist, wider than anything that MINI was trained on.
HALF_BODY_SIDE_PER_FACE, HALF_BODY_DROP = 4.6, 0.2
# A picture up to 1 / 0.76 times wider than SIDE_PER_FACE is taken whole; 1 in 20 training pictures is framed this wide.
CLOSE_ENOUGH = 0.76


def frame_square(points: Tensor, height: int, width: int, size: int, framing: str) -> Tensor:
    """(3, 3) float64: px of a height x width picture -> px of a size x size frame, a square of the picture around the face.

    points (N, 2) px. "whole" takes the picture's shorter side; "auto" moves closer to the face where it is smaller than in
    training; "half-body" shows head to waist, as far as the picture does. Raises InputError for another framing.
    """
    if framing not in FRAMINGS:
        raise InputError(f"The framing is {framing!r}; it must be one of: {', '.join(FRAMINGS)}.")
    square = face_square(points, scale=1.0, vy=0.0)
    side, drop = float(min(height, width)), DROP
    close = SIDE_PER_FACE * float(square.size)
    if framing == "auto" and close < CLOSE_ENOUGH * side:
        side = close
    if framing == "half-body":
        side, drop = min(side, HALF_BODY_SIDE_PER_FACE * float(square.size)), HALF_BODY_DROP
    centre = square.center + torch.tensor([0.0, drop * side], dtype=torch.float64)
    return upright_square(centre, side, height, width, size)


def sample_frame(pictures: Tensor, to_frame: Tensor, size: int) -> Tensor:
    """(B, C, H, W) -> (B, C, size, size), averaged where the picture is larger; to_frame (3, 3): picture px -> frame px."""
    shrink = 1 / float(torch.linalg.det(to_frame[:2, :2]).abs().sqrt())
    return warp_averaged(pictures, to_frame, size, size, max(1, round(shrink)))
