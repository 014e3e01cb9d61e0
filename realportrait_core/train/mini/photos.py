"""Photographs for training: as plain pictures, and as samples of a person in two poses."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ...errors import InputError
from ...head_rotation.change import Limits
from ...head_rotation.dataset import Photos, augmented, bytes_of, read_squares
from ...head_rotation.pairs import draw_pairs
from ...head_rotation.topology import FIVE, Topology
from ...vae import TinyVAE
from ...vid2vid import FaceVid2Vid
from ..data.frozen import freeze_segment, to_bytes
from ..data.sample import Sample
from .photo_supervision import widened

ENDINGS = (".jpg", ".jpeg", ".png", ".webp")


def read_pictures(folder: Path) -> np.ndarray:
    """(N, S, S, 3) uint8 of every picture in a folder, by name. InputError where there is none, or they differ in size."""
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS) if folder.is_dir() else []
    if not paths:
        raise InputError(f"{folder} holds no photograph ({', '.join(ENDINGS)}).")
    return read_squares((str(path), bytes_of(path)) for path in paths)


def photo_sample(
    vid2vid: FaceVid2Vid,
    vae: TinyVAE,
    photos: Photos,
    chosen: int,
    topology: Topology,
    source: torch.Generator,
    precision: torch.dtype = torch.float32,
) -> Sample:
    """A turned photo as the portrait and the photo itself, cropped at random, as the driving frame."""
    pictures, mesh = augmented(*photos.take(torch.tensor([chosen])), topology, source)
    pair = draw_pairs(pictures, mesh, topology, source, Limits(), untouched=1.0)
    frames = to_bytes(torch.cat([pair.portrait, pair.target]).clamp(0, 1)).movedim(1, -1)  # (2, S, S, 3)
    points = widened(torch.cat([pair.portrait_mesh, pair.target_mesh])[:, FIVE, :2])  # (2, 5, 2)
    sample = freeze_segment(vid2vid, vae, frames, points, torch.ones(2, dtype=torch.bool), 1, precision)
    return replace(sample, kind="image")
