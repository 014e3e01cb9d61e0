"""The training set as arrays on disk: decoded frames, detected points, and the heads' ground truth."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ...errors import InputError
from ...face.crop import clip_crop, points_to_crop
from .head_truth import HeadTruth, load_truth

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Store:
    """N clips of T frames, side S px."""

    names: list[str]
    frames: np.ndarray  # (N, T, S, S, 3) uint8, memory-mapped
    points: torch.Tensor  # (N, T, 5, 2) px, NaN where no face was found
    heads: HeadTruth
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
    """The arrays that `prepare` wrote. InputError if they are missing or do not fit the data."""
    cache = Path(cache)
    for name in ("frames.npy", "points.npy"):
        if not (cache / name).is_file():
            raise InputError(f"{cache / name} is missing: run `python -m realportrait_core.train.mini prepare` first.")
    frames = np.load(cache / "frames.npy", mmap_mode="r")[:limit]
    points = torch.from_numpy(np.load(cache / "points.npy"))[:limit]
    heads, names = load_truth(data, limit)
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
