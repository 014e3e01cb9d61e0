"""Tables from the records of a run: mean, spread and "n used of n" of every row, and how far each is from RealPortrait.

A case's figure is the mean of its frames that could be measured, and a row's the mean of its cases: the frames of a case are not
independent, so spread and intervals are over cases. Nothing that could not be measured counts as a number; it is counted.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean, stdev

from ...errors import InputError
from ..record import CaseRecord
from ..rows import DRIVING, FACE_VID2VID, MOTION_LATENTS, REALPORTRAIT, ROUND_TRIP, STATIC, TRUTH
from ..values import mean, measured

ORDER = (TRUTH, DRIVING, STATIC, ROUND_TRIP, FACE_VID2VID, MOTION_LATENTS, REALPORTRAIT)  # of rows; other methods come after them
CONFIDENCE = 0.95
RESAMPLES = 9999
SEED = 0
FEWEST = 2  # cases that an interval or a spread needs


@dataclass(frozen=True)
class Difference:
    """A row minus RealPortrait: the mean over the cases that both have, with a paired bootstrap interval over these."""

    mean: float
    low: float | None  # None below FEWEST cases
    high: float | None
    cases: int

    @property
    def is_clear(self) -> bool:
        """Whether there is an interval, and 0 lies outside it."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


@dataclass(frozen=True)
class Figure:
    """One metric of one row of a table."""

    mean: float | None  # of the cases' means; None: nothing could be measured
    spread: float | None  # standard deviation of the cases' means (n - 1); None below FEWEST cases
    cases: int  # with a value
    of_cases: int
    frames: int = 0  # with a value; 0 of 0 where the metric is one value for a case
    of_frames: int = 0
    difference: Difference | None = None  # None: of RealPortrait itself, or without a common case


@dataclass(frozen=True)
class Table:
    """All rows of a table. A metric that no row has is left out; a row has only the metrics that were computed for it."""

    name: str
    cases: int
    frames: int  # scored, of all cases
    metrics: tuple[str, ...]
    rows: dict[str, dict[str, Figure]]


def case_figure(record: CaseRecord, row: str, metric: str) -> float | None:
    """The metric of a row on one case: the mean of its frames, or the case's one value; None where it was not measured."""
    return mean(record.frames.get(row, {}).get(metric) or [record.whole.get(row, {}).get(metric)])


def in_order(names: Iterable[str], first: Iterable[str]) -> tuple[str, ...]:
    """Each name once: those of `first` in its order, then the others in theirs."""
    known = dict.fromkeys(names)
    return (*(name for name in dict.fromkeys(first) if name in known), *(name for name in known if name not in set(first)))


def rows_of(records: list[CaseRecord]) -> tuple[str, ...]:
    """Every row that a case has, or has left out."""
    return in_order((row for record in records for row in (*record.frames, *record.whole, *record.left_out)), ORDER)


def metrics_of(records: list[CaseRecord], first: Iterable[str] = ()) -> tuple[str, ...]:
    """Every metric of any row."""
    found = (name for record in records for part in (record.frames, record.whole) for figures in part.values() for name in figures)
    return in_order(found, first)


def difference(pairs: list[tuple[float, float]]) -> Difference | None:
    """Of pairs (a row's value, RealPortrait's value), one for each case that both have; None without any.

    The interval is that of scipy's percentile bootstrap of the pairs' differences: cases are drawn with replacement, and both
    values of a case stay together.
    """
    if not pairs:
        return None
    differences = [a - b for a, b in pairs]
    middle = fmean(differences)
    if len(differences) < FEWEST:
        return Difference(middle, None, None, len(differences))
    try:
        from scipy.stats import bootstrap
    except ImportError as error:
        raise InputError(f"Intervals need scipy, which cannot be imported ({error}): pip install scipy.") from error
    import numpy as np

    found = bootstrap(
        (differences,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        random_state=np.random.default_rng(SEED),
    ).confidence_interval
    return Difference(middle, float(found.low), float(found.high), len(differences))


def figure(records: list[CaseRecord], row: str, metric: str) -> Figure:
    """One metric of one row over the cases of a table."""
    values = [case_figure(record, row, metric) for record in records]
    there = measured(values)
    by_frame = any(metric in figures for record in records for figures in record.frames.values())
    against = [case_figure(record, REALPORTRAIT, metric) for record in records] if row != REALPORTRAIT else []
    return Figure(
        mean=mean(there),
        spread=stdev(there) if len(there) >= FEWEST else None,
        cases=len(there),
        of_cases=len(records),
        frames=sum(len(measured(record.frames.get(row, {}).get(metric, []))) for record in records) if by_frame else 0,
        of_frames=sum(record.scored for record in records) if by_frame else 0,
        difference=difference([(a, b) for a, b in zip(values, against) if a is not None and b is not None]),
    )


def summarise(records: list[CaseRecord], metrics: Iterable[str] = ()) -> list[Table]:
    """The tables, in the records' order; `metrics` come first in each and in this order."""
    metrics, tables = tuple(metrics), []
    for name in dict.fromkeys(record.table for record in records):
        cases = [record for record in records if record.table == name]
        columns = metrics_of(cases, metrics)
        rows = {
            row: {metric: figure(cases, row, metric) for metric in columns if has(cases, row, metric)} for row in rows_of(cases)
        }
        tables.append(Table(name, len(cases), sum(record.scored for record in cases), columns, rows))
    return tables


def has(records: list[CaseRecord], row: str, metric: str) -> bool:
    """Whether the metric was computed for the row on any case, be its values None."""
    return any(metric in part.get(row, {}) for record in records for part in (record.frames, record.whole))
