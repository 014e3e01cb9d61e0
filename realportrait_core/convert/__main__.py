"""python -m realportrait_core.convert liveportrait IN... OUT | opensora IN OUT | inspect FILE..."""

import argparse
import logging
import sys
from pathlib import Path

from ..errors import RealPortraitError
from . import liveportrait, opensora
from .describe import describe

logger = logging.getLogger(__name__)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m realportrait_core.convert", description="Makes .safetensors that RealPortrait loads of public weights."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("liveportrait", help="LivePortrait's networks, .pth or .safetensors, recognised by their keys")
    one.add_argument("sources", nargs="+", type=Path, metavar="IN", help="files, or folders with them at any depth")
    one.add_argument(
        "out", type=Path, metavar="OUT", help="NAME.safetensors: one bundle; anything else: a folder with one file per network"
    )
    one.add_argument("--half", action="store_true", help="store fp16; by default what the files have")
    two = commands.add_parser("opensora", help="STDiT-v2-stage3 as a start for training at the paper's size")
    two.add_argument("source", type=Path, metavar="IN", help="a file, a folder, or the .index.json of a sharded file")
    two.add_argument("out", type=Path, metavar="OUT", help="NAME.safetensors")
    inspect = commands.add_parser("inspect", help="role, sizes, parameters, dtype, licence, and what a file would load as")
    inspect.add_argument("files", nargs="+", type=Path, metavar="FILE", help=".safetensors; nothing else is opened")
    return parser.parse_args(argv)


def inspect(files: list[Path]) -> int:
    """Describes each; 1 if one of them cannot be read as weights."""
    status = 0
    for path in files:
        try:
            show(describe(path))
        except RealPortraitError as error:
            logger.error("%s", error)
            status = 1
    return status


def show(lines: list[str]) -> None:
    sys.stdout.write("\n".join(lines) + "\n\n")


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    if options.command == "inspect":
        return inspect(options.files)
    try:
        if options.command == "liveportrait":
            show(liveportrait.convert(options.sources, options.out, options.half))
        else:
            show(opensora.convert(options.source, options.out))
    except RealPortraitError as error:
        logger.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
