"""Resizing in whole levels as OpenCV does it (INTER_AREA, INTER_LINEAR), to the last bit where it enlarges.

YuNet's points move by up to 4 px in doubtful faces where pixels differ by one level.
"""

import torch
import torch.nn.functional as F

STRIP = 2**24  # values of a picture that are averaged at once
UNIT = 2048  # of OpenCV's weights in whole numbers


def resize_levels(picture: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """(H, W, 3) uint8 -> (height, width, 3) float32 in whole levels, 0..255: averaged where it shrinks, else bilinear."""
    if picture.shape[:2] == (height, width):
        return picture.float()
    if height > picture.shape[0] or width > picture.shape[1]:
        return enlarge(picture, height, width)
    rows = average(picture.flatten(1), height).unflatten(1, picture.shape[1:])  # (height, W, 3)
    columns = average(rows.transpose(0, 1).flatten(1), width)  # (width, height 3)
    levels = columns.unflatten(1, (height, 3)).transpose(0, 1)
    halved = picture.shape[:2] == (2 * height, 2 * width)
    return (levels + 0.5).floor() if halved else levels.round()  # of four pixels OpenCV rounds halves up, else to even


def average(rows: torch.Tensor, size: int) -> torch.Tensor:
    """Rows (n, m) averaged to `size` of them, those at an edge counted by the part that lies inside: (size, m) float32."""
    old = len(rows)
    edges = torch.arange(size + 1, dtype=torch.float64) * old / size
    low, high = edges[:-1, None], edges[1:, None]
    row = low.floor().long() + torch.arange(int((high.ceil() - low.floor()).max()))  # (size, k)
    share = (torch.minimum(high, row + 1) - torch.maximum(low, row)).clamp(min=0) * size / old
    row, share = row.clamp(max=old - 1), share.float()
    parts = rows.split(max(1, STRIP // old), dim=1)  # columns that are converted to float at once
    return torch.cat([F.embedding_bag(row, part.float(), mode="sum", per_sample_weights=share) for part in parts], 1)


def enlarge(picture: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Bilinear in whole numbers, which are cut off where OpenCV does: (H, W, 3) uint8 -> (height, width, 3) float32."""
    left, share = neighbours(picture.shape[1], width)
    share[(left < 0) | (left >= picture.shape[1] - 1)] = 0  # outside of the outer pixels' centres; not so below
    a, b = weighted(picture.transpose(0, 1).flatten(1).int(), left, share)
    rows = (a.add_(b) >> 4).unflatten(1, (-1, 3)).transpose(0, 1).flatten(1)  # (H, width 3)
    a, b = weighted(rows, *neighbours(picture.shape[0], height))
    levels = (a.bitwise_right_shift_(16) + b.bitwise_right_shift_(16)).add_(2).bitwise_right_shift_(2)
    return levels.unflatten(1, (width, 3)).float()


def neighbours(old: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """For each of `size` pixels the one of `old` before it and the share of the next one: (size,) int64 and float32."""
    at = ((torch.arange(size, dtype=torch.float64) + 0.5) * (old / size) - 0.5).float()
    return at.floor().long(), at - at.floor()


def weighted(rows: torch.Tensor, first: torch.Tensor, share: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The row `first` (size,) of rows (n, m) int32 and the one after it, times their weights of UNIT: both (size, m)."""
    last = len(rows) - 1
    one = rows.index_select(0, first.clamp(0, last)).mul_((UNIT * (1 - share)).round().int()[:, None])
    other = rows.index_select(0, (first + 1).clamp(0, last)).mul_((UNIT * share).round().int()[:, None])
    return one, other
