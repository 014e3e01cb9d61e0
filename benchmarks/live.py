"""Frames a second of a portrait that follows a camera, and of each part: random weights, the demo's portrait and driving video.

On a CPU one thread is used, and the process's own CPU time counts, so that other processes matter less; on a GPU it is wall time.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from realportrait_core.animation.live import Live
from realportrait_core.config import Vid2VidConfig
from realportrait_core.face.detect import FaceDetector
from realportrait_core.face.find import find_detector
from realportrait_core.face.follow import FaceFollower
from realportrait_core.face.track import portrait_points
from realportrait_core.vid2vid import FaceVid2Vid
from realportrait_core.vid2vid.blocks import fold_norms
from realportrait_core.vid2vid.precision import to_dtype
from realportrait_core.video.loading import load_video
from realportrait_core.video.source import VideoFile
from realportrait_core.video.timeline import Selection

from .parts import random_weights

ASSETS = Path(__file__).resolve().parent.parent / "assets"
REST = "crops, keypoints, pasting"


@dataclass(frozen=True)
class Timing:
    part: str
    seconds: float  # of one frame, the median

    @property
    def fps(self) -> float:
        return 1 / self.seconds


@contextmanager
def stopwatch(device: str, calls: list[float]) -> Iterator[None]:
    clock = time.process_time if device == "cpu" else time.perf_counter
    if device == "cuda":
        torch.cuda.synchronize()
    began = clock()
    yield
    if device == "cuda":
        torch.cuda.synchronize()
    calls.append(clock() - began)


def timed(call: Callable, device: str, calls: list[float]) -> Callable:
    """The same function, whose seconds are noted."""

    def run(*given):
        with stopwatch(device, calls):
            return call(*given)

    return run


def pictures(frames: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The demo's portrait (1, H, W, 3), and so many frames of its driving video (n, H', W', 3)."""
    import numpy as np
    from PIL import Image

    portrait = np.asarray(Image.open(ASSETS / "portrait.png").convert("RGB")).copy()
    driving = load_video(VideoFile("driving.mp4", ASSETS / "driving.mp4"), Selection(frames=frames)).images
    return torch.from_numpy(portrait)[None] / 255, driving


def live_figures(
    cfg: Vid2VidConfig, device: str, frames: int, dtype: torch.dtype = torch.float32, detector: Path | None = None
) -> list[Timing]:
    """Medians over `frames` frames, each with a face detection, after one that is not counted: the parts, then the whole."""
    torch.set_num_threads(1)
    networks = to_dtype(fold_norms(random_weights(FaceVid2Vid(cfg), "cpu")), dtype).to(device)
    portrait, driving = pictures(frames + 1)
    finder = FaceDetector(detector or find_detector())
    live = Live(networks, portrait, portrait_points(portrait[0], finder), FaceFollower(finder, every=1))
    live.frame(driving[0])

    seconds: dict[str, list[float]] = {name: [] for name in ("face detection", "M", "W", "G", "whole")}
    live.follower.crop = timed(live.follower.crop, device, seconds["face detection"])
    for name, network in (("M", networks.motion), ("W", networks.warping), ("G", networks.generator)):
        network.forward = timed(network.forward, device, seconds[name])
    frame = timed(live.frame, device, seconds["whole"])
    for picture in driving[1:]:
        frame(picture)
    *parts, whole = seconds.values()
    seconds[REST] = [total - sum(part) for total, part in zip(whole, zip(*parts))]
    seconds["whole"] = seconds.pop("whole")  # last
    return [Timing(part, max(1e-9, sorted(calls)[len(calls) // 2])) for part, calls in seconds.items()]


def table(size: str, rows: list[Timing]) -> str:
    """Markdown."""
    lines = [f"| {size} | ms a frame | frames a second |", "|---|---|---|"]
    return "\n".join(lines + [f"| {row.part} | {1000 * row.seconds:.1f} | {row.fps:.2f} |" for row in rows])
