"""The cases of a report: their errors, strips and videos, sorted with the worst first."""

import base64
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from ...errors import InputError
from ..record import CaseRecord, record_path
from ..rows import REALPORTRAIT
from ..values import Values
from .cells import arrow, column_of, number
from .pictures import Layout, read_layout
from .statistics import case_figure

# What cases are sorted by: the first of these that RealPortrait has in the table.
ERRORS = ("lpips", "st_lpips", "expression_l1", "landmarks_px", "keypoint_error_px", "rotation_error_deg", "psnr_db", "pose_l1")
WORST = 3  # cases of a table that are shown at once; the others can be opened
MOST_BYTES = 38_000_000  # of all pictures and videos in a page, as text: a page beyond 40 MB is slow to open


@dataclass(frozen=True)
class Shown:
    """A case on the page."""

    record: CaseRecord
    number: int  # on the page, from 0
    error: str  # "ST-LPIPS 0.123", of RealPortrait; "" where it was not measured
    strip: str = ""  # base64 of a JPEG; "" without one
    video: str = ""  # base64 of an mp4; "" without one
    layout: Layout | None = None  # of the video
    why: str = ""  # why there is no video in the page

    @property
    def says(self) -> str:
        """What a strip shows, for those who do not see it."""
        rows = ", ".join(self.layout.rows if self.layout else self.record.frames)
        return f"{self.record.name}: frames of {rows}, side by side."


@dataclass(frozen=True)
class Gallery:
    """The cases of one table, the worst first."""

    name: str
    sorted_by: str  # "ST-LPIPS of RealPortrait", or "" where there is no figure
    metric: str | None
    cases: tuple[Shown, ...]


def error_metric(records: list[CaseRecord]) -> str | None:
    """What the cases of a table are sorted by."""
    for metric in ERRORS:
        if any(case_figure(record, REALPORTRAIT, metric) is not None for record in records):
            return metric
    return None


def worst_first(records: list[CaseRecord], metric: str | None) -> list[CaseRecord]:
    """By RealPortrait's figure; those without one come last, in the order given."""
    better = column_of(metric).better if metric else 0

    def badness(record: CaseRecord) -> tuple[bool, float]:
        value = case_figure(record, REALPORTRAIT, metric) if metric else None
        return value is None, 0.0 if value is None else value * (better or -1)

    return sorted(records, key=badness)


def error_text(record: CaseRecord, metric: str | None) -> str:
    value = case_figure(record, REALPORTRAIT, metric) if metric else None
    if metric is None or value is None:
        return ""
    column = column_of(metric)
    return f"{column.title} {number(value, column.digits)} {column.unit}".strip()


def galleries(folder: Path, records: list[CaseRecord]) -> list[Gallery]:
    """Every case, with its pictures as long as there is room in the page: the worst cases of each table first."""
    tables = {name: [record for record in records if record.table == name] for name in dict.fromkeys(r.table for r in records)}
    metrics = {name: error_metric(cases) for name, cases in tables.items()}
    tables = {name: worst_first(cases, metrics[name]) for name, cases in tables.items()}
    numbers = {(name, rank): number for number, (name, rank) in enumerate((t, k) for t in tables for k in range(len(tables[t])))}
    left, shown = MOST_BYTES, {}
    for name, rank in sorted(numbers, key=lambda place: place[1]):
        case = show(folder, tables[name][rank], numbers[name, rank], metrics[name], left)
        left -= len(case.strip) + len(case.video)
        shown[name, rank] = case
    return [
        Gallery(name, sorting(metrics[name]), metrics[name], tuple(shown[name, rank] for rank in range(len(cases))))
        for name, cases in tables.items()
    ]


def sorting(metric: str | None) -> str:
    if metric is None:
        return ""
    column = column_of(metric)
    return f"{REALPORTRAIT}'s {column.title} {arrow(column)}".strip()


def show(folder: Path, record: CaseRecord, at: int, metric: str | None, room: int) -> Shown:
    """A case with its files, where they are there and room (bytes) is left for them."""
    path, error = record_path(folder, record.table, record.name), error_text(record, metric)
    strip = encoded(path.with_suffix(".jpg"), room)
    film = path.with_suffix(".mp4")
    if not film.is_file():
        return Shown(record, at, error, strip, why="There is no video of this case.")
    try:
        layout = read_layout(film)
    except InputError as broken:
        return Shown(record, at, error, strip, why=str(broken))
    video = encoded(film, room - len(strip))
    why = "" if video else f"The page is full: its video is {film.relative_to(folder).as_posix()}, beside the page."
    return Shown(record, at, error, strip, video, layout, why)


def encoded(path: Path, room: int) -> str:
    """A file as base64; "" where there is none, or its text is longer than `room`."""
    if not path.is_file() or 4 * ((path.stat().st_size + 2) // 3) > room:
        return ""
    return base64.b64encode(path.read_bytes()).decode()


def player_data(cases: list[Shown], colours: dict[str, int]) -> list[dict]:
    """Of every case with a video in the page: what the player needs beside it."""
    return [
        {
            "id": case.number,
            "table": case.record.table,
            "name": case.record.name,
            "error": case.error,
            "tiles": [{"name": row, "at": case.layout.corner(row), "colour": colours.get(row)} for row in case.layout.rows],
            "tile": case.layout.tile,
            "frames": case.layout.frames,
            "fps": case.layout.fps,
            "first": case.layout.first_scored,
            "values": {
                row: {metric: [brief(value) for value in values] for metric, values in figures.items()}
                for row, figures in case.record.frames.items()
            },
        }
        for case in cases
        if case.video and case.layout
    ]


def brief(value: float | None) -> float | None:
    """Four digits: there are many."""
    return float(f"{value:.4g}") if value is not None and isfinite(value) else None


def finite(values: Values) -> Values:
    """None in place of NaN and infinity, which JSON has no word for."""
    return [value if value is not None and isfinite(value) else None for value in values]
