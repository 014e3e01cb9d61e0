"""Measures every part beside its literal form.

    python -m benchmarks [--device cpu|cuda] [--preset mini|paper] [--json FILE] [--plot FILE]

Each figure is a ratio taken in one run, call by call in turns, with the largest difference of the two results beside it.
"""

import argparse
import json
import logging
import platform
from dataclasses import asdict
from pathlib import Path

import torch

from .measure import Comparison, compare
from .parts import PARTS
from .plot import svg
from .sizes import SIZES

log = logging.getLogger("benchmarks")


def table(rows: list[Comparison]) -> str:
    """Markdown."""
    lines = [
        "| part | size | literal s | ours s | times as fast | bar | difference | extra memory, literal : ours MB | bar |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        memory, leaner = "", ""
        if row.leaner is not None:
            times = row.literal_bytes / max(1, row.ours_bytes)
            memory = f"{row.literal_bytes / 1e6:.0f} : {row.ours_bytes / 1e6:.0f} = {times:.1f}"
            leaner = f"{row.leaner:g}"
        lines.append(
            f"| {row.part} | {row.size} | {row.literal_s:.3f} | {row.ours_s:.3f} | {row.ratio:.2f} | {row.faster:g} "
            f"| {row.difference:.1e} | {memory} | {leaner} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--preset", choices=tuple(SIZES), help="sizes; without it those of mini and paper")
    parser.add_argument("--part", choices=tuple(PARTS), help="one part alone")
    parser.add_argument("--repeats", type=int, default=5, help="calls of each side (%(default)s)")
    parser.add_argument("--json", type=Path, help="write every figure here")
    parser.add_argument("--plot", type=Path, help="draw the ratios here, as an .svg")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    presets = [options.preset] if options.preset else ["mini", "paper"]
    parts = [options.part] if options.part else list(PARTS)
    rows = []
    for preset in presets:
        for part in parts:
            log.info("%s, %s ...", part, preset)
            rows.append(compare(preset, part, options.device, options.repeats))
    log.info("\n%s", table(rows))
    if options.json:
        machine = {"torch": torch.__version__, "threads": torch.get_num_threads(), "processor": processor(options.device)}
        report = {"machine": machine, "comparisons": [asdict(row) for row in rows]}
        options.json.write_text(json.dumps(report, indent=1), encoding="utf-8")
    if options.plot:
        options.plot.write_text(svg(rows), encoding="utf-8")


def processor(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
