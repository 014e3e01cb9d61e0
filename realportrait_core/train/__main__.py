"""python -m realportrait_core.train COMMAND: the paper's two stages on samples of your own (frames, clips), and weights for few
steps (distil, student). MINI, the bundled weights, is trained by `python -m realportrait_core.train.mini`."""

import argparse
import logging
import sys
from dataclasses import fields
from pathlib import Path

from ..config import PRESETS
from ..errors import RealPortraitError
from . import run
from .precision import PRECISIONS

HELP = {
    "maps": "Beyond the paper, before stage 1: the motion mapper only, regressed to the frames' latents; gives an --init.",
    "frames": "Stage 1 of the DiT on samples: single frames, of videos and pictures.",
    "clips": "Stage 2 of the DiT on samples: clips of L frames, from the weights of stage 1.",
    "distil": "Beyond the paper: weights for 4 sampling steps, distilled from those of stage 2 (--init) on the same samples.",
    "student": "Beyond the paper: the same with a loss on decoded pictures (discriminator, feature matching).",
}


def stage_options() -> argparse.ArgumentParser:
    """Samples in, weights out."""
    options = argparse.ArgumentParser(add_help=False)
    add = options.add_argument
    add("--samples", type=Path, required=True, help="folder that `python -m realportrait_core.train.data` wrote")
    add("--vid2vid", type=Path, required=True, help="Face Vid2vid, the file that the samples were made with")
    add("--out", type=Path, required=True, help="the trained weights, .safetensors; put them into models/realportrait")
    add("--preset", choices=sorted(PRESETS), default="paper", help="sizes of the network, batch, steps (%(default)s)")
    add("--init", type=Path, help="RealPortrait weights to start from, or the public STDiT2; else from scratch")
    add("--checkpoint", type=Path, help="from which a stopped run resumes; beside --out by default")
    length = options.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, help="the preset's by default")
    length.add_argument("--minutes", type=float, help="instead of steps, in one process")
    add("--batch", type=float, default=1.0, help="factor on the preset's portraits a step, over all processes (%(default)s)")
    add("--lr", type=float, help="highest learning rate; the preset's by default")
    add("--seed", type=int, default=0)
    add("--device", default="auto", help="auto, cpu, cuda, mps (%(default)s)")
    add("--precision", choices=sorted(PRECISIONS), help="bf16 on a CUDA GPU and fp32 elsewhere by default")
    add("--recompute", action="store_true", help="activation checkpointing: less memory, a third more time")
    add("--shard", action="store_true", help="FSDP2 instead of DDP, where torchrun started several processes")
    add("--board", type=Path, help="folder for TensorBoard's files and sample grids")
    add("--vae", type=Path, help="VAE of the samples: encodes crops of photographs, decodes sample grids; a student's is a TinyVAE")
    add("--perceptual", type=Path, help="wheel stlpips-pytorch 0.0.2: adds ST-LPIPS by VGG16 to a student's loss")
    return options


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m realportrait_core.train", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    shared = stage_options()
    for name in HELP:
        commands.add_parser(name, parents=[shared], help=HELP[name], description=HELP[name])
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """The exit code."""
    options = parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    try:
        run.run_stage(run.StageRun(**{entry.name: getattr(options, entry.name) for entry in fields(run.StageRun)}), options.command)
    except RealPortraitError as error:
        logging.getLogger(__name__).error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
