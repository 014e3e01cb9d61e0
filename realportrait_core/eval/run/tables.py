"""The tables of the report: which portraits with which driving videos, and what they are compared with.

A folder of clips is taken to show another person in each clip. Names are PORTRAIT_DRIVING, or of the one file.
"""

from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from pathlib import Path

from ...errors import InputError
from ...head_rotation.dataset import read_photos
from ...head_rotation.topology import read_topology
from ..cases import Case, cross_cases, photo_case, self_cases

MOST = 20  # frames of a video, in two clips of the network
LONG = 151  # frames of ten


@dataclass(frozen=True)
class Table:
    """What its cases have in common."""

    what: str  # portrait, driving video and truth, in a sentence
    limit: int  # cases by default
    truth: bool = True


TABLES = {
    "self": Table("The first frame of a rendered clip is animated by the clip itself, which is the truth.", 4),
    "cross": Table(
        "The first frame of a rendered identity is animated by a clip of another one; the truth is exact: the same motion, "
        "rendered on the portrait's identity.",
        4,
    ),
    "clips": Table("The first frame of a real clip is animated by the clip itself, which is the truth.", 5),
    "clips_cross": Table(
        "The first frame of a person's clip is animated by another person's clip. There is no truth: expression, pose and mouth "
        "are compared with those in the driving frames, identity with the portrait.",
        3,
        truth=False,
    ),
    "photos": Table(
        "A photograph is animated by itself, turned in 3-D by up to 10 degrees, which is the truth; what turning uncovers is not "
        "compared.",
        5,
    ),
    "photos_cross": Table(
        "A photograph is animated by a clip of somebody else. There is no truth: expression, pose and mouth are compared with "
        "those in the driving frames, identity with the portrait.",
        2,
        truth=False,
    ),
    "long": Table(
        f"The first frame of a clip is animated by the clip, played forwards and backwards: {LONG} frames, ten clips of the "
        "network of 16 frames, each of which begins with the last frame of the one before.",
        1,
    ),
}


def first_scored(table: str) -> int:
    """The frame of a case's first figure: frame 0 of a truth is the portrait itself."""
    return 0 if table in TABLES and not TABLES[table].truth else 1


@dataclass(frozen=True)
class Sources:
    """Where the cases come from; None: not given."""

    data: Path | None = None  # rendered clips, as heads256 has them
    clips: Path | None = None  # real clips
    photos: Path | None = None
    canonical: Path | None = None  # canonical_face_model.obj, which turning photographs takes


@dataclass(frozen=True)
class Job:
    """A case of a table, by files: what its frames are made from is read where it is measured."""

    table: str
    case: Case  # of a turned photograph without its frames
    turned: tuple[Path, Path, int] | None = None  # folder of photographs, canonical face, number: driving video and truth

    @property
    def name(self) -> str:
        return self.case.name

    def __str__(self) -> str:
        return f"{self.table}/{self.name}"

    @property
    def frames(self) -> int:
        """At most."""
        return self.case.frames or self.case.most or MOST

    def files(self) -> dict[str, Path]:
        """What decides the case's frames, by role."""
        named = {"driving": self.case.driver, "truth": self.case.truth, "portrait": self.case.portrait}
        if self.turned is not None:
            named |= {"mesh": self.turned[0] / "points.npz", "canonical": self.turned[1]}
        return {role: path for role, path in named.items() if isinstance(path, Path)}

    def load(self) -> Case:
        """The case, with the frames of a turned photograph. InputError where one of its files cannot be read."""
        if self.turned is None:
            return self.case
        folder, canonical, number = self.turned
        return photo_case(read_photos(folder, number + 1), read_topology(canonical), number)


def report_jobs(sources: Sources, chosen: list[str], limit: int | None = None) -> tuple[list[Job], dict[str, str]]:
    """The cases of the chosen tables, at most `limit` of each, and the tables that have none: name -> why.

    InputError for a folder that is given and holds nothing, two files of one name, or no case at all.
    """
    makers = {
        "self": lambda most: self_jobs("self", sources.data, most),
        "cross": lambda most: cross_jobs(sources.data, most),
        "clips": lambda most: self_jobs("clips", sources.clips, most),
        "clips_cross": lambda most: clips_cross_jobs(sources.clips, most),
        "photos": lambda most: photo_jobs(sources.photos, sources.canonical, most),
        "photos_cross": lambda most: photos_cross_jobs(sources, most),
        "long": lambda most: long_jobs(sources, most),
    }
    jobs: list[Job] = []
    without: dict[str, str] = {}
    for table in chosen:
        found = makers[table](TABLES[table].limit if limit is None else limit)
        if isinstance(found, str):
            without[table] = found
        else:
            jobs += found
    if not jobs:
        raise InputError("There is no case: " + " ".join(f"{table}: {why}" for table, why in without.items()))
    for table in chosen:
        names = [job.name for job in jobs if job.table == table]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InputError(f"Two files share a name in the table {table}: {', '.join(twice)}. Give each another name.")
    return jobs, without


# Each: the cases, or why there are none


def self_jobs(table: str, folder: Path | None, most: int) -> list[Job] | str:
    if folder is None:
        return f"No {'--data' if table == 'self' else '--clips'} is given."
    return [Job(table, replace(case, most=MOST)) for case in self_cases(folder)[:most]]


def cross_jobs(folder: Path | None, most: int) -> list[Job] | str:
    if folder is None:
        return "No --data is given."
    try:
        pairs = cross_cases(folder)[:most]
    except InputError as error:  # any folder of clips will do for the other tables
        return str(error)
    return [Job("cross", replace(case, name=f"{stem(case.truth)}_{stem(case.driver)}", most=MOST)) for case in pairs]


def clips_cross_jobs(folder: Path | None, most: int) -> list[Job] | str:
    if folder is None:
        return "No --clips is given."
    clips = clips_of(folder)
    if len(clips) < 2:
        return f"{folder} holds one clip; another person's is needed."
    pairs = zip([*clips[1:], clips[0]], clips)
    return [Job("clips_cross", driven(portrait, driving)) for portrait, driving in list(pairs)[:most]]


def photo_jobs(folder: Path | None, canonical: Path | None, most: int) -> list[Job] | str:
    if folder is None:
        return "No --photos is given."
    if canonical is None:
        return "Photographs are turned in 3-D by MediaPipe's canonical_face_model.obj: name it by --canonical."
    read_topology(canonical)  # a wrong file is told at once
    files = [folder / name for name in read_photos(folder, most).names]
    return [Job("photos", Case(file.stem, file, file), (folder, canonical, i)) for i, file in enumerate(files)]


def photos_cross_jobs(sources: Sources, most: int) -> list[Job] | str:
    folder = sources.clips or sources.data
    if sources.photos is None or folder is None:
        return "No --photos is given." if sources.photos is None else "Neither --clips nor --data is given."
    clips = clips_of(folder)
    files = [sources.photos / name for name in read_photos(sources.photos, most).names]
    return [Job("photos_cross", driven(file, clips[i % len(clips)])) for i, file in enumerate(files)]


def long_jobs(sources: Sources, most: int) -> list[Job] | str:
    """Real clips and rendered ones by turns; of one name the first."""
    found = [self_cases(folder) for folder in (sources.clips, sources.data) if folder is not None]
    if not found:
        return "Neither --clips nor --data is given."
    cases: dict[str, Case] = {}
    for case in chain.from_iterable(zip_longest(*found)):
        if case is not None:
            cases.setdefault(case.name, case)
    return [Job("long", replace(case, frames=LONG, most=MOST)) for case in list(cases.values())[:most]]


def clips_of(folder: Path) -> list[Path]:
    return [case.driver for case in self_cases(folder) if isinstance(case.driver, Path)]


def driven(portrait: Path, driving: Path) -> Case:
    """A case without truth."""
    return Case(f"{portrait.stem}_{driving.stem}", driving, None, portrait=portrait, most=MOST)


def stem(path: object) -> str:
    assert isinstance(path, Path)
    return path.stem
