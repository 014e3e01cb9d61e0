"""Muon (Jordan 2024): momentum whose update is made orthogonal, for weights between hidden features."""

import math

import torch
from torch import Tensor


def orthogonal(matrices: Tensor, steps: int = 5) -> Tensor:
    """The nearest orthogonal matrices, roughly: a quintic Newton-Schulz iteration; (n, a, b)."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Updates are scaled to the size of Adam's (Liu et al. 2025), so that Adam's learning rates apply."""

    def __init__(self, weights: list[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(weights, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None):  # as torch.distributed.checkpoint calls it
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    by_shape.setdefault(weight.shape, []).append(weight)
            for shape, weights in by_shape.items():
                updates = []
                for weight in weights:
                    buffer = self.state[weight].setdefault("momentum", torch.zeros_like(weight))
                    buffer.lerp_(weight.grad, 1 - group["momentum"])
                    updates.append(weight.grad.lerp(buffer, group["momentum"]).flatten(1))
                change = orthogonal(torch.stack(updates))  # (n, out, in ...)
                scale = 0.2 * math.sqrt(max(change.shape[1:]))
                for weight, direction in zip(weights, change):
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    weight.sub_(direction.view(shape), alpha=group["lr"] * scale)


SMALLEST = 16  # a matrix with fewer rows or columns than this has no hidden features on both sides


def between_features(name: str, weight: Tensor) -> bool:
    """Whether a parameter is a matrix (or an ungrouped convolution) from hidden features to hidden features."""
    return weight.ndim > 1 and name.endswith("weight") and min(weight.shape[:2]) >= SMALLEST
