"""Head pose: the rotation that fits MediaPipe's canonical face to a face's landmarks best. Never part of a loss.

The canonical face and the weights of the fit are in `face_landmarker.task`: 33 points that move little with the expression
(corners of the eyes, bridge and wings of the nose, cheeks, sides of the jaw, forehead), by which MediaPipe fits the same face.
The landmarks' depth counts like their position in the picture, so no camera is assumed; the mesh is scaled as a whole.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...errors import WeightsError
from ...face.landmarks import check_landmarks, read_part
from ...face.onnx_file import fields

PART = "geometry_pipeline_metadata_landmarks.binarypb"  # of the task file: MediaPipe's GeometryPipelineMetadata
MESH, BASIS, VERTICES, LANDMARK, WEIGHT = 1, 2, 3, 1, 2  # field numbers of that message and of those inside
POINTS, PER_VERTEX = 468, 5  # of the mesh, x y z in cm and two texture coordinates each


@dataclass(frozen=True)
class HeadPose:
    """The canonical face, turned to fit landmarks."""

    canonical: Tensor  # (468, 3) float64 cm: x to the picture's right, y up, z towards the camera
    weights: Tensor  # (468,) float64, sum 1

    def angles(self, points: Tensor) -> Tensor:
        """Landmarks (L, 478, 3) px -> pitch, yaw, roll (L, 3) radians: `angles_of` the rotation. NaN where all points coincide."""
        check_landmarks(points)
        upright = points[:, :POINTS].double() * torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64)  # y up, z towards the camera
        found = angles_of(rotation_onto(self.canonical, upright, self.weights))
        extent = points[:, :, :2].amax(1) - points[:, :, :2].amin(1)
        return torch.where((extent > 0).any(1, keepdim=True), found, torch.nan).float()


def rotation_onto(source: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """R (L, 3, 3) for column vectors, of the similarity transforms of source (N, 3) onto target (L, N, 3) with the least squared
    error, by weights (N,) of sum 1 (Kabsch 1976, Umeyama 1991)."""
    source = source - weights @ source
    covariance = (target * weights[:, None]).mT @ source  # (L, 3, 3); source is centred, so target need not be
    u, _, vt = torch.linalg.svd(covariance)
    proper = torch.ones_like(covariance[:, 0])  # (L, 3)
    proper[:, 2] = torch.linalg.det(u @ vt)
    return u * proper[:, None] @ vt


def angles_of(rotation: Tensor) -> Tensor:
    """Pitch, yaw, roll (..., 3) radians of R = Ry(yaw) Rx(pitch) Rz(roll) (..., 3, 3), y up and z towards the camera.

    Positive: chin down, face to the picture's right, and, on the screen, counter-clockwise. As in rendered_heads.
    """
    pitch = torch.asin((-rotation[..., 1, 2]).clamp(-1, 1))
    yaw = torch.atan2(rotation[..., 0, 2], rotation[..., 2, 2])
    roll = torch.atan2(rotation[..., 1, 0], rotation[..., 1, 1])
    return torch.stack([pitch, yaw, roll], -1)


def load_head_pose(landmarker: str | Path) -> HeadPose:
    """From face_landmarker.task. WeightsError where it is missing, or holds another mesh."""
    path = Path(landmarker)
    data = memoryview(read_part(path, PART))
    mesh = next(fields(data, MESH), memoryview(b""))
    vertices = floats(fields(mesh, VERTICES))
    if len(vertices) != POINTS * PER_VERTEX:
        raise WeightsError(f"{PART} of {path} holds {len(vertices)} coordinates, not those of {POINTS} vertices.")
    basis = list(fields(data, BASIS))
    weights = torch.zeros(POINTS, dtype=torch.float64)
    weights[[next(fields(entry, LANDMARK), 0) for entry in basis]] = floats(next(fields(entry, WEIGHT)) for entry in basis)
    return HeadPose(vertices.reshape(POINTS, PER_VERTEX)[:, :3].contiguous(), weights / weights.sum())


def floats(values: Iterable) -> Tensor:
    """Numbers of protobuf's type `float`, four bytes each, as a float64 tensor."""
    return torch.from_numpy(np.frombuffer(b"".join(values), "<f4").astype(np.float64))
