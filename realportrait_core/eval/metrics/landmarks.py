"""`landmarks`: MediaPipe's landmarks of eyes, lips and brows in the result, against those in the truth. Never part of a loss.

Independent of M, whose keypoints drive the animation and are a loss in training.
"""

import torch
from torch import Tensor

from ...face.landmarks import (
    INNER_LIPS,
    LEFT_BROW,
    LEFT_EYE,
    LOWER_INNER,
    OUTER_LIPS,
    RIGHT_BROW,
    RIGHT_EYE,
    UPPER_INNER,
    FaceLandmarker,
    check_landmarks,
)

PARTS = {"eyes": LEFT_EYE + RIGHT_EYE, "lips": OUTER_LIPS + INNER_LIPS, "brows": LEFT_BROW + RIGHT_BROW}


def detect_landmarks(landmarker: FaceLandmarker, pictures: Tensor, five: Tensor) -> Tensor:
    """Landmarks (L, 478, 2) px of pictures (L, 3, H, W) in [0, 1] whose faces have five points (L, 5, 2) px."""
    found = [landmarker.points(picture.movedim(0, -1), points)[:, :2] for picture, points in zip(pictures, five)]
    return torch.stack(found)


def landmark_errors(result: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """Mean distance in each frame (L,), px, of each of PARTS and, as "all", of all of them; both (L, 478, 2)."""
    for points in (result, truth):
        check_landmarks(points)
    apart = torch.linalg.vector_norm(result[..., :2] - truth[..., :2], dim=-1)  # (L, 478)
    parts = PARTS | {"all": sum(PARTS.values(), ())}
    return {name: apart[:, list(chosen)].mean(1) for name, chosen in parts.items()}


def inner_lips_gap(points: Tensor) -> Tensor:
    """Opening of the mouth in each frame (L,), px: mean distance of the middles of the inner lips; points (L, 478, 2)."""
    check_landmarks(points)
    upper, lower = points[:, list(UPPER_INNER), :2], points[:, list(LOWER_INNER), :2]
    return torch.linalg.vector_norm(lower - upper, dim=-1).mean(1)
