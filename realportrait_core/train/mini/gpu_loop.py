"""The training loop of a phase on a GPU: minutes as the budget, no synchronisation with the host, averaged weights at the end.

Unlike loop.fit it has no checkpoints, sharding or exact resume, which a phase of minutes does not need, and never waits for the
device.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ..loop import LOWEST_RATE
from .flat_optimizer import FlatOptimizer
from .gpu_state import State
from .throughput import ThroughputLog

log = logging.getLogger(__name__)

FETCH_EVERY = 50  # steps between two copies of the scalars to the host
# All phases continue from trained weights.
RATES = {"decoder": 3e-4, "motion": 3e-4, "renderer": 5e-4, "maps": 1e-3, "clips": 4e-4, "student": 2e-4}
WARMUPS = {"decoder": 50, "motion": 50, "renderer": 50, "maps": 50, "clips": 50, "student": 50}  # steps
AVERAGE_DECAYS = {"decoder": 0.995, "motion": 0.998, "renderer": 0.998, "maps": 0.99, "clips": 0.995, "student": 0.995}
Loss = Callable[[int], tuple[torch.Tensor, dict[str, torch.Tensor]]]


@contextmanager
def trainable(*networks: nn.Module) -> Iterator[None]:
    """Networks in training mode with gradients; frozen and in eval mode afterwards."""
    for network in networks:
        network.requires_grad_(True).train()
    try:
        yield
    finally:
        for network in networks:
            network.requires_grad_(False).eval()


def do_nothing() -> None:
    pass


def train(
    state: State,
    name: str,
    network: nn.Module,
    loss: Loss,
    minutes: float,
    items: int,
    unit: str,
    adam_only: tuple[str, ...],
    after_first_step: Callable[[], None] = do_nothing,
    before_writing: Callable[[], None] = do_nothing,
) -> None:
    """Trains the weights of `network` that require a gradient, for so many minutes, and leaves it averaged.

    loss(step) -> the loss and scalars to log, all on the device; it must not synchronise the host. after_first_step() is called
    after the first step, whose operations are counted; before_writing() before averaged weights are written.
    """
    optimizer = FlatOptimizer(network, adam_only, AVERAGE_DECAYS[name])
    progress = ThroughputLog(name, items, unit, state.device, state.best)
    began, step, counted = time.perf_counter(), 0, progress.counting()

    def take(rate: float) -> None:
        value, scalars = loss(step)
        value.backward()
        progress.add({"loss": value, **scalars, "norm": optimizer.step(rate)})

    while (spent := (time.perf_counter() - began) / (60 * minutes)) < 1:
        rate = RATES[name] * min(1.0, (step + 1) / WARMUPS[name]) * max(LOWEST_RATE, 1 - spent)
        if step:
            take(rate)
        else:
            with counted:
                take(rate)
            progress.flops = counted.get_total_flops()
            after_first_step()
        step += 1
        if step == 2:
            progress.start()
        if step % FETCH_EVERY == 1:
            progress.fetch()
        if progress.due():
            progress.write_line(60 * minutes * (1 - spent))
        if state.writer.due():
            with optimizer.averaged():
                before_writing()
                state.writer.write(state.networks)
    with torch.no_grad():
        optimizer.weights.copy_(optimizer.average)
    before_writing()
    if progress.sums:
        progress.fetch()
        progress.write_line(0.0)
    if skipped := int(optimizer.skipped):
        log.warning("%s: %d of %d steps were skipped, their gradients were not finite", name, skipped, step)
