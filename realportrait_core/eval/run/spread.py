"""The cases of a report, in this process or on actors of Ray: what is finished is skipped, what fails is listed."""

import csv
import io
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ...batch.pool import Done, Make, connected, nodes, room, run_jobs, share_of
from ...errors import InputError, RealPortraitError
from ...whole_file import write_whole
from ..record import CaseRecord, read_record, record_path
from .measure import Measured, make_measurer
from .setup import Setup
from .tables import Job

FAILED = "failed.csv"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cluster:
    """Ray's address, and what an actor gets of it, as in batch/pool.py."""

    address: str
    gpus: float | None = None
    cpus: float | None = None
    workers: int | None = None


@dataclass
class Results:
    """What became of the cases."""

    records: list[CaseRecord] = field(default_factory=list)  # in the jobs' order
    reused: int = 0  # of these, finished by an earlier run
    failed: list[tuple[Job, str]] = field(default_factory=list)  # with a sentence


def run_cases(jobs: list[Job], out: Path, setup: Setup, cluster: Cluster | None = None) -> Results:
    """Measures every case that has no record of the same fingerprint in OUT/cases. cluster: None, in this process.

    OUT/failed.csv lists the failures of this run, also where it was stopped, and is removed where there are none. WeightsError
    where a network cannot be loaded, InputError where Ray, or room for an actor, is missing.
    """
    marks, results = setup.marks(), Results()
    left = [job for job in jobs if finished(out, job, setup, marks) is None]
    results.reused = len(jobs) - len(left)
    log.info("%d cases, %d of them finished already", len(jobs), results.reused)
    try:
        if left:
            with process(partial(make_measurer, setup, marks, out.resolve()), left, cluster) as done:
                follow(done, left, results)
    finally:
        write_failures(out, results)
    records = [finished(out, job, setup, marks) for job in jobs]
    results.records = [record for record in records if record is not None]
    return results


def finished(out: Path, job: Job, setup: Setup, marks: dict[str, str]) -> CaseRecord | None:
    """The case's record, where it is of just these files and settings."""
    try:
        return read_record(record_path(out, job.table, job.name), setup.fingerprint(job, marks))
    except InputError:  # a file of the case is missing: the case itself says so
        return None


@contextmanager
def process(make: partial, jobs: list[Job], cluster: Cluster | None) -> Iterator[Iterator[Done[Job, Measured]]]:
    """Every job, as soon as it is done. make: takes device and threads too."""
    if cluster is None:
        yield in_process(partial(make, "cpu", None), jobs)
        return
    with connected(cluster.address):
        share = share_of(nodes(), cluster.gpus, cluster.cpus)
        count = min(room(nodes(), share) if cluster.workers is None else cluster.workers, len(jobs))
        log.info("%d actors of %g GPUs and %g CPUs", count, share.gpus, share.cpus)
        yield run_jobs(partial(make, share.device, max(1, int(share.cpus))), jobs, share, count)


def in_process(make: Make, jobs: list[Job]) -> Iterator[Done[Job, Measured]]:
    work = make()
    for job in jobs:
        try:
            result: Any = work(job)
        except Exception as error:
            if not isinstance(error, RealPortraitError):
                log.exception("%s", job)
            yield Done(job, error=error)
        else:
            yield Done(job, result)


def follow(finished_jobs: Iterator[Done[Job, Measured]], jobs: list[Job], results: Results) -> None:
    """Notes failures, and tells progress with the time left, by the frames of what is left."""
    began, total, done_frames = time.monotonic(), sum(job.frames for job in jobs), 0
    for count, done in enumerate(finished_jobs, 1):
        done_frames += done.job.frames
        if done.result is not None:
            what = f"{done.result.said}; {done.result.seconds:.0f} s"
        else:
            results.failed.append((done.job, sentence(done.error)))
            what = f"failed: {results.failed[-1][1]}"
        left = (time.monotonic() - began) * (total - done_frames) / done_frames / 60
        log.info("%d of %d, %.1f min left. %s: %s", count, len(jobs), left, done.job, what)


def sentence(error: Exception | None) -> str:
    if isinstance(error, RealPortraitError):
        return str(error)
    return f"An unexpected error: {type(error).__name__}: {error}"  # its traceback is in the log


def write_failures(out: Path, results: Results) -> None:
    """OUT/failed.csv, whole or not at all; removed where nothing failed."""
    if not results.failed:
        (out / FAILED).unlink(missing_ok=True)
        return
    text = io.StringIO(newline="")
    rows = csv.writer(text)
    rows.writerow(["table", "case", "error"])
    rows.writerows([job.table, job.name, why] for job, why in results.failed)
    write_whole(out / FAILED, text.getvalue().encode())
