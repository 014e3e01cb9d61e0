"""MediaPipe's face mesh as a surface: triangles, outline, and which point is the mirror image of which.

All of it is derived from the canonical face model (`canonical_face_model.obj`, MediaPipe, Apache-2.0: 468 vertices, 898
triangles). The file is not part of this repository; the user names it.
"""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError

POINTS = 468  # of the surface; 10 more may follow, five of each iris
WITH_IRISES = 478
# The mesh's vertices nearest to the detector's five points: eyes (the person's right one first), nose, corners of the mouth.
FIVE = (468, 473, 1, 61, 291)
# The irises' points as MediaPipe orders them: centre, then four around it. A mirror swaps the eyes and, around each, the two
# at its sides.
IRIS_MIRROR = (473, 476, 475, 474, 477, 468, 471, 470, 469, 472)
MIRROR_ERROR = 0.05  # cm, largest distance between a mirrored vertex and its counterpart


@dataclass(frozen=True)
class Topology:
    """The mesh's surface and its canonical shape, all tensors on one device."""

    rest: Tensor  # (468, 3) cm: x to the picture's right, y up, z towards the camera
    triangles: Tensor  # (F, 3) int64, counter-clockwise as seen where they face the camera
    outline: Tensor  # (O,) int64, the vertices around the face in order
    mirror: Tensor  # (478,) int64: the point that a mirrored picture shows at this point's position
    ends: Tensor  # (4,) int64, the outline's vertices at the left, right, top and bottom of the canonical face

    def to(self, device: torch.device | str) -> "Topology":
        return Topology(*(getattr(self, field.name).to(device) for field in fields(self)))


def read_topology(path: str | Path) -> Topology:
    """The Topology of `canonical_face_model.obj`, on the CPU. InputError where the file is missing or another model."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} is missing: name MediaPipe's canonical_face_model.obj (Apache-2.0, 468 vertices).")
    vertices, triangles = [], []
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            kind, _, rest = line.partition(" ")
            if kind == "v":
                vertices.append([float(x) for x in rest.split()[:3]])
            elif kind == "f":
                triangles.append([int(corner.split("/")[0]) - 1 for corner in rest.split()])
        vertices, triangles = np.array(vertices, np.float32), np.array(triangles, np.int64)
    except ValueError as error:
        raise InputError(f"{path} is not the canonical face model ({error}).") from error
    return make_topology(vertices, triangles)


def make_topology(rest: np.ndarray, triangles: np.ndarray) -> Topology:
    """From vertices (468, 3) in cm and triangles (F, 3). InputError unless they are a symmetrical face with one outline."""
    if rest.shape != (POINTS, 3) or triangles.ndim != 2 or triangles.shape[1] != 3:
        raise InputError(f"A face mesh is vertices (468, 3) and triangles (F, 3), not {rest.shape} and {triangles.shape}.")
    if triangles.min() < 0 or triangles.max() >= POINTS:
        raise InputError(f"Triangles name the vertices 0 to {POINTS - 1}; these {triangles.min()} to {triangles.max()}.")
    mirror = mirrored_points(rest)
    outline = boundary(triangles)
    around = rest[outline]
    ends = outline[[around[:, 0].argmin(), around[:, 0].argmax(), around[:, 1].argmax(), around[:, 1].argmin()]]
    whole = np.concatenate([mirror, IRIS_MIRROR])
    return Topology(torch.from_numpy(rest), *(torch.from_numpy(x).long() for x in (triangles, outline, whole, ends)))


def mirrored_points(rest: np.ndarray) -> np.ndarray:
    """(468,): the vertex nearest to each one's mirror image. InputError where that is not one to one."""
    apart = np.linalg.norm(rest[:, None] * (-1, 1, 1) - rest[None], axis=-1)  # (468, 468)
    mirror = apart.argmin(1)
    worst = apart.min(1).max()
    if worst > MIRROR_ERROR or (mirror[mirror] != np.arange(len(rest))).any():
        raise InputError(f"The face model is not symmetrical: mirrored vertices miss by up to {worst:.2f} cm.")
    return mirror


def boundary(triangles: np.ndarray) -> np.ndarray:
    """The vertices (O,) along the edges that only one triangle has, in order. InputError unless they make one loop."""
    edges = np.concatenate([triangles, np.roll(triangles, -1, 1)]).reshape(2, -1).T  # (3 F, 2) from, to
    found = {tuple(edge) for edge in edges.tolist()}
    following = {a: b for a, b in found if (b, a) not in found}
    loop = [next(iter(following))] if following else []
    while loop and len(loop) <= len(following) and following.get(loop[-1]) != loop[0]:
        loop.append(following.get(loop[-1]))
    if len(loop) != len(following) or len(loop) < 3:
        raise InputError(f"A face mesh has one outline: of {len(following)} edges with one triangle, a loop holds {len(loop)}.")
    return np.array(loop)


def checked_mesh(mesh: Tensor, photos: int, points: tuple[int, ...] = (POINTS, WITH_IRISES)) -> Tensor:
    """mesh (B, P, 3), as it is. InputError where P is none of `points`, or B is not the number of photos."""
    if mesh.ndim != 3 or mesh.shape[1] not in points or mesh.shape[2] != 3 or len(mesh) != photos:
        wanted = " or ".join(str(count) for count in points)
        raise InputError(f"The mesh of {photos} photos is ({photos}, {wanted}, 3) px; this one is {tuple(mesh.shape)}.")
    return mesh
