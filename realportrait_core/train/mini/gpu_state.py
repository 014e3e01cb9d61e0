"""What the phases of a training on a GPU share: the networks, the data, and how much a step takes."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import nn

from ...config import Config
from ...dit.model import RealPortraitDiT
from ...vae import TinyVAE
from ...vid2vid import FaceVid2Vid
from ..precision import autocast
from ..stages import Shape
from .clip_sets import RenderedSet
from .turned_photos import TurnedPhotos
from .weight_writer import WeightWriter


@dataclass(frozen=True)
class Load:
    """Batch sizes of a step, for a card of 80 GB."""

    decoder: int = 96  # pictures
    side: int = 128  # px of them
    motion: int = 512  # faces, in pairs
    portraits: int = 48  # of F, W and G
    drivers: int = 4  # for each of them
    maps: Shape = Shape(64, frames=5, stride=4)
    clips: Shape = Shape(24, frames=16, noises=2)
    student: Shape = Shape(24, frames=8, stride=2)

    def halved(self) -> "Load":
        def half(count: int) -> int:
            return max(1, count // 2)

        return replace(
            self,
            decoder=half(self.decoder),
            motion=2 * half(self.motion // 2),
            portraits=half(self.portraits),
            maps=replace(self.maps, portraits=half(self.maps.portraits)),
            clips=replace(self.clips, portraits=half(self.clips.portraits)),
            student=replace(self.student, portraits=half(self.student.portraits)),
        )


@dataclass
class State:
    """What the phases read and change."""

    cfg: Config
    vid2vid: FaceVid2Vid
    vae: TinyVAE
    dit: RealPortraitDiT
    student: RealPortraitDiT  # for few steps
    data: RenderedSet
    held: RenderedSet  # clips held out from training
    device: torch.device
    precision: torch.dtype  # of W, G, the decoder and the DiT
    writer: WeightWriter
    best: float  # throughput.product_speed
    load: Load = Load()
    pose_blend: float = 1.0  # poses of the DiT's batches: 0 M's estimates, 1 the true ones
    compiled: bool = False  # compile the DiT's blocks in phases that are long enough
    chance: random.Random = field(default_factory=random.Random)  # for draws on the host
    turned: TurnedPhotos | None = None  # None: no photographs

    @property
    def networks(self) -> dict[str, nn.Module]:
        """By their names in weight_writer.FILES."""
        return {"vae": self.vae, "vid2vid": self.vid2vid, "dit": self.dit, "student": self.student}

    @property
    def mixed(self) -> Callable:
        return partial(autocast, self.device, self.precision)
