"""Golden loss curves of the paper's network at toy width: the first losses of stage 1 and stage 2 from a fixed seed.

    python tests/golden_losses.py

writes tests/golden/losses/frames.txt and clips.txt anew. A change that must not alter the training leaves them as they are.
"""

import tempfile
from pathlib import Path

if __name__ == "__main__":
    import conftest  # noqa: F401, makes the packages importable

import torch
import toy

from realportrait_core.train.batch import read_index
from realportrait_core.train.budget import Budget
from realportrait_core.train.data.sample import save_sample
from realportrait_core.train.initial import from_scratch
from realportrait_core.train.report import Report
from realportrait_core.train.run import make_objective
from realportrait_core.train.stage import train_stage
from realportrait_core.train.world import SINGLE_PROCESS
from realportrait_core.vid2vid import FaceVid2Vid

FOLDER = Path(__file__).resolve().parent / "golden" / "losses"
STAGES = {"frames": toy.FRAMES, "clips": toy.CLIPS}
STEPS = 8
TOLERANCE = 1e-4  # relative; processors with AVX2 and with AVX-512 differ by less than 1e-6


class Losses(Report):
    """Keeps the loss of every step."""

    def __init__(self):
        super().__init__(SINGLE_PROCESS)
        self.values: list[float] = []

    def step(self, step: int, spent: float, scalars: dict[str, float]) -> None:
        super().step(step, spent, scalars)
        self.values.append(scalars["loss"])


def losses(name: str, folder: Path) -> list[float]:
    """Those of the stage `name`, with samples and checkpoint in `folder`."""
    for i in range(2):
        save_sample(folder / "samples" / f"{i}.safetensors", toy.sample("video", 9 + i, [0, 5], i), {})
    torch.manual_seed(0)
    warping = FaceVid2Vid(toy.TOY.vid2vid).eval().warping
    objective = make_objective(from_scratch(toy.PAPER), STAGES[name], torch.float32)
    torch.nn.init.normal_(objective.dit.final_layer.linear.weight, std=0.1)  # else the first predictions are zero
    kept = Losses()
    train_stage(
        objective, STAGES[name], read_index(folder / "samples", 64), warping, folder / "a.ckpt", Budget(steps=STEPS), report=kept
    )
    return kept.values


def read(name: str) -> list[float]:
    return [float(line) for line in (FOLDER / f"{name}.txt").read_text().split()]


def write() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in STAGES:
        with tempfile.TemporaryDirectory() as folder:
            found = losses(name, Path(folder))
        (FOLDER / f"{name}.txt").write_text("".join(f"{value:.7f}\n" for value in found))


if __name__ == "__main__":
    write()
