"""One process, or several that torchrun started: who we are, what we train on, what all must agree about."""

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
        """Whether it is so in any process; every process must ask."""
        if self.size == 1:
            return value
        flag = torch.tensor([float(value)], device=self.device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag.item())

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """The processes' mean of a tensor; every process must ask."""
        value = value.detach().clone()
        if self.size > 1:
            dist.all_reduce(value)
            value /= self.size
        return value


ALONE = World(0, 1, torch.device("cpu"))


def device_named(name: str) -> torch.device:
    """ "auto" takes a GPU where there is one. InputError for a CUDA device where there is none."""
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise InputError("There is no CUDA device here: use --device cpu.")
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def enter(device: str) -> World:
    """The world that torchrun's environment describes, or ours alone."""
    told = {"WORLD_SIZE": 1, "RANK": 0, "LOCAL_RANK": 0}
    size, rank, local = (int(os.environ.get(name, default)) for name, default in told.items())
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
