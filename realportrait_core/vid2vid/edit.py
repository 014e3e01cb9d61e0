"""Edits of a driver's poses over a clip: smoothed, of a steady size, mirrored. All are functions from poses to poses."""

from dataclasses import replace
from typing import Literal

import torch

from ..errors import InputError
from .keypoints import Pose, rotation_angles
from .smooth import kalman_smooth

HeadSize = Literal["driven", "steady", "constant"]
STEADY = 12.0  # frames over which a `steady` head may change its size
MOST_SMOOTH = 30.0  # frames
STEP = 1e-5  # variance of a frame's step in the smoother; only its ratio to the observation's matters
FLIP = (-1.0, 1.0, 1.0)  # x of a mirror image


def smoothed(sequence: torch.Tensor, frames: float, what: str) -> torch.Tensor:
    """(L, ...) smoothed along L; `frames` is the time constant, by which a bump spreads to both sides, and 0 is off.

    The smoother's weights fall off by e in sqrt(observation variance / step variance) frames. Raises InputError for a
    time constant that is negative, above 30 frames, or no number.
    """
    if not 0 <= frames <= MOST_SMOOTH:
        raise InputError(f"{what} is {frames}; it must be from 0 (off) to {MOST_SMOOTH:g} frames.")
    if frames == 0:
        return sequence
    return kalman_smooth(sequence, frames**2 * STEP, STEP)


def nearest_rotation(matrix: torch.Tensor) -> torch.Tensor:
    """The rotation (L, 3, 3) next to a mean of rotations (L, 3, 3)."""
    u, _, vt = torch.linalg.svd(matrix.double())
    sign = torch.ones_like(matrix[..., 0], dtype=torch.float64)
    sign[..., 2] = torch.linalg.det(u @ vt)
    return ((u * sign[..., None, :]) @ vt).to(matrix.dtype)


def turned(pose: Pose, rotation: torch.Tensor) -> Pose:
    """The pose with another rotation (L, 3, 3), its angles with it."""
    pitch, yaw, roll = rotation_angles(rotation)
    return replace(pose, rotation=rotation, pitch=pitch, yaw=yaw, roll=roll)


def smooth_head(pose: Pose, frames: float) -> Pose:
    """Turn, place and size of the head, smoothed over so many frames."""
    if frames == 0:
        return pose
    rotation = nearest_rotation(smoothed(pose.rotation, frames, "The smoothing of the head"))
    pose = replace(
        pose,
        scale=smoothed(pose.scale.log(), frames, "The smoothing of the head").exp(),
        translation=smoothed(pose.translation, frames, "The smoothing of the head"),
    )
    return turned(pose, rotation)


def smooth_expression(pose: Pose, frames: float) -> Pose:
    return replace(pose, expression=smoothed(pose.expression, frames, "The smoothing of the expression"))


def hold_size(pose: Pose, head_size: HeadSize) -> Pose:
    """The size of the head as it is driven, steady (slow changes only), or constant (its median).

    M reads the scale off each frame on its own: it trembles, and swells a little where the head turns or leans.
    """
    if head_size == "driven":
        return pose
    if head_size == "steady":
        return replace(pose, scale=smoothed(pose.scale.log(), STEADY, "head_size").exp())
    if head_size == "constant":
        return replace(pose, scale=pose.scale.median().expand_as(pose.scale).clone())
    raise InputError(f"head_size is {head_size!r}; it must be 'driven', 'steady' or 'constant'.")


def mirror(pose: Pose, partner: torch.Tensor) -> Pose:
    """The poses of the same face in a mirror: x' = P x F with F = diag(-1, 1, 1), so R' = F R F and delta' = P delta F.

    partner (K,) int64 is P, the keypoint whose place each one takes: left and right change names.
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
