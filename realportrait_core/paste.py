"""The animated square pasted into the whole picture, at the picture's size, with a soft edge inside the picture."""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, floor
from typing import Literal

import torch
import torch.nn.functional as F

from .errors import InputError
from .face.crop import rescale, samples_along, warp_averaged

CHUNK = 8  # frames that are resampled at once
EXACT = 1e-6  # px, tolerance within which a square on the pixel grid is copied instead of resampled

Length = Literal["longest", "shortest"]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class PasteRegion:
    """The part of a picture that an upright square of S x S frame px covers: rows top .. bottom - 1, columns left .. right - 1."""

    top: int
    bottom: int
    left: int
    right: int
    zoom: float  # frame px / picture px
    origin: tuple[float, float]  # frame px (x, y) of the picture's pixel (0, 0)
    side: float  # of the square, picture px
    open: tuple[bool, bool, bool, bool]  # left, top, right, bottom side end inside the picture

    def ramp(self, axis: int, feather: float) -> torch.Tensor:
        """Weight of every column (axis 0) or row (axis 1): from 0 at a side inside the picture to 1 at `feather` of the side."""
        low, high = ((self.left, self.right), (self.top, self.bottom))[axis]
        at = torch.arange(low, high, dtype=torch.float64)
        inward = (at * self.zoom + self.origin[axis] + 0.5) / (self.zoom * self.side)  # 0 .. 1 across the square
        weight = torch.ones_like(at)
        for is_open, distance in ((self.open[axis], inward), (self.open[axis + 2], 1 - inward)):
            if is_open and feather > 0:
                t = (distance / feather).clamp(0, 1)
                weight = weight * t * t * (3 - 2 * t)
        return weight.float()


def region(portrait_to_frame: torch.Tensor, size: int, height: int, width: int) -> PasteRegion:
    """The region of a height x width picture under a frame of `size` px; portrait_to_frame (3, 3), picture px -> frame px.

    Raises InputError where the square is rotated, or lies outside the picture.
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
            f"{width}x{height} px. Connect the portrait that the motion was made from."
        )
    ends = left > 0, top > 0, right < width - 1, bottom < height - 1  # by more than half a pixel
    return PasteRegion(*lines, *columns, zoom, (x, y), side, ends)


def frames_out(counts: list[int], length: Length) -> int:
    """The number of output frames for inputs of these lengths.

    A single frame is repeated. Of the others the longest or the shortest decides; shorter ones repeat their last frame.
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
    are of the same square. feather: share of the square's side over which it blends into the picture, except at the picture's
    own border. mask (M, H, W) of the picture or (M, S', S') of the square: 1 shows the animation, 0 the
    picture. n as in frames_out. Outside the square the pictures are bit-identical; a square that meets the pixel grid 1 to 1
    is copied. callback(done, total) after each chunk of frames. Raises InputError for shapes that do not fit.
    """
    height, width = pictures.shape[1:3]
    if frames.shape[1] != frames.shape[2]:
        raise InputError(f"The animated frames are {frames.shape[2]}x{frames.shape[1]} px; they must be square, and not cropped.")
    if not 0 <= feather <= 0.5:
        raise InputError(f"The feather is {feather:g} of the square's side; it must be between 0 and 0.5.")
    forward = rescale(frames.shape[1] / size) @ portrait_to_frame.cpu().double()
    covered = region(forward, frames.shape[1], height, width)
    edge = covered.ramp(1, feather)[:, None] * covered.ramp(0, feather)  # (h, w)
    weights = edge[None]  # (1 or M, h, w)
    if mask is not None:
        weights = edge * mask_of(mask, covered, size, portrait_to_frame, height, width)
    total = frames_out([len(pictures), len(frames), len(weights)], length)

    out = torch.empty(total, height, width, pictures.shape[3])
    rows, columns = slice(covered.top, covered.bottom), slice(covered.left, covered.right)
    for start in range(0, total, CHUNK):
        stop = min(start + CHUNK, total)
        animated = held(frames, start, stop).float().movedim(-1, 1)  # (b, 3, S, S)
        square = resampled(animated, covered, bicubic=True).movedim(1, -1)  # (b, h, w, 3)
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
    """pictures (n, H, W, C) in another frame, (n, height, width, C): black outside them, averaged where they are larger.

    forward (3, 3): picture px -> frame px.
    """
    forward = forward.cpu().double()
    fine = samples_along(forward)
    out = torch.empty(len(pictures), height, width, pictures.shape[3])
    for start in range(0, len(pictures), CHUNK):
        chunk = pictures[start : start + CHUNK].float().movedim(-1, 1)
        out[start : start + len(chunk)] = warp_averaged(chunk, forward, height, width, fine).movedim(1, -1)
    return out


def held(frames: torch.Tensor, start: int, stop: int) -> torch.Tensor:
    """Frames start .. stop - 1; the last one is repeated beyond the end."""
    return frames[[min(i, len(frames) - 1) for i in range(start, stop)]]


def resampled(frames: torch.Tensor, covered: PasteRegion, bicubic: bool) -> torch.Tensor:
    """Frames (b, C, S, S) at the region's pixels: (b, C, h, w). Copied where pixels coincide, averaged where frames are larger.

    Not kornia's: it has no area average, and would resample what is copied bit by bit here.
    """
    size = frames.shape[-1]
    x, y = (covered.zoom * start + origin for start, origin in zip((covered.left, covered.top), covered.origin))
    height, width = covered.bottom - covered.top, covered.right - covered.left
    whole = round(x), round(y)
    if (
        abs(covered.zoom - 1) < EXACT / size
        and max(abs(x - whole[0]), abs(y - whole[1])) < EXACT
        and min(whole) >= 0
        and (whole[0] + width <= size and whole[1] + height <= size)
    ):
        return frames[..., whole[1] : whole[1] + height, whole[0] : whole[0] + width]
    fine = max(1, ceil(covered.zoom - EXACT))  # samples along a picture px
    steps = (torch.arange(fine, dtype=torch.float64) + 0.5) / fine - 0.5

    def axis(start: float, count: int) -> torch.Tensor:
        at = start + covered.zoom * (torch.arange(count, dtype=torch.float64)[:, None] + steps).flatten()
        return ((2 * at + 1) / size - 1).float()  # between the outer edges

    columns, rows = axis(x, width), axis(y, height)
    grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1).expand(len(frames), -1, -1, 2).to(frames.device)
    mode = "bicubic" if bicubic and fine == 1 else "bilinear"
    out = F.grid_sample(frames, grid, mode=mode, padding_mode="border", align_corners=False)
    return F.avg_pool2d(out, fine).clamp(0, 1)


def mask_of(
    mask: torch.Tensor, covered: PasteRegion, size: int, portrait_to_frame: torch.Tensor, height: int, width: int
) -> torch.Tensor:
    """The mask at the region's pixels (M, h, w) in [0, 1]. Raises InputError unless it is of the picture's size, or square."""
    if mask.ndim == 2:
        mask = mask[None]
    if mask.ndim != 3 or not len(mask):
        raise InputError(f"The mask is {tuple(mask.shape)}; it must be (frames, height, width).")
    mask = mask.float().clamp(0, 1)
    if mask.shape[1:] == (height, width):
        return mask[:, covered.top : covered.bottom, covered.left : covered.right]
    if mask.shape[1] != mask.shape[2]:
        raise InputError(
            f"The mask is {mask.shape[2]}x{mask.shape[1]} px; it must be of the picture's {width}x{height} px, or a square that "
            "lies on the animated one."
        )
    forward = rescale(mask.shape[1] / size) @ portrait_to_frame.cpu().double()
    own = region(forward, mask.shape[1], height, width)
    return resampled(mask[:, None], own, bicubic=False)[:, 0]
