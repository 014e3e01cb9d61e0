"""Retargeting: driving keypoints x_d of a portrait from driving poses.

relative        the driving pose's change since the neutral frame, added to the portrait's pose: starts on the portrait.
absolute        the driving pose, and its expression at those of LivePortrait's 21 keypoints that carry one.
paper-absolute  the whole driving motion on the portrait's canonical keypoints (LivePortrait Eq. 2).
"""

from dataclasses import dataclass
from typing import Literal

import torch

from ..errors import InputError
from .keypoints import Pose, transform_keypoints
from .regions import EYES, EYES_AND_MOUTH, MOUTH, check_known

Mode = Literal["relative", "absolute", "paper-absolute"]
LIVEPORTRAIT_KEYPOINTS = 21
# Keypoint -> axes (x 0, y 1, z 2) in which `absolute` takes the driving expression. The others encode the head's shape.
WHOLE_KEYPOINTS = (1, 2, 6, *range(11, 21))
PARTIAL_KEYPOINTS = {3: (1,), 4: (1,), 5: (2,), 8: (2,), 9: (1, 2)}


@dataclass(frozen=True)
class MotionParameters:
    """The four terms of x = s (x_c R + delta) + t for L frames."""

    rotation: torch.Tensor  # (L, 3, 3)
    expression: torch.Tensor  # (L, K, 3)
    scale: torch.Tensor  # (L, 1)
    translation: torch.Tensor  # (L, 3)


@dataclass(frozen=True)
class Gains:
    """Factors on the gains of pose and expression, part by part."""

    rotation: float = 1.0
    translation: float = 1.0
    scale: float = 1.0
    eyes: float = 1.0  # of the expression at the keypoints around the eyes
    mouth: float = 1.0  # of the expression at those around the mouth
    elsewhere: float = 1.0  # of the expression at the others: brows, cheeks, jaw


FULL = Gains()


def expression_region(device: torch.device) -> torch.Tensor:
    """(21, 3) bool: the coordinates whose expression `absolute` takes from the driving pose."""
    region = torch.zeros(LIVEPORTRAIT_KEYPOINTS, 3, dtype=torch.bool, device=device)
    region[list(WHOLE_KEYPOINTS)] = True
    for keypoint, axes in PARTIAL_KEYPOINTS.items():
        region[keypoint, list(axes)] = True
    return region


def relative(portrait: Pose, driver: Pose, neutral: Pose) -> MotionParameters:
    return MotionParameters(
        rotation=driver.rotation @ neutral.rotation.mT @ portrait.rotation,
        expression=portrait.expression + driver.expression - neutral.expression,
        scale=portrait.scale * driver.scale / neutral.scale,
        translation=portrait.translation + driver.translation - neutral.translation,
    )


def absolute(portrait: Pose, driver: Pose) -> MotionParameters:
    if portrait.canonical.shape[1] != LIVEPORTRAIT_KEYPOINTS:
        raise InputError(
            f"The mode 'absolute' knows the {LIVEPORTRAIT_KEYPOINTS} keypoints of LivePortrait and these weights have "
            f"{portrait.canonical.shape[1]}. Choose 'relative' or 'paper-absolute'."
        )
    region = expression_region(driver.expression.device)
    return MotionParameters(
        rotation=driver.rotation,
        expression=torch.where(region, driver.expression, portrait.expression),
        scale=portrait.scale.expand_as(driver.scale),
        translation=driver.translation,
    )


def paper_absolute(driver: Pose) -> MotionParameters:
    return MotionParameters(driver.rotation, driver.expression, driver.scale, driver.translation)


def rotation_power(rotation: torch.Tensor, exponent: float | torch.Tensor) -> torch.Tensor:
    """Rotations (L, 3, 3) below 180 degrees with `exponent` times their angle about the same axis (Rodrigues' formula).

    The exponent is a number, or (L, 1, 1).
    """
    skew = (rotation - rotation.mT) / 2  # sin(angle) [axis]x
    sine = torch.stack((skew[..., 2, 1], skew[..., 0, 2], skew[..., 1, 0]), -1).norm(dim=-1)
    cosine = (rotation.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    angle = torch.atan2(sine, cosine)[..., None, None] * exponent
    axis = skew / sine.clamp_min(1e-12)[..., None, None]
    identity = torch.eye(3, dtype=rotation.dtype, device=rotation.device)
    return identity + torch.sin(angle) * axis + (1 - torch.cos(angle)) * (axis @ axis)


def scale_pose_change(
    motion: MotionParameters, portrait: Pose, rotation: float, translation: float, scale: float
) -> MotionParameters:
    """The distances of rotation, translation and log-scale from the portrait's, multiplied by one factor each."""
    change = motion.rotation @ portrait.rotation.mT
    return MotionParameters(
        rotation=rotation_power(change, rotation) @ portrait.rotation,
        expression=motion.expression,
        scale=portrait.scale * (motion.scale / portrait.scale).clamp_min(1e-6) ** scale,
        translation=portrait.translation + translation * (motion.translation - portrait.translation),
    )


def scale_expression_change(
    motion: MotionParameters, portrait: Pose, gain: float, eyes: float = 1.0, mouth: float = 1.0, elsewhere: float = 1.0
) -> MotionParameters:
    """The expression's distance from the portrait's, multiplied by `gain`; around eyes and mouth, and elsewhere, by their own gain
    as well.

    Raises InputError for these three where it is not known which keypoints lie there.
    """
    change = motion.expression - portrait.expression
    gains = torch.full_like(change[0, :, :1], gain)  # (K, 1)
    others = {k: tuple(set(range(k)) - set(around)) for k, around in EYES_AND_MOUTH.items()}
    for keypoints, own in ((EYES, eyes), (MOUTH, mouth), (others, elsewhere)):
        if own != 1.0:
            check_known(len(gains), "a gain of the eyes or the mouth")
            gains[list(keypoints[len(gains)])] *= own
    return MotionParameters(motion.rotation, portrait.expression + gains * change, motion.scale, motion.translation)


def check(portrait: Pose, driver: Pose, neutral: Pose) -> None:
    if len(neutral) != 1:
        raise InputError(f"The neutral frame holds {len(neutral)} poses; it must hold 1.")
    if len(driver) == 0:
        raise InputError("The driving video has 0 frames; it needs at least 1.")
    if len(portrait) not in (1, len(driver)):
        raise InputError(
            f"The portrait holds {len(portrait)} poses; it must hold 1, or as many as the driving video's {len(driver)} frames."
        )
    counts = {"portrait": portrait, "driving video": driver, "neutral frame": neutral}
    counts = {name: pose.canonical.shape[1] for name, pose in counts.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {k}" for name, k in counts.items())
        raise InputError(f"The numbers of keypoints differ ({listed}): they come from different Face Vid2vid weights.")


def retarget(
    portrait: Pose,
    driver: Pose,
    neutral: Pose,
    mode: Mode = "relative",
    pose_gain: float = 1.0,
    expression_gain: float = 1.0,
    gains: Gains = FULL,
) -> torch.Tensor:
    """x_d (L, K, 3): the portrait's keypoints under the driving motion.

    `portrait` holds one pose, or L of a portrait video, `neutral` one and `driver` the L driving poses. `neutral` is the driving
    pose that counts as no motion; only `relative` uses it. The gains scale the change of the portrait's pose (`pose_gain`) and
    expression (`expression_gain`), `gains` their parts; 0 keeps the portrait's own, 1 is the driving motion.
    Raises InputError on a wrong count of poses or keypoints, an unknown mode, or a part that these keypoints do not have.
    """
    check(portrait, driver, neutral)
    if mode == "relative":
        motion = relative(portrait, driver, neutral)
    elif mode == "absolute":
        motion = absolute(portrait, driver)
    elif mode == "paper-absolute":
        motion = paper_absolute(driver)
    else:
        raise InputError(f"The mode is {mode!r}; it must be 'relative', 'absolute' or 'paper-absolute'.")
    pose = [pose_gain * gain for gain in (gains.rotation, gains.translation, gains.scale)]
    if pose != [1.0, 1.0, 1.0]:
        motion = scale_pose_change(motion, portrait, *pose)
    parts = [gains.eyes, gains.mouth, gains.elsewhere]
    if [expression_gain, *parts] != [1.0] * 4:
        motion = scale_expression_change(motion, portrait, expression_gain, *parts)
    return transform_keypoints(portrait.canonical, motion.rotation, motion.expression, motion.scale, motion.translation)
