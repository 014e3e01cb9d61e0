"""LivePortrait's three small MLPs on keypoints: stitching, lip and eye retargeting.

RealPortrait leaves them off by default: stitching holds the shoulders where the portrait's are, and RealPortrait generates them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ..errors import InputError

# Pairs of LivePortrait's 203 landmarks whose distances are divided: (upper, lower) / (corner, corner).
LEFT_EYE = ((6, 18), (0, 12))
RIGHT_EYE = ((30, 42), (24, 36))
LIPS = ((90, 102), (48, 66))


def distance_ratio(landmarks: torch.Tensor, opening: tuple[int, int], width: tuple[int, int]) -> torch.Tensor:
    def distance(pair: tuple[int, int]) -> torch.Tensor:
        return (landmarks[:, pair[0]] - landmarks[:, pair[1]]).norm(dim=-1, keepdim=True)

    return distance(opening) / (distance(width) + 1e-6)  # (B, 1)


def eye_close_ratio(landmarks: torch.Tensor) -> torch.Tensor:
    """How open the left and the right eye are, (B, 2), from 203 landmarks (B, 203, 2)."""
    return torch.cat((distance_ratio(landmarks, *LEFT_EYE), distance_ratio(landmarks, *RIGHT_EYE)), -1)


def lip_close_ratio(landmarks: torch.Tensor) -> torch.Tensor:
    """How open the mouth is, (B, 1), from 203 landmarks (B, 203, 2)."""
    return distance_ratio(landmarks, *LIPS)


class KeypointMLP(nn.Module):
    """Linear layers of the given sizes with ReLUs between them; (B, sizes[0]) -> (B, sizes[-1])."""

    def __init__(self, sizes: Sequence[int]):
        super().__init__()
        layers = []
        for n_in, n_out in zip(sizes, sizes[1:]):
            layers += [nn.Linear(n_in, n_out), nn.ReLU()]
        self.mlp = nn.Sequential(*layers[:-1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mlp(x)


def stitch(network: KeypointMLP, x_s: torch.Tensor, x_d: torch.Tensor) -> torch.Tensor:
    """x_d (B, K, 3) moved so that the shoulders stay on those of the portrait x_s (B, K, 3)."""
    change = network(torch.cat((x_s.flatten(1), x_d.flatten(1)), -1))  # (B, 3K + 2)
    moved = x_d + change[:, :-2].view_as(x_d)
    in_plane = torch.nn.functional.pad(change[:, -2:], (0, 1))  # (B, 3): x, y, 0
    return moved + in_plane[:, None]


def retarget_opening(network: KeypointMLP, x_s: torch.Tensor, ratios: torch.Tensor) -> torch.Tensor:
    """The change (B, K, 3) of the keypoints x_s (B, K, 3) with which eyes or lips reach a wanted opening.

    `ratios` are the portrait's own followed by the wanted one: (B, 3) for the eyes (left, right, wanted), (B, 2) for the lips.
    """
    return network(torch.cat((x_s.flatten(1), ratios), -1)).view_as(x_s)


@dataclass(frozen=True)
class Opening:
    """Of the eyes or the lips, as eye_close_ratio and lip_close_ratio measure it: 0 is shut."""

    portrait: float
    wanted: float


@dataclass(frozen=True)
class Finish:
    """Stitching and retargeting of driven keypoints by the three MLPs."""

    networks: Mapping[str, KeypointMLP]  # "stitching", "lip" and "eye"
    shoulders: bool  # stitch: the shoulders stay where the portrait's are
    eyes: Opening | None = None  # None: left as they are
    lips: Opening | None = None


def check_keypoints(networks: Mapping[str, KeypointMLP], k: int) -> None:
    """Raises InputError for networks of another number of keypoints than k."""
    wanted = {"stitching": (6 * k, 3 * k + 2), "lip": (3 * k + 2, 3 * k), "eye": (3 * k + 3, 3 * k)}
    for name, network in networks.items():
        found = network.mlp[0].in_features, network.mlp[-1].out_features
        if found != wanted[name]:
            raise InputError(
                f"The {name} network takes {found[0]} numbers to {found[1]}, and {k} keypoints need {wanted[name][0]} to "
                f"{wanted[name][1]}: it belongs to another Face Vid2vid. LivePortrait's have 21 keypoints; extract the keypoints "
                "with its Face Vid2vid."
            )


def finish(x_s: torch.Tensor, x_d: torch.Tensor, given: Finish) -> torch.Tensor:
    """Driven keypoints x_d (L, K, 3) of the portrait x_s (1 or L, K, 3) with retargeted eyes and lips, then stitched.

    LivePortrait's relative mode drops the driving motion where it retargets; here the change is added to it.
    """
    if given.eyes is not None:
        both = x_s.new_tensor([[given.eyes.portrait, given.eyes.portrait, given.eyes.wanted]]).expand(len(x_s), 3)
        x_d = x_d + retarget_opening(given.networks["eye"], x_s, both)
    if given.lips is not None:
        both = x_s.new_tensor([[given.lips.portrait, given.lips.wanted]]).expand(len(x_s), 2)
        x_d = x_d + retarget_opening(given.networks["lip"], x_s, both)
    return stitch(given.networks["stitching"], x_s.expand_as(x_d), x_d) if given.shoulders else x_d
