"""The animated square back in the whole picture: at the picture's own size, with a soft edge where the square ends inside it."""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, floor
from typing import Literal

import torch
import torch.nn.functional as F

from .errors import InputError
from .face.crop import rescale, warp_averaged

CHUNK = 8  # frames that are resampled at once
EXACT = 1e-6  # px by which a square may miss the pixel grid and still be copied

Length = Literal["longest", "shortest"]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Region:
    """What an upright square of S x S frame px covers of a picture: rows top .. bottom - 1, columns left .. right - 1."""

    top: int
    bottom: int
    left: int
    right: int
    zoom: float  # frame px / picture px
    origin: tuple[float, float]  # frame px (x, y) of the picture's pixel (0, 0)
    side: float  # of the square, picture px
    open: tuple[bool, bool, bool, bool]  # left, top, right, bottom side end inside the picture

    def ramp(self, axis: int, feather: float) -> torch.Tensor:
        """Weight of every column (axis 0) or row (axis 1): 0 at an open side of the square to 1 at `feather` of its side."""
        low, high = ((self.left, self.right), (self.top, self.bottom))[axis]
        at = torch.arange(low, high, dtype=torch.float64)
        inward = (at * self.zoom + self.origin[axis] + 0.5) / (self.zoom * self.side)  # 0 .. 1 across the square
        weight = torch.ones_like(at)
        for is_open, distance in ((self.open[axis], inward), (self.open[axis + 2], 1 - inward)):
            if is_open and feather > 0:
                t = (distance / feather).clamp(0, 1)
                weight = weight * t * t * (3 - 2 * t)
        return weight.float()


def region(portrait_to_frame: torch.Tensor, size: int, height: int, width: int) -> Region:
    """Where a frame of size px lies on a picture; portrait_to_frame (3, 3), picture px -> frame px.

    Raises InputError where the square is turned, or lies beside the picture.
    """
    rows = portrait_to_frame.cpu().double()
    zoom, (x, y) = float(rows[0, 0]), rows[:2, 2].tolist()
    if zoom <= 0 or (rows[:2, :2] - zoom * torch.eye(2, dtype=torch.float64)).abs().max() > 1e-6 * abs(zoom):
        raise InputError(f"The square of this motion is turned or squeezed ({rows[:2, :2].tolist()}): it cannot be pasted back.")
    side = size / zoom
    left, top = (-0.5 - x) / zoom, (-0.5 - y) / zoom  # outer corner, picture px
    right, bottom = left + side, top + side
    columns = max(0, ceil(left - EXACT)), min(width, floor(right + EXACT) + 1)
    lines = max(0, ceil(top - EXACT)), min(height, floor(bottom + EXACT) + 1)
    if columns[0] >= columns[1] or lines[0] >= lines[1]:
        raise InputError(
            f"The square lies at x {left:.0f} to {right:.0f} and y {top:.0f} to {bottom:.0f} px, beside the picture of "
            f"{width}x{height} px."
        )
    ends = left > 0, top > 0, right < width - 1, bottom < height - 1  # by more than half a pixel
    return Region(*lines, *columns, zoom, (x, y), side, ends)


def frames_out(counts: list[int], length: Length) -> int:
    """How many frames come of inputs of these lengths.

    A single frame lasts as long as the others. Of the rest the longest or the shortest decides, and what ends before it
    holds its last frame.
    """
    if length not in ("longest", "shortest"):
        raise InputError(f"The length is {length!r}; it must be 'longest' or 'shortest'.")
    several = [count for count in counts if count > 1]
    return (max if length == "longest" else min)(several, default=1)


def paste(
    pictures: torch.Tensor,
    frames: torch.Tensor,
    portrait_to_frame: torch.Tensor,
    size: int,
    feather: float = 0.08,
    mask: torch.Tensor | None = None,
    length: Length = "longest",
    callback: Progress | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """pictures (B, H, W, 3) and animated frames (L, S, S, 3), in [0, 1] -> pictures (n, H, W, 3) and the weight (1 or n, H, W).

    portrait_to_frame (3, 3): picture px -> px of a frame of `size` px; frames of another S, enlarged by another network say,
    are taken for the same square. feather: share of the square's side over which its sides blend into the picture; sides on
    the picture's own border do not. mask (M, H, W) of the picture or (M, S', S') of the square: 1 shows the animation, 0 the
    picture. n as in frames_out. Outside the square the pictures stay as they are, bit by bit; a square that meets the pixel
    grid 1 to 1 is copied. callback(done, total) after each chunk of frames. Raises InputError for shapes that do not fit.
    """
    height, width = pictures.shape[1:3]
    if frames.shape[1] != frames.shape[2]:
        raise InputError(f"The animated frames are {frames.shape[2]}x{frames.shape[1]} px; they must be square, and not cropped.")
    if not 0 <= feather <= 0.5:
        raise InputError(f"The feather is {feather:g} of the square's side; it must be between 0 and 0.5.")
    forward = rescale(frames.shape[1] / size) @ portrait_to_frame.cpu().double()
    place = region(forward, frames.shape[1], height, width)
    edge = place.ramp(1, feather)[:, None] * place.ramp(0, feather)  # (h, w)
    weights = edge[None]  # (1 or M, h, w)
    if mask is not None:
        weights = edge * mask_of(mask, place, size, portrait_to_frame, height, width)
    total = frames_out([len(pictures), len(frames), len(weights)], length)

    out = torch.empty(total, height, width, pictures.shape[3])
    rows, columns = slice(place.top, place.bottom), slice(place.left, place.right)
    for start in range(0, total, CHUNK):
        stop = min(start + CHUNK, total)
        animated = held(frames, start, stop).float().movedim(-1, 1)  # (b, 3, S, S)
        square = resampled(animated, place, bicubic=True).movedim(1, -1)  # (b, h, w, 3)
        out[start:stop] = held(pictures, start, stop)
        inside = out[start:stop, rows, columns]
        inside.copy_(torch.lerp(inside, square.to(inside), held(weights, start, stop)[..., None]))
        if callback is not None:
            callback(stop, total)
    shown = weights if len(weights) == 1 else held(weights, 0, total)
    whole = torch.zeros(len(shown), height, width)
    whole[:, rows, columns] = shown
    return out, whole


def reframe(pictures: torch.Tensor, forward: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """pictures (n, H, W, C) in another frame, (n, height, width, C): black beyond them, averaged down where they are larger.

    forward (3, 3): picture px -> frame px.
    """
    forward = forward.cpu().double()
    fine = max(1, ceil(float(torch.linalg.det(forward[:2, :2]).abs()) ** -0.5 - EXACT))
    out = torch.empty(len(pictures), height, width, pictures.shape[3])
    for start in range(0, len(pictures), CHUNK):
        chunk = pictures[start : start + CHUNK].float().movedim(-1, 1)
        out[start : start + len(chunk)] = warp_averaged(chunk, forward, height, width, fine).movedim(1, -1)
    return out


def held(frames: torch.Tensor, start: int, stop: int) -> torch.Tensor:
    """Frames start .. stop - 1, the last one standing beyond the end."""
    return frames[[min(i, len(frames) - 1) for i in range(start, stop)]]


def resampled(frames: torch.Tensor, place: Region, bicubic: bool) -> torch.Tensor:
    """Frames (b, C, S, S) at the region's pixels: (b, C, h, w). Copied where pixels meet, averaged where they are larger.

    Not kornia's: it has no area average, and would resample what is copied bit by bit here.
    """
    size = frames.shape[-1]
    x, y = (place.zoom * start + origin for start, origin in zip((place.left, place.top), place.origin))
    height, width = place.bottom - place.top, place.right - place.left
    whole = round(x), round(y)
    if (
        abs(place.zoom - 1) < EXACT / size
        and max(abs(x - whole[0]), abs(y - whole[1])) < EXACT
        and min(whole) >= 0
        and (whole[0] + width <= size and whole[1] + height <= size)
    ):
        return frames[..., whole[1] : whole[1] + height, whole[0] : whole[0] + width]
    fine = max(1, ceil(place.zoom - EXACT))  # samples along a picture px
    steps = (torch.arange(fine, dtype=torch.float64) + 0.5) / fine - 0.5

    def axis(start: float, count: int) -> torch.Tensor:
        at = start + place.zoom * (torch.arange(count, dtype=torch.float64)[:, None] + steps).flatten()
        return ((2 * at + 1) / size - 1).float()  # between the outer edges

    columns, rows = axis(x, width), axis(y, height)
    grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1).expand(len(frames), -1, -1, 2).to(frames.device)
    mode = "bicubic" if bicubic and fine == 1 else "bilinear"
    out = F.grid_sample(frames, grid, mode=mode, padding_mode="border", align_corners=False)
    return F.avg_pool2d(out, fine).clamp(0, 1)


def mask_of(mask: torch.Tensor, place: Region, size: int, portrait_to_frame: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The mask on the region's pixels (M, h, w) in [0, 1]; InputError unless it is of the picture's size, or square."""
    if mask.ndim == 2:
        mask = mask[None]
    if mask.ndim != 3 or not len(mask):
        raise InputError(f"The mask is {tuple(mask.shape)}; it must be (frames, height, width).")
    mask = mask.float().clamp(0, 1)
    if mask.shape[1:] == (height, width):
        return mask[:, place.top : place.bottom, place.left : place.right]
    if mask.shape[1] != mask.shape[2]:
        raise InputError(
            f"The mask is {mask.shape[2]}x{mask.shape[1]} px; it must be of the picture's {width}x{height} px, or a square that "
            "lies on the animated one."
        )
    forward = rescale(mask.shape[1] / size) @ portrait_to_frame.cpu().double()
    own = region(forward, mask.shape[1], height, width)
    return resampled(mask[:, None], own, bicubic=False)[:, 0]
