"""The neutral frame: the driver's frame from which `relative` counts the driver's motion."""

import torch

from .keypoints import Pose, angle_between
from .regions import EYES_AND_MOUTH

# What counts how much beside the distance that a turn of the head moves its keypoints by, which is 0.06 at 11 degrees.
EXPRESSION = 8.0  # keypoints move little in an expression: 0.02 between two people at rest, 0.035 to a wide open mouth
CALM = 1.0  # frames: so much of what changes in a frame


def turned_away(portrait: Pose, driver: Pose) -> torch.Tensor:
    """The angle between the portrait's head and the driver's, degrees (L,)."""
    return angle_between(driver.rotation, portrait.rotation)


def unlike(portrait: Pose, driver: Pose) -> torch.Tensor:
    """How far the driver's frames are from the portrait and from rest (L,), in lengths of the canonical keypoints.

    Pose: the root mean square distance by which the two turns of the head place the portrait's keypoints. Expression:
    that of delta in the head's own axes, around eyes and mouth where it is known what lies there. Place and size: their
    distance from the driver's own medians, because the portrait's place in its picture says nothing of the driver's in
    his. Calm: what changes of all that in a frame, so that none is taken out of a nod or a blink.
    """
    k = portrait.canonical.shape[1]
    chosen = list(EYES_AND_MOUTH.get(k, range(k)))

    def state(pose: Pose) -> tuple[torch.Tensor, torch.Tensor]:  # (L, 3 K), (L, 3 N)
        delta = (pose.expression @ pose.rotation.mT)[:, chosen]
        return (portrait.canonical @ pose.rotation).flatten(1) / k**0.5, EXPRESSION * delta.flatten(1) / len(chosen) ** 0.5

    radius = (portrait.canonical - portrait.canonical.mean(1, keepdim=True)).square().sum(-1).mean().sqrt()
    size = radius * driver.scale.log()  # (L, 1)
    place = driver.translation[:, :2] / driver.scale.median()  # (L, 2)
    moving = torch.cat([*state(driver), size, place], 1)  # its distances are lengths
    rest = torch.cat([*state(portrait), size.median(0, keepdim=True).values, place.median(0, keepdim=True).values], 1)
    speed = torch.zeros(len(moving), device=moving.device)
    if len(moving) > 1:
        steps = moving.diff(dim=0).norm(dim=1)  # (L - 1,)
        speed[:-1] += steps
        speed[1:] += steps
        speed[1:-1] /= 2
    return (moving - rest).norm(dim=1) + CALM * speed


def neutral_frame(portrait: Pose, driver: Pose, present: torch.Tensor) -> int:
    """The calm frame whose pose and expression are nearest the portrait's; the first of equals.

    portrait holds one pose, driver L, both seen in the same axes; present (L,) bool: frames without the face are taken
    only where there is no other.
    """
    distance = unlike(portrait, driver)
    if present.any():
        distance = distance.masked_fill(~present.to(distance.device), torch.inf)
    return int(distance.argmin())
