"""python -m realportrait_core.eval page OUT: writes the tables and the page of a report again, from the figures in OUT/report.json.

Nothing is measured: for a report whose pictures have changed, or that an older version has written.
"""

import argparse
from pathlib import Path

from .writing import check_packages, render


def command(argv: list[str]) -> int:
    """The exit code. InputError where OUT holds no report."""
    parser = argparse.ArgumentParser(prog="python -m realportrait_core.eval page", description=__doc__)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of a report")
    options = parser.parse_args(argv)
    check_packages()
    render(options.out)
    return 0
