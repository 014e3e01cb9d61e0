"""Poses of a video with cuts as one continuous shot."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from .edit import with_rotation
from .keypoints import Pose
from .retarget import rotation_power

EASE = 8  # frames over which the jump at a cut fades to zero


def join_shots(pose: Pose, cuts: Sequence[int]) -> Pose:
    """Poses (L) of a video that is cut before the frames `cuts`, continued across the cuts.

    Another shot shows the head at another position and size, which is no motion: each shot's median translation and scale
    become those of the first shot. The first frame of a shot then gets the pose and the expression of the frame before the
    cut, and the difference fades out within EASE frames.
    """
    size, translation, rotation, delta = pose.scale.log(), pose.translation.clone(), pose.rotation.clone(), pose.expression.clone()
    bounds = [0, *cuts, len(pose)]
    shots = [slice(start, stop) for start, stop in zip(bounds, bounds[1:])]
    first_size, first_translation = size[shots[0]].median(), translation[shots[0]].median(0).values
    for shot in shots[1:]:
        growth = first_size - size[shot].median()
        translation[shot] = growth.exp() * (translation[shot] - translation[shot].median(0).values) + first_translation
        size[shot] += growth
        last, frames = shot.start - 1, slice(shot.start, min(shot.start + EASE, shot.stop))
        left = 1 - torch.arange(frames.stop - frames.start, device=size.device) / EASE  # share of the jump: 1, falling
        for values in (size, translation, delta):
            values[frames] += left.view(-1, *[1] * (values.ndim - 1)) * (values[last] - values[shot.start])
        turn = rotation[last : shot.start] @ rotation[shot.start : shot.start + 1].mT
        rotation[frames] = rotation_power(turn, left[:, None, None]) @ rotation[frames]
    return with_rotation(replace(pose, scale=size.exp(), translation=translation, expression=delta), rotation)
