"""The jobs of a batch: a CSV file with a row for each animation. All of it is checked before anything is computed."""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

from ..errors import InputError
from ..speed import NAMES
from ..video.pictures import is_picture
from ..video.source import VideoFile, container

Method = Literal["realportrait", "vid2vid"]

NEEDED = ("portrait", "driving", "out")
LISTED = 20  # wrong rows in a message


@dataclass(frozen=True)
class Job:
    """One animation. The names after `out` are those of the optional columns; an empty cell leaves the default."""

    portrait: Path
    driving: Path
    out: str  # name of the video in the output folder, without .mp4; "/" makes a folder
    method: Method = "realportrait"  # vid2vid: G's own pictures, LivePortrait's animation, without the transformer
    seed: int = 0
    speed: str = "exact"  # a name of speed.py
    guidance: float | None = None  # None: what the weights were trained for
    start: float = 0.0  # s of the driving video
    frames: int = 0  # of the driving video, at most; 0: all
    fps: float = 0.0  # 0: the driving video's own
    paste: bool = False  # the whole portrait with the animated square, or face crop, in it; otherwise that alone

    def __str__(self) -> str:
        return self.out


@dataclass(frozen=True)
class Column:
    """How a cell is read."""

    parse: Callable[[str], object]  # raises ValueError
    what: str  # that it must be


def one_of(names: tuple[str, ...]) -> Column:
    def parse(text: str) -> str:
        if text not in names:
            raise ValueError
        return text

    return Column(parse, f"one of {', '.join(names)}")


def number(parse: Callable[[str], float], least: float, what: str, beyond: float = float("inf")) -> Column:
    def checked(text: str) -> float:
        value = parse(text)
        if not least <= value < beyond:  # NaN is refused too
            raise ValueError
        return value

    return Column(checked, what)


COLUMNS = {
    "method": one_of(get_args(Method)),
    "seed": number(int, 0, "a whole number from 0 on, below 2^64", 2**64),
    "speed": one_of(NAMES),
    "guidance": number(float, 1, "a number from 1 (none) on"),
    "start": number(float, 0, "seconds, from 0 on"),
    "frames": number(int, 0, "a whole number, 0 for all"),
    "fps": number(float, 0, "frames a second, 0 for the video's own"),
    "paste": Column({"yes": True, "no": False}.__getitem__, "yes or no"),
}


def read_jobs(path: Path) -> list[Job]:
    """The rows of a CSV file with the columns NEEDED and any of COLUMNS. Paths in it are relative to the file.

    Raises InputError that names every unknown column, or every wrong row with its line: a file that is missing or no picture or
    video, a value that cannot be, an output name that two rows share.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            header = list(reader.fieldnames or [])
            check_header(path, header)
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a CSV file in UTF-8 ({error}).") from error
    jobs: list[Job] = []
    wrong: list[str] = []
    taken: dict[str, int] = {}
    for line, row in rows:
        try:
            job = read_row(path.parent, row)
            check_files(job)
            name = job.out.casefold()  # some file systems know no case
            if name in taken:
                raise InputError(f"its out {job.out!r} is that of line {taken[name]} too")
            taken[name] = line
            jobs.append(job)
        except InputError as error:
            wrong.append(f"line {line}: {error}")
    if wrong:
        more = f"\n... and {len(wrong) - LISTED} more" if len(wrong) > LISTED else ""
        raise InputError(f"{len(wrong)} of the {len(rows)} rows of {path} cannot be used:\n" + "\n".join(wrong[:LISTED]) + more)
    if not jobs:
        raise InputError(f"{path} has no row below its header.")
    return jobs


def check_header(path: Path, header: list[str]) -> None:
    known = [*NEEDED, *COLUMNS]
    problems = {
        "unknown columns": [name for name in header if name not in known],
        "columns that appear twice": sorted({name for name in header if header.count(name) > 1}),
        "missing columns": [name for name in NEEDED if name not in header],
    }
    found = [f"{what}: {', '.join(map(repr, names))}" for what, names in problems.items() if names]
    if found:
        raise InputError(f"{path} has {'; '.join(found)}. It needs {', '.join(NEEDED)}, and may have {', '.join(COLUMNS)}.")


def read_row(folder: Path, row: dict[str, str | None]) -> Job:
    if None in row or None in row.values():
        raise InputError("it has more or fewer cells than the header; a comma in a cell needs quotes around the cell")
    cells = {name: (text or "").strip() for name, text in row.items()}
    if any("\0" in text for text in cells.values()):
        raise InputError("it holds a NUL character")
    empty = [name for name in NEEDED if not cells[name]]
    if empty:
        raise InputError(f"{' and '.join(empty)} must not be empty")
    settings: dict[str, Any] = {}
    for name, column in COLUMNS.items():
        if cells.get(name):
            try:
                settings[name] = column.parse(cells[name])
            except (ValueError, KeyError) as error:
                raise InputError(f"{name} is {cells[name]!r}; it must be {column.what}") from error
    try:
        portrait, driving = ((folder / cells[name]).resolve() for name in ("portrait", "driving"))
    except (OSError, RuntimeError) as error:  # a circle of links
        raise InputError(f"a path in it leads nowhere ({error})") from error
    return Job(portrait, driving, output_name(cells["out"]), **settings)


def output_name(text: str) -> str:
    """Without its .mp4. Raises InputError for a name that would lead out of the output folder, or is hidden."""
    name = PurePosixPath(text.replace("\\", "/"))
    if name.is_absolute() or ":" in text or any(part.startswith(".") for part in name.parts):
        raise InputError(f"out is {text!r}; it must be a name within the output folder, without parts that begin with a dot")
    return str(name.with_suffix("") if name.suffix.lower() == ".mp4" else name)


def check_files(job: Job) -> None:
    """Raises InputError where portrait or driving video are missing, or begin as no picture or video does."""
    for name in ("portrait", "driving"):
        path: Path = getattr(job, name)
        try:
            if not path.is_file():
                raise InputError(f"there is no file {path}, its {name}")
            with path.open("rb") as file:
                start = file.read(12)
        except OSError as error:  # of is_file too: a name that is too long, a folder that may not be entered
            raise InputError(f"its {name} {path} cannot be read ({error.strerror})") from error
        if name == "portrait" and not is_picture(start):
            raise InputError(f"its portrait {path} is no JPEG, PNG or WebP picture")
    container(VideoFile(str(job.driving), job.driving))
