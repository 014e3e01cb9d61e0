"""One process, or several that torchrun started: rank, device, and the collectives of a training."""

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist

from ..errors import InputError


@dataclass(frozen=True)
class World:
    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        return self.rank == 0

    def any(self, value: bool) -> bool:
        """Whether `value` is true in any process. Collective: every process must call it."""
        if self.size == 1:
            return value
        flag = torch.tensor([float(value)], device=self.device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag.item())

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """The processes' mean of a tensor. Collective: every process must call it."""
        value = value.detach().clone()
        if self.size > 1:
            dist.all_reduce(value)
            value /= self.size
        return value


SINGLE_PROCESS = World(0, 1, torch.device("cpu"))


def device_named(name: str) -> torch.device:
    """ "auto" takes a GPU where there is one. InputError for a CUDA device where there is none."""
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise InputError("There is no CUDA device here: use --device cpu.")
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def enter(device: str) -> World:
    """The world that torchrun's environment variables describe, or a single process."""
    defaults = {"WORLD_SIZE": 1, "RANK": 0, "LOCAL_RANK": 0}
    size, rank, local = (int(os.environ.get(name, default)) for name, default in defaults.items())
    place = device_named(device)
    if size > 1:
        if place.type == "cuda" and place.index is None:
            place = torch.device("cuda", local)
            torch.cuda.set_device(place)
        dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
    return World(rank, size, place)


def leave(world: World) -> None:
    if world.size > 1:
        dist.destroy_process_group()
