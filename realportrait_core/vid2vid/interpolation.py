"""Poses between two poses, for driving frames in which no face was found."""

import torch

from .edit import with_rotation
from .keypoints import Pose
from .retarget import rotation_power


def interpolate_poses(before: Pose, after: Pose, share: torch.Tensor) -> Pose:
    """The poses (B) at a share (B,) of the way from `before` (0) to `after` (1).

    Rotations are interpolated about one axis, scales geometrically, all else linearly.
    """
    part = share[:, None]  # (B, 1)
    rotation = rotation_power(after.rotation @ before.rotation.mT, part[:, None]) @ before.rotation
    return with_rotation(
        Pose(
            canonical=torch.lerp(before.canonical, after.canonical, part[:, None]),
            rotation=rotation,
            pitch=before.pitch,
            yaw=before.yaw,
            roll=before.roll,
            expression=torch.lerp(before.expression, after.expression, part[:, None]),
            scale=before.scale * (after.scale / before.scale) ** part,
            translation=torch.lerp(before.translation, after.translation, part),
        ),
        rotation,
    )
