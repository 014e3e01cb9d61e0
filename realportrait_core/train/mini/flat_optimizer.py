"""A network's weights as one vector: clipping, skipped non-finite steps, Muon, Adam and averaging in a few passes over memory.

Nothing synchronises the host with the device, so that a step can be launched while the one before still runs. (loop.fit reads the
norm after every step.)
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby

import torch
from torch import nn

from ..muon import between_features, orthogonal

CLIP = 1.0  # of the gradient's norm
MOMENTUM, DECAY = 0.95, 0.01  # Muon's
BETAS, EPSILON = (0.9, 0.98), 1e-8  # Adam's


class FlatOptimizer:
    """The trained weights of `model`, which become views of one vector: first Muon's, sorted by shape, then Adam's."""

    def __init__(self, model: nn.Module, adam_only: tuple[str, ...], average: float):
        """average: decay of the moving average."""
        named = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
        hidden = [weight for name, weight in named if between_features(name, weight) and not name.startswith(adam_only)]
        hidden.sort(key=lambda weight: tuple(weight.shape))
        chosen = {id(weight) for weight in hidden}
        self.parameters = [*hidden, *(weight for _, weight in named if id(weight) not in chosen)]
        self.weights = torch.cat([weight.detach().reshape(-1) for weight in self.parameters])
        start = 0
        for weight in self.parameters:
            weight.data = self.weights[start : start + weight.numel()].view(weight.shape)
            start += weight.numel()
        # The ranges of matrices of equal shape: (start, stop, (n, out, in)).
        self.matrices, stop = [], 0
        for shape, group in groupby(hidden, key=lambda weight: tuple(weight.shape)):
            n = len(list(group))
            start, stop = stop, stop + n * math.prod(shape)
            self.matrices.append((start, stop, (n, shape[0], math.prod(shape[1:]))))
        self.border = stop  # Adam's weights begin here
        self.momentum = torch.zeros_like(self.weights[:stop])
        self.first, self.second = torch.zeros_like(self.weights[stop:]), torch.zeros_like(self.weights[stop:])
        self.average, self.decay, self.count = self.weights.clone(), average, 0
        self.skipped = torch.zeros((), device=self.weights.device)  # number of steps with a non-finite gradient

    @torch.no_grad()
    def step(self, rate: float) -> torch.Tensor:
        """One step by the weights' gradients, which are cleared. Returns the gradients' norm, 0-dimensional."""
        gradient = torch.cat(
            [(torch.zeros_like(weight) if weight.grad is None else weight.grad).reshape(-1) for weight in self.parameters]
        )
        for weight in self.parameters:
            weight.grad = None
        norm = gradient.norm()
        finite = torch.isfinite(norm)
        gradient = torch.where(finite, gradient * (CLIP / norm.clamp_min(CLIP)), 0.0)
        self.skipped += ~finite
        self.count += 1
        amount = finite * rate  # 0 in a step that is skipped

        update, hidden = gradient[: self.border], self.weights[: self.border]
        self.momentum.lerp_(update, 1 - MOMENTUM)
        update = update.lerp(self.momentum, MOMENTUM)
        hidden.mul_(1 - amount * DECAY)
        for start, stop, shape in self.matrices:
            change = orthogonal(update[start:stop].view(shape))
            hidden[start:stop].addcmul_(change.reshape(-1), amount, value=-0.2 * math.sqrt(max(shape[1:])))

        plain = gradient[self.border :]
        self.first.lerp_(plain, 1 - BETAS[0])
        self.second.lerp_(plain.square(), 1 - BETAS[1])
        mean, square = (value / (1 - beta**self.count) for value, beta in zip((self.first, self.second), BETAS))
        self.weights[self.border :].addcmul_(mean / (square.sqrt() + EPSILON), amount, value=-1)

        self.average.lerp_(self.weights, 1 - min(self.decay, self.count / (10 + self.count)))
        return norm

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the network has its averaged weights."""
        kept = self.weights.clone()
        with torch.no_grad():
            self.weights.copy_(self.average)
            try:
                yield
            finally:
                self.weights.copy_(kept)
