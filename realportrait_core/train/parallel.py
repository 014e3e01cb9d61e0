"""Activation checkpointing, DDP and FSDP2 around an objective. A training wraps first, and measures what is wrapped."""

from functools import partial

import torch.distributed.fsdp as fsdp
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint as recompute

from ..dit.model import RealPortraitDiT
from ..errors import InputError
from .stages import Stage
from .world import World


def parallelize(objective: nn.Module, stage: Stage, world: World, recomputed: bool = False, shard: bool = False) -> nn.Module:
    """`objective` (with a `dit`) on the world's device, with activation checkpointing if `recomputed`, and in several processes
    in DDP, or with `shard` in FSDP2: one shard of every weight in each process. InputError for a stage that cannot run so."""
    for shape in stage.shapes:
        if shape.portraits % world.size:
            raise InputError(f"{shape.portraits} portraits a step cannot be split evenly among {world.size} processes.")
    if shard and stage.muon:
        raise InputError("Muon needs whole matrices and FSDP splits them: train with AdamW, or without --shard.")
    objective.to(world.device)
    if recomputed:
        recompute_blocks(objective.dit)
    if world.size == 1:
        return objective
    if shard:
        return shard_weights(objective)
    return DistributedDataParallel(objective, find_unused_parameters=has_unused(stage))


def unwrapped(objective: nn.Module) -> nn.Module:
    """The module inside DDP; FSDP2 leaves a module what it was."""
    return objective.module if isinstance(objective, DistributedDataParallel) else objective


def has_unused(stage: Stage) -> bool:
    """Whether a step may leave trained weights without a gradient.

    Single frames do: the softmax over one frame is 1, so TemporalAttention computes V alone, and the norms of Q and K are not
    used. In longer clips every weight is.
    """
    return any(shape.frames == 1 for shape in stage.shapes)


def recompute_blocks(dit: RealPortraitDiT) -> None:
    """Activation checkpointing: each block keeps only its input, and its forward pass runs again in the backward pass."""
    for block in (*dit.blocks, *dit.controlnet):
        block.forward = partial(recompute, block.forward, use_reentrant=False)


def shard_weights(objective: nn.Module) -> nn.Module:
    """FSDP2, a block at a time."""
    for block in objective.dit.blocks:
        fsdp.fully_shard(block)
        for method in ("encode", "key_value"):  # the reference passes through the same weights
            fsdp.register_fsdp_forward_method(block, method)
    for control in objective.dit.controlnet:
        fsdp.fully_shard(control.copied_block)  # its projections are also called from outside: the root's
    return fsdp.fully_shard(objective)
