"""What a training will take, from a few trial steps: seconds a step, and the peak of memory."""

import logging
import time

import torch
from torch import nn

from ..vid2vid.warp import WarpingNetwork
from .batch import Index
from .budget import Budget
from .encoders import Encoders
from .loading import batches
from .objective import loss_of
from .parallel import unwrapped
from .report import clock, memory
from .stages import Stage
from .world import World

log = logging.getLogger(__name__)

PROBES = 2  # trial steps of each shape; the first warms up


def estimate(
    objective: nn.Module,
    stage: Stage,
    budget: Budget,
    index: Index,
    warping: WarpingNetwork,
    world: World,
    encoders: Encoders | None = None,
) -> tuple[float, str]:
    """Logs, and returns, seconds a step and the peak of memory. Forward and backward passes that change no weight.

    objective: as `parallelize` wraps it, so that activation checkpointing and sharding count. Collective: every process calls it.
    """
    inner, warping = unwrapped(objective), warping.to(world.device)
    source = batches(index, stage, 0, 0, inner.timesteps, world.rank, world.size, encoders)
    times = []
    for _ in range(PROBES * len(stage.shapes)):
        began = time.perf_counter()
        batch = next(source).to(world.device)
        loss_of(objective, warping, batch, inner.precision).backward()
        if world.device.type == "cuda":
            torch.cuda.synchronize(world.device)
        times.append(time.perf_counter() - began)
    objective.zero_grad(set_to_none=True)
    timed = times[len(stage.shapes) :]
    took, peak = sum(timed) / len(timed), memory(world.device)
    total = 60 * budget.minutes if budget.steps is None else took * budget.steps
    if world.first:
        log.info(
            "%d samples (%d videos, %d pictures); %.1f M parameters; about %.2f s a step, %s: %s in all; peak of memory %s%s "
            "before the optimizer's state",
            len(index.paths),
            int(index.video.sum()),
            int((~index.video).sum()),
            sum(parameter.numel() for parameter in inner.dit.parameters()) / 1e6,
            took,
            f"{budget.steps} steps" if budget.steps else f"about {int(total / took)} steps",
            clock(total),
            peak,
            f" in each of {world.size} processes" if world.size > 1 else "",
        )
    return took, peak
