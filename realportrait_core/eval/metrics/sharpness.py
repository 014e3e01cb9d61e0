"""`sharp`: energy of the Laplacian inside the facial mask, relative to the truth's or the portrait's. Never part of a loss.

1: as sharp. Blur lowers it; noise, hatching and ringing raise it, so a value above 1 is no praise: read it beside ST-LPIPS and
`spectrum`, which says in which octave the power is missing. Half the contrast is a quarter of the energy. 4 ms a pair of 256 px.
"""

from torch import Tensor

from ...errors import InputError
from ..values import Values, where
from .frames import check_pair

# Variance of an 8-bit picture's rounding: a truth with less energy is flat, and nothing is relative to it.
FLAT = (1 / 255) ** 2 / 12


def sharpness(result: Tensor, truth: Tensor, face: Tensor) -> Values:
    """Of each frame, both (L, 3, H, W) in [0, 1], inside the truth's facial mask face (L, H, W) bool.

    None where the mask is empty or the truth is flat inside. InputError for shapes that do not agree, and for NaN.
    """
    check_pair(result, truth)
    return ratios(laplacian_energy(result, face), laplacian_energy(truth, face))


def sharpness_to_portrait(result: Tensor, face: Tensor, portrait: Tensor, portrait_face: Tensor) -> Values:
    """The same for a case without truth: frames (L, 3, H, W) in their own facial masks (L, H, W), relative to the portrait
    (1, 3, H, W) in its mask (1, H, W). Faces of one size: a larger face has less energy a pixel."""
    own = laplacian_energy(portrait, portrait_face)
    return ratios(laplacian_energy(result, face), own.expand(len(result)))


def laplacian_energy(pictures: Tensor, face: Tensor) -> Tensor:
    """Mean square (L,) of the luma's Laplacian over the pixels of face (L, H, W) bool; NaN where there are none."""
    from kornia.color import rgb_to_grayscale
    from kornia.filters import laplacian

    if pictures.ndim != 4 or pictures.shape[1] != 3 or face.shape != (len(pictures), *pictures.shape[2:]):
        raise InputError(
            f"Pictures are {tuple(pictures.shape)} and the masks {tuple(face.shape)}; (L, 3, H, W) and (L, H, W) match."
        )
    edges = laplacian(rgb_to_grayscale(pictures.float()), 3, normalized=False)[:, 0]  # (L, H, W), of the eight neighbours
    return (edges.square() * face).sum((1, 2)) / face.sum((1, 2))


def ratios(ours: Tensor, theirs: Tensor) -> Values:
    """None where one of them is NaN, or the second is flat."""
    return where(ours.double() / theirs.double(), (theirs > FLAT) & ours.isfinite())
