"""python -m realportrait_core.batch JOBS.csv --out DIR: an animation for each row of a CSV file, on cores, GPUs and machines."""

import argparse
import logging
import sys
from pathlib import Path

from ..errors import InputError, RealPortraitError
from ..face.detect import MODEL_NAME
from ..face.find import find_detector
from .jobs import COLUMNS, NEEDED, read_jobs
from .pool import LOCAL, add_options
from .run import FAILED, run_batch
from .worker import Weights

BUNDLED = Path(__file__).resolve().parents[1] / "weights"
SOME_FAILED, INTERRUPTED = 1, 130

log = logging.getLogger(__name__)


def parse(argv: list[str] | None) -> argparse.Namespace:
    columns = "; ".join(f"{name}: {column.what}" for name, column in COLUMNS.items())
    parser = argparse.ArgumentParser(
        prog="python -m realportrait_core.batch",
        description=__doc__,
        epilog=f"Columns: {', '.join(NEEDED)}, and optionally {columns}. Paths in the file are relative to it. Exit codes: 0 all "
        f"videos are there; 1 some failed (DIR/{FAILED} says why), or nothing could start; 130 stopped. The same command goes on "
        "from there, and makes the rows anew that have changed.",
    )
    parser.add_argument("jobs", type=Path, metavar="JOBS.csv")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the videos, each with a .json beside it")
    parser.add_argument(
        "--address",
        default=LOCAL,
        help="of a running Ray cluster (HOST:6379, or auto for the one that this machine belongs to), whose nodes must see all "
        "files at the same paths; by default a Ray is started here for this run",
    )
    add_options(parser)
    parser.add_argument("--vid2vid", type=Path, default=BUNDLED / "realportrait" / "realportrait_mini_vid2vid.safetensors")
    parser.add_argument("--dit", type=Path, default=BUNDLED / "realportrait" / "realportrait_mini.safetensors")
    parser.add_argument("--vae", type=Path, default=BUNDLED / "vae" / "realportrait_mini_vae.safetensors")
    parser.add_argument("--detector", type=Path, help=f"{MODEL_NAME}; by default where install.py puts it")
    return parser.parse_args(argv)


def run(options: argparse.Namespace) -> int:
    """The exit code."""
    if options.workers is not None and options.workers < 1:
        raise InputError(f"--workers is {options.workers}; it must be at least 1.")
    jobs = read_jobs(options.jobs)
    detector = options.detector or find_detector()
    weights = Weights(*(path.resolve() for path in (options.vid2vid, options.dit, options.vae, detector)))
    report = run_batch(
        jobs, options.out, weights, options.address, options.gpus_per_worker, options.cpus_per_worker, options.workers
    )
    log.info("%d made, %d finished before, %d failed", len(report.made), report.reused, len(report.failed))
    if report.failed:
        log.error("%d jobs failed; %s says why.", len(report.failed), options.out / FAILED)
        return SOME_FAILED
    return 0


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    try:
        return run(options)
    except RealPortraitError as error:
        log.error("%s", error)
        return SOME_FAILED
    except KeyboardInterrupt:
        log.error("Stopped. Finished videos are kept: the same command goes on from there.")
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
