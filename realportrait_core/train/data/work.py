"""Sources, one after the other: finished ones are recorded and skipped by the next run, unusable ones reported."""

import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol

from ...errors import InputError
from ...whole_file import remove_partial
from .journal import REPORT, Dropped, Entry, Journal, Kept, PreparationReport, last_of
from .sources import Source, list_files, open_sources

Progress = Callable[[int, int, str], None]
# Sources -> each with its pieces, in any order; with a sentence in their place where it took down what processed it.
Process = Callable[[Iterable[Source]], Iterator[tuple[Source, "list[Kept | Dropped] | str"]]]


class Work(Protocol):
    """How files are made of each source."""

    out: Path
    header: dict  # weights and settings; files of other ones are not added to the same folder
    made: re.Pattern  # matches the names of the files that it writes, and no others

    def pieces(self, source: Source) -> Iterator[Kept | Dropped]:
        """Writes files of a source."""

    def is_there(self, kept: Kept) -> bool:
        """Whether the file that was kept is still whole."""


def go_through(
    work: Work, places: Iterable[str | Path], fps: float, rebuild: bool, callback: Progress | None, process: Process | None = None
) -> PreparationReport:
    """Processes every source of `places` (files, folders, tar shards), with journal and report.json in the work's folder.

    rebuild: delete the files of earlier runs, and start anew. callback(bytes done, bytes in all, name) after each source.
    process: how the sources that are new become pieces; by default one after the other, here. Raises InputError where a place does
    not exist, the folder holds files of other weights or settings, or the disk is full.
    """
    lost: list[Entry] = []

    def drop(name: str, why: str) -> None:
        lost.append(Entry(name, "file", "", [], [Dropped("unreadable file", why)]))

    files = list_files(places, drop)
    total, done = sum(file.size for file in files), 0
    try:
        work.out.mkdir(parents=True, exist_ok=True)
        journal, before = open_journal(work, rebuild)
        names: dict[str, str] = {}  # of every source, by fingerprint, in order
        entries: dict[str, Entry] = {}
        twins: list[Entry] = []
        reused = 0

        def report(source: Source) -> None:
            nonlocal done
            done += source.size
            if callback is not None:
                callback(min(done, total), total, source.name)

        def new_sources() -> Iterator[Source]:
            nonlocal reused
            for source in open_sources(files, drop):
                known = before.get(source.fingerprint)
                if source.fingerprint in names:
                    why = f"the same content as {names[source.fingerprint]}"
                    twins.append(Entry(source.name, source.kind, "", [], [Dropped("duplicate", why)]))
                    report(source)
                    continue
                names[source.fingerprint] = source.name
                if known is not None and all(work.is_there(kept) for kept in known.kept):
                    entries[source.fingerprint] = known
                    reused += 1
                    report(source)
                else:
                    yield source

        for source, pieces in (process or one_by_one(work))(new_sources()):
            if isinstance(pieces, str):  # not in the journal: the next run tries it again
                drop(source.name, pieces)
            else:
                kept = [piece for piece in pieces if isinstance(piece, Kept)]
                dropped = [piece for piece in pieces if isinstance(piece, Dropped)]
                entries[source.fingerprint] = Entry(source.name, source.kind, source.fingerprint, kept, dropped)
                journal.add(entries[source.fingerprint])
            report(source)
        in_order = [entries[fingerprint] for fingerprint in names if fingerprint in entries]
        not_given = sorted(entry.name for fingerprint, entry in before.items() if fingerprint not in names)
        whole = PreparationReport(fps, [*in_order, *twins, *lost], reused, not_given)
        whole.write(work.out / REPORT)
    except OSError as error:
        raise not_written(work.out, error) from error
    return whole


def one_by_one(work: Work) -> Process:
    return lambda sources: ((source, list(work.pieces(source))) for source in sources)


def open_journal(work: Work, rebuild: bool) -> tuple[Journal, dict[str, Entry]]:
    """The folder's journal and its finished sources, by fingerprint. Raises InputError as go_through."""
    remove_partial(work.out, work.made.search)
    journal = Journal(work.out)
    if rebuild:
        for path in files_of(work):
            path.unlink()
        journal.path.unlink(missing_ok=True)
    found, entries = journal.read()
    if found is None:
        journal.start(work.header)
    elif found != work.header:
        raise InputError(
            f"The files in {work.out} were made with {difference(found, work.header)}. Use another --out, or --rebuild to delete "
            f"these {len(files_of(work))} files and make them anew."
        )
    return journal, last_of(entries)


def files_of(work: Work) -> list[Path]:
    """Those of the files that it writes that exist."""
    return sorted(path for path in work.out.iterdir() if work.made.search(path.name))


def difference(found: dict, wanted: dict) -> str:
    if found.get("weights") != wanted["weights"]:
        return "other weights"
    old, new = found.get("settings", {}), wanted["settings"]
    return "other settings: " + ", ".join(
        f"{name} {old.get(name)} (now {new.get(name)})" for name in sorted({*old, *new}) if old.get(name) != new.get(name)
    )


def not_written(out: Path, error: Exception) -> InputError:
    try:
        free = f" {shutil.disk_usage(out).free / 1e6:.0f} MB are free there."
    except OSError:
        free = ""
    return InputError(
        f"{out} cannot be written to: {error}{free} Free some space or choose another --out; finished samples are kept, "
        f"and the same command goes on from there."
    )
