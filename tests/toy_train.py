"""python tests/toy_train.py COMMAND ...: `python -m realportrait_core.train COMMAND ...` with the preset `toy` beside the others,
on one thread, and a checkpoint at every step."""

import sys

import conftest  # noqa: F401, makes the packages importable
import torch
import toy

from realportrait_core.config import PRESETS
from realportrait_core.train import loop
from realportrait_core.train.__main__ import main
from realportrait_core.train.stages import STAGES

if __name__ == "__main__":
    PRESETS["toy"], STAGES["toy"] = toy.TOY, toy.STAGES
    torch.set_num_threads(1)
    loop.SAVE_EVERY = 0.0
    sys.exit(main())
