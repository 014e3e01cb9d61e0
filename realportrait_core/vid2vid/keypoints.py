"""Implicit keypoints: K canonical points, transformed by a head pose and an expression into the crop.

Points are (x, y, z) in the crop's grid_sample frame: x right, y down, z inward, each in [-1, 1].
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F

BIN_DEGREES = 3.0
FIRST_BIN_DEGREES = -97.5


@dataclass(frozen=True)
class Pose:
    """The output of M for B faces with K keypoints."""

    canonical: torch.Tensor  # (B, K, 3) x_c, the keypoints of the neutral face in frontal view
    rotation: torch.Tensor  # (B, 3, 3) R, used with row vectors: x @ R
    pitch: torch.Tensor  # (B,) degrees
    yaw: torch.Tensor  # (B,) degrees
    roll: torch.Tensor  # (B,) degrees
    expression: torch.Tensor  # (B, K, 3) delta
    scale: torch.Tensor  # (B, 1) s
    translation: torch.Tensor  # (B, 3) t, of which t_z is never used

    def _map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> "Pose":
        return Pose(*(function(getattr(self, f.name)) for f in fields(self)))

    def __len__(self) -> int:
        return self.canonical.shape[0]

    def __getitem__(self, frames: slice | torch.Tensor) -> "Pose":
        return self._map(lambda x: x[frames])

    def to(self, device: torch.device | str) -> "Pose":
        return self._map(lambda x: x.to(device))


def cat(poses: list[Pose]) -> Pose:
    """Poses concatenated along B."""
    return Pose(*(torch.cat([getattr(p, f.name) for p in poses]) for f in fields(Pose)))


def headpose_from_bins(logits: torch.Tensor) -> torch.Tensor:
    """The expected angle of (B, bins) logits, in degrees (B,): bins of 3 degrees, the first at -97.5."""
    bins = torch.arange(logits.shape[-1], device=logits.device, dtype=torch.float32)
    expected = (logits.float().softmax(-1) * bins).sum(-1)
    return expected * BIN_DEGREES + FIRST_BIN_DEGREES


def rotation_matrix(pitch: torch.Tensor, yaw: torch.Tensor, roll: torch.Tensor) -> torch.Tensor:
    """R = (Rz(roll) Ry(yaw) Rx(pitch))^T from angles in degrees (B,); (B, 3, 3), for row vectors."""
    cx, cy, cz = (torch.cos(torch.deg2rad(angle)) for angle in (pitch, yaw, roll))
    sx, sy, sz = (torch.sin(torch.deg2rad(angle)) for angle in (pitch, yaw, roll))
    rows = (  # the columns of Rz Ry Rx
        torch.stack((cz * cy, sz * cy, -sy), -1),
        torch.stack((cz * sy * sx - sz * cx, sz * sy * sx + cz * cx, cy * sx), -1),
        torch.stack((cz * sy * cx + sz * sx, sz * sy * cx - cz * sx, cy * cx), -1),
    )
    return torch.stack(rows, -2)  # (B, 3, 3)


def rotation_angles(rotation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """pitch, yaw, roll in degrees (B,) of R (B, 3, 3): what `rotation_matrix` takes."""
    m = rotation.mT  # Rz Ry Rx
    yaw = torch.asin((-m[:, 2, 0]).clamp(-1, 1))
    pitch = torch.atan2(m[:, 2, 1], m[:, 2, 2])
    roll = torch.atan2(m[:, 1, 0], m[:, 0, 0])
    return torch.rad2deg(pitch), torch.rad2deg(yaw), torch.rad2deg(roll)


def angle_between(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The angle between two rotations, degrees (B,); both (B, 3, 3)."""
    trace = (a.mT @ b).diagonal(dim1=1, dim2=2).sum(-1)
    return torch.rad2deg(torch.acos(((trace - 1) / 2).clamp(-1, 1)))


def transform_keypoints(
    canonical: torch.Tensor, rotation: torch.Tensor, expression: torch.Tensor, scale: torch.Tensor, translation: torch.Tensor
) -> torch.Tensor:
    """x = s (x_c R + delta) + (t_x, t_y, 0) (LivePortrait Eq. 2): (B, K, 3)."""
    in_plane = F.pad(translation[:, :2], (0, 1))
    return scale[:, :, None] * (canonical @ rotation + expression) + in_plane[:, None]


def transform(pose: Pose) -> torch.Tensor:
    """The keypoints of a face in its own crop: (B, K, 3)."""
    return transform_keypoints(pose.canonical, pose.rotation, pose.expression, pose.scale, pose.translation)
