"""Weight files that the commands read: safetensors or .pth, single files or shards."""

import json
from pathlib import Path

import torch

from ..checkpoint import foreign_format, is_pickle, read_safetensors
from ..errors import WeightsError
from .pickled import read_pickled

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
INDEX = ".index.json"


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a .safetensors file or a .pth, recognised by content. Raises WeightsError if it is neither."""
    if path.is_file():
        with path.open("rb") as file:
            start = file.read(64)
        if is_pickle(start) and foreign_format(start):  # not a safetensors file whose length begins like a pickle
            return read_pickled(path)
    return read_safetensors(path)[0]


def weight_files(path: Path) -> list[Path]:
    """The file itself, or a folder's weight files at every depth. Raises WeightsError if there are none."""
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    if not found:
        raise WeightsError(f"{path} holds no weight file ({', '.join(SUFFIXES)}).")
    return found


def read_shards(path: Path) -> dict[str, torch.Tensor]:
    """One state from a weight file, from the index (.index.json) of a sharded one, or from a folder with either.

    Raises WeightsError if a shard or a tensor is missing, or if a folder holds several candidates.
    """
    if path.is_dir():
        path = the_one(path)
    if not path.name.endswith(INDEX):
        return read_weights(path)
    try:
        where = {str(key): str(name) for key, name in json.loads(path.read_text(encoding="utf-8"))["weight_map"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise WeightsError(f"{path} is no index of a sharded file: {error!r}.") from error
    state: dict[str, torch.Tensor] = {}
    for name in sorted(set(where.values())):
        if Path(name).name != name:
            raise WeightsError(f"{path} names a shard outside its folder: {name!r}.")
        shard = read_weights(path.parent / name)
        state |= shard
        if missing := [key for key, shard_name in where.items() if shard_name == name and key not in shard]:
            raise WeightsError(f"{path.parent / name} lacks {len(missing)} tensors that {path.name} promises: {missing[0]}, ...")
    return state


def the_one(folder: Path) -> Path:
    """A folder's only index, else its only weight file."""
    for found in (sorted(folder.glob(f"*{INDEX}")), [file for file in weight_files(folder) if file.parent == folder]):
        if len(found) == 1:
            return found[0]
        if found:
            raise WeightsError(f"{folder} holds {' and '.join(file.name for file in found[:5])}. Name the one that is meant.")
    raise WeightsError(f"{folder} holds no weight file of its own. Name the file, or its {INDEX}.")


def refuse_existing(path: Path) -> None:
    if path.exists():
        raise WeightsError(f"{path} is already there. Give another name, or delete it first.")
