"""A still portrait with another pose and expression, set by hand: no driving video."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ..vid2vid import FaceVid2Vid
from ..vid2vid.checkpoint import motion_fingerprint
from ..vid2vid.expressions import Expression, edited_keypoints
from ..vid2vid.keypoints import transform
from ..vid2vid.stitching import Finish, KeypointMLP, Opening, check_keypoints, finish
from .extraction import portrait_side
from .keypoints import Keypoints
from .retargeting import DrivenKeypoints

# Openings (height / width) that LivePortrait's retargeting takes: those of most portraits, and what the sliders' ends ask for.
EYES, WIDE_EYES = 0.35, 0.6
LIPS, WIDE_LIPS = 0.0, 0.5


def portrait_keypoints(vid2vid: FaceVid2Vid, portrait: Tensor, points: Tensor) -> Keypoints:
    """Keypoints of a portrait (1, H, W, 3) in [0, 1] with face points (5, 2) px, which is its own single driving frame."""
    pose, feature, crop, points = portrait_side(vid2vid, portrait, points)
    size = portrait.shape[1], portrait.shape[2]
    return Keypoints(
        portrait=pose,
        driver=pose,
        feature=feature,
        portrait_crop=crop,
        driver_crop=crop,
        portrait_points=points,
        driver_points=points[None],
        present=torch.ones(1, dtype=torch.bool),
        portrait_size=size,
        driver_size=size,
        encoder=motion_fingerprint(vid2vid),
        picture=portrait,
    )


def edit_portrait(
    keypoints: Keypoints, expression: Expression, networks: Mapping[str, KeypointMLP] | None = None
) -> DrivenKeypoints:
    """One frame of the portrait with the expression. `networks` (stitching, lip, eye) open and close its eyes, open its mouth
    and hold its shoulders in place of the keypoints' own moves.

    Raises InputError for networks of another number of keypoints, or sliders that these keypoints do not have.
    """
    portrait = keypoints.portrait
    if networks is None or expression == Expression():
        return DrivenKeypoints(edited_keypoints(portrait, expression), keypoints, 0)
    check_keypoints(networks, portrait.canonical.shape[1])
    eyes = Opening(EYES, EYES + expression.eyes * (WIDE_EYES - EYES if expression.eyes > 0 else EYES))
    lips = Opening(LIPS, LIPS + expression.mouth * (WIDE_LIPS - LIPS))
    ending = Finish(networks, True, eyes if expression.eyes else None, lips if expression.mouth > 0 else None)
    x_d = edited_keypoints(portrait, replace(expression, eyes=0.0, mouth=min(expression.mouth, 0.0)))
    return DrivenKeypoints(finish(transform(portrait), x_d, ending), keypoints, 0)
