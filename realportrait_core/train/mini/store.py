"""The training set as arrays on disk: decoded frames, detected points, and what heads256 knows of each head."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from ...errors import InputError
from ...face.crop import CROP, clip_crop, pixel_grid, points_to_crop
from .truth import Heads, load_heads

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Store:
    """N clips of T frames, side S px."""

    names: list[str]
    frames: np.ndarray  # (N, T, S, S, 3) uint8, memory-mapped
    points: torch.Tensor  # (N, T, 5, 2) px, NaN where no face was found
    heads: Heads
    portrait_crops: torch.Tensor  # (N, T, 3, 3) float64, frame px -> crop px, NaN where no face was found
    clip_crops: torch.Tensor  # (N, 3, 3) float64
    alpha: np.ndarray  # (N, T, 64, 64) bool, foreground at quarter size

    @property
    def found(self) -> torch.Tensor:
        """(N, T) whether the frame's face was found."""
        return torch.isfinite(self.portrait_crops[..., 0, 0])

    def images(self, clips: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        """(B, 3, S, S) in [0, 1]."""
        batch = np.stack([self.frames[c, t] for c, t in zip(clips.tolist(), frames.tolist())])
        return torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 255


def open_store(cache: str | Path, data: str | Path, limit: int | None = None) -> Store:
    """What `prepare` wrote. InputError where it is missing or does not fit the data."""
    cache = Path(cache)
    for name in ("frames.npy", "points.npy"):
        if not (cache / name).is_file():
            raise InputError(f"{cache / name} is missing: run `python -m realportrait_core.train.mini prepare` first.")
    frames = np.load(cache / "frames.npy", mmap_mode="r")[:limit]
    points = torch.from_numpy(np.load(cache / "points.npy"))[:limit]
    heads, names = load_heads(data, limit)
    if len(frames) != len(names):
        raise InputError(f"{cache} holds {len(frames)} clips, {data} holds {len(names)}: run `prepare` again.")
    found = torch.isfinite(points).all(-1).all(-1)  # (N, T)
    portrait = torch.full((*found.shape, 3, 3), torch.nan, dtype=torch.float64)
    portrait[found] = points_to_crop(points[found])
    clip = torch.full((len(points), 3, 3), torch.nan, dtype=torch.float64)
    for i in torch.nonzero(found.any(1))[:, 0].tolist():
        clip[i] = clip_crop(points[i, found[i]])
    alpha = np.stack([read_alpha(Path(data) / f"{name}.npz") for name in names])
    return Store(names, frames, points, heads, portrait, clip, alpha)


def read_alpha(path: Path) -> np.ndarray:
    with np.load(path, allow_pickle=False) as file:
        return file["alpha"]


def crop_batch(images: torch.Tensor, frame_to_crop: torch.Tensor, size: int) -> torch.Tensor:
    """(B, 3, S, S), (B, 3, 3) -> (B, 3, size, size), antialiased by sampling at twice the size; on the pictures' device."""
    factor = 2 * size / CROP
    fine = factor * frame_to_crop.to(images.device)[:, :2]  # (B, 2, 3) float64, at twice the size
    fine[..., 2] += (factor - 1) / 2
    rows = 2 / images.shape[-1] * inverted(fine)
    rows[..., 2] += 1 / images.shape[-1] - 1  # px -> [-1, 1] between outer edges
    grid = pixel_grid(rows.to(images.dtype), 2 * size, 2 * size)
    return F.avg_pool2d(F.grid_sample(images, grid, align_corners=False), 2)


def inverted(affine: torch.Tensor) -> torch.Tensor:
    """The way back of affines (..., 2, 3), written out: a solver on a GPU makes the host wait."""
    (a, b, x), (c, d, y) = (row.unbind(-1) for row in affine.unbind(-2))
    area = a * d - b * c
    a, b, c, d = d / area, -b / area, -c / area, a / area
    return torch.stack([torch.stack([a, b, -a * x - b * y], -1), torch.stack([c, d, -c * x - d * y], -1)], -2)


def to_unit(frame_to_crop: torch.Tensor) -> torch.Tensor:
    """(B, 3, 3) frame px -> crop px as (B, 2, 3) frame px -> the crop's [-1, 1]."""
    unit = 2 / CROP * frame_to_crop[..., :2, :]
    unit[..., 2] += 1 / CROP - 1
    return unit.float()


def jitter(frame_to_crop: torch.Tensor, scale: float, shift: float, degrees: float) -> torch.Tensor:
    """Crops a little off: by a factor up to 1 +- scale, by +- shift of the side, by +- degrees."""
    batch, device = len(frame_to_crop), frame_to_crop.device
    amount = torch.rand(batch, 4, dtype=torch.float64, device=device) * 2 - 1
    zoom, angle = 1 + scale * amount[:, 0], torch.deg2rad(degrees * amount[:, 1])
    turn = torch.zeros(batch, 3, 3, dtype=torch.float64, device=device)
    turn[:, 0, 0] = turn[:, 1, 1] = zoom * angle.cos()
    turn[:, 0, 1], turn[:, 1, 0] = -zoom * angle.sin(), zoom * angle.sin()
    turn[:, 2, 2].fill_(1)
    middle = (CROP - 1) / 2
    centre = torch.full((batch, 2, 1), middle, dtype=torch.float64, device=device)
    turn[:, :2, 2:] = centre - turn[:, :2, :2] @ centre + shift * CROP * amount[:, 2:, None]
    return turn @ frame_to_crop
