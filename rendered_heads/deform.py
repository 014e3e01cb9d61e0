"""How a mesh is deformed: shape targets, joints, blended rotations, blendshapes, and the vertex normals that follow.

Shape legend: T frames, V vertices, F triangles.
"""

import torch

from .identity import Face
from .motion import HeadMotion, rotations
from .rig import Rig

ARMS_DOWN = 0.62  # radians: the base mesh holds its arms out
JOINT_REACH = 0.8  # dm about a joint within which the skin determines where the joint is
BODY_SHARE = 0.3  # of the head's translation that the body follows


def neutral_shape(rig: Rig, face: Face) -> torch.Tensor:
    """(W, 3) dm: the rig's vertices with this face's shape targets, at rest and bare."""
    device = rig.vertices.device
    macros, local = (torch.from_numpy(weights).to(device) for weights in (face.macros, face.locals))
    shaped = torch.tensordot(macros, rig.macros, 1) + torch.tensordot(local, rig.locals, 1)
    return rig.vertices + shaped


def moved_joint(rig: Rig, shape: torch.Tensor, joint: torch.Tensor) -> torch.Tensor:
    """A joint (3,) of the template in an identity's shape: it moves by the mean of the skin around it."""
    near = (rig.vertices - joint).norm(dim=1) < JOINT_REACH
    return joint + (shape[near] - rig.vertices[near]).mean(0)


def lower_arms(points: torch.Tensor, arms: torch.Tensor, shoulders: torch.Tensor) -> torch.Tensor:
    """points (N, 3), rotated down about the shoulders (2, 3) by the weights of the arms (2, N)."""
    for weight, shoulder, sign in zip(arms, shoulders, (-1, 1)):
        rotation = torch.zeros_like(points)
        rotation[:, 2] = sign * ARMS_DOWN * weight
        points = rotate_by(points - shoulder, rotation) + shoulder
    return points


def rotate_by(points: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    """points (..., 3) rotated by rotation vectors (..., 3), Rodrigues' formula."""
    angle = rotation.norm(dim=-1, keepdim=True)
    axis = rotation / angle.clamp_min(1e-9)
    cosine, sine = angle.cos(), angle.sin()
    return points * cosine + torch.linalg.cross(axis, points) * sine + axis * (axis * points).sum(-1, keepdim=True) * (1 - cosine)


def rotation_vectors(rotation: torch.Tensor) -> torch.Tensor:
    """Rotation vectors (T, 3) of rotation matrices (T, 3, 3), for angles below 180 degrees."""
    trace = rotation[:, 0, 0] + rotation[:, 1, 1] + rotation[:, 2, 2]
    angle = torch.acos(((trace - 1) / 2).clamp(-1, 1))
    axis = torch.stack(
        [rotation[:, 2, 1] - rotation[:, 1, 2], rotation[:, 0, 2] - rotation[:, 2, 0], rotation[:, 1, 0] - rotation[:, 0, 1]], 1
    )
    return axis * torch.where(angle > 1e-4, angle / (2 * angle.sin()).clamp_min(1e-9), 0.5)[:, None]


def triangles_around(faces: torch.Tensor, vertices: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The triangles around each vertex, grouped by vertex (F * 3,); and where each vertex's group begins (vertices,)."""
    owner, order = faces.reshape(-1).sort(stable=True)
    counts = torch.bincount(owner, minlength=vertices)
    return order // 3, counts.cumsum(0) - counts


def vertex_normals(points: torch.Tensor, faces: torch.Tensor, around: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Unit normals (T, V, 3) of points (T, V, 3): the sums of their triangles' normals, weighted by area."""
    by_vertex = points.permute(1, 2, 0).reshape(points.shape[1], -1)  # (V, 3 * T)
    a, b, c = (by_vertex.index_select(0, faces[:, i]).unflatten(1, (3, -1)).unbind(1) for i in range(3))
    a, b, c = (torch.stack(corner, 0) for corner in (a, b, c))  # (3, F, T)
    ab, ac = b - a, c - a
    normal = torch.stack(
        [ab[1] * ac[2] - ab[2] * ac[1], ab[2] * ac[0] - ab[0] * ac[2], ab[0] * ac[1] - ab[1] * ac[0]], 1
    )  # (F, 3, T)
    triangles, starts = around
    total = torch.nn.functional.embedding_bag(triangles, normal.flatten(1), starts, mode="sum").unflatten(1, (3, -1))  # (V, 3, T)
    total = total / total.square().sum(1, keepdim=True).sqrt().clamp_min(1e-12)
    return total.permute(2, 0, 1)


def blendshape_offsets(motion: HeadMotion, units: torch.Tensor) -> torch.Tensor:
    """Displacements (T, V, 3) by blendshapes (52, V * 3), float64."""
    # In double precision and rounded, so that a frame does not depend on the other frames of its batch.
    moved = motion.expression.double() @ units
    return ((moved * 2**20).round() / 2**20).float().reshape(len(motion), -1, 3)


def move_with_head(points: torch.Tensor, head_share: torch.Tensor, pivot: torch.Tensor, motion: HeadMotion) -> torch.Tensor:
    """points (T, V, 3) rotated and translated with the head, each vertex by its share (V,) of the head's motion."""
    share = head_share[None, :, None]
    rotation = rotation_vectors(rotations(motion.pose))[:, None] * share
    return rotate_by(points - pivot, rotation) + pivot + motion.translation[:, None] * (BODY_SHARE + (1 - BODY_SHARE) * share)
