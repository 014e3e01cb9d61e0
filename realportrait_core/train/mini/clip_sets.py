"""The data of a training on a GPU: clips with their latents, crops and poses, all as tensors on the device.

Nothing is read or decoded during training; a step indexes into these tensors. render_set.py and turned_photos.py make them.
"""

from dataclasses import dataclass

import torch

from ...vid2vid.keypoints import Pose
from .head_truth import HeadTruth

FRAMES = 24  # of a clip
ENCODED_AT_ONCE = 64  # frames
ALPHA_DOWN = 4  # the foreground's mask is kept at a quarter of the size


@dataclass(frozen=True)
class ClipSet:
    """N clips of T frames of S px. Poses are numbered clip by clip: frame t of clip n is n T + t."""

    frames: torch.Tensor  # (N, T, 3, S, S) uint8
    latents: torch.Tensor  # (N, T, 4, S / 8, S / 8) fp16
    portrait_crops: torch.Tensor  # (N, T, 3, 3) float64, frame px -> crop px of a portrait
    clip_crops: torch.Tensor  # (N, 3, 3) float64, frame px -> crop px of a driving face
    faces: torch.Tensor  # (N, T, 2, 3) float64, frame px -> unit disc
    portrait_poses: Pose  # N T, each frame in its own portrait crop
    driver_poses: Pose  # N T, each frame in its clip's crop

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def length(self) -> int:
        """T."""
        return self.frames.shape[1]

    @property
    def size(self) -> int:
        """S, px."""
        return self.frames.shape[-1]

    @property
    def device(self) -> torch.device:
        return self.frames.device

    @property
    def nbytes(self) -> int:
        return sum(value.nbytes for value in vars(self).values() if isinstance(value, torch.Tensor))


@dataclass(frozen=True)
class RenderedSet(ClipSet):
    """Rendered clips with the true poses, and P photographs."""

    alpha: torch.Tensor  # (N, T, S / 4, S / 4) uint8, the foreground's share of 255
    heads: HeadTruth
    points: torch.Tensor  # (N, T, 5, 2) px
    photos: torch.Tensor  # (P, 3, S, S) uint8
