"""One case: every row's pictures, every figure of them, and its files OUT/cases/TABLE/NAME.json, .mp4, .jpg and .safetensors.

The record is written last: a case whose record is there is whole.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from safetensors.torch import save
from torch import Tensor

from ...batch.worker import load_networks
from ...dit.ablation import load_network
from ...dit.model import RealPortraitDiT
from ...speed import Speed, default_guidance, default_sampling
from ...whole_file import write_whole
from ..methods.liveportrait import LIVEPORTRAIT, LivePortrait, liveportrait_frames, load_liveportrait
from ..methods.results import Result, method_rows
from ..metrics.temporal import joins, still_border, still_part
from ..networks import Networks
from ..record import CaseRecord, record_path, write_record
from ..report.pictures import write_strip, write_tiles
from ..rows import DRIVING, REALPORTRAIT, TRUTH, network_frames, rows_of
from .figures import CaseFigures, Compared, FrameFigures, Row, row_figures, target_figures
from .observe import Observed, observe
from .panel import Panel, load_panel
from .picture_judges import features, picture_distances
from .prepare import SIZE, Prepared, as_compared, driving_view, prepare_case
from .setup import Setup
from .tables import Job


@dataclass(frozen=True)
class Measured:
    """A finished case, for the log."""

    said: str
    seconds: float  # that it took


@dataclass(frozen=True)
class Tools:
    """What measuring takes, loaded once."""

    networks: Networks
    panel: Panel
    liveportrait: LivePortrait | None
    others: dict[str, RealPortraitDiT]  # row -> another diffusion transformer
    speed: Speed
    guidance: float


@dataclass(frozen=True)
class Made:
    """The rows of a case."""

    rows: dict[str, Row]
    seconds: dict[str, float]
    left_out: dict[str, str]  # row -> why
    notes: tuple[str, ...]


def make_measurer(setup: Setup, marks: dict[str, str], out: Path, device: str, threads: int | None) -> Callable[[Job], Measured]:
    """Loads all networks once; the result measures a case and writes its files. threads: None, as torch has them.

    WeightsError where a file of networks holds something else, InputError where a package is missing.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    tools = load_tools(setup, device)

    def work(job: Job) -> Measured:
        began, of = time.perf_counter(), setup.fingerprint(job, marks)  # from before the files are read
        record = measure(tools, setup, job, out)
        write_record(out, record, of)
        return Measured(spoken(record), time.perf_counter() - began)

    return work


def load_tools(setup: Setup, device: str) -> Tools:
    loaded = load_networks(setup.weights, device)
    return Tools(
        Networks(loaded.vid2vid, loaded.dit, loaded.vae, loaded.detector, loaded.schedule),
        load_panel(setup.judges, device),
        None if setup.liveportrait is None else load_liveportrait(setup.liveportrait),
        {row: load_network(path).to(device) for row, path in setup.networks.items()},
        default_sampling(loaded.dit.cfg, setup.steps, setup.solver),
        default_guidance(loaded.dit.cfg) if setup.guidance is None else setup.guidance,
    )


@torch.inference_mode()
def measure(tools: Tools, setup: Setup, job: Job, out: Path) -> CaseRecord:
    """The record; the case's other files are written. FaceError where a face is missing, InputError where the case's files cannot
    be used.
    """
    case = prepare_case(tools.networks, job.load())
    made = make_rows(tools, setup, job, case)
    judged = torch.zeros(len(case), dtype=torch.bool)
    judged[case.first :: setup.judged_every(job)] = True

    compared = compare_with(tools, case, judged)
    frames: dict[str, FrameFigures] = {}
    whole: dict[str, CaseFigures] = {}
    target = TRUTH if case.exact else DRIVING
    frames[target], whole[target] = target_figures(compared)
    for name, row in made.rows.items():
        seen = look(tools, row.pictures.float() / 255, case.points, case.crop, judged & row.present)
        frames[name], whole[name] = row_figures(row, seen, compared)
    for name, figures in picture_distances(tools.panel, made.rows, case, judged).items():
        frames[name] |= figures
    write_files(record_path(out, job.table, job.name), made.rows, case, features(tools.panel, made.rows, case))
    scored = len(case) - case.first
    return CaseRecord(job.table, job.name, scored, frames, whole, made.left_out, (*track_notes(case), *made.notes), made.seconds)


def make_rows(tools: Tools, setup: Setup, job: Job, case: Prepared) -> Made:
    """Our own rows, LivePortrait's, other networks', and those of other methods' files."""
    networks = tools.networks
    ours = rows_of(networks, case.motion, case.portrait, case.true_frames, tools.speed, tools.guidance)
    everywhere, seconds = torch.ones(len(case), dtype=torch.bool), dict(ours.seconds)
    rows = {name: Row(as_compared(pictures), everywhere) for name, pictures in ours.pictures.items()}
    if tools.liveportrait is not None:
        began = time.perf_counter()
        pictures = liveportrait_frames(tools.liveportrait, case.source, case.motion, SIZE)
        rows[LIVEPORTRAIT] = Row(as_compared(pictures), everywhere)
        seconds[LIVEPORTRAIT] = time.perf_counter() - began
    for name, dit in tools.others.items():
        began = time.perf_counter()
        speed = default_sampling(dit.cfg, setup.steps, setup.solver)
        guidance = default_guidance(dit.cfg) if setup.guidance is None else setup.guidance
        pictures = network_frames(networks, dit, case.motion, case.portrait, speed, guidance)
        rows[name] = Row(as_compared(pictures), everywhere)
        seconds[name] = time.perf_counter() - began
    results, left_out = method_rows(setup.methods, job.table, job.name, case.motion, case.fps, SIZE)
    rows |= {name: on_all_frames(result, len(case)) for name, result in results.items()}
    return Made(rows, seconds, left_out, tuple(result.note for result in results.values() if result.note is not None))


def on_all_frames(result: Result, frames: int) -> Row:
    """Where a method has no picture, its last one before stands, or its first; it counts for nothing."""
    present = torch.zeros(frames, dtype=torch.bool)
    present[list(result.numbers)] = True
    return Row(as_compared(result.pictures)[(present.cumsum(0) - 1).clamp(min=0)], present)


def look(tools: Tools, pictures: Tensor, points: Tensor, crop: Tensor, judged: Tensor) -> Observed:
    networks, panel = tools.networks, tools.panel
    return observe(networks.vid2vid.motion, networks.detector, panel.estimator, panel.recognition, pictures, points, crop, judged)


def compare_with(tools: Tools, case: Prepared, judged: Tensor) -> Compared:
    """The target and the portrait as the networks see them. Of the target frame 0 is judged too: changes begin there."""
    target, from_start = case.target, judged.clone()
    from_start[0] = True
    return Compared(
        case,
        look(tools, target.pictures, target.points, target.crop, from_start),
        look(tools, case.portrait_compared, case.points[:1], case.crop, torch.ones(1, dtype=torch.bool)),
        still_part(target.pictures, case.valid) if case.exact else still_border(case.face),
        joins(len(case), tools.networks.dit.cfg.clip_frames),
    )


def write_files(record: Path, rows: dict[str, Row], case: Prepared, found: dict[str, Tensor]) -> None:
    """All but the record itself."""
    shown = {"portrait": as_compared(case.portrait)}
    if not case.exact:
        shown[DRIVING] = case.target.pictures
    else:
        if not case.of_itself:
            shown[DRIVING] = driving_view(case.source.driving, case.source.track).pictures
        shown[TRUTH] = case.target.pictures
    shown |= {name: row.pictures for name, row in rows.items()}
    write_tiles(record.with_suffix(".mp4"), shown, case.fps, case.first)
    write_strip(record.with_suffix(".jpg"), shown)
    if found:
        write_whole(record.with_suffix(".safetensors"), save({name: values.contiguous() for name, values in found.items()}))
    else:  # an older run's would be taken for this one's
        record.with_suffix(".safetensors").unlink(missing_ok=True)


def track_notes(case: Prepared) -> tuple[str, ...]:
    """What the tracker says of the driving video, where the face is not simply there in every frame."""
    track = case.source.track
    return () if bool(track.present.all()) and not track.cuts else (f"Driving video: {track.report}",)


def spoken(record: CaseRecord) -> str:
    """A line for the log."""
    ours = record.frames.get(REALPORTRAIT, {})
    shown = {name: [value for value in ours.get(name, []) if value is not None] for name in ("psnr_db", "st_lpips", "pose_l1")}
    figures = ", ".join(f"{name} {fmean(values):.3g}" for name, values in shown.items() if values)
    return f"{record.scored} frames, {figures}"
