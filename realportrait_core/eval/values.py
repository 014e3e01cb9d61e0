"""Figures of frames or cases as lists, in which None stands for what could not be measured, never NaN."""

from collections.abc import Iterable
from math import isfinite
from statistics import fmean

from torch import Tensor

Values = list[float | None]  # None: it could not be measured there, as where no face was found


def where(values: Tensor | Values, there: Tensor) -> Values:
    """Values (L,) as a list, None where `there` (L,) bool is false."""
    numbers = values.tolist() if isinstance(values, Tensor) else values
    return [value if ok else None for value, ok in zip(numbers, there.tolist(), strict=True)]


def measured(values: Iterable[float | None]) -> list[float]:
    """Those that are there, and finite."""
    return [value for value in values if value is not None and isfinite(value)]


def mean(values: Iterable[float | None]) -> float | None:
    """Of those that are there; None for none."""
    there = measured(values)
    return fmean(there) if there else None
