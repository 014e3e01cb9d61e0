"""Motion position map (paper, Sec. "Motion Position Map"): f_{r->d} at the face's position in the frame, the rest masked out.

For frame pixel p: map(p) = mask(p) * f_{r->d}(frame_to_crop @ p). At 512 px and 256 channels that is 268 MB a frame in
fp32, so it is kept as f, an affine and an ellipse, from which the motion mapper's first convolution is computed directly.
"""

from dataclasses import dataclass, replace
from math import ceil, floor

import torch
import torch.nn.functional as F
from einops import rearrange

from .errors import InputError


@dataclass(frozen=True)
class MotionMaps:
    """The maps of L frames of height x width px (integer coordinates are pixel centres)."""

    f: torch.Tensor  # (L, C, h, w) f_{r->d}, the warped feature in the face crop
    frame_to_crop: torch.Tensor  # (L, 3, 3) frame px -> crop px
    face: torch.Tensor  # (L, 2, 3) frame px (x, y, 1) -> unit disc: the facial mask is norm <= 1
    height: int
    width: int
    crop: int = 512  # px, side of the crop in frame_to_crop's unit
    everywhere: bool = False  # compute every pixel: on a GPU, synchronising to find the masks can take longer

    def __post_init__(self) -> None:
        frames = len(self.f)
        if self.f.ndim != 4 or self.frame_to_crop.shape != (frames, 3, 3) or self.face.shape != (frames, 2, 3):
            raise InputError(
                f"Motion maps need f (L, C, h, w), frame_to_crop (L, 3, 3) and face (L, 2, 3); these are "
                f"{tuple(self.f.shape)}, {tuple(self.frame_to_crop.shape)} and {tuple(self.face.shape)}."
            )
        if min(frames, self.height, self.width, self.crop) < 1:
            raise InputError(
                f"Motion maps of {frames} frames, {self.height}x{self.width} px, crop {self.crop} px hold nothing; "
                "each must be at least 1."
            )

    def __len__(self) -> int:
        return len(self.f)

    def __getitem__(self, frames: slice | int | list[int] | torch.Tensor) -> "MotionMaps":
        """Frames by a slice, a list or a tensor of numbers; one number gives maps of one frame."""
        if isinstance(frames, int):
            frames = [frames]
        return replace(self, f=self.f[frames], frame_to_crop=self.frame_to_crop[frames], face=self.face[frames])

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "MotionMaps":
        """The maps on `device`; `dtype` is that of f only, since the affines need their precision."""
        f = self.f.to(device=device, dtype=dtype)
        geometry = torch.float32 if f.device.type == "mps" else self.face.dtype  # Metal has no float64
        return replace(self, f=f, frame_to_crop=self.frame_to_crop.to(f.device, geometry), face=self.face.to(f.device, geometry))

    def reaching(self, faces: float) -> "MotionMaps":
        """The maps with a facial mask `faces` times as large."""
        return replace(self, face=self.face / faces)

    def mask(self) -> torch.Tensor:
        """The facial mask (L, height, width), bool."""
        return ellipse_mask(self.face, *pixels(self.face, (0, self.height), (0, self.width)))


def pixels(like: torch.Tensor, rows: tuple[int, int], columns: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Coordinates of a window of the frame: x (width,) and y (height, 1)."""
    x = torch.arange(*columns, dtype=like.dtype, device=like.device)
    y = torch.arange(*rows, dtype=like.dtype, device=like.device)[:, None]
    return x, y


def affine(rows: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """rows @ (x, y, 1) over a window: (L, 2, 3) -> (L, height, width, 2)."""
    a, b, c = rows[:, None, None].unbind(-1)  # each (L, 1, 1, 2)
    return a * x[:, None] + (b * y[..., None] + c)


def ellipse_mask(face: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """(L, height, width) bool."""
    u, v = affine(face, x, y).unbind(-1)
    return u.square() + v.square() <= 1


def crop_grid(maps: MotionMaps, x: torch.Tensor, y: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Sampling positions in f (L, height, width, 2), [-1, 1] between the crop's outer edges: u = (2 x_c + 1) / crop - 1."""
    to_unit = 2 / maps.crop * maps.frame_to_crop[:, :2]
    to_unit[..., 2] += 1 / maps.crop - 1
    return affine(to_unit, x, y).to(dtype)


def dense(maps: MotionMaps) -> torch.Tensor:
    """The map as in Figure 1: f warped to the whole frame, then masked. (L, C, height, width).

    For previews and tests: 16 frames of 512 px and 256 channels are 4.3 GB.
    """
    x, y = pixels(maps.face, (0, maps.height), (0, maps.width))
    f = maps.f.to(sampling_dtype(maps.f.dtype))
    warped = F.grid_sample(f, crop_grid(maps, x, y, f.dtype), padding_mode="zeros", align_corners=False)
    facial = ellipse_mask(maps.face, x, y)
    return (warped * facial[:, None].to(f.dtype)).to(maps.f.dtype)


def first_convolution(maps: MotionMaps, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """conv2d(dense(maps), weight, bias, stride=2, padding=1) without the dense map: (L, C1, ceil(height/2), ceil(width/2)).

    Only outputs whose window meets the mask are computed (kornia warps whole frames), the others are the bias.
    weight (C1, C, 3, 3), bias (C1,); differentiable in both, and in f.
    """
    if weight.shape[1:] != (maps.f.shape[1], 3, 3) or bias.shape != weight.shape[:1]:
        raise InputError(
            f"The motion mapper's first convolution has weight {tuple(weight.shape)} and bias {tuple(bias.shape)}; "
            f"maps of {maps.f.shape[1]} channels need (C1, {maps.f.shape[1]}, 3, 3) and (C1,)."
        )
    rows, columns = (maps.height + 1) // 2, (maps.width + 1) // 2
    whole = bias[:, None, None].expand(len(maps), -1, rows, columns)  # conv(0) = bias
    box = ((0, maps.height - 1), (0, maps.width - 1)) if maps.everywhere else facial_box(maps)
    if box is None:
        return whole
    (top, bottom), (left, right) = box
    y0, y1 = top // 2, min((bottom + 1) // 2, rows - 1) + 1  # output rows y0 .. y1 - 1
    x0, x1 = left // 2, min((right + 1) // 2, columns - 1) + 1

    # The receptive field of those outputs, the padding included.
    x, y = pixels(maps.face, (2 * y0 - 1, 2 * y1), (2 * x0 - 1, 2 * x1))
    inside = (x >= 0) & (x < maps.width) & (y >= 0) & (y < maps.height)
    facial = ellipse_mask(maps.face, x, y) * inside  # (L, 2n+1, 2m+1)
    dtype = sampling_dtype(weight.dtype)
    grid = crop_grid(maps, x, y, dtype)  # (L, 2n+1, 2m+1, 2)
    # The 9 taps at a quarter of the pixels sample 2.25 C1 channels; where f has fewer, warping f costs less.
    order = warp_then_mix if maps.f.shape[1] <= 2.25 * len(weight) else mix_then_warp
    out = order(maps.f, grid, facial[:, None].to(dtype), weight)  # (L, C1, n, m)
    whole = whole.clone()
    whole[:, :, y0:y1, x0:x1] += out
    return whole


def warp_then_mix(f: torch.Tensor, grid: torch.Tensor, facial: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """conv(facial * sample(f, grid)) with a stride of 2 and no padding: (L, C, h, w) -> (L, C1, n, m)."""
    warped = F.grid_sample(f.to(grid.dtype), grid, padding_mode="zeros", align_corners=False).mul_(facial)
    return F.conv2d(warped.to(weight.dtype), weight, stride=2)


def mix_then_warp(f: torch.Tensor, grid: torch.Tensor, facial: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The same result. Mask and bilinear weights are scalars per pixel, so channels can be mixed first, on f's small grid:

    conv(mask * sample(f)) = sum over the 9 taps t of mask(p_t) * sample(W_t f, p_t), with p_t = 2 p' + t.
    """
    taps = rearrange(weight, "c1 c dy dx -> (dy dx c1) c 1 1")
    mixed = rearrange(F.conv2d(f.to(weight.dtype), taps), "l (t c1) h w -> t l c1 h w", t=9).to(grid.dtype)
    n, m = (grid.shape[1] - 1) // 2, (grid.shape[2] - 1) // 2
    out = mixed.new_zeros(())
    for tap, channels in enumerate(mixed):
        dy, dx = slice(tap // 3, tap // 3 + 2 * n - 1, 2), slice(tap % 3, tap % 3 + 2 * m - 1, 2)
        sampled = F.grid_sample(channels, grid[:, dy, dx], padding_mode="zeros", align_corners=False)
        out = out + facial[:, :, dy, dx] * sampled  # (L, C1, n, m)
    return out.to(weight.dtype)


def sampling_dtype(dtype: torch.dtype) -> torch.dtype:
    """fp32 at least: grids in half precision would move the map by up to an eighth of a feature pixel."""
    return dtype if dtype == torch.float64 else torch.float32


def facial_box(maps: MotionMaps) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """First and last row and column of the union of the facial masks, rounded outwards from their axes; None for empty masks."""
    linear, shift = maps.face[..., :2].cpu().double(), maps.face[..., 2:].cpu().double()
    solid = torch.linalg.det(linear).abs() > 1e-12  # an empty mask has no axes
    if not solid.any():
        return None
    to_frame = torch.linalg.inv(linear[solid])
    center = -(to_frame @ shift[solid])[..., 0]  # (n, 2) x, y
    reach = to_frame.norm(dim=-1)  # (n, 2) of the unit disc's image
    low, high = (center - reach).amin(0), (center + reach).amax(0)
    left, top = max(0, floor(low[0])), max(0, floor(low[1]))
    right, bottom = min(maps.width - 1, ceil(high[0])), min(maps.height - 1, ceil(high[1]))
    if right < left or bottom < top:
        return None
    return (top, bottom), (left, right)
