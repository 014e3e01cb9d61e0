"""python -m realportrait_core.train COMMAND: the paper's two stages on samples of your own (frames, clips), and weights for few
steps (distil, student). MINI, the bundled weights, is trained by `python -m realportrait_core.train.mini`."""

import argparse
import logging
import sys
from dataclasses import fields
from pathlib import Path

from ..config import PRESETS
from ..errors import RealPortraitError
from . import stage

STAGES = {"maps": 3, "frames": 0, "clips": 1, "distil": 2, "student": 4}
HELP = {
    "maps": "Before stage 1, if wanted: the motion mapper by itself learns what a warped feature shows (for --init).",
    "frames": "Stage 1 of the DiT on samples: single frames, of videos and pictures.",
    "clips": "Stage 2 of the DiT on samples: clips of L frames, from the weights of stage 1.",
    "distil": "Beyond the paper: weights that need 4 steps, from those of stage 2 (--init), on the same samples.",
    "student": "Beyond the paper: weights for 4 steps that learn what their pictures look like, from those of stage 2 (--init).",
}


def stage_options() -> argparse.ArgumentParser:
    """Samples in, weights out."""
    options = argparse.ArgumentParser(add_help=False)
    add = options.add_argument
    add("--samples", type=Path, required=True, help="folder that `python -m realportrait_core.train.data` wrote")
    add("--vid2vid", type=Path, required=True, help="Face Vid2vid, the file that the samples were made with")
    add("--out", type=Path, required=True, help="the trained weights, .safetensors; put them into models/realportrait")
    add("--preset", choices=sorted(PRESETS), default="paper", help="sizes of the network, batch, steps (%(default)s)")
    add("--init", type=Path, help="RealPortrait weights to go on from, or the public STDiT2; else from scratch")
    add("--checkpoint", type=Path, help="where a stopped run goes on from; beside --out by default")
    length = options.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, help="the preset's by default")
    length.add_argument("--minutes", type=float, help="instead of steps, in one process")
    add("--batch", type=float, default=1.0, help="factor on the preset's portraits a step, over all processes (%(default)s)")
    add("--lr", type=float, help="highest learning rate; the preset's by default")
    add("--seed", type=int, default=0)
    add("--device", default="auto", help="auto, cpu, cuda, mps (%(default)s)")
    add("--precision", choices=sorted(stage.PRECISIONS), help="bf16 on a CUDA GPU and fp32 elsewhere by default")
    add("--recompute", action="store_true", help="activation checkpointing: less memory, a third more time")
    add("--shard", action="store_true", help="FSDP2 instead of DDP, where torchrun started several processes")
    add("--board", type=Path, help="folder for TensorBoard's files and sample strips")
    add("--vae", type=Path, help="VAE of the samples: encodes crops of photographs, draws sample strips; a student's is a TinyVAE")
    add("--perceptual", type=Path, help="wheel stlpips-pytorch 0.0.2: a student's loss takes ST-LPIPS by VGG16 too")
    return options


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m realportrait_core.train", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    shared = stage_options()
    for name in STAGES:
        commands.add_parser(name, parents=[shared], help=HELP[name], description=HELP[name])
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """The exit code."""
    options = parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    try:
        stage.run_stage(
            stage.StageRun(**{entry.name: getattr(options, entry.name) for entry in fields(stage.StageRun)}),
            STAGES[options.command],
        )
    except RealPortraitError as error:
        logging.getLogger(__name__).error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
