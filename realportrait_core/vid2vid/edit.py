"""Edits of driving poses: smoothed, with a steady head size, mirrored. All are functions from poses (L) to poses (L)."""

from dataclasses import replace
from typing import Literal

import torch

from ..errors import InputError
from .keypoints import Pose, rotation_angles
from .smooth import kalman_smooth

HeadSize = Literal["driven", "steady", "constant"]
STEADY = 12.0  # frames, time constant of the scale of a `steady` head
MOST_SMOOTH = 30.0  # frames
STEP = 1e-5  # process variance of the smoother; only its ratio to the observation variance matters
FLIP = (-1.0, 1.0, 1.0)  # x of a mirror image


def smoothed(sequence: torch.Tensor, frames: float, what: str) -> torch.Tensor:
    """(L, ...) smoothed along L with a time constant of `frames`; 0 is off. `what` names the value in errors.

    The smoother's weights fall by e in sqrt(observation variance / process variance) frames. Raises InputError for a time
    constant that is negative, above 30 frames, or no number.
    """
    if not 0 <= frames <= MOST_SMOOTH:
        raise InputError(f"{what} is {frames}; it must be from 0 (off) to {MOST_SMOOTH:g} frames.")
    if frames == 0:
        return sequence
    return kalman_smooth(sequence, frames**2 * STEP, STEP)


def nearest_rotation(matrix: torch.Tensor) -> torch.Tensor:
    """The rotations nearest to matrices (L, 3, 3), such as means of rotations."""
    u, _, vt = torch.linalg.svd(matrix.double())
    sign = torch.ones_like(matrix[..., 0], dtype=torch.float64)
    sign[..., 2] = torch.linalg.det(u @ vt)
    return ((u * sign[..., None, :]) @ vt).to(matrix.dtype)


def with_rotation(pose: Pose, rotation: torch.Tensor) -> Pose:
    """The pose with another rotation (L, 3, 3) and the angles of it."""
    pitch, yaw, roll = rotation_angles(rotation)
    return replace(pose, rotation=rotation, pitch=pitch, yaw=yaw, roll=roll)


def smooth_head(pose: Pose, frames: float) -> Pose:
    """Rotation, translation and scale of the head, smoothed with a time constant of `frames`; 0 is off."""
    if frames == 0:
        return pose
    rotation = nearest_rotation(smoothed(pose.rotation, frames, "The smoothing of the head"))
    pose = replace(
        pose,
        scale=smoothed(pose.scale.log(), frames, "The smoothing of the head").exp(),
        translation=smoothed(pose.translation, frames, "The smoothing of the head"),
    )
    return with_rotation(pose, rotation)


def smooth_expression(pose: Pose, frames: float) -> Pose:
    """The expression, smoothed with a time constant of `frames`; 0 is off."""
    return replace(pose, expression=smoothed(pose.expression, frames, "The smoothing of the expression"))


def hold_size(pose: Pose, head_size: HeadSize) -> Pose:
    """The scale of the head as driven, steady (slow changes only), or constant (its median). Raises InputError for another.

    M predicts the scale of each frame on its own: it jitters, and grows a little where the head turns or leans.
    """
    if head_size == "driven":
        return pose
    if head_size == "steady":
        return replace(pose, scale=smoothed(pose.scale.log(), STEADY, "head_size").exp())
    if head_size == "constant":
        return replace(pose, scale=pose.scale.median().expand_as(pose.scale).clone())
    raise InputError(f"head_size is {head_size!r}; it must be 'driven', 'steady' or 'constant'.")


def mirror(pose: Pose, partner: torch.Tensor) -> Pose:
    """The poses of the mirrored face: x' = P x F with F = diag(-1, 1, 1), so R' = F R F and delta' = P delta F.

    partner (K,) int64 is the permutation P, which exchanges left and right keypoints.
    """
    flip = pose.rotation.new_tensor(FLIP)
    partner = partner.to(pose.canonical.device)
    return replace(
        pose,
        canonical=pose.canonical[:, partner] * flip,
        rotation=flip[:, None] * pose.rotation * flip,
        yaw=-pose.yaw,
        roll=-pose.roll,
        expression=pose.expression[:, partner] * flip,
        translation=pose.translation * flip,
    )
