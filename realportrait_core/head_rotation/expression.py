"""Small changes of expression, as displacement fields over the canonical face. They warp what the photo shows and add nothing: no
teeth, no closed eye. Positions and lengths are cm of MediaPipe's canonical face, x to the picture's right and y up.
"""

import torch
from torch import Tensor

# An amount of 1: the jaw 4 mm down, the lips 3 mm apart, the mouth's corners 4 mm up, the brows 4 mm up, the lids 1.2 mm down.
NAMES = ("jaw", "lips", "smile", "brows", "lids")
JAW, LIPS, SMILE, BROWS, LIDS = 0.4, 0.3, 0.4, 0.4, 0.12
SEAM = -4.27  # between the lips
CORNER = (2.46, -4.34)  # of the mouth
BROW = (3.4, 5.0)
LID = (3.18, 2.95)  # the upper one's edge


def bump(x: Tensor, y: Tensor, place: tuple[float, float], wide: float, high: float) -> Tensor:
    """A Gaussian bump: 1 at a position, e^-1 at `wide` beside it and `high` above it."""
    return torch.exp(-(((x - place[0]) / wide) ** 2) - ((y - place[1]) / high) ** 2)


def displacements(canonical: Tensor, amounts: Tensor) -> Tensor:
    """Displacements of points of the face.

    canonical (B, 2, ...) cm, amounts (B, N, 5) of NAMES -> (B, N, 2, ...) cm, x right and y up.
    """
    x, y = canonical.unbind(1)
    aside = x.abs()  # symmetrical
    outward = torch.tanh(x / 0.5)

    # The jaw: 1 at the chin, 0 at the cheekbones and below the throat; the transition is sharp between the lips and gradual
    # beside the mouth.
    edge = 0.10 + 0.9 * ((aside - 1.2) / 1.6).clamp(0, 1) ** 2
    lower = torch.sigmoid((SEAM - y) / edge)
    within = torch.exp(-((aside / 5.5) ** 4)) * torch.sigmoid((y + 11.5) / 0.7)
    jaw = -JAW * lower * within

    # The lower lip moves down, the upper one slightly up.
    around = torch.exp(-((aside / 1.9) ** 4) - ((y - SEAM) / 1.2) ** 4)
    lips = LIPS * around * (0.3 - torch.sigmoid((SEAM - y) / 0.10))

    corner = bump(aside, y, CORNER, 1.7, 1.7)
    brow = bump(aside, y, BROW, 2.8, 1.3)
    lid = bump(aside, y, LID, 1.5, 0.55)
    none = torch.zeros_like(x)
    basis = torch.stack(
        [
            torch.stack([none, jaw], 1),
            torch.stack([none, lips], 1),
            torch.stack([0.7 * SMILE * outward * corner, SMILE * corner], 1),
            torch.stack([none, BROWS * brow], 1),
            torch.stack([none, -LIDS * lid], 1),
        ],
        1,
    )  # (B, 5, 2, ...)
    return torch.einsum("bne,be...->bn...", amounts, basis)
