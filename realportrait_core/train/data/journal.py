"""The record of a preparation: every source kept as samples, or left out and why; a journal by which a stopped run goes on."""

import json
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ...errors import InputError
from ...whole_file import write_whole

JOURNAL, REPORT = "prepared.jsonl", "report.json"


@dataclass(frozen=True)
class Kept:
    """A sample."""

    file: str
    frames: int
    time: float  # s, where in the source it begins
    measured: dict[str, float]  # by the names of Filters


@dataclass(frozen=True)
class Dropped:
    """A file, or a piece of one, of which no sample was made."""

    reason: str
    detail: str  # a sentence with the numbers
    time: float = 0.0  # s, where in the source it begins
    frames: int = 0
    measured: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """A finished source."""

    name: str
    kind: str  # "video", "image", or "file" for one that could not be read
    fingerprint: str  # "" where it could not be read
    kept: list[Kept]
    dropped: list[Dropped]


@dataclass(frozen=True)
class PreparationReport:
    """All sources of a run, with those that earlier runs into the same folder had finished."""

    fps: float
    entries: list[Entry]
    reused: int  # how many of the entries an earlier run had finished
    not_given: list[str]  # names of sources of earlier runs that this one was not given; their samples are still there

    def kept(self, kind: str) -> list[Kept]:
        return [kept for entry in self.entries if entry.kind == kind for kept in entry.kept]

    def hours(self) -> float:
        return sum(kept.frames for kept in self.kept("video")) / self.fps / 3600

    def reasons(self) -> dict[str, int]:
        """How many files and pieces were left out, by reason."""
        return dict(Counter(dropped.reason for entry in self.entries for dropped in entry.dropped).most_common())

    def summary(self) -> dict:
        count = Counter(entry.kind for entry in self.entries)
        return {
            "videos_seen": count["video"],
            "images_seen": count["image"],
            "files_unreadable": count["file"],
            "reused": self.reused,
            "clips_kept": len(self.kept("video")),
            "hours_kept": self.hours(),
            "images_kept": sum(1 for entry in self.entries if entry.kind == "image" and entry.kept),
            "image_samples": len(self.kept("image")),
            "left_out": self.reasons(),
        }

    def write(self, path: Path) -> None:
        """All of it as JSON."""
        whole = {"summary": self.summary(), "sources": [asdict(entry) for entry in self.entries], "not_given": self.not_given}
        write_whole(path, json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False).encode())

    def table(self) -> str:
        """For the log: the counts, then every file or piece that was left out."""
        counts = self.summary()
        lines = [
            f"videos {counts['videos_seen']}: {counts['clips_kept']} clips kept, {counts['hours_kept']:.3f} h",
            f"images {counts['images_seen']}: {counts['images_kept']} kept, in {counts['image_samples']} files",
        ]
        lines += [f"left out {number:5d}  {reason}" for reason, number in counts["left_out"].items()]
        width = max((len(entry.name) for entry in self.entries if entry.dropped), default=0)
        for entry in self.entries:
            lines += [
                f"  {entry.name:<{min(width, 48)}}  {piece.time:8.2f} s  {piece.reason}: {piece.detail}" for piece in entry.dropped
            ]
        if self.not_given:
            lines.append(
                f"{len(self.not_given)} sources of earlier runs were not given now; their files are still there: "
                f"{', '.join(self.not_given[:5])}{' ...' if len(self.not_given) > 5 else ''}"
            )
        return "\n".join(lines)


class Journal:
    """A file of one line of JSON for each finished source, after a first line with the weights and settings."""

    def __init__(self, folder: Path):
        self.path = folder / JOURNAL

    def read(self) -> tuple[dict | None, list[Entry]]:
        """(first line, entries); (None, []) where there is no journal. An incomplete last line is removed.

        Raises InputError where another line is damaged.
        """
        if not self.path.is_file():
            return None, []
        data = self.path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            with self.path.open("r+b") as file:
                file.truncate(len(whole))
        try:
            lines = [json.loads(line) for line in whole.decode().splitlines()]
            return (lines[0] if lines else None), [entry_of(line) for line in lines[1:]]
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{self.path} is damaged ({error!r}): prepare into another folder, or rebuild this one.") from error

    def start(self, header: dict) -> None:
        self.path.write_text(json.dumps(header, ensure_ascii=False) + "\n", encoding="utf-8")

    def add(self, entry: Entry) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(entry), ensure_ascii=False, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())


def entry_of(line: dict) -> Entry:
    kept, dropped = ([kind(**item) for item in line[name]] for name, kind in (("kept", Kept), ("dropped", Dropped)))
    return Entry(line["name"], line["kind"], line["fingerprint"], kept, dropped)


def last_of(entries: Iterable[Entry]) -> dict[str, Entry]:
    """By fingerprint; of two, the later one."""
    return {entry.fingerprint: entry for entry in entries if entry.fingerprint}
