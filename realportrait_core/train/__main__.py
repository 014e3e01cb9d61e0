"""python -m realportrait_core.train STEP --data DIR: the bundled weights, step by step or as a whole (mini)."""

import argparse
import logging
import sys
from pathlib import Path

from ..errors import RealPortraitError
from . import recipe

MINUTES = 150.0         # of the whole recipe; a single step takes its share of them
TRAININGS = {"vae": recipe.vae, "motion": recipe.motion, "renderer": recipe.renderer, "frames": recipe.frames,
             "clips": recipe.clips, "mini": recipe.mini}
CHORES = {"prepare": recipe.prepare_faces, "latents": recipe.prepare_latents, "maps": recipe.maps, "export": recipe.export}
ORDER = ("mini", "prepare", "vae", "motion", "renderer", "latents", "maps", "frames", "clips", "export")


def parse(argv: list[str] | None) -> argparse.Namespace:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--data", type=Path, required=True, help="folder with train/ and val/ of heads256")
    common.add_argument("--cache", type=Path, default=Path("runs/cache"),
                        help="arrays, maps, checkpoints (%(default)s); a stopped step goes on from here")
    common.add_argument("--out", type=Path, default=Path("runs/weights"), help="where the pack's files are written (%(default)s)")
    common.add_argument("--seed", type=int, default=0)
    common.add_argument("--limit", type=int, help="the first so many training clips only")
    common.add_argument("--detector", type=Path, help="YuNet's file; by default where install.py puts it")
    common.add_argument("--teacher", type=Path, default=Path("../shared/taesd"),
                        help="folder with taesd_encoder and taesd_decoder .safetensors (%(default)s)")
    parser = argparse.ArgumentParser(prog="python -m realportrait_core.train", description=recipe.__doc__)
    steps = parser.add_subparsers(dest="step", required=True, metavar="STEP")
    for name in ORDER:
        function = TRAININGS.get(name) or CHORES[name]
        step = steps.add_parser(name, parents=[common], help=function.__doc__, description=function.__doc__)
        if name in TRAININGS:
            step.add_argument("--minutes", type=float, default=MINUTES * recipe.SHARES.get(name, 1.0), help="%(default)s")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    run = recipe.Run(options.data, options.cache, options.out, options.teacher, options.detector, options.seed, options.limit)
    try:
        if options.step in TRAININGS:
            TRAININGS[options.step](run, options.minutes)
        else:
            CHORES[options.step](run)
    except RealPortraitError as error:
        logging.getLogger(__name__).error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
