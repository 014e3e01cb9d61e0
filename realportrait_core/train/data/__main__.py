"""python -m realportrait_core.train.data SOURCE... --out DIR: training samples of a folder of videos and images; with --landmarker
squares with the mesh of each face, of a folder of photographs, for the trainings on photographs."""

import argparse
import logging
import sys
import time
from collections import deque
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path

import torch

from ...batch.pool import LOCAL, add_options
from ...config import PRESETS, Config
from ...errors import InputError, RealPortraitError
from ...face.detect import FaceDetector
from ...face.find import find_detector
from ...face.landmarks import FaceLandmarker
from .filters import Filters
from .journal import REPORT, PreparationReport
from .photos import prepare_photos
from .prepare import prepare_samples
from .spread import Files, Settings, on_ray

log = logging.getLogger(__name__)

LOG_EVERY = 10.0  # s
WINDOW = 300.0  # s, over which the speed is averaged for the estimate of the time left
FAILED, INTERRUPTED = 1, 130
OF_SAMPLES = ("weights", "vae", "device", "posterior", "pictures", "ray")  # options without a meaning for photographs


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m realportrait_core.train.data",
        description=__doc__,
        epilog="Exit codes: 0 samples or photographs were made; 1 none, with the reason in the last line; 130 stopped, and the "
        "same command goes on.",
    )
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        type=Path,
        help="folder with videos and images, at any depth; a video; an image; a tar shard of webdataset",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the samples, or photographs, and of report.json")
    parser.add_argument("--weights", type=Path, help="Face Vid2vid, on whose motion maps the transformer will be trained")
    parser.add_argument("--vae", type=Path, help="SD1.5 VAE, a whole SD1.5 checkpoint, TinyVAE or TAESD (.safetensors)")
    parser.add_argument(
        "--landmarker",
        type=Path,
        help="MediaPipe's face_landmarker.task, instead of --weights and --vae: photographs with their meshes, for "
        "--photos of `train.mini photos`, `train.mini decoder` and `train.mini pack`, and for `eval photos`",
    )
    parser.add_argument("--preset", choices=sorted(PRESETS), default="mini", help="sizes and frame rate (%(default)s)")
    parser.add_argument("--detector", type=Path, help="YuNet's file; by default where install.py puts it")
    parser.add_argument(
        "--device",
        choices=("cpu", "cuda"),
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="of the networks (%(default)s)",
    )
    parser.add_argument(
        "--posterior",
        choices=("draw", "mean"),
        help="latents of driving frames: drawn from the VAE's posterior anew at every step, which is the default for the SD1.5 VAE "
        "and takes twice the space, or its mean; a TinyVAE has the mean alone",
    )
    parser.add_argument("--rebuild", action="store_true", help="delete the files of earlier runs in --out and make them anew")
    parser.add_argument("--pictures", action="store_true", help="keep the frames in the samples too, for `train student`")
    spread = parser.add_argument_group("spread over cores, GPUs and machines")
    spread.add_argument(
        "--ray",
        metavar="ADDRESS",
        help=f"of a Ray cluster (HOST:6379, or auto), whose nodes must see all files at the same paths; {LOCAL} starts a Ray on "
        "this machine. Networks and sources are then with its actors, and --device has no effect",
    )
    add_options(spread)
    thresholds = parser.add_argument_group("thresholds: videos and images beyond one are left out, and reported")
    for entry in fields(Filters):
        default = "0.3 of the preset's picture" if entry.name == "face_side" else f"{entry.default:g}"
        thresholds.add_argument(
            f"--{entry.name.replace('_', '-')}",
            type=float,
            metavar="NUMBER",
            help=f"{entry.metadata['help']} ({default})".replace("%", "%%"),
        )
    options = parser.parse_args(argv)
    if options.landmarker is None and (options.weights is None or options.vae is None):
        parser.error("samples need --weights and --vae, photographs with their meshes --landmarker")
    misplaced = [f"--{name}" for name in OF_SAMPLES if getattr(options, name) != parser.get_default(name)]
    if options.landmarker is not None and misplaced:
        parser.error(f"{', '.join(misplaced)} apply to samples; with --landmarker none are made")
    return options


class Clock:
    """Logs the progress, and the time left at the speed of the last minutes."""

    def __init__(self):
        self.seen = deque([(time.monotonic(), 0)])
        self.logged = self.seen[0][0]

    def __call__(self, done: int, total: int, name: str) -> None:
        now = time.monotonic()
        self.seen.append((now, done))
        while len(self.seen) > 2 and now - self.seen[0][0] > WINDOW:
            self.seen.popleft()
        if now - self.logged < LOG_EVERY:
            return
        self.logged = now
        (began, at_first) = self.seen[0]
        left = (now - began) * (total - done) / max(1, done - at_first)
        share = 100 * done / max(1, total)
        log.info("%.1f of %.1f MB (%.0f %%), %.0f min left: %s", done / 1e6, total / 1e6, share, left / 60, name)


def run(options: argparse.Namespace) -> int:
    """Samples or photographs, and the report in the log. The exit code."""
    cfg = PRESETS[options.preset]
    named = {entry.name: getattr(options, entry.name) for entry in fields(Filters)}
    filters = Filters.for_size(cfg.image_size, {name: value for name, value in named.items() if value is not None})
    if options.landmarker is not None:
        report = prepare_photos(
            options.sources,
            options.out,
            FaceDetector(options.detector or find_detector()),
            FaceLandmarker(options.landmarker),
            cfg.image_size,
            filters,
            options.rebuild,
            callback=Clock(),
        )
    else:
        report = make_samples(options, cfg, filters)
    log.info("%s\nthe whole report: %s", report.table(), options.out / REPORT)
    if not report.kept("video") and not report.kept("image"):
        made = "sample was made" if options.landmarker is None else "photograph was kept"
        log.error("No %s: everything was left out. Loosen a threshold, or give other sources.", made)
        return FAILED
    return 0


def make_samples(options: argparse.Namespace, cfg: Config, filters: Filters) -> PreparationReport:
    if options.device == "cuda" and not torch.cuda.is_available():
        raise InputError("PyTorch finds no CUDA device here: leave out --device, or install a PyTorch with CUDA.")
    files = Files(*(path.resolve() for path in (options.weights, options.vae, options.detector or find_detector())))
    settings = Settings(cfg, filters, options.pictures, None if options.posterior is None else options.posterior == "draw")
    spread = nullcontext()
    if options.ray is not None:
        spread = on_ray(
            files, settings, options.out, options.ray, options.gpus_per_worker, options.cpus_per_worker, options.workers
        )
    with spread as process:
        return prepare_samples(
            options.sources,
            options.out,
            *files.load("cpu" if options.ray else options.device),
            cfg,
            filters,
            options.rebuild,
            callback=Clock(),
            pictures=settings.pictures,
            from_posterior=settings.from_posterior,
            process=process,
        )


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    try:
        return run(options)
    except RealPortraitError as error:
        log.error("%s", error)
        return FAILED
    except KeyboardInterrupt:
        log.error("Stopped. Finished samples are kept: the same command goes on from there.")
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
