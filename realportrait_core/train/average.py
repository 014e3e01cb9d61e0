"""The exponential moving average (EMA) of the weights, which is what a training returns."""

from collections.abc import Callable

import torch
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

State = dict[str, torch.Tensor]
WARMUP = 10  # the decay of step i is at most (1 + i) / (WARMUP + i): the first steps are soon forgotten


class Average:
    """EMA of a model's parameters and buffers. With FSDP each process holds the average of its own shards."""

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.state = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (WARMUP + step))
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self.state[name].lerp_(value, 1 - decay)
            else:
                self.state[name].copy_(value)

    def whole(self) -> State:
        """The average as plain tensors. Collective with FSDP: every process must call it."""
        return {name: value.full_tensor() if isinstance(value, DTensor) else value for name, value in self.state.items()}

    def load(self, state: State) -> None:
        """state: as `whole` returns it."""
        for name, value in self.state.items():
            given = state[name].to(value.device)
            value.copy_(distribute_tensor(given, value.device_mesh, value.placements) if isinstance(value, DTensor) else given)


@torch.no_grad()
def recalibrate(model: nn.Module, loss: Callable[[int], tuple[torch.Tensor, dict[str, float]]], batches: int = 24) -> None:
    """Recomputes the statistics of all batch norms with the averaged weights: those that were averaged along belong to other
    weights. loss(step) runs `model` on a batch."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all batches
    model.train()
    for step in range(batches):
        loss(step)
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum
    model.eval()
