"""Which jobs are finished: beside each video lies NAME.json, with all that the video was made of. Which are begun: .NAME.run."""

import hashlib
import json
import shutil
from dataclasses import fields
from pathlib import Path

from ..video.writing import not_written
from ..whole_file import write_whole
from .jobs import NEEDED, Job

FORMAT = 1
PIECE = 1 << 20  # bytes that are hashed at once


def video_path(folder: Path, job: Job) -> Path:
    return folder / f"{job.out}.mp4"


def record_path(folder: Path, job: Job) -> Path:
    return folder / f"{job.out}.json"


def ingredients(job: Job, weights: dict[str, str]) -> dict:
    """What decides the result: settings, weights, and the two files by name, size and time, as `make` knows them."""
    settings = {field.name: getattr(job, field.name) for field in fields(job) if field.name not in NEEDED}
    files = {name: file_mark(getattr(job, name)) for name in ("portrait", "driving")}
    return {"format": FORMAT, **files, "settings": settings, "weights": weights}


def file_mark(path: Path) -> dict:
    known = path.stat()
    return {"name": path.name, "bytes": known.st_size, "time": int(known.st_mtime)}


def is_finished(folder: Path, job: Job, weights: dict[str, str]) -> bool:
    """Whether the job's video is there, whole, and made of just these ingredients."""
    try:
        record = json.loads(record_path(folder, job).read_text(encoding="utf-8"))
        return record["of"] == ingredients(job, weights) and record["video"]["bytes"] == video_path(folder, job).stat().st_size
    except (OSError, ValueError, KeyError, TypeError):
        return False


def write_record(folder: Path, job: Job, of: dict, video: dict) -> None:
    """After the video; replaces an older one atomically. of: the `ingredients`, from before the files were read."""
    write_whole(record_path(folder, job), json.dumps({"of": of, "video": video}, indent=1).encode())


def clips_folder(folder: Path, job: Job, of: dict) -> Path:
    """Where the clips of a video are kept until it is whole, hidden beside it. Those of other ingredients are deleted.

    Raises InputError where it cannot be made.
    """
    path = video_path(folder, job)
    clips, content = path.with_name(f".{path.stem}.run"), json.dumps(of).encode()
    made_of = clips / "of.json"
    try:
        if not made_of.is_file() or made_of.read_bytes() != content:
            shutil.rmtree(clips, ignore_errors=True)
            clips.mkdir(parents=True)
            made_of.write_bytes(content)
    except OSError as error:
        raise not_written(clips, "for the clips of its video", error) from error
    return clips


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()
