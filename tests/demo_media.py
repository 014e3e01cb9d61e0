"""The demo's portrait and driving video, as tensors."""

from pathlib import Path

import pytest
import torch

ASSETS = Path(__file__).resolve().parent.parent / "assets"


def pictures(frames: int, step: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """The portrait (1, 256, 256, 3) and every `step`-th frame of the driving video (frames, 256, 256, 3), in [0, 1]."""
    av, image = pytest.importorskip("av"), pytest.importorskip("PIL.Image")
    with av.open(str(ASSETS / "driving.mp4")) as video:
        driving = [torch.from_numpy(frame.to_ndarray(format="rgb24")) for frame in video.decode(video=0)]
    portrait = torch.frombuffer(bytearray(image.open(ASSETS / "portrait.png").convert("RGB").tobytes()), dtype=torch.uint8)
    return portrait.view(1, 256, 256, 3) / 255, torch.stack(driving[: frames * step : step]) / 255
