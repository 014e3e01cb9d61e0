"""Training pairs out of one photograph: portrait and target show the person in two poses."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..vid2vid.keypoints import rotation_matrix
from .change import Limits, random_changes
from .topology import Topology
from .turning import turn


@dataclass(frozen=True)
class Pair:
    """B pairs of S px: target(p) = portrait(p - flow(p)) where `unknown` is 0.

    If the target is untouched, the portrait warped by the flow is the target except for the blur of two resamplings: the flow is
    exact, and the target's pixels are those of the photo.
    """

    portrait: Tensor  # (B, 3, S, S) in 0..1
    target: Tensor  # (B, 3, S, S)
    flow: Tensor  # (B, 2, S, S) px, at the target's places
    unknown: Tensor  # (B, S, S) in 0..1: to be left out of every loss, at the target's places
    portrait_mesh: Tensor  # (B, P, 3) px
    target_mesh: Tensor  # (B, P, 3) px
    rotation: Tensor  # (B, 3, 3) of the head from the portrait to the target, for row vectors
    untouched: Tensor  # (B,) bool: the target is the photo and the portrait is turned, not the other way round


def draw_pairs(
    photos: Tensor, mesh: Tensor, topology: Topology, generator: torch.Generator, limits: Limits = Limits(), untouched: float = 0.6
) -> Pair:
    """Of photos (B, 3, S, S) and mesh (B, P, 3) px. `untouched`: probability that the target is the photo itself; high, so that
    artefacts of turning are rarely targets. Drawn on the generator's device. InputError as in `turn`."""
    change = random_changes((len(photos), 1), limits, generator, photos.device)
    whole = torch.rand(len(photos), generator=generator, device=generator.device).to(photos.device) < untouched
    turned = turn(photos, mesh, topology, change)
    picture, moved = turned.pictures[:, 0], turned.mesh[:, 0]
    rotation = rotation_matrix(*(angle[:, 0] for angle in (change.pitch, change.yaw, change.roll)))

    def choose(if_untouched: Tensor, otherwise: Tensor) -> Tensor:
        return torch.where(whole.view(-1, *[1] * (otherwise.ndim - 1)), if_untouched, otherwise)

    return Pair(
        portrait=choose(picture, photos),
        target=choose(photos, picture),
        flow=choose(-turned.forward[:, 0], turned.flow[:, 0]),
        unknown=choose(turned.hidden[:, 0], turned.unknown[:, 0]),
        portrait_mesh=choose(moved, mesh),
        target_mesh=choose(mesh, moved),
        rotation=choose(rotation.mT, rotation),
        untouched=whole,
    )
