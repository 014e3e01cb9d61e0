"""The one training loop, of every network: budget, learning rate, EMA, clipping, skipped non-finite steps, exact resume, one
process or many."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

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
from torch.distributed.tensor import DTensor

from ..errors import InputError
from .average import Average, State
from .budget import Budget
from .checkpoint import Stateful, read_checkpoint, save_atomically
from .muon import Muon, between_features
from .report import Report
from .world import SINGLE_PROCESS, World

log = logging.getLogger(__name__)

SAVE_EVERY = 120.0  # seconds between checkpoints
LOG_EVERY = 20.0  # seconds between lines of the log
LOWEST_RATE = 0.05  # of the learning rate, at the end
MAX_NORM = 1.0  # to which the gradient's norm is clipped


def fit(
    model: nn.Module,
    loss: Callable[[int], tuple[torch.Tensor, dict[str, float]]],
    checkpoint: Path,
    budget: Budget,
    lr: float,
    decay: float = 0.998,
    warmup: int = 100,
    adam_only: tuple[str, ...] | None = (),
    world: World = SINGLE_PROCESS,
    report: Report | None = None,
    on_save: Callable[[State, int], None] | None = None,
    beside: Stateful | None = None,
) -> State:
    """Trains `model` for its budget and returns the averaged state.

    loss(step) draws its own batch -> the loss, and scalars to log; the scalar "frames" counts towards the throughput.
    checkpoint: where a stopped run resumes, with a budget of steps bit by bit as if it had not been stopped.
    decay: of the EMA. warmup: steps. adam_only: see make_optimizers.
    on_save(averaged state, step): called in the first process at every checkpoint but the last.
    beside: what else learns, such as a discriminator; its state is kept in the checkpoint.
    """
    if world.size > 1 and budget.steps is None:
        raise InputError("Several processes must agree when to stop: give --steps instead of --minutes.")
    optimizers = make_optimizers(model, lr, adam_only)
    average = Average(model, decay)
    step, spent, skipped = 0, 0.0, 0
    if (saved := read_checkpoint(checkpoint)) is not None:
        restore(saved, model, optimizers, average, beside)
        step, spent, skipped = saved["step"], saved["spent"], saved["skipped"]
        log.info("resumed at step %d, %.1f minutes spent", step, spent / 60)

    def save() -> None:
        counters = {"step": step, "spent": spent, "skipped": skipped}
        value = snapshot(model, optimizers, average, beside) | counters
        if world.first:
            save_atomically(value, checkpoint)

    report = report or Report(world)
    report.begin(budget, step, spent)
    last_log = last_save = spent
    model.train()
    while (gone := budget.spent(step, spent)) < 1:
        began = time.perf_counter()
        rate = learning_rate(lr, warmup, step, gone)
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = rate
        model.zero_grad(set_to_none=True)  # before the forward pass: FSDP swaps the weights in it
        value, scalars = loss(step)
        value.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
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
            except InputError as error:  # a full disk ends the run only if it is full at the last save
                log.warning("%s", error)
            if on_save is not None:
                state = average.whole()
                if world.first:
                    on_save(state, step)
            last_save = spent
    save()
    report.end(budget, step, spent)
    if world.size > 1:
        dist.barrier()
    return average.whole()


def learning_rate(lr: float, warmup: int, step: int, gone: float) -> float:
    """Linear warm-up over `warmup` steps, times a linear decay to LOWEST_RATE. gone: the share of the budget, 0 to 1."""
    return lr * min(1.0, (step + 1) / warmup) * max(LOWEST_RATE, 1 - gone)


def make_optimizers(model: nn.Module, lr: float, adam_only: tuple[str, ...] | None) -> list[torch.optim.Optimizer]:
    """Muon for matrices between hidden features, AdamW for the rest and for names that begin with one of `adam_only`.
    None: AdamW for everything. Frozen parameters belong to none."""
    hidden, ends = [], []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        muon = adam_only is not None and between_features(name, parameter) and not name.startswith(adam_only)
        (hidden if muon else ends).append(parameter)
    adam = torch.optim.AdamW(ends, lr, betas=(0.9, 0.98), weight_decay=0.0)
    return [Muon(hidden, lr, weight_decay=0.01), adam] if hidden else [adam]


# The state of a run


def snapshot(model: nn.Module, optimizers: list[torch.optim.Optimizer], average: Average, beside: Stateful | None) -> dict:
    """Everything that a run resumes from, but its counters. Collective: gathered from all processes."""
    whole = StateDictOptions(full_state_dict=True, cpu_offload=True)
    value = {
        "model": get_model_state_dict(model, options=whole),
        "optimizers": [get_optimizer_state_dict(model, optimizer, options=whole) for optimizer in optimizers],
        "average": {name: tensor.cpu() for name, tensor in average.whole().items()},
        "rng": torch.get_rng_state(),
    }
    return value if beside is None else value | {"beside": beside.state_dict()}


def restore(
    saved: dict, model: nn.Module, optimizers: list[torch.optim.Optimizer], average: Average, beside: Stateful | None
) -> None:
    """The inverse of snapshot; in any number of processes, whatever the number that wrote it."""
    set_model_state_dict(model, saved["model"], options=StateDictOptions(full_state_dict=True))
    for optimizer, state in zip(optimizers, saved["optimizers"], strict=True):
        set_optimizer_state_dict(model, optimizer, state, options=StateDictOptions(full_state_dict=True, strict=False))
        # A weight that has had no gradient yet (the temporal norms of Q and K, in single frames) has no state; torch makes one.
        for name, parameter in model.named_parameters():
            if name not in state["state"]:
                optimizer.state.pop(parameter, None)
    average.load(saved["average"])
    if beside is not None:
        beside.load_state_dict(saved["beside"])
    torch.set_rng_state(saved["rng"])
