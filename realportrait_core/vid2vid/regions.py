"""Facial regions of the keypoints, by their number K: 21 of LivePortrait, 26 of the bundled weights."""

import torch

from ..errors import InputError

EYES = {21: (11, 13, 15, 16, 18), 26: (14, 15, 16, 17, 22, 23, 24, 25)}
MOUTH = {21: (6, 12, 14, 17, 19, 20), 26: (4, 5, 6, 7, 8, 9)}
LIPS = {26: (4, 5)}  # upper, lower
EYES_AND_MOUTH = {k: tuple(sorted(EYES[k] + MOUTH[k])) for k in EYES}
# Left and right keypoints that are exchanged by mirroring; the others lie near the middle of the face. LivePortrait's were
# learnt without labels, and their pairs are not published: `partners` finds them.
PAIRS = {26: ((6, 7), (10, 11), (12, 13), (14, 15), (16, 17), (18, 19), (20, 21), (22, 23), (24, 25))}

SYMMETRIC = 0.3  # of the face's radius: how far a keypoint may be from the mirror image of its partner


def check_known(k: int, what: str) -> None:
    """Raises InputError where the regions of k keypoints are not known; `what` names the option that needs them."""
    if k not in EYES:
        known = " and ".join(str(count) for count in EYES)
        raise InputError(f"Of {k} keypoints it is not known which lie around eyes and mouth (of {known} it is): {what} needs it.")


def partners(canonical: torch.Tensor) -> torch.Tensor:
    """(K,) int64, the keypoint with which each one is exchanged by mirroring; canonical (L, K, 3) is the neutral face.

    From PAIRS, or, for other numbers of keypoints, the nearest point in the mirror image about the face's middle.
    Raises InputError where that is no permutation in pairs, or a poor one: keypoints that are not left-right symmetric.
    """
    k = canonical.shape[1]
    if k in PAIRS:
        partner = torch.arange(k)
        for left, right in PAIRS[k]:
            partner[left], partner[right] = right, left
        return partner
    rest = canonical.mean(0).cpu()
    rest = rest - rest.mean(0)
    apart, partner = torch.cdist(rest * rest.new_tensor((-1.0, 1.0, 1.0)), rest).min(1)
    far = apart > SYMMETRIC * rest.square().sum(1).mean().sqrt()
    odd = (far | (partner[partner] != torch.arange(k))).nonzero()[:, 0].tolist()
    if odd:
        raise InputError(
            f"{len(odd)} of these {k} keypoints have no partner on the other side of the face ({odd[:5]}), so their motion "
            "cannot be mirrored. Flip the driving frames instead, and extract their keypoints again."
        )
    return partner
