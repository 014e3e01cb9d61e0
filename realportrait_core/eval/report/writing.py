"""Writes a report, or writes it again from a folder of records."""

import json
import logging
import sys
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path

from ...errors import InputError
from ...whole_file import write_whole
from ..columns import COLUMNS
from ..metrics.drift import drift_figures
from ..record import CaseRecord, record_of
from ..writing import write_json
from .about import About
from .distances import frechet_figures
from .gallery import finite, galleries
from .markdown import markdown
from .page import page
from .plots import DRIFT, LONG
from .statistics import Figure, Table, in_order, summarise

JSON = "report.json"
PACKAGES = ("scipy", "jinja2")  # without which there is no report; plots and Fréchet distances may be missing
ORDER = ("self", "clips", "photos", "cross", "clips_cross", "photos_cross", "long")  # in the report's order

log = logging.getLogger(__name__)


def write_report(folder: Path, records: list[CaseRecord], about: About) -> None:
    """FOLDER/report.html, report.md and report.json, each whole or not at all.

    Strips and videos are read from FOLDER/cases/TABLE/NAME.jpg and .mp4 where they are there, features of Fréchet distances from
    NAME.safetensors. Without any record the page says so. InputError where jinja2 or scipy is missing.
    """
    order = {name: k for k, name in enumerate(ORDER)}
    records = sorted(records, key=lambda record: (order.get(record.table, len(order)), record.table, record.name))
    tables = with_distances(folder, records, summarise([with_drift(record, about.clip_frames) for record in records], COLUMNS))
    left_out = what_is_left_out(records, about)
    write_json(folder / JSON, as_json(about, tables, records))
    write_whole(folder / "report.md", markdown(about, tables, left_out).encode())
    write_whole(folder / "report.html", page(about, tables, galleries(folder, records), left_out).encode())


def with_drift(record: CaseRecord, clip_frames: int) -> CaseRecord:
    """A case of table LONG with the drift of DRIFT in every row, as values of the case."""
    if record.table != LONG:
        return record
    shown = {row: {metric: figures[metric] for metric in DRIFT if metric in figures} for row, figures in record.frames.items()}
    drifts = {row: drift_figures(figures, clip_frames) for row, figures in shown.items() if figures}
    return replace(record, whole={row: record.whole.get(row, {}) | drifts.get(row, {}) for row in record.frames})


def with_distances(folder: Path, records: list[CaseRecord], tables: list[Table]) -> list[Table]:
    """The tables with their Fréchet distances, where the cases have features and torchmetrics is there."""
    found = []
    for table in tables:
        try:
            added = frechet_figures(folder, [record for record in records if record.table == table.name])
        except InputError as error:
            log.warning("%s", error)
            added = {}
        rows = {row: ordered(figures | added.get(row, {})) for row, figures in table.rows.items()}
        metrics = in_order((*table.metrics, *(metric for figures in added.values() for metric in figures)), COLUMNS)
        found.append(replace(table, metrics=metrics, rows=rows))
    return found


def ordered(figures: dict[str, Figure]) -> dict[str, Figure]:
    return {metric: figures[metric] for metric in in_order(figures, COLUMNS)}


def what_is_left_out(records: list[CaseRecord], about: About) -> dict[str, str]:
    """Cases without a record, and rows that a case lacks -> why."""
    rows = {f"{record.table}/{record.name}, {row}": why for record in records for row, why in record.left_out.items()}
    return about.failed | rows


def as_json(about: About, tables: list[Table], records: list[CaseRecord]) -> dict:
    """Every figure, of tables, cases and frames."""
    return {
        "about": asdict(about),
        "tables": {table.name: asdict(table) for table in tables},
        "cases": list(map(case_json, records)),
    }


def case_json(record: CaseRecord) -> dict:
    """Without NaN."""
    frames = {row: {metric: finite(values) for metric, values in figures.items()} for row, figures in record.frames.items()}
    whole = {row: {metric: finite([value])[0] for metric, value in figures.items()} for row, figures in record.whole.items()}
    return asdict(record) | {"frames": frames, "whole": whole}


def check_packages() -> None:
    """InputError where one of PACKAGES is missing."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise InputError(f"The report needs {' and '.join(missing)}: {sys.executable} -m pip install {' '.join(missing)}")


def render(folder: Path) -> None:
    """Writes the report again from FOLDER/report.json, with the cases' pictures and features beside it.

    InputError where that file is missing or no report's.
    """
    path = folder / JSON
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        about, records = About(**found["about"]), [record_of(values) for values in found["cases"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, InputError) as error:
        raise InputError(f"{path} is no report that could be written again ({error!r}): run `report --out {folder}`.") from error
    write_report(folder, records, about)
