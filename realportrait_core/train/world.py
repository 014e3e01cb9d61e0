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


def enter(device: str) -> World:
    """The world that torchrun's environment describes, or ours alone. "auto" takes a GPU where there is one."""
    told = {"WORLD_SIZE": 1, "RANK": 0, "LOCAL_RANK": 0}
    size, rank, local = (int(os.environ.get(name, default)) for name, default in told.items())
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if kind.startswith("cuda") and not torch.cuda.is_available():
        raise InputError("There is no CUDA device here: use --device cpu.")
    if kind == "cuda" and size > 1:
        torch.cuda.set_device(local)
        kind = f"cuda:{local}"
    if size > 1:
        dist.init_process_group("nccl" if kind.startswith("cuda") else "gloo")
    return World(rank, size, torch.device(kind))


def leave(world: World) -> None:
    if world.size > 1:
        dist.destroy_process_group()
