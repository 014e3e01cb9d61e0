"""A driver of several shots as one: where its video is cut, the motion goes on from where it was."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from .edit import turned
from .keypoints import Pose
from .retarget import rotation_power

EASE = 8  # frames over which what is left of a jump at a cut is made up


def join_shots(pose: Pose, cuts: Sequence[int]) -> Pose:
    """Poses (L) of a video that is cut before the frames `cuts`, as if it had been taken in one shot.

    Another shot shows the head elsewhere and of another size, which is no motion: each shot's median place and size become
    those of the first. The first frame of a shot then has the pose and the expression of the last one before the cut, and
    the shot's own are taken up within EASE frames.
    """
    size, place, rotation, delta = pose.scale.log(), pose.translation.clone(), pose.rotation.clone(), pose.expression.clone()
    bounds = [0, *cuts, len(pose)]
    shots = [slice(start, stop) for start, stop in zip(bounds, bounds[1:])]
    rest, middle = size[shots[0]].median(), place[shots[0]].median(0).values
    for shot in shots[1:]:
        grow = rest - size[shot].median()
        place[shot] = grow.exp() * (place[shot] - place[shot].median(0).values) + middle
        size[shot] += grow
        last, frames = shot.start - 1, slice(shot.start, min(shot.start + EASE, shot.stop))
        left = 1 - torch.arange(frames.stop - frames.start, device=size.device) / EASE  # of the jump: 1, then less
        for values in (size, place, delta):
            values[frames] += left.view(-1, *[1] * (values.ndim - 1)) * (values[last] - values[shot.start])
        turn = rotation[last : shot.start] @ rotation[shot.start : shot.start + 1].mT
        rotation[frames] = rotation_power(turn, left[:, None, None]) @ rotation[frames]
    return turned(replace(pose, scale=size.exp(), translation=place, expression=delta), rotation)
