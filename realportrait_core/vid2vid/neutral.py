"""The neutral frame: the driving frame relative to which `relative` measures the driving motion."""

import torch

from .keypoints import Pose, angle_between
from .regions import EYES_AND_MOUTH

# Weights relative to the distance by which a rotation of the head moves its keypoints, 0.06 at 11 degrees.
EXPRESSION = 8.0  # expressions move keypoints little: 0.02 between two neutral people, 0.035 to a wide open mouth
CALM = 1.0  # frames: of the change per frame
# How much farther than the nearest frame the first one may be and still be taken, because from there the animation starts on the
# portrait itself. Less than what lies between two neutral people, 0.16.
FIRST = 0.1


def head_angle(portrait: Pose, driver: Pose) -> torch.Tensor:
    """The angle between the portrait's head and the driving frames', degrees (L,)."""
    return angle_between(driver.rotation, portrait.rotation)


def calm_frame(pose: Pose) -> int:
    """The frame of L whose expression, in the head's axes, is nearest the median of all; the first of equals."""
    delta = (pose.expression @ pose.rotation.mT).flatten(1)  # (L, 3 K)
    return int((delta - delta.median(0).values).norm(dim=1).argmin())


def distance_to_portrait(portrait: Pose, driver: Pose) -> torch.Tensor:
    """Distance of the driving frames from the portrait and from calm (L,), in the canonical keypoints' unit of length.

    Rotation: the root mean square distance between the portrait's keypoints under the two rotations. Expression: that of
    delta in the head's axes, around eyes and mouth where these keypoints are known. Translation and scale: the distance from
    the driving video's medians, because the portrait's position in its picture is unrelated. Calm: the change of all these
    per frame, so that no frame in the middle of a nod or a blink is chosen.
    """
    k = portrait.canonical.shape[1]
    chosen = list(EYES_AND_MOUTH.get(k, range(k)))

    def state(pose: Pose) -> tuple[torch.Tensor, torch.Tensor]:  # (L, 3 K), (L, 3 N)
        delta = (pose.expression @ pose.rotation.mT)[:, chosen]
        return (portrait.canonical @ pose.rotation).flatten(1) / k**0.5, EXPRESSION * delta.flatten(1) / len(chosen) ** 0.5

    radius = (portrait.canonical - portrait.canonical.mean(1, keepdim=True)).square().sum(-1).mean().sqrt()
    size = radius * driver.scale.log()  # (L, 1)
    position = driver.translation[:, :2] / driver.scale.median()  # (L, 2)
    states = torch.cat([*state(driver), size, position], 1)  # distances between rows are lengths
    reference = torch.cat([*state(portrait), size.median(0, keepdim=True).values, position.median(0, keepdim=True).values], 1)
    speed = torch.zeros(len(states), device=states.device)
    if len(states) > 1:
        steps = states.diff(dim=0).norm(dim=1)  # (L - 1,)
        speed[:-1] += steps
        speed[1:] += steps
        speed[1:-1] /= 2
    return (states - reference).norm(dim=1) + CALM * speed


def neutral_frame(portrait: Pose, driver: Pose, present: torch.Tensor) -> int:
    """The calm frame whose pose and expression are nearest the portrait's; the video's first frame where that is about as near.

    portrait holds one pose, driver L, both in the same axes; present (L,) bool: a frame without the face is chosen only
    where there is no other.
    """
    distance = distance_to_portrait(portrait, driver)
    if present.any():
        distance = distance.masked_fill(~present.to(distance.device), torch.inf)
    return 0 if distance[0] <= distance.min() + FIRST else int(distance.argmin())
