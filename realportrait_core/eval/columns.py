"""The figures of the report: their names, units, and which direction is better."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """A metric as a column of a table."""

    title: str
    unit: str = ""
    better: int = 0  # 1: higher, -1: lower, 0: neither, as where the truth's own value is best
    digits: int = 3
    what: str = ""  # a sentence for the reader of the report
