"""One stage of the DiT's training: a wrapped objective in, averaged weights out."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from ..dit.ablation import network_of
from ..dit.model import RealPortraitDiT
from ..vid2vid.warp import WarpingNetwork
from .batch import Index
from .budget import Budget
from .encoders import Encoders
from .loading import batches
from .loop import fit
from .objective import loss_of
from .parallel import unwrapped
from .report import Report
from .stages import Stage
from .world import SINGLE_PROCESS, World

# With Muon: embeddings and the final layer, which are AdamW's.
ADAM_ONLY = (
    "x_embedder",
    "conditioner.embedder",
    "t_embedder",
    "csize_embedder",
    "ar_embedder",
    "fl_embedder",
    "fps_embedder",
    "final_layer",
)


def train_stage(
    objective: nn.Module,
    stage: Stage,
    index: Index,
    warping: WarpingNetwork,
    checkpoint: Path,
    budget: Budget,
    seed: int = 0,
    world: World = SINGLE_PROCESS,
    report: Report | None = None,
    on_save: Callable[[RealPortraitDiT, int], None] | None = None,
    encoders: Encoders | None = None,
) -> RealPortraitDiT:
    """Trains the weights of `objective.dit` and returns them averaged. A stopped run resumes from `checkpoint`.

    objective: Objective, LatentRegression, Distillation or Student; in several processes as `parallelize` wraps it. Each process
    draws its share of a step's portraits. on_save(averaged network, step): called at checkpoints. encoders: see batch.load.
    """
    for shape in stage.shapes:
        index.usable(shape)
    inner, warping = unwrapped(objective), warping.to(world.device).eval()
    dit = inner.dit
    source, expected = None, -1

    def loss(step: int):
        nonlocal source, expected
        if step != expected:  # the first step, or a resumed one
            source = batches(index, stage, seed, step, inner.timesteps, world.rank, world.size, encoders)
        batch, expected = next(source).to(world.device), step + 1
        value = loss_of(objective, warping, batch, inner.precision)
        scalars = {name: float(scalar) for name, scalar in getattr(inner, "scalars", {}).items()}
        return value, {"frames": float(batch.t.numel() * world.size)} | scalars

    average = fit(
        dit,
        loss,
        checkpoint,
        budget,
        stage.lr,
        decay=stage.average,
        warmup=stage.warmup,
        adam_only=ADAM_ONLY if stage.muon else None,
        world=world,
        report=report,
        on_save=None if on_save is None else lambda state, step: on_save(averaged(dit, state), step),
        beside=getattr(inner, "appearance", None),
    )
    return averaged(dit, average)


def averaged(dit: RealPortraitDiT, state: dict[str, torch.Tensor]) -> RealPortraitDiT:
    """A network of its own, on the CPU, with the averaged weights."""
    result = network_of(dit.cfg)
    result.load_state_dict({name: value.cpu() for name, value in state.items()})
    return result.eval()
