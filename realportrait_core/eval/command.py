"""python -m realportrait_core.eval report --out OUT: the paper's evaluation on rendered heads, clips and photographs.

Rows are baselines, parts of the model, the model, and other methods' videos; all of them are compared at 256x256 px. The same
command goes on where it was stopped, and measures the cases anew whose files, weights or settings have changed.
"""

import argparse
import logging
from dataclasses import replace
from pathlib import Path
from typing import get_args

from ..batch.pool import LOCAL, add_options
from ..batch.worker import Weights
from ..diffusion.sampling import Solver
from ..dit.checkpoint import load_dit
from ..errors import InputError, RealPortraitError
from ..face.detect import MODEL_NAME
from ..face.find import find_detector
from ..speed import default_guidance, default_sampling
from .estimators import parameter_errors
from .liveportrait import LIVEPORTRAIT
from .methods import method_folders, named_paths
from .panel import JudgeFiles
from .picture_judges import FEATURES
from .prepare import SIZE
from .recognition import load_recognition
from .record import CaseRecord
from .report import About, write_report
from .rows import SEED
from .setup import Setup
from .smirk import DRIVING as SMIRK_DRIVING
from .smirk import SmirkFolder
from .spread import FAILED, Cluster, Results, run_cases
from .statistics import ORDER
from .tables import TABLES, Sources, report_jobs

WEIGHTS = Path(__file__).resolve().parents[1] / "weights"
SOME_FAILED, INTERRUPTED = 1, 130

log = logging.getLogger(__name__)


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m realportrait_core.eval report",
        description=__doc__,
        epilog="; ".join(f"{name}: {table.what} {table.limit} cases by default" for name, table in TABLES.items()),
    )
    parser.add_argument("--out", type=Path, required=True, metavar="OUT", help="folder of the report and of each case's files")
    sources = parser.add_argument_group("cases, of which at least one folder is needed")
    sources.add_argument("--data", type=Path, metavar="DIR", help="rendered clips in pairs, as heads256 has, or any .mp4 clips")
    sources.add_argument("--clips", type=Path, metavar="DIR", help="real .mp4 clips, each of another person")
    sources.add_argument("--photos", type=Path, metavar="DIR", help="photographs with their points.npz")
    sources.add_argument("--canonical", type=Path, metavar="OBJ", help="MediaPipe's canonical_face_model.obj, to turn photographs")
    sources.add_argument("--tables", nargs="+", choices=list(TABLES), default=list(TABLES), help="all by default")
    sources.add_argument("--limit", type=int, metavar="N", help="cases of each table, instead of its default number")
    judges = parser.add_argument_group("judges: without its file a column says how to get it")
    judges.add_argument("--stlpips", type=Path, help="the wheel stlpips-pytorch 0.0.2, or its folder")
    judges.add_argument("--identity", type=Path, help="npm's @vladmandic/face-api/model, or ArcFace or SFace as .onnx")
    judges.add_argument("--landmarker", type=Path, help="MediaPipe's face_landmarker.task")
    judges.add_argument("--lpips", type=Path, metavar="FILE", help="torchvision's AlexNet, VGG16 or SqueezeNet 1.1")
    judges.add_argument("--inception", type=Path, metavar="FILE", help="the Inception of FID")
    judges.add_argument("--smirk", type=Path, metavar="DIR", help="SMIRK's parameters of driving videos and rows (smirk.py)")
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


def check(options: argparse.Namespace) -> None:
    for name in ("limit", "every", "workers"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise InputError(f"--{name} is {value}; it must be at least 1.")


def resolved(path: Path | None) -> Path | None:
    """At which an actor of Ray finds it too."""
    return None if path is None else path.resolve()


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


def report(options: argparse.Namespace) -> int:
    """The exit code."""
    check(options)
    sources = Sources(*(resolved(path) for path in (options.data, options.clips, options.photos, options.canonical)))
    jobs, without = report_jobs(sources, options.tables, options.limit)
    for table, why in without.items():
        log.info("No table %s: %s", table, why)
    setup = setup_of(options)
    cluster = options.ray and Cluster(options.ray, options.gpus_per_worker, options.cpus_per_worker, options.workers)
    smirk = None if options.smirk is None else SmirkFolder(options.smirk)
    if smirk is not None:
        smirk.rows()  # a wrong folder is told at once
    results = run_cases(jobs, options.out, setup, cluster or None)
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


def with_smirk(record: CaseRecord, folder: SmirkFolder) -> CaseRecord:
    """The record with the L1 distances of SMIRK's parameters from the driving video's, of the rows of which the folder has some.

    Not in the table `long`, whose cases have the names of others.
    """
    if record.table == "long":
        return record
    first = 1 if TABLES[record.table].truth else 0
    try:
        driving, note = folder.parameters(SMIRK_DRIVING, record.name, record.scored + first)
    except InputError as error:
        return replace(record, notes=(*record.notes, str(error)))
    frames, notes = dict(record.frames), [note]
    for row in folder.rows():
        if row not in frames:
            continue
        try:
            found, note = folder.parameters(row, record.name, record.scored + first)
        except InputError as error:
            notes.append(str(error))
            continue
        errors = parameter_errors(found, driving)
        frames[row] = frames[row] | {f"smirk_{metric}": values[first:] for metric, values in errors.items()}
        notes.append(note)
    return replace(record, frames=frames, notes=(*record.notes, *(note for note in notes if note is not None)))


def finish(out: Path, results: Results) -> int:
    measured = len(results.records) - results.reused
    log.info("%d cases measured, %d finished before, %d failed", measured, results.reused, len(results.failed))
    if results.failed:
        log.error("%d cases failed; %s says why.", len(results.failed), out / FAILED)
        return SOME_FAILED
    return 0


def main(argv: list[str]) -> int:
    options = parse(argv)
    try:
        return report(options)
    except RealPortraitError as error:
        log.error("%s", error)
        return SOME_FAILED
    except KeyboardInterrupt:
        log.error("Stopped. Finished cases are kept: the same command goes on from there.")
        return INTERRUPTED
