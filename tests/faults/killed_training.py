"""python killed_training.py FOLDER STEPS: a regression by the training loop, which writes a large checkpoint at every step.

It runs to its end in FOLDER/whole.ckpt, is killed while it writes FOLDER/killed.ckpt, and resumed there. Prints as JSON whether
a part of a file was left and the step of the checkpoint before it.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import conftest  # noqa: F401, finds the packages
import torch
from forks import killed

from realportrait_core.train import loop
from realportrait_core.train.budget import Budget

TRIES = 20  # a kill may fall between two writes


def train(checkpoint: Path, steps: int) -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(1000, 1000)
    loop.SAVE_EVERY = 0.0

    def loss(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        x = torch.randn(4, 1000, generator=torch.Generator().manual_seed(step))
        return (model(x) - x).square().mean(), {}

    loop.fit(model, loss, checkpoint, Budget(steps), lr=1e-3, warmup=2)


def main(folder: Path, steps: int) -> None:
    torch.set_num_threads(1)
    whole, broken = folder / "whole.ckpt", folder / "killed.ckpt"
    partial = broken.with_suffix(".partial")
    for _ in range(TRIES):
        broken.unlink(missing_ok=True)
        assert killed(lambda: train(broken, steps), lambda: broken.exists() and partial.exists()), "it ended before it was killed"
        if partial.exists():
            break
    found = {"part": partial.exists(), "before": torch.load(broken, weights_only=True)["step"]}
    for checkpoint in (broken, whole):
        assert not killed(lambda checkpoint=checkpoint: train(checkpoint, steps))
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
