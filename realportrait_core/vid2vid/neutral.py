"""The neutral frame: the driver's frame from which `relative` counts the driver's motion."""

import torch

from .keypoints import Pose

CALM = 2.0              # frames: so much of the motion a frame counts beside how far the frame is from the portrait


def turned_away(portrait: Pose, driver: Pose) -> torch.Tensor:
    """The angle between the portrait's head and the driver's, degrees (L,)."""
    trace = (driver.rotation.mT @ portrait.rotation).diagonal(dim1=1, dim2=2).sum(-1)
    return torch.rad2deg(torch.acos(((trace - 1) / 2).clamp(-1, 1)))


def unlike(portrait: Pose, driver: Pose) -> torch.Tensor:
    """How far the driver's frames are from the portrait and from rest (L,), in lengths of the canonical keypoints.

    All of it is measured on the portrait's head at s = 1. Pose and expression: the root mean square distance of the
    keypoints from the portrait's. Place and size: their distance from the driver's own medians, because the portrait's
    place in its picture says nothing of the driver's in his. Motion: what changes in a frame, which is what makes a calm
    frame better than one in the middle of a nod or a blink.
    """
    def rms(x: torch.Tensor) -> torch.Tensor:
        return x.square().sum(-1).mean(-1).sqrt()

    own = portrait.canonical @ portrait.rotation + portrait.expression                  # (1, K, 3)
    shape = portrait.canonical @ driver.rotation + driver.expression                    # (L, K, 3)
    radius = rms(portrait.canonical - portrait.canonical.mean(1, keepdim=True))         # (1,)
    size = driver.scale.log()[:, 0]                                                     # (L,)
    size = radius * (size - size.median())
    place = driver.translation[:, :2] / driver.scale.median()
    place = place - place.median(0).values
    state = torch.cat([shape.flatten(1) / shape.shape[1]**0.5, size[:, None], place], 1)    # its distances are lengths
    speed = torch.zeros_like(size)
    if len(state) > 1:
        steps = state.diff(dim=0).norm(dim=1)                                           # (L - 1,)
        speed[:-1] += steps
        speed[1:] += steps
        speed[1:-1] /= 2
    return (rms(shape - own).square() + size.square() + place.square().sum(1)).sqrt() + CALM * speed


def neutral_frame(portrait: Pose, driver: Pose, present: torch.Tensor) -> int:
    """The calm frame whose pose and expression are nearest the portrait's; the first of equals.

    portrait holds one pose, driver L, both seen in the same axes; present (L,) bool: frames without the face are taken
    only where there is no other.
    """
    distance = unlike(portrait, driver)
    if present.any():
        distance = distance.masked_fill(~present.to(distance.device), torch.inf)
    return int(distance.argmin())
