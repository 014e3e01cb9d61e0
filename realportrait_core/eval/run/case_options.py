"""The options that choose the cases of a report: the same for `report` and for `inputs`."""

import argparse
import logging
from pathlib import Path

from ...errors import InputError
from .tables import TABLES, Job, Sources, report_jobs

log = logging.getLogger(__name__)


def add_case_options(parser: argparse.ArgumentParser) -> None:
    cases = parser.add_argument_group("cases, of which at least one folder is needed")
    cases.add_argument("--data", type=Path, metavar="DIR", help="rendered clips in pairs, as heads256 has, or any .mp4 clips")
    cases.add_argument("--clips", type=Path, metavar="DIR", help="real .mp4 clips, each of another person")
    cases.add_argument("--photos", type=Path, metavar="DIR", help="photographs with their points.npz")
    cases.add_argument("--canonical", type=Path, metavar="OBJ", help="MediaPipe's canonical_face_model.obj, to turn photographs")
    cases.add_argument("--tables", nargs="+", choices=list(TABLES), default=list(TABLES), help="all by default")
    cases.add_argument("--limit", type=int, metavar="N", help="cases of each table, instead of its default number")


def chosen_jobs(options: argparse.Namespace) -> tuple[list[Job], dict[str, str]]:
    """The cases, and the chosen tables that have none: name -> why, which is logged. InputError as `report_jobs`."""
    check_at_least_1(options, "limit")
    # Resolved, so that an actor of Ray finds them too.
    sources = Sources(*map(resolved, (options.data, options.clips, options.photos, options.canonical)))
    jobs, without = report_jobs(sources, options.tables, options.limit)
    for table, why in without.items():
        log.info("No table %s: %s", table, why)
    return jobs, without


def check_at_least_1(options: argparse.Namespace, *names: str) -> None:
    """InputError for an option that is given and below 1."""
    for name in names:
        value = getattr(options, name)
        if value is not None and value < 1:
            raise InputError(f"--{name} is {value}; it must be at least 1.")


def resolved(path: Path | None) -> Path | None:
    return None if path is None else path.resolve()
