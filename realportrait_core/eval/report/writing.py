"""Writes a report, or writes it again from a folder of records."""

from pathlib import Path

from ...errors import InputError
from ..record import CaseRecord, read_record
from .about import About, read_about, write_about


def write_report(folder: Path, records: list[CaseRecord], about: About) -> None:
    """FOLDER/report.html, report.md, report.json and about.json, each whole or not at all.

    Strips and videos are read from FOLDER/cases/TABLE/NAME.jpg and .mp4 where they are there, features of Fréchet distances from
    NAME.safetensors. Without any record the page says so.
    """
    write_about(folder, about)
    raise NotImplementedError


def render(folder: Path) -> None:
    """Writes the report again from FOLDER/cases and FOLDER/about.json. InputError where there is no such folder or description."""
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder of a report.")
    about = read_about(folder)
    found = [read_record(path) for path in sorted((folder / "cases").glob("*/*.json"))]
    write_report(folder, [record for record in found if record is not None], about)
