"""One training loop for all networks: a budget of minutes, EMA, clipping, skipped non-finite steps, resumable."""

import logging
import os
import time
from pathlib import Path
from typing import Callable

import torch
from torch import nn

from .muon import Muon, between_features

log = logging.getLogger(__name__)

SAVE_EVERY = 120.0          # seconds between checkpoints
LOG_EVERY = 20.0            # seconds between lines of the log


def save_atomically(value: dict, path: Path) -> None:
    """torch.save to a neighbour, then rename: a killed run leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(value, partial)
    os.replace(partial, path)


class Average:
    """Exponential moving average of a model's parameters and buffers."""

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.state = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))       # the first steps must not linger
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self.state[name].lerp_(value, 1 - decay)
            else:
                self.state[name].copy_(value)


def fit(
    model: nn.Module,
    loss: Callable[[int], tuple[torch.Tensor, dict[str, float]]],
    checkpoint: Path,
    minutes: float,
    lr: float,
    decay: float = 0.998,
    warmup: int = 100,
    adam_only: tuple[str, ...] = (),
) -> dict[str, torch.Tensor]:
    """Train `model` for so many minutes of its own running time and return the averaged state.

    Matrices between hidden features learn by Muon, the rest, and what begins with a name of `adam_only`, by Adam.
    `loss(step)` draws its own batch and returns the loss with scalars to log. The rate warms up, then falls linearly to 5 %
    over the budget. A run that was stopped goes on from `checkpoint`, with the minutes that are left.
    """
    hidden, ends = [], []
    for name, parameter in model.named_parameters():
        (hidden if between_features(name, parameter) and not name.startswith(adam_only) else ends).append(parameter)
    optimizers = [Muon(hidden, lr, weight_decay=0.01), torch.optim.AdamW(ends, lr, betas=(0.9, 0.98), weight_decay=0.0)]
    average = Average(model, decay)
    step, spent, skipped = 0, 0.0, 0
    if checkpoint.is_file():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        for optimizer, state in zip(optimizers, saved["optimizers"]):
            optimizer.load_state_dict(state)
        average.state = saved["average"]
        step, spent, skipped = saved["step"], saved["spent"], saved["skipped"]
        torch.set_rng_state(saved["rng"])
        log.info("resumed at step %d, %.1f of %.1f minutes spent", step, spent / 60, minutes)

    def save() -> None:
        save_atomically({
            "model": model.state_dict(), "optimizers": [o.state_dict() for o in optimizers], "average": average.state,
            "step": step, "spent": spent, "skipped": skipped, "rng": torch.get_rng_state(),
        }, checkpoint)

    sums: dict[str, tuple[float, int]] = {}
    last_log = last_save = spent
    model.train()
    while spent < minutes * 60:
        began = time.perf_counter()
        left = 1 - spent / (minutes * 60)
        rate = lr * min(1.0, (step + 1) / warmup) * max(0.05, left)
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = rate
        value, scalars = loss(step)
        model.zero_grad(set_to_none=True)
        value.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if torch.isfinite(norm):
            for optimizer in optimizers:
                optimizer.step()
            average.update(model, step)
        else:
            skipped += 1
        step += 1
        spent += time.perf_counter() - began
        for name, scalar in (scalars | {"loss": value.item(), "norm": norm.item()}).items():
            total, count = sums.get(name, (0.0, 0))
            sums[name] = (total + scalar, count + 1)
        if spent - last_log >= LOG_EVERY:
            means = "  ".join(f"{name} {total / count:.4f}" for name, (total, count) in sums.items())
            log.info("step %d  %.1f/%.1f min  lr %.2e  %s  skipped %d", step, spent / 60, minutes, rate, means, skipped)
            sums, last_log = {}, spent
        if spent - last_save >= SAVE_EVERY:
            save()
            last_save = spent
    save()
    return average.state


@torch.no_grad()
def recalibrate(model: nn.Module, loss: Callable[[int], tuple[torch.Tensor, dict[str, float]]], batches: int = 24) -> None:
    """Batch norms' statistics anew: averaged weights see other features than the weights whose statistics were averaged."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None                # the plain mean over all batches
    model.train()
    for step in range(batches):
        loss(step)
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum
    model.eval()
