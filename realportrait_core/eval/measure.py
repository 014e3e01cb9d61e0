"""One case: every row's pictures, every figure of them, and its files OUT/cases/TABLE/NAME.json, .mp4, .jpg and .safetensors.

The record is written last: a case whose record is there is whole.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from ..batch.worker import load_networks
from ..speed import default_guidance, default_sampling
from ..stlpips import distances
from .figures import Compared, Frames, Whole, filled, row_figures, target_figures
from .networks import Networks
from .observe import Observed, observe
from .panel import Panel, load_panel
from .prepare import Prepared, prepare_case, resized
from .record import CaseRecord, Values, write_record
from .rows import DRIVING, REALPORTRAIT, TRUTH, rows_of
from .setup import Setup
from .tables import Job
from .temporal import joins, still_border, still_part


@dataclass(frozen=True)
class Measured:
    """A finished case, for the log."""

    said: str
    seconds: float  # that it took


def make_measurer(setup: Setup, marks: dict[str, str], out: Path, device: str, threads: int | None) -> Callable[[Job], Measured]:
    """Loads all networks once; the result measures a case and writes its files. threads: None, as torch has them.

    WeightsError where a file of networks holds something else.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    loaded = load_networks(setup.weights, device)
    networks = Networks(loaded.vid2vid, loaded.dit, loaded.vae, loaded.detector, loaded.schedule)
    panel = load_panel(setup.judges)

    def work(job: Job) -> Measured:
        began, of = time.perf_counter(), setup.fingerprint(job, marks)  # from before the files are read
        record = measure(networks, panel, setup, job)
        write_record(out, record, of)
        return Measured(spoken(record), time.perf_counter() - began)

    return work


@torch.inference_mode()
def measure(networks: Networks, panel: Panel, setup: Setup, job: Job) -> CaseRecord:
    """FaceError where a face is missing, InputError where the case's files cannot be used."""
    case = prepare_case(networks, job.load())
    speed = default_sampling(networks.dit.cfg, setup.steps, setup.solver)
    guidance = default_guidance(networks.dit.cfg) if setup.guidance is None else setup.guidance
    made = rows_of(networks, case.motion, case.portrait, case.true_frames, speed, guidance)
    rows = {row: resized(pictures) for row, pictures in made.pictures.items()}  # (L, 3, SIZE, SIZE) uint8

    judged = torch.zeros(len(case), dtype=torch.bool)
    judged[case.first :: setup.judged_every(job)] = True
    compared = compare_with(networks, panel, case, judged)
    frames: dict[str, Frames] = {}
    whole: dict[str, Whole] = {}
    target = TRUTH if case.exact else DRIVING
    frames[target], whole[target] = target_figures(compared)
    for row, pictures in rows.items():
        shown = pictures.float() / 255
        seen = look(networks, panel, shown, case.points, case.crop, judged)
        frames[row], whole[row] = row_figures(shown, seen, compared)
    for row, figures in picture_distances(panel, rows, case, judged).items():
        frames[row] |= figures
    return CaseRecord(
        table=job.table,
        name=job.name,
        scored=len(case) - case.first,
        frames=frames,
        whole=whole,
        notes=notes_of(case),
        seconds=made.seconds,
    )


def look(networks: Networks, panel: Panel, pictures: Tensor, points: Tensor, crop: Tensor, judged: Tensor) -> Observed:
    return observe(networks.vid2vid.motion, networks.detector, panel.estimator, panel.recognition, pictures, points, crop, judged)


def compare_with(networks: Networks, panel: Panel, case: Prepared, judged: Tensor) -> Compared:
    """The target and the portrait as the networks see them. Of the target frame 0 is judged too: changes begin there."""
    target, from_start = case.target, judged.clone()
    from_start[0] = True
    portrait = resized(case.portrait).float() / 255
    return Compared(
        case,
        look(networks, panel, target.pictures, target.points, target.crop, from_start),
        look(networks, panel, portrait, case.points[:1], case.crop, torch.ones(1, dtype=torch.bool)),
        still_part(target.pictures, case.valid) if case.exact else still_border(case.face),
        joins(len(case), networks.dit.cfg.clip_frames),
    )


def picture_distances(panel: Panel, rows: dict[str, Tensor], case: Prepared, judged: Tensor) -> dict[str, Frames]:
    """ST-LPIPS of the judged frames of rows (L, 3, S, S) uint8, against a truth."""
    if panel.stlpips is None or not case.exact:
        return {}
    shown = {row: filled(pictures.float() / 255, case)[judged] for row, pictures in rows.items()}
    found = distances(panel.stlpips, shown, case.target.pictures[judged])
    return {row: {"st_lpips": on_frames(values, judged)[case.first :]} for row, values in found.items()}


def on_frames(values: Tensor, judged: Tensor) -> Values:
    """Values of the judged frames as those of all frames (L), None elsewhere."""
    left = iter(values.tolist())
    return [next(left) if ok else None for ok in judged.tolist()]


def notes_of(case: Prepared) -> tuple[str, ...]:
    """What the tracker has to say of the driving video, where the face is not simply there in every frame."""
    track = case.source.track
    return () if bool(track.present.all()) and not track.cuts else (f"Driving video: {track.report}",)


def spoken(record: CaseRecord) -> str:
    """A line for the log."""
    ours = record.frames.get(REALPORTRAIT, {})
    shown = {name: [value for value in ours.get(name, []) if value is not None] for name in ("psnr_db", "st_lpips", "pose_l1")}
    figures = ", ".join(f"{name} {fmean(values):.3g}" for name, values in shown.items() if values)
    return f"{record.scored} frames, {figures}"
