"""python large_checkpoint.py CHECKPOINT STEPS: a regression by the training loop, which writes a large checkpoint at every step."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import conftest  # noqa: F401, finds the packages
import torch

from realportrait_core.train import loop
from realportrait_core.train.budget import Budget


def main(checkpoint: Path, steps: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = torch.nn.Linear(1000, 1000)
    loop.SAVE_EVERY = 0.0

    def loss(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        x = torch.randn(4, 1000, generator=torch.Generator().manual_seed(step))
        return (model(x) - x).square().mean(), {}

    loop.fit(model, loss, checkpoint, Budget(steps), lr=1e-3, warmup=2)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
