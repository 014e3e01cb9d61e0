"""What a report says of its run, beside the figures: OUT/about.json, from which the page can be made again."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from ...errors import InputError
from ..files import write_whole

NAME = "about.json"


@dataclass(frozen=True)
class About:
    """A description of a run for the reader of its report."""

    settings: dict[str, str] = field(default_factory=dict)  # "Weights" -> "realportrait_mini.safetensors", in the reader's words
    tables: dict[str, str] = field(default_factory=dict)  # table -> what is compared in it, in a sentence
    missing: dict[str, str] = field(default_factory=dict)  # metric of COLUMNS that has no weights -> how to get them, a sentence
    failed: dict[str, str] = field(default_factory=dict)  # "TABLE/NAME" of a case without a record -> why
    clip_frames: int = 16  # of the network: `long` is reported by its clips


def write_about(folder: Path, about: About) -> None:
    write_whole(folder / NAME, json.dumps(asdict(about), indent=1, allow_nan=False).encode())


def read_about(folder: Path) -> About:
    """InputError where FOLDER/about.json is missing or damaged."""
    path = folder / NAME
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return About(**{entry.name: values[entry.name] for entry in fields(About)})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is no description of a report ({error!r}): run the report again.") from error
