"""A picture of a face crop pasted into its portrait: by the inverse of the crop, which is rotated with the face, with a soft edge.

`paste.py` does the same for the upright square that RealPortrait animates. Coordinates are pixels with integer centres.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from .crop import CROP, rescale, samples_along, warp_averaged

SOFT = 16  # px of a crop of CROP px, over which the mask rises from 0 at the border to 1, as in LivePortrait's


@dataclass(frozen=True)
class Place:
    """Where an S x S picture of a face crop lies in a portrait: the same for all frames of a still portrait."""

    rows: slice  # of the portrait that the crop covers
    columns: slice
    to_window: Tensor  # (3, 3) float64, px of the crop's picture (S, S) -> px of those rows and columns
    fine: int  # samples along a portrait px, so that a picture finer than the portrait is averaged
    weight: Tensor  # (h, w) float32, 0 .. 1: the mask at these rows and columns

    @property
    def size(self) -> tuple[int, int]:
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start


def soft_square(size: int = CROP) -> Tensor:
    """The mask of a crop (size, size) in [0, 1]: 0 at the border, 1 from SOFT px of CROP inside, with round corners."""
    at = (torch.arange(size) + 0.5) * (CROP / size) - 0.5  # px of CROP
    beyond = (SOFT - torch.minimum(at, CROP - 1 - at)).clamp(min=0)  # the full square
    inward = (1 - torch.hypot(beyond[:, None], beyond) / SOFT).clamp(min=0)
    return inward * inward * (3 - 2 * inward)


def crop_place(to_crop: Tensor, size: int, mask: Tensor, height: int, width: int) -> Place:
    """The place of a crop's picture of `size` px in a portrait of height x width px.

    to_crop (3, 3): portrait px -> crop px; mask (M, M) in [0, 1], of any side: the weight of the crop's picture.
    Raises InputError for a crop beside the portrait.
    """
    to_portrait = torch.linalg.inv(to_crop.cpu().double())  # crop px -> portrait px
    reach = 0.5 + CROP / min(size, len(mask)) / 2  # bilinear sampling ends a pixel of the picture beyond its outermost centres
    ends = torch.tensor([-reach, CROP - 1 + reach], dtype=torch.float64)
    corners = torch.cartesian_prod(ends, ends) @ to_portrait[:2, :2].T + to_portrait[:2, 2]  # (4, 2) x, y
    low, high = corners.amin(0).ceil().long().clamp(min=0).tolist(), corners.amax(0).floor().long().tolist()
    (left, top), (right, bottom) = low, (min(high[0], width - 1) + 1, min(high[1], height - 1) + 1)
    if right <= left or bottom <= top:
        raise InputError(
            f"The face's crop lies from {[round(n) for n in corners.amin(0).tolist()]} to "
            f"{[round(n) for n in corners.amax(0).tolist()]} px (x, y), beside the portrait of {width}x{height} px. "
            "Choose another face, or give the face's box by hand."
        )
    window = to_portrait.clone()
    window[:2, 2] -= torch.tensor([left, top], dtype=torch.float64)
    from_mask, from_face = (window @ rescale(CROP / side) for side in (len(mask), size))
    weight = warp_averaged(mask[None, None], from_mask, bottom - top, right - left, samples_along(from_mask))[0, 0]
    return Place(slice(top, bottom), slice(left, right), from_face, samples_along(from_face), weight)


def paste_face(picture: Tensor, face: Tensor, place: Place) -> None:
    """Pastes face (3, S, S), of any device, into picture (H, W, 3), in place. Where the mask is 0 the picture keeps its bits."""
    warped = warp_averaged(face[None].float(), place.to_window, *place.size, place.fine)[0].movedim(0, -1)  # (h, w, 3)
    inside = picture[place.rows, place.columns]
    inside.copy_(torch.lerp(inside, warped.to(inside), place.weight[..., None].to(inside)))


def whole_mask(place: Place, height: int, width: int) -> Tensor:
    """The mask on the whole portrait, (height, width) on the CPU."""
    mask = torch.zeros(height, width)
    mask[place.rows, place.columns] = place.weight
    return mask
