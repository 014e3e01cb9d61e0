"""The log of a training on a GPU: loss, frames/s, FLOP/s as a share of the card's matrix product, memory.

Scalars are summed on the device and copied to the host asynchronously: a line shows the means of some steps before.
"""

import logging
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from ..report import clock, memory

log = logging.getLogger(__name__)

EVERY = 10.0  # seconds between lines
PRODUCT = {"cuda": (8192, torch.bfloat16, 20), "cpu": (384, torch.float32, 2)}  # side, precision, times


def product_speed(device: torch.device) -> float:
    """FLOP/s of a square matrix product: what this device achieves at best."""
    side, precision, times = PRODUCT.get(device.type, PRODUCT["cpu"])
    a, b = (torch.randn(side, side, device=device, dtype=precision) for _ in range(2))
    for _ in range(3):
        a @ b
    finish(device)
    began = time.perf_counter()
    for _ in range(times):
        a @ b
    finish(device)
    return 2 * side**3 * times / (time.perf_counter() - began)


def finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class ThroughputLog:
    """Of one phase. `items`: how many of `unit` ('frames', 'faces') a step processes; `best`: product_speed."""

    def __init__(self, name: str, items: int, unit: str, device: torch.device, best: float):
        self.name, self.items, self.unit, self.device, self.best = name, items, unit, device, best
        self.flops = 0  # of a step, forward and backward
        self.sums: dict[str, torch.Tensor] = {}
        self.added = self.steps = 0
        self.pending: tuple[list[str], torch.Tensor, torch.cuda.Event | None] | None = None
        self.began = self.last = time.perf_counter()
        self.since = 0  # steps at the last line

    def counting(self) -> FlopCounterMode:
        """A context around one whole step, whose operations it counts."""
        return FlopCounterMode(display=False)

    def start(self) -> None:
        """Starts the measurement; compiling and counting came before."""
        self.last, self.since = time.perf_counter(), self.steps

    def add(self, scalars: dict[str, torch.Tensor]) -> None:
        """Scalars of a step, each 0-dimensional and on the device; a step may have more of them than another."""
        self.steps += 1
        for name, value in scalars.items():
            total, count = self.sums.get(name, (0.0, 0))
            self.sums[name] = (total + value.detach(), count + 1)

    def due(self) -> bool:
        return time.perf_counter() - self.last >= EVERY

    def fetch(self) -> None:
        """Starts the copy of the scalars' means since the last call to the host."""
        names = list(self.sums)
        means = torch.stack([total / count for total, count in self.sums.values()]).float()
        self.sums = {}
        if self.device.type != "cuda":
            self.pending = names, means, None
            return
        host = torch.empty(len(names), pin_memory=True).copy_(means, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self.pending = names, host, event

    def write_line(self, left: float) -> None:
        """A line with the scalars fetched last, if they have arrived; `left`: seconds that remain."""
        now = time.perf_counter()
        rate = (self.steps - self.since) / max(now - self.last, 1e-9)
        self.last, self.since = now, self.steps
        means = ""
        if self.pending is not None and (self.pending[2] is None or self.pending[2].query()):
            means = "  ".join(f"{name} {value:.4f}" for name, value in zip(self.pending[0], self.pending[1].tolist()))
            self.pending = None
        speed = self.flops * rate
        fast = (
            f"{rate * self.items:.0f} {self.unit}/s  {speed / 1e12:.1f} TFLOP/s ({100 * speed / self.best:.0f} %)  " if rate else ""
        )
        log.info("%s: step %d  %s  %s%s  %s left", self.name, self.steps, means, fast, memory(self.device), clock(max(left, 0)))
