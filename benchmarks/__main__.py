"""Measures every part beside its literal form, and on a GPU how near a step comes to the hardware's limit.

    python -m benchmarks [--device cpu|cuda] [--preset mini|paper] [--one-core] [--json FILE] [--plot FILE]
    python -m benchmarks limits [--device cuda] [--preset mini|paper] [--json FILE]
    python -m benchmarks memory
    python -m benchmarks live [--device cuda] [--preset mini|paper] [--precision fp32|fp16|bf16]
    python -m benchmarks quality --data DIR --dit FILE [--limit N] [--frames N] [--distilled FILE] [--json FILE]
    python -m benchmarks departures --data DIR --samples DIR [--dit FILE] [--minutes N] [--batch N] [--stlpips WHEEL] [--limit N]

Each ratio is taken in one run, call by call in turns, with the largest difference of the two results beside it. Without a
table's name: `parts`, on a GPU `limits` too. With --json the ratios of the parts are drawn beside it, as an .svg. Below the
parts are the frames a second of F, M, W and G.
`limits` is how a step's cost grows with frames and size, whole clips in every speed, and MINI from end to end; on a CPU give it
--preset mini and --repeats 1. `memory` is one whole step of the paper's network on the CPU: minutes.
`live` is a portrait that follows a camera: frames a second of the whole and of each part, on a CPU of one core; paper is the
size of LivePortrait.
`quality` is what fewer steps, other solvers and caching cost, with the bundled weights on the clips of a folder; each row is
printed, and written to --json, as soon as it is known. `departures` is what each departure from the paper is worth: MINI trained
with it and without, on the samples of a folder, each row --minutes of one CPU core and some for its sampling.
"""

import argparse
import json
import logging
import platform
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch

from realportrait_core.config import MINI
from realportrait_core.dit.checkpoint import load_dit
from realportrait_core.errors import RealPortraitError
from realportrait_core.face.detect import MODEL_NAME
from realportrait_core.train.precision import PRECISIONS

from . import departures, limits, live, memory, quality
from .measure import Comparison, compare
from .parts import PARTS
from .plot import svg
from .sizes import LIMITS, SIZES, TINY_LIMITS

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


def rates(rows: list[Comparison]) -> str:
    """Frames a second of F, M, W and G, and of what every driving frame goes through: Markdown."""
    lines = ["| size | F, once a portrait | M | W | G | M + W | M + W + G |", "|---" * 7 + "|"]
    of_size: dict[str, dict[str, float]] = {}
    for row in rows:
        if row.frames_per_second is not None:
            of_size.setdefault(row.size.split(",")[0], {})[row.part] = row.frames_per_second
    for size, of_part in of_size.items():
        cells = [(name,) for name in "FMWG"] + [("M", "W"), ("M", "W", "G")]
        known = [1 / sum(1 / of_part[name] for name in cell) if set(cell) <= set(of_part) else None for cell in cells]
        lines.append(" | ".join([f"| {size}", *("-" if rate is None else f"{rate:.3g}" for rate in known)]) + " |")
    return "\n".join(lines) if of_size else ""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "table", nargs="?", choices=("parts", "limits", "memory", "live", "quality", "departures"), help="which table alone"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--preset", choices=tuple(SIZES), help="without it parts of mini and of paper, the others of paper")
    parser.add_argument("--part", choices=tuple(PARTS), help="one part alone")
    parser.add_argument("--repeats", type=int, default=5, help="calls of each side (%(default)s)")
    parser.add_argument(
        "--one-core",
        action="store_true",
        help="of parts: one thread, and the process's own CPU time, on which a busy machine has little influence",
    )
    parser.add_argument("--data", type=Path, help="of quality and departures: a folder of .mp4 clips in the form of heads256")
    parser.add_argument("--limit", type=int, help="of both: the first so many clips, by name; all by default")
    parser.add_argument("--frames", type=int, help="of both: so many frames of each clip; all by default")
    parser.add_argument(
        "--dit",
        type=Path,
        help="RealPortrait weights for any number of steps, .safetensors: of quality; departures goes on from "
        "them, without from scratch",
    )
    parser.add_argument(
        "--distilled", type=Path, help="of quality: weights for few steps, in a row of their own; by default the bundled ones"
    )
    parser.add_argument("--detector", type=Path, help=f"of both and of live: {MODEL_NAME}; by default where install.py puts it")
    parser.add_argument("--samples", type=Path, help="of departures: a folder of training samples, made with the bundled weights")
    parser.add_argument(
        "--minutes", type=float, default=5.0, help="of departures: of one core, to train each variant (%(default)g)"
    )
    parser.add_argument("--batch", type=float, default=1.0, help="of departures: factor on the portraits of a step (%(default)g)")
    parser.add_argument(
        "--precision",
        choices=("fp16", *PRECISIONS),
        default="fp32",
        help="of departures, without fp16, and of live (%(default)s); bf16 is faster where the CPU has AMX",
    )
    parser.add_argument("--only", help="of departures: these variants, by the names in the table, comma-separated")
    parser.add_argument("--stlpips", type=Path, help="of departures: the wheel stlpips-pytorch 0.0.2, or its folder: adds ST-LPIPS")
    parser.add_argument("--json", type=Path, help="write every figure here, and the plot beside it")
    parser.add_argument("--plot", type=Path, help="draw the ratios of the parts here, as an .svg, and not beside the figures")
    options = parser.parse_args()
    if options.table == "quality" and None in (options.data, options.dit):
        parser.error("quality needs --data, and --dit with weights for any number of steps")
    if options.one_core and options.device != "cpu":
        parser.error("--one-core is of the CPU")
    if options.table == "departures" and None in (options.data, options.samples):
        parser.error("departures needs --data with clips to be scored, and --samples to learn from")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if options.table == "departures" and options.precision not in PRECISIONS:
        parser.error(f"departures trains in {' or '.join(PRECISIONS)}")
    tables = [options.table] if options.table else ["parts", "limits"] if options.device == "cuda" else ["parts"]

    report = {"torch": torch.__version__, "threads": torch.get_num_threads(), "processor": processor(options.device)}
    if "parts" in tables:
        if options.one_core:
            torch.set_num_threads(1)
            report["threads"] = 1
        rows = part_rows(options)
        show(table(rows))
        if by_size := rates(rows):
            show(f"\nFrames a second\n\n{by_size}")
        report["parts"] = [asdict(row) for row in rows]
        if plot := options.plot or options.json and options.json.with_suffix(".svg"):
            plot.write_text(svg(rows), encoding="utf-8")
    if "limits" in tables:
        sizes, small = SIZES[options.preset or "paper"], options.preset == "tiny"
        tried = TINY_LIMITS if small else LIMITS
        # First, for its peak memory: the compiler keeps what step_figures gave it.
        clips = limits.clip_figures(sizes, options.device, options.repeats)
        steps = limits.step_figures(sizes, tried, options.device, options.repeats)
        whole = limits.end_to_end(sizes if small else SIZES["mini"], tried, options.device, options.repeats)
        show(f"{sizes.name}\n\n{limits.table(steps, clips, whole)}")
        report["limits"] = {
            "size": sizes.name,
            "steps": [asdict(row) for row in steps],
            "clips": [asdict(row) for row in clips],
            "end_to_end": asdict(whole),
        }
    if "memory" in tables:
        config = SIZES[options.preset or "paper"].config
        peak = memory.one_step(config.dit, config.clip_frames, config.image_size)
        show(memory.describe(config.dit, config.clip_frames, config.image_size, peak))
        report["memory"] = asdict(peak)
    if "live" in tables:
        report["live"] = {}
        dtype = {"fp16": torch.float16, **PRECISIONS}[options.precision]
        for preset in [options.preset] if options.preset else ["mini", "paper"]:
            sizes = SIZES[preset]
            with torch.inference_mode():
                rows = live.live_figures(sizes.config.vid2vid, options.device, options.repeats, dtype, options.detector)
            show(live.table(f"{sizes.name}, {options.precision}", rows) + "\n")
            report["live"][sizes.name] = [asdict(row) for row in rows]
    if "quality" in tables:
        networks = quality.load_networks(options.detector, options.dit, options.device)
        tried = quality.variants(quality.load_distilled(options.distilled, options.device)) | quality.fp8_row(networks.dit)
        clips, left_out = quality.prepared_clips(networks, options.data, options.limit, options.frames)
        for name, reason in left_out.items():
            log.info("Left out %s: %s", name, reason)
        rows = []
        report["quality"] = {
            "data": options.data.name,
            "limit": options.limit,
            "frames": options.frames,
            "rows": rows,
            "left_out": left_out,
        }
        show(quality.header())
        for row in quality.rows(networks, clips, tried, options.device):
            show(quality.line(row))
            rows.append(asdict(row))
            write(report, options.json)
    if "departures" in tables:
        torch.set_num_threads(1)
        networks = departures.load_networks(options.detector, options.stlpips)
        index = departures.load_samples(options.samples, networks)
        tried = departures.chosen(departures.variants(MINI.dit), options.only)
        clips, left_out = quality.prepared_clips(networks, options.data, options.limit, options.frames)
        for name, reason in left_out.items():
            log.info("Left out %s: %s", name, reason)
        report["departures"] = {
            "data": options.data.name,
            "clips": len(clips),
            "frames": options.frames,
            "left_out": left_out,
            "rows": [],
            "samples": len(index.paths),
            "minutes": options.minutes,
            "batch": options.batch,
            "precision": options.precision,
            "dit": options.dit and options.dit.name,
        }
        show(departures.header())
        before = {}
        given = None if options.dit is None else load_dit(options.dit)
        stages = departures.mini_stages(options.batch, 1.0 if given is None else departures.GOING_ON)
        precision = PRECISIONS[options.precision]
        for row in departures.rows(networks, clips, tried, index, stages, options.minutes, precision, given):
            show(departures.line(row, before))
            before[row.name] = row
            report["departures"]["rows"].append(asdict(row))
            write(report, options.json)
    write(report, options.json)


def show(text: str) -> None:
    """On standard output, at once; what is going on is logged to standard error."""
    print(text, flush=True)


def write(report: dict, path: Path | None) -> None:
    if path:
        path.write_text(json.dumps(report, indent=1), encoding="utf-8")


def part_rows(options: argparse.Namespace) -> list[Comparison]:
    rows = []
    for preset in [options.preset] if options.preset else ["mini", "paper"]:
        for part in [options.part] if options.part else PARTS:
            log.info("%s, %s ...", part, preset)
            clock = time.process_time if options.one_core else time.perf_counter
            rows.append(compare(preset, part, options.device, options.repeats, clock))
    return rows


def processor(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()


if __name__ == "__main__":
    try:
        main()
    except RealPortraitError as error:
        log.error("%s", error)
        sys.exit(1)
