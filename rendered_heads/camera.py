"""A perspective camera that looks at a point in front of the chest's axis and may be rotated about the vertical."""

from dataclasses import dataclass, replace

import numpy as np
import torch

MARGIN = 0.04  # of the frame's side that stays free around the face
TRIES = 12  # steps of keep_inside


@dataclass(frozen=True)
class Camera:
    """View axes are centred on `center`, y up, z toward the camera; lengths in dm."""

    fov: float  # degrees, of the whole frame
    frame: float  # dm across the frame at `center`
    center: tuple[float, float, float]  # dm in the body's axes
    yaw: float  # radians, of the camera
    body_yaw: float  # radians, of the body; half of it rotates the view

    @property
    def distance(self) -> float:
        """dm from the camera to `center`."""
        return self.frame / 2 / np.tan(np.radians(self.fov) / 2)

    def rotation(self) -> torch.Tensor:
        """(3, 3) for column vectors: body axes to view axes."""
        angle = self.yaw + self.body_yaw / 2
        c, s = float(np.cos(angle)), float(np.sin(angle))
        return torch.tensor([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])

    def view(self, points: torch.Tensor) -> torch.Tensor:
        """Body axes (..., 3) to view axes."""
        return rotate(points - torch.tensor(self.center, dtype=points.dtype, device=points.device), self.rotation().to(points))

    def project(self, points: torch.Tensor, size: int) -> torch.Tensor:
        """View axes (..., 3) -> pixels x, y (..., 2) of a square picture and the inverse distance, as (..., 3)."""
        inverse = 1 / (self.distance - points[..., 2])
        focal = 0.5 * size / float(np.tan(np.radians(self.fov) / 2))
        return torch.stack([size / 2 + focal * points[..., 0] * inverse, size / 2 - focal * points[..., 1] * inverse, inverse], -1)


def rotate(points: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    """rotation (..., 3, 3) for column vectors, times points (..., 3).

    Written out, because the order of a matrix product's sums may depend on the batch's shape.
    """
    x, y, z = points.unbind(-1)
    rows = [rotation[..., i, 0] * x + rotation[..., i, 1] * y + rotation[..., i, 2] * z for i in range(3)]
    return torch.stack(rows, -1)


def sample_camera(seed: int, eyes: np.ndarray, face_height: float) -> Camera:
    """A portrait framing of a face at rest. eyes (3,): the point between the eyes; face_height: dm from there to the crown."""
    rng = np.random.default_rng((seed, 0xCA3))
    frame = rng.uniform(3.0, 4.5) * float(np.clip(face_height / 1.25, 0.8, 1.15))
    offset = np.array([rng.normal(0, 0.1), (-0.13 + rng.normal(0, 0.05)) * frame, -0.85])
    return Camera(
        fov=float(rng.uniform(14, 32)),
        frame=float(frame),
        center=tuple((eyes + offset).tolist()),
        yaw=float(rng.normal(0, 0.10)),
        body_yaw=float(rng.normal(0, 0.18)),
    )


def keep_inside(camera: Camera, points: torch.Tensor) -> Camera:
    """The camera, shifted and drawn back as far as needed to keep all points (..., 3), in body axes, inside the frame."""
    points = points.reshape(-1, 3).double()
    room = 1 - 2 * MARGIN
    for _ in range(TRIES):
        seen = camera.project(camera.view(points), 1)[:, :2]  # 0..1
        low, high = seen.amin(0), seen.amax(0)
        grow = float(((high - low) / room).max())
        if grow > 1:
            camera = replace(camera, frame=camera.frame * grow * 1.01)
            continue
        shift = (low - MARGIN).clamp_max(0) + (high - 1 + MARGIN).clamp_min(0)  # (2,) to the right and down
        if not shift.any():
            break
        # 5 % more than needed, since nearer points move more.
        by = torch.stack([shift[0], -shift[1], torch.zeros_like(shift[0])]) * camera.frame * 1.05
        by = camera.rotation().double().T @ by
        camera = replace(camera, center=tuple((np.array(camera.center) + by.numpy()).tolist()))
    return camera
