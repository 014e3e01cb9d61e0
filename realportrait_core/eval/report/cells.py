"""Figures as text, for the page and for Markdown alike."""

from collections.abc import Mapping
from dataclasses import dataclass

from ..columns import COLUMNS, Column
from ..metrics.drift import DRIFT_OF
from ..rows import DRIVING, REALPORTRAIT, ROUND_TRIP, STATIC, TRUTH
from .statistics import Difference, Figure

NONE = "–"
REFERENCES = (TRUTH, DRIVING, STATIC, ROUND_TRIP)  # rows that are no method: never marked as best


@dataclass(frozen=True)
class Cell:
    """A figure as it is shown."""

    value: str
    spread: str = ""  # "± 1.20"
    difference: str = ""  # to RealPortrait: "+0.31"
    interval: str = ""  # of the difference: "[0.12, 0.50]"
    clear: bool = False  # whether 0 lies outside the interval
    used: str = ""  # "9 of 10 cases, 216 of 230 frames", where something is missing
    best: bool = False


def column_of(metric: str) -> Column:
    """A metric without a column is shown under its own name; its drift as the metric, with a digit more."""
    of = metric.removesuffix(DRIFT_OF)
    if of == metric or of not in COLUMNS:
        return COLUMNS.get(metric, Column(metric))
    column = COLUMNS[of]
    what = "Change of the figure from one clip of the network to the next, by least squares."
    return Column(f"{column.title}, drift", f"{column.unit}/clip".removeprefix("/") or "", 0, column.digits + 1, what)


def arrow(column: Column) -> str:
    return {1: "↑", -1: "↓"}.get(column.better, "")


def in_words(column: Column) -> str:
    return {1: "higher is better", -1: "lower is better"}.get(column.better, "neither higher nor lower is better")


def number(value: float | None, digits: int, sign: bool = False) -> str:
    """With a minus sign that is as wide as a digit; NONE for None."""
    if value is None:
        return NONE
    text = f"{value:{'+' if sign else ''}.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "−")


def interval_text(found: Difference, digits: int) -> str:
    """In brackets."""
    if found.low is None:
        return "[one case]"
    return f"[{number(found.low, digits, sign=True)}, {number(found.high, digits, sign=True)}]"


def used_text(figure: Figure) -> str:
    """ "" where every case and frame has a value."""
    parts = []
    if figure.cases < figure.of_cases:
        parts.append(f"{figure.cases} of {figure.of_cases} cases")
    if figure.frames < figure.of_frames:
        parts.append(f"{figure.frames} of {figure.of_frames} frames")
    return ", ".join(parts)


def best_rows(figures: Mapping[str, Figure], column: Column) -> set[str]:
    """The rows whose value, as it is shown, is best; of a metric without a direction the nearest to the truth's own value.

    None where there is nothing to choose from.
    """
    shown = {row: round(figure.mean, column.digits) for row, figure in figures.items() if figure.mean is not None}
    methods = {row: value for row, value in shown.items() if row not in REFERENCES}
    true = shown.get(TRUTH, shown.get(DRIVING))
    if len(methods) < 2 or not column.better and true is None:
        return set()
    worse = {row: -column.better * value if column.better else abs(value - true) for row, value in methods.items()}
    return {row for row, amount in worse.items() if amount == min(worse.values())}


def cell(figure: Figure | None, column: Column, best: bool = False) -> Cell:
    if figure is None:
        return Cell(NONE)
    found = figure.difference
    return Cell(
        value=number(figure.mean, column.digits),
        spread="" if figure.spread is None else f"± {number(figure.spread, column.digits)}",
        difference="" if found is None else number(found.mean, column.digits, sign=True),
        interval="" if found is None else interval_text(found, column.digits),
        clear=found is not None and found.is_clear,
        used=used_text(figure),
        best=best,
    )


def kind(row: str) -> str:
    """How a row is set off: "ours", "reference" or "method"."""
    return "ours" if row == REALPORTRAIT else "reference" if row in REFERENCES else "method"
