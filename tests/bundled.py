"""What the bundled weights make of the demo's portrait and driving video, played forth and back over three clips (46 frames).

    python tests/bundled.py     writes tests/golden/bundled.safetensors.xz, the reference of tests/test_bundled.py

The reference holds the face points that the detector found, so that the test needs no detector, and of SHOWN frames of the first
clip two small pictures each: mean colours and sharpness by cells of 16x16 px.
"""

import lzma
from pathlib import Path

import conftest  # noqa: F401, which makes the next imports work where this file is run by itself
import numpy as np
import torch
import torch.nn.functional as F
import yunet
from PIL import Image
from safetensors.torch import load, save

from realportrait_core.diffusion.schedule import linear_schedule
from realportrait_core.dit.checkpoint import load_dit
from realportrait_core.eval.cases import ping_pong, read_clip
from realportrait_core.face.detect import FaceDetector
from realportrait_core.face.track import FaceTrack, portrait_points, track
from realportrait_core.generate import generate
from realportrait_core.vae import load_vae
from realportrait_core.vid2vid.checkpoint import load_vid2vid

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "tests" / "golden" / "bundled.safetensors.xz"
WEIGHTS = ROOT / "realportrait_core" / "weights"
FRAMES = 46  # three clips of 16, each of which starts with the last frame of the one before
SHOWN = (1, 8, 15)
CELL = 16  # px
UNIT = 1e-4  # of what is kept as integers
SEED = 0


def media() -> tuple[torch.Tensor, torch.Tensor]:
    """The portrait (1, 256, 256, 3) in [0, 1] and the driving frames (FRAMES, 256, 256, 3) uint8."""
    portrait = torch.from_numpy(np.array(Image.open(ROOT / "assets" / "portrait.png").convert("RGB")))[None].float() / 255
    return portrait, ping_pong(read_clip(ROOT / "assets" / "driving.mp4"), FRAMES)


def animate(portrait_points: torch.Tensor, driving_points: torch.Tensor, frames: int = FRAMES) -> torch.Tensor:
    """The first `frames` frames (frames, 3, 256, 256) in [0, 1], by the defaults. portrait_points (5, 2) and
    driving_points (FRAMES, 5, 2) px.
    """
    vid2vid = load_vid2vid(WEIGHTS / "realportrait" / "realportrait_mini_vid2vid.safetensors")
    dit = load_dit(WEIGHTS / "realportrait" / "realportrait_mini.safetensors")
    vae = load_vae(WEIGHTS / "vae" / "realportrait_mini_vae.safetensors")
    portrait, driving = media()
    followed = FaceTrack(driving_points[:frames], torch.ones(frames, dtype=torch.bool), "")
    pixels = driving[:frames].float() / 255
    # The first frame is the neutral one, however many are animated.
    animation, _ = generate(vid2vid, dit, vae, linear_schedule(), portrait, pixels, portrait_points, followed, seed=SEED, neutral=0)
    return animation.movedim(-1, 1)


def by_cells(frames: torch.Tensor) -> dict[str, torch.Tensor]:
    """Frames (n, 3, H, W) in [0, 1] -> their mean colours and the root mean square of the brightness's Laplacian, by cells."""
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None]
    edges = F.conv2d(F.pad(frames.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate"), kernel)
    return {"colour": F.avg_pool2d(frames, CELL), "sharpness": F.avg_pool2d(edges.square(), CELL).sqrt()}


def read_reference() -> dict[str, torch.Tensor]:
    """portrait_points, driving_points, colour (3, 3, 16, 16), sharpness (3, 1, 16, 16)."""
    stored = load(lzma.decompress(REFERENCE.read_bytes()))
    return {name: value * UNIT if value.dtype == torch.int16 else value for name, value in stored.items()}


def main() -> None:
    detector, (portrait, driving) = FaceDetector(yunet.onnx()), media()
    points = {"portrait_points": portrait_points(portrait[0], detector), "driving_points": track(driving, detector).points}
    shown = by_cells(animate(**points, frames=16)[list(SHOWN)])
    kept = points | {name: (value / UNIT).round().to(torch.int16) for name, value in shown.items()}
    REFERENCE.write_bytes(lzma.compress(save({name: value.contiguous() for name, value in kept.items()}), preset=9))
    print(f"{REFERENCE}: {REFERENCE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
