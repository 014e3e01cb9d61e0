"""16 frames by the bundled weights, to be compared between processes: python tests/whole_run.py OUT.safetensors THREADS"""

import sys

import bundled
import torch
from safetensors.torch import save_file

FRAMES = 16


def frames(threads: int) -> torch.Tensor:
    """(16, 3, 256, 256) in [0, 1] with so many threads."""
    before, points = torch.get_num_threads(), bundled.read_reference()
    torch.set_num_threads(threads)
    try:
        return bundled.animate(points["portrait_points"], points["driving_points"], FRAMES)
    finally:
        torch.set_num_threads(before)


if __name__ == "__main__":
    save_file({"frames": frames(int(sys.argv[2])).contiguous()}, sys.argv[1])
