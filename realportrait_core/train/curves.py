"""python -m realportrait_core.train.curves TABLE... --out FILE.png: the losses of trainings, and the figures of evaluations.

A TABLE is the training.csv of a stage's --board folder. --eval MINUTES:REPORT.json puts a report of realportrait_core.eval
at so many minutes of training.
"""

import argparse
import csv
import json
import logging
import sys
from pathlib import Path

from ..errors import InputError, RealPortraitError

STATIC, FACE_VID2VID, REALPORTRAIT = "static portrait", "Face Vid2vid", "RealPortrait"
WINDOW = 15  # rows of the running mean


def read_table(path: Path) -> tuple[list[float], list[float]]:
    """Minutes and losses; of a step that a resumed run took again, the last. InputError where it is no such table."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = {int(row["step"]): (float(row["seconds"]) / 60, float(row["loss"])) for row in csv.DictReader(file)}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is no table of a training ({error}): give the training.csv of a --board folder.") from error
    if not rows:
        raise InputError(f"{path} has no row yet.")
    minutes, losses = zip(*(rows[step] for step in sorted(rows)))
    return list(minutes), list(losses)


def read_report(text: str) -> tuple[float, dict]:
    """MINUTES:FILE -> minutes and the rows of the report."""
    minutes, _, path = text.partition(":")
    try:
        return float(minutes), json.loads(Path(path).read_text(encoding="utf-8"))["rows"]
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{text} is not MINUTES:REPORT.json of realportrait_core.eval ({error}).") from error


def running_mean(values: list[float], window: int = WINDOW) -> list[float]:
    """The mean of each value and those up to window - 1 before it."""
    return [sum(values[max(0, i - window + 1) : i + 1]) / min(i + 1, window) for i in range(len(values))]


def draw(tables: list[Path], reports: list[str], out: Path) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError(f"matplotlib cannot be imported ({error}): `{sys.executable} -m pip install matplotlib`.") from error
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    losses, quality = figure.subplots(1, 2)
    for path in tables:
        minutes, values = read_table(path)
        (line,) = losses.plot(minutes, running_mean(values), label=path.parent.name)
        losses.plot(minutes, values, color=line.get_color(), alpha=0.2, linewidth=0.7)
    losses.set(xlabel="minutes of training", ylabel="loss", yscale="log")
    losses.legend()
    points = sorted((read_report(text) for text in reports), key=lambda point: point[0])
    for row in (REALPORTRAIT, FACE_VID2VID):
        over = [(minutes, rows[row]["psnr_db"] - rows[STATIC]["psnr_db"]) for minutes, rows in points if row in rows]
        if over:
            quality.plot(*zip(*over), marker="o", label=row)
    quality.set(xlabel="minutes of training", ylabel="PSNR over the static portrait, dB")
    if points:
        quality.legend()
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=120)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m realportrait_core.train.curves", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tables", nargs="+", type=Path, metavar="TABLE")
    parser.add_argument("--eval", action="append", default=[], metavar="MINUTES:REPORT.json")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(argv)
    try:
        draw(options.tables, options.eval, options.out)
    except RealPortraitError as error:
        logging.getLogger(__name__).error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
