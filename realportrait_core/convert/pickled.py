"""Plain tensors from a .pth, .pt, .ckpt or .bin, with PyTorch's restricted unpickler; nothing else in it is constructed."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from ..checkpoint import check_finite, foreign_format, is_pickle
from ..errors import WeightsError

logger = logging.getLogger(__name__)

WRAPPERS = ("state_dict", "model")


def read_pickled(path: Path) -> dict[str, torch.Tensor]:
    """Every tensor of the file on the CPU in its stored dtype; keys of dicts in dicts are joined by dots.

    Raises WeightsError if the file is missing, damaged, no such file, holds anything that could run code, no tensors,
    NaN or infinity.
    """
    if not path.is_file():
        raise WeightsError(f"There is no weight file at {path}.")
    with path.open("rb") as file:
        start = file.read(64)
    if not is_pickle(start):
        raise WeightsError(f"{path} is {foreign_format(start) or 'neither a .safetensors file nor one of torch.save'}.")
    try:
        with path.open("rb") as file:  # opened by us: given a path, torch.load chooses the format by its suffix
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # its type differs for a damaged archive, a truncated pickle and a forbidden class
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise WeightsError(
            f"{path} was not opened: it is damaged, or holds more than plain tensors and could run code ({reason[0]})."
        ) from error
    state = unshared(tensors(unwrapped(content), ""))
    if not state:
        raise WeightsError(f"{path} holds no tensors.")
    check_finite(state, str(path))
    return state


def unwrapped(content: Any) -> Any:
    """The state dict of a training checkpoint that keeps it under one of WRAPPERS, else `content`."""
    if not isinstance(content, Mapping):
        return content
    inside = [name for name in WRAPPERS if isinstance(content.get(name), Mapping)]
    if len(inside) != 1 or any(isinstance(value, torch.Tensor) for value in content.values()):
        return content
    if others := [str(name) for name in content if name != inside[0]]:
        logger.info("Of the checkpoint's parts %r is read; left out: %s.", inside[0], ", ".join(others))
    return unwrapped(content[inside[0]])


def tensors(content: Any, prefix: str) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(content, torch.Tensor):
        yield prefix, content
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from tensors(value, f"{prefix}.{key}" if prefix else str(key))


def unshared(named: Iterable[tuple[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The tensors, those that share memory with an earlier one copied: safetensors does not store shared memory."""
    state, seen = {}, set()
    for key, value in named:
        memory = value.untyped_storage().data_ptr()
        state[key] = value.clone() if memory in seen else value
        seen.add(memory)
    return state
