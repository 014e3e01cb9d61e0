"""Head pose by a fit of MediaPipe's canonical face to the landmarks. Never part of a loss."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor


@dataclass(frozen=True)
class HeadPose:
    canonical: Tensor  # (N, 3)

    def angles(self, points: Tensor) -> Tensor:
        """Landmarks (L, 478, 3) px -> pitch, yaw, roll (L, 3) radians."""
        raise NotImplementedError


def load_head_pose(canonical: str | Path) -> HeadPose:
    """From canonical_face_model.obj."""
    raise NotImplementedError
