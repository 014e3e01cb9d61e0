"""JSON files of measurements, written whole or not at all."""

import json
from pathlib import Path

from ..whole_file import write_whole


def write_json(path: Path, values: dict) -> None:
    """ValueError for NaN, which JSON has no word for."""
    write_whole(path, json.dumps(values, indent=1, allow_nan=False).encode())
