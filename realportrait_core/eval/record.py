"""What was measured on one case, as a file: the unit by which a run resumes, is spread over workers and becomes a report."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from ..errors import InputError
from ..whole_file import write_whole
from .values import Values


@dataclass(frozen=True)
class CaseRecord:
    """One case of one table, with every row on it. A row that is missing in `frames` and `whole` is in `left_out`."""

    table: str  # of the report: "self", "cross", ...
    name: str
    scored: int  # frames
    frames: dict[str, dict[str, Values]]  # row -> metric -> a value for every scored frame
    whole: dict[str, dict[str, float | None]] = field(default_factory=dict)  # row -> metric -> one value for the case
    left_out: dict[str, str] = field(default_factory=dict)  # row -> why, in a sentence
    notes: tuple[str, ...] = ()  # what a reader of the figures must know, as "Method X has 30 frames; the first 24 are compared."
    seconds: dict[str, float] = field(default_factory=dict)  # row -> time that its pictures took

    def __post_init__(self) -> None:
        for row, figures in self.frames.items():
            wrong = {metric: len(values) for metric, values in figures.items() if len(values) != self.scored}
            if wrong:
                raise InputError(f"{self.name}: {row} has {wrong} values, and {self.scored} frames are scored.")


def record_path(folder: Path, table: str, name: str) -> Path:
    """FOLDER/cases/TABLE/NAME.json; beside it lie the case's pictures, under the same name."""
    return folder / "cases" / table / f"{name}.json"


def write_record(folder: Path, record: CaseRecord, of: str) -> None:
    """Whole or not at all. of: fingerprint of everything that the figures depend on."""
    data = json.dumps({"of": of, **asdict(record)}, indent=1, allow_nan=False)
    write_whole(record_path(folder, record.table, record.name), data.encode())


def record_of(values: dict) -> CaseRecord:
    """The inverse of `asdict`. KeyError, TypeError or InputError for other values."""
    return CaseRecord(**{entry.name: values[entry.name] for entry in fields(CaseRecord)} | {"notes": tuple(values["notes"])})


def read_record(path: Path, of: str | None = None) -> CaseRecord | None:
    """The record, or None where there is none, it is damaged, or it is of something else than `of`."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        made_of = values.pop("of")
        record = record_of(values)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, InputError):
        return None
    return record if of is None or made_of == of else None
