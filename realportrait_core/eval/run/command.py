"""python -m realportrait_core.eval report --out OUT: the paper's evaluation on rendered heads, clips and photographs.

Rows are baselines, parts of the model, the model, and other methods' videos; all of them are compared at 256x256 px. The same
command goes on where it was stopped, and measures the cases anew whose files, weights or settings have changed.
"""

import argparse
import logging
from pathlib import Path
from typing import get_args

from ...batch.pool import LOCAL, add_options
from ...batch.worker import Weights
from ...diffusion.sampling import Solver
from ...dit.checkpoint import load_dit
from ...face.detect import MODEL_NAME
from ...face.find import find_detector
from ...speed import default_guidance, default_sampling
from ..judges.recognition import load_recognition
from ..judges.smirk import SmirkFolder
from ..methods.liveportrait import LIVEPORTRAIT
from ..methods.results import method_folders, named_paths
from ..report import About, check_packages, write_report
from ..report.statistics import ORDER
from ..rows import SEED
from .case_options import add_case_options, check_at_least_1, chosen_jobs, resolved
from .panel import JudgeFiles
from .picture_judges import FEATURES
from .prepare import SIZE
from .setup import Setup
from .smirk_figures import with_smirk
from .spread import FAILED, Cluster, Results, run_cases
from .tables import TABLES

WEIGHTS = Path(__file__).resolve().parents[2] / "weights"
SOME_FAILED, INTERRUPTED = 1, 130

log = logging.getLogger(__name__)


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m realportrait_core.eval report",
        description=__doc__,
        epilog="; ".join(f"{name}: {table.what} {table.limit} cases by default" for name, table in TABLES.items()),
    )
    parser.add_argument("--out", type=Path, required=True, metavar="OUT", help="folder of the report and of each case's files")
    add_case_options(parser)
    judges = parser.add_argument_group("judges: without its file a column says how to get it")
    judges.add_argument("--stlpips", type=Path, help="the wheel stlpips-pytorch 0.0.2, or its folder")
    judges.add_argument("--identity", type=Path, help="npm's @vladmandic/face-api/model, or ArcFace or SFace as .onnx")
    judges.add_argument("--landmarker", type=Path, help="MediaPipe's face_landmarker.task")
    judges.add_argument("--lpips", type=Path, metavar="FILE", help="torchvision's AlexNet, VGG16 or SqueezeNet 1.1")
    judges.add_argument("--inception", type=Path, metavar="FILE", help="the Inception of FID")
    judges.add_argument("--smirk", type=Path, metavar="DIR", help="SMIRK's parameters of all videos (docs/evaluation.md)")
    judges.add_argument(
        "--every", type=int, default=Setup.every, metavar="N", help="the slow judges see every N-th scored frame (%(default)s)"
    )
    others = parser.add_argument_group("other methods")
    others.add_argument(
        "--method",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="a folder of a method's videos TABLE/NAME.mp4, as a row; `inputs` writes what it should animate. Repeatable",
    )
    others.add_argument(
        "--network",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="another diffusion transformer for the same Face Vid2vid, as a row: weights of your own, or an ablation's. Repeatable",
    )
    others.add_argument("--liveportrait", type=Path, metavar="PATH", help="LivePortrait's public weights, as a row")
    sampling = parser.add_argument_group("sampling: by default as the weights were trained for")
    sampling.add_argument("--steps", type=int)
    sampling.add_argument("--guidance", type=float)
    sampling.add_argument("--solver", choices=get_args(Solver))
    networks = parser.add_argument_group("weights")
    networks.add_argument("--vid2vid", type=Path, default=WEIGHTS / "realportrait" / "realportrait_mini_vid2vid.safetensors")
    networks.add_argument("--dit", type=Path, default=WEIGHTS / "realportrait" / "realportrait_mini.safetensors")
    networks.add_argument("--vae", type=Path, default=WEIGHTS / "vae" / "realportrait_mini_vae.safetensors")
    networks.add_argument("--detector", type=Path, help=f"{MODEL_NAME}; by default where install.py puts it")
    spread = parser.add_argument_group("cores, GPUs and machines, by Ray")
    spread.add_argument(
        "--ray",
        metavar="ADDRESS",
        help=f"of a running Ray cluster whose nodes see all files at the same paths (HOST:6379, or auto), or {LOCAL}: one is "
        "started here for the run. By default all is computed in this process",
    )
    add_options(spread)
    return parser.parse_args(argv)


def setup_of(options: argparse.Namespace) -> Setup:
    detector = options.detector or find_detector()
    methods = method_folders(options.method, (*ORDER, LIVEPORTRAIT))
    networks = named_paths("--network", options.network, (*ORDER, LIVEPORTRAIT, *methods), "NAME=FILE, as mine=stage2.safetensors")
    return Setup(
        Weights(*(path.resolve() for path in (options.vid2vid, options.dit, options.vae, detector))),
        JudgeFiles(
            **{name: resolved(getattr(options, name)) for name in ("stlpips", "identity", "landmarker", "lpips", "inception")}
        ),
        {row: folder.resolve() for row, folder in methods.items()},
        resolved(options.liveportrait),
        {row: path.resolve() for row, path in networks.items()},
        steps=options.steps,
        solver=options.solver,
        guidance=options.guidance,
        every=options.every,
    )


def command(argv: list[str]) -> int:
    """Measures the cases and writes the report; the exit code."""
    options = parse(argv)
    check_at_least_1(options, "every", "workers")
    check_packages()  # before minutes of measuring
    jobs, without = chosen_jobs(options)
    setup = setup_of(options)
    smirk = None if options.smirk is None else SmirkFolder(options.smirk)
    if smirk is not None:
        smirk.rows()  # a wrong folder is told at once
    cluster = Cluster(options.ray, options.gpus_per_worker, options.cpus_per_worker, options.workers) if options.ray else None
    try:
        results = run_cases(jobs, options.out, setup, cluster)
    except KeyboardInterrupt:
        log.error("Stopped. Finished cases are kept: the same command goes on from there.")
        return INTERRUPTED
    records = results.records if smirk is None else [with_smirk(record, smirk) for record in results.records]
    write_report(options.out, records, about(setup, results, without))
    log.info("%s", options.out / "report.html")
    return finish(options.out, results)


def about(setup: Setup, results: Results, without: dict[str, str]) -> About:
    """What the report says of the run."""
    cfg = load_dit(setup.weights.dit).cfg
    speed = default_sampling(cfg, setup.steps, setup.solver)
    guidance = default_guidance(cfg) if setup.guidance is None else setup.guidance
    settings = {
        "Weights": ", ".join(path.name for path in (setup.weights.dit, setup.weights.vid2vid, setup.weights.vae)),
        "Sampling": f"{speed.steps} steps of {speed.solver}, guidance {guidance:g}, seed {SEED}",
        "Compared": f"at {SIZE}x{SIZE} px in 8 bits; frame 0, where it is the portrait itself, is not scored",
        "Motion": "relative to the driving video's first frame, in every row that we make",
        "Slow judges": f"see one of {setup.every} scored frames (of {setup.every_long} in the table long); the Fréchet distances "
        f"are of {FEATURES} frames of each case",
    }
    if setup.judges.identity is not None:
        settings["Identity"] = f"cosine in the embedding of {load_recognition(setup.judges.identity).kind}"
    return About(
        settings=settings | {f"No table {table}": why for table, why in without.items()},
        tables={name: table.what for name, table in TABLES.items()},
        missing=setup.judges.missing(),
        failed={str(job): why for job, why in results.failed},
        clip_frames=cfg.clip_frames,
    )


def finish(out: Path, results: Results) -> int:
    measured = len(results.records) - results.reused
    log.info("%d cases measured, %d finished before, %d failed", measured, results.reused, len(results.failed))
    if results.failed:
        log.error("%d cases failed; %s says why.", len(results.failed), out / FAILED)
        return SOME_FAILED
    return 0
