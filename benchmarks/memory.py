"""A whole denoising step of PAPER on the CPU, with random weights: how long it takes and how much memory."""

import time
from dataclasses import dataclass

import torch

from realportrait_core.config import DiTConfig
from realportrait_core.dit import RealPortraitDiT

from .limits import step_arguments
from .measure import peak_resident_bytes, resident_bytes
from .parts import random_weights


@dataclass(frozen=True)
class Peak:
    """Bytes of a process at its peak, while it makes one step, reference and control tokens included."""

    process: int  # Python and torch
    weights: int
    reference: int  # K, V of the portrait, kept over steps
    passing: int  # the clip's tokens, and what lives within a block; proportional to the frames
    seconds: float

    @property
    def total(self) -> int:
        return self.process + self.weights + self.reference + self.passing


@torch.inference_mode()
def one_step(cfg: DiTConfig, frames: int, px: int) -> Peak:
    """In float32: without bfloat16 in its hardware a CPU is slower in it, and 10 GB hold the weights as they are."""
    model = random_weights(RealPortraitDiT(cfg), "cpu")
    weights = sum(value.nbytes for value in model.state_dict().values())
    before, start = resident_bytes(), time.perf_counter()
    arguments = step_arguments(model, frames, px, "cpu", torch.float32)
    model(*arguments)
    took = time.perf_counter() - start
    reference = sum(k.nbytes + v.nbytes for k, v in arguments[3].blocks)
    return Peak(before - weights, weights, reference, peak_resident_bytes() - before - reference, took)


def describe(cfg: DiTConfig, frames: int, px: int, peak: Peak) -> str:
    return (
        f"One step, {cfg.depth}+{cfg.control_depth} blocks, {frames} frames of {px} px: {peak.total / 1e9:.2f} GB at the peak "
        f"(weights {peak.weights / 1e9:.2f}, the portrait's K, V {peak.reference / 1e9:.2f}), {peak.seconds:.0f} s"
    )
