"""A batch: the jobs that are not finished yet, on actors; progress in the log, what failed in failed.csv."""

import csv
import io
import logging
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ..dit.checkpoint import load_dit
from ..errors import InputError, RealPortraitError
from ..speed import preset
from ..whole_file import write_whole
from .jobs import Job
from .pool import Done, Share, connected, nodes, room, run_jobs, share_of
from .record import is_finished
from .worker import Made, Weights, make_animator

FAILED = "failed.csv"

log = logging.getLogger(__name__)


@dataclass
class Report:
    """What became of the jobs."""

    reused: int = 0  # finished by an earlier run
    made: list[Job] = field(default_factory=list)
    failed: list[tuple[Job, str]] = field(default_factory=list)  # with a sentence


def run_batch(
    jobs: list[Job],
    folder: Path,
    weights: Weights,
    address: str,
    gpus: float | None = None,
    cpus: float | None = None,
    workers: int | None = None,
) -> Report:
    """Makes every job's video in the folder that is not there yet. address, gpus, cpus, workers: as in pool.py; None by default.

    failed.csv lists the failures of this run, also where it was stopped, and is removed where there are none. Raises InputError
    where Ray, room for an actor or a speed is missing, WeightsError where a network cannot be loaded.
    """
    check_speeds(jobs, weights)
    marks = weights.marks()
    left = [job for job in jobs if not is_finished(folder, job, marks)]
    report = Report(reused=len(jobs) - len(left))
    log.info("%d jobs, %d of them finished already", len(jobs), report.reused)
    if not left:
        write_failures(folder, report)
        return report
    with connected(address):
        share = share_of(nodes(), gpus, cpus)
        count = min(room(nodes(), share) if workers is None else workers, len(left))
        log.info("%d actors of %g GPUs and %g CPUs", count, share.gpus, share.cpus)
        began = time.monotonic()
        done: Done[Job, Made]
        try:
            for done in run_jobs(maker(weights, marks, folder, share), left, share, count):
                take(done, report)
                progress(done, report, len(left), time.monotonic() - began)
        finally:
            write_failures(folder, report)
    return report


def maker(weights: Weights, marks: dict[str, str], folder: Path, share: Share) -> partial:
    return partial(make_animator, weights, marks, folder.resolve(), share.device, max(1, int(share.cpus)))


def check_speeds(jobs: list[Job], weights: Weights) -> None:
    """Raises InputError where a job asks for a speed that the transformer's weights do not have."""
    wanted = {job.speed: job for job in jobs if job.speed != "exact"}
    if wanted:
        cfg = load_dit(weights.dit).cfg
        for speed, job in wanted.items():
            try:
                preset(speed, cfg)
            except InputError as error:
                raise InputError(f"{job.out}: {error}") from error


def take(done: Done[Job, Made], report: Report) -> None:
    if done.error is None:
        report.made.append(done.job)
    elif isinstance(done.error, RealPortraitError):
        report.failed.append((done.job, str(done.error)))
    else:  # the traceback is in the log of its actor
        report.failed.append((done.job, f"An unexpected error: {type(done.error).__name__}: {done.error}"))


def progress(done: Done[Job, Made], report: Report, total: int, seconds: float) -> None:
    count = len(report.made) + len(report.failed)
    left = seconds * (total - count) / count / 60
    what = f"{done.result.frames} frames in {done.result.seconds:.1f} s" if done.result else f"failed: {report.failed[-1][1]}"
    log.info("%d of %d, %.0f min left. %s: %s", count, total, left, done.job.out, what)


def write_failures(folder: Path, report: Report) -> None:
    """DIR/failed.csv, whole or not at all; removed where nothing failed."""
    path = folder / FAILED
    if not report.failed:
        path.unlink(missing_ok=True)
        return
    text = io.StringIO(newline="")
    rows = csv.writer(text)
    rows.writerow(["out", "portrait", "driving", "error"])
    rows.writerows([job.out, job.portrait, job.driving, why] for job, why in report.failed)
    write_whole(path, text.getvalue().encode())
