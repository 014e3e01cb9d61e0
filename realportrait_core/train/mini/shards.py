"""Weight files split into parts of limited size, and joined again.

    python -m realportrait_core.train.mini join DIR

A part is a safetensors file NAME-00001-of-00002.safetensors with some of the keys. Its metadata are the whole file's, with an
identifier of the writing, so that parts of two writings are never joined.
"""

import logging
import re
import uuid
from pathlib import Path

import torch

from ...checkpoint import read_safetensors, save
from ...errors import InputError

log = logging.getLogger(__name__)

LIMIT = 16_000_000  # bytes of a file
HEADER = 200_000  # bytes of it that may be names and metadata
WRITING = "realportrait_writing"
PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.safetensors")


def parts_of(state: dict[str, torch.Tensor], limit: int = LIMIT) -> list[dict[str, torch.Tensor]]:
    """The state in so few parts as fit, in the order of its keys. InputError where one tensor is too large by itself."""
    parts, room = [{}], limit - HEADER
    for name, value in state.items():
        if value.nbytes > limit - HEADER:
            raise InputError(f"{name} takes {value.nbytes / 1e6:.1f} MB; a file may have {limit / 1e6:.1f} MB.")
        if value.nbytes > room:
            parts.append({})
            room = limit - HEADER
        parts[-1][name] = value
        room -= value.nbytes
    return parts


def save_in_parts(path: Path, state: dict[str, torch.Tensor], metadata: dict[str, str], limit: int = LIMIT) -> list[Path]:
    """Each file is written whole or not at all; one that fits is a plain file under its own name."""
    parts = parts_of(state, limit)
    if len(parts) == 1:
        save(path, state, metadata)
        return [path]
    metadata = metadata | {WRITING: uuid.uuid4().hex}
    paths = [path.with_name(f"{path.stem}-{i:05d}-of-{len(parts):05d}.safetensors") for i in range(1, len(parts) + 1)]
    waiting = [part.with_name(f".{part.name}.new") for part in paths]
    for file, part in zip(waiting, parts):
        save(file, part, metadata)
    for file, part in zip(waiting, paths):  # all parts are renamed at once
        file.replace(part)
    return paths


def join(folder: Path) -> list[Path]:
    """Puts together every set of parts below a folder, beside them; the parts are removed. InputError where one is missing or of
    another writing."""
    sets: dict[tuple[Path, int], dict[int, Path]] = {}
    for path in sorted(folder.rglob("*.safetensors")):
        if found := PART.fullmatch(path.name):
            name, number, total = found.groups()
            sets.setdefault((path.with_name(f"{name}.safetensors"), int(total)), {})[int(number)] = path
    for (whole, total), parts in sets.items():
        if missing := sorted(set(range(1, total + 1)) - set(parts)):
            raise InputError(f"{whole.name} is in {total} parts, and of them {missing} are not in {whole.parent}.")
        state, writings = {}, set()
        for path in parts.values():
            tensors, metadata = read_safetensors(path)
            state |= tensors
            writings.add(metadata.pop(WRITING, ""))
        if len(writings) > 1:
            raise InputError(
                f"The parts of {whole.name} in {whole.parent} are of {len(writings)} different writings: fetch them again."
            )
        save(whole, state, metadata)
        for path in parts.values():
            path.unlink()
        log.info("joined %s, %.1f MB", whole, whole.stat().st_size / 1e6)
    return [whole for whole, _ in sets]
