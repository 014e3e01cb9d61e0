"""Files that are written whole or not at all."""

import json
import os
from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
    """Replaces a file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, values: dict) -> None:
    """ValueError for NaN, which JSON has no word for."""
    write_whole(path, json.dumps(values, indent=1, allow_nan=False).encode())
