"""python -m realportrait_core.motion_file convert TEMPLATE.pkl OUT.safetensors"""

import argparse
import sys

from ..errors import RealPortraitError
from . import save_motion
from .template import read_template


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m realportrait_core.motion_file", description="Motion files.")
    commands = parser.add_subparsers(dest="command", required=True)
    convert = commands.add_parser("convert", help="make a motion file of one of LivePortrait's motion templates")
    convert.add_argument("template", metavar="TEMPLATE.pkl", help="it is read without being unpickled: nothing in it runs")
    convert.add_argument("out", metavar="OUT.safetensors")
    given = parser.parse_args(arguments)
    try:
        driver = read_template(given.template)
        save_motion(given.out, driver)
    except RealPortraitError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    frames, k = driver.motion.expression.shape[:2]
    sys.stdout.write(f"{given.out}: {frames} frames of {k} keypoints at {driver.fps:g} frames a second.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
