"""One training loop for all networks: a budget, EMA, clipping, skipped non-finite steps, exact resume, one or many processes."""

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.tensor import DTensor, distribute_tensor

from ..errors import InputError
from .muon import Muon, between_features
from .report import Report
from .world import ALONE, World

log = logging.getLogger(__name__)

SAVE_EVERY = 120.0  # seconds between checkpoints
LOG_EVERY = 20.0  # seconds between lines of the log
LOWEST_RATE = 0.05  # of the learning rate, at the end

State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Budget:
    """So many steps, or so many minutes of the training's own running time."""

    steps: int | None = None
    minutes: float | None = None

    def __post_init__(self):
        given = [value for value in (self.steps, self.minutes) if value is not None]
        if len(given) != 1 or given[0] <= 0:
            raise InputError(f"A budget is so many steps or so many minutes, above 0; this is {self}.")

    def spent(self, step: int, seconds: float) -> float:
        """The share that is gone, from 0 to 1 and beyond."""
        return step / self.steps if self.steps is not None else seconds / 60 / self.minutes


# Files


def save_atomically(value: dict, path: Path) -> None:
    """torch.save to a neighbour, then rename: a killed run leaves the old file or the new one, and a full disk the old one.

    Raises InputError where it cannot be written.
    """
    partial = path.with_suffix(".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            torch.save(value, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        partial.unlink(missing_ok=True)
        raise InputError(f"{path} could not be written ({error}); what was there before is kept.") from error


def read_checkpoint(path: Path) -> dict | None:
    """What save_atomically wrote; plain tensors and numbers, nothing is executed. None where there is no file."""
    if not path.is_file():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds, an unpickler's among them
        raise InputError(f"{path} is no training checkpoint or is damaged ({error}): delete it to start anew.") from error


# Averaged weights


class Average:
    """Exponential moving average of a model's parameters and buffers."""

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.state = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))  # the first steps must not linger
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self.state[name].lerp_(value, 1 - decay)
            else:
                self.state[name].copy_(value)

    def whole(self) -> State:
        """With FSDP every process must ask."""
        return {name: value.full_tensor() if isinstance(value, DTensor) else value for name, value in self.state.items()}

    def load(self, state: State) -> None:
        for name, value in self.state.items():
            given = state[name].to(value.device)
            value.copy_(distribute_tensor(given, value.device_mesh, value.placements) if isinstance(value, DTensor) else given)


# The loop


class Kept(Protocol):
    """What a checkpoint keeps beside the model."""

    def state_dict(self) -> dict: ...

    def load_state_dict(self, state: dict) -> None: ...


def make_optimizers(model: nn.Module, lr: float, adam_only: tuple[str, ...] | None) -> list[torch.optim.Optimizer]:
    """Muon for matrices between hidden features, AdamW for the rest and for what begins with a name of `adam_only`.
    None: AdamW for everything."""
    hidden, ends = [], []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        muon = adam_only is not None and between_features(name, parameter) and not name.startswith(adam_only)
        (hidden if muon else ends).append(parameter)
    adam = torch.optim.AdamW(ends, lr, betas=(0.9, 0.98), weight_decay=0.0)
    return [Muon(hidden, lr, weight_decay=0.01), adam] if hidden else [adam]


def fit(
    model: nn.Module,
    loss: Callable[[int], tuple[torch.Tensor, dict[str, float]]],
    checkpoint: Path,
    budget: Budget,
    lr: float,
    decay: float = 0.998,
    warmup: int = 100,
    adam_only: tuple[str, ...] | None = (),
    world: World = ALONE,
    report: Report | None = None,
    strip: Callable[[State, int], None] | None = None,
    beside: Kept | None = None,
) -> State:
    """Train `model` for its budget and return the averaged state.

    `loss(step)` draws its own batch and returns the loss with scalars to log; the entry "frames" counts towards throughput.
    The rate warms up, then falls linearly to 5 % over the budget. A run that was stopped goes on from `checkpoint`: with a
    budget of steps exactly as if it had not been stopped. strip(averaged state, step) is called at every checkpoint. beside:
    what learns beside the model, such as a discriminator, and is kept with it.
    """
    if world.size > 1 and budget.steps is None:
        raise InputError("Several processes must agree when to stop: give --steps instead of --minutes.")
    optimizers = make_optimizers(model, lr, adam_only)
    average = Average(model, decay)
    step, spent, skipped = 0, 0.0, 0
    whole = StateDictOptions(full_state_dict=True, cpu_offload=True)
    if (saved := read_checkpoint(checkpoint)) is not None:
        set_model_state_dict(model, saved["model"], options=StateDictOptions(full_state_dict=True))
        for optimizer, state in zip(optimizers, saved["optimizers"], strict=True):
            # Not strict: a weight that no loss has asked for yet has no state, as the backbone's while the draft learns alone.
            set_optimizer_state_dict(model, optimizer, state, options=StateDictOptions(full_state_dict=True, strict=False))
        average.load(saved["average"])
        if beside is not None:
            beside.load_state_dict(saved["beside"])
        step, spent, skipped = saved["step"], saved["spent"], saved["skipped"]
        torch.set_rng_state(saved["rng"])
        log.info("resumed at step %d, %.1f minutes spent", step, spent / 60)

    def save() -> None:
        """Gathered from all processes, written by the first. A failure does not end the run unless it is the last save."""
        value = {
            "model": get_model_state_dict(model, options=whole),
            "optimizers": [get_optimizer_state_dict(model, optimizer, options=whole) for optimizer in optimizers],
            "average": {name: tensor.cpu() for name, tensor in average.whole().items()},
            "step": step,
            "spent": spent,
            "skipped": skipped,
            "rng": torch.get_rng_state(),
        }
        if beside is not None:
            value["beside"] = beside.state_dict()
        if world.first:
            save_atomically(value, checkpoint)

    report = report or Report(world)
    report.begin(budget, step, spent)
    last_log = last_save = spent
    model.train()
    while budget.spent(step, spent) < 1:
        began = time.perf_counter()
        rate = lr * min(1.0, (step + 1) / warmup) * max(LOWEST_RATE, 1 - budget.spent(step, spent))
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = rate
        model.zero_grad(set_to_none=True)  # before the forward pass: FSDP swaps the weights in it
        value, scalars = loss(step)
        value.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        if torch.isfinite(norm):
            for optimizer in optimizers:
                optimizer.step()
            average.update(model, step)
        else:
            skipped += 1
        step += 1
        scalars = {"loss": world.mean(value).item(), "norm": norm.item(), "rate": rate, "skipped": float(skipped)} | scalars
        spent += time.perf_counter() - began
        report.step(step, spent, scalars)
        if spent - last_log >= LOG_EVERY:
            report.line(budget, step, spent)
            last_log = spent
        if world.any(spent - last_save >= SAVE_EVERY):
            try:
                save()
            except InputError as error:
                log.warning("%s", error)
            if strip is not None:
                state = average.whole()
                if world.first:
                    strip(state, step)
            last_save = spent
    save()
    report.end(budget, step, spent)
    if world.size > 1:
        dist.barrier()
    return average.whole()


@torch.no_grad()
def recalibrate(model: nn.Module, loss: Callable[[int], tuple[torch.Tensor, dict[str, float]]], batches: int = 24) -> None:
    """Batch norms' statistics anew: averaged weights see other features than the weights whose statistics were averaged."""
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
