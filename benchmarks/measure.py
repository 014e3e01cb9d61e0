"""Time, memory and results of two ways to one result, side by side in one run."""

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from .parts import PARTS, Part
from .sizes import SIZES

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Comparison:
    """One row of the table."""

    part: str
    size: str
    literal_s: float  # median seconds a call, of the clock
    ours_s: float
    ratio: float  # median of the ratios of neighbouring calls
    ratios: tuple[float, ...]
    difference: float  # largest difference of the results / largest value
    faster: float  # the bar of `ratio`
    literal_bytes: int | None = None  # memory beside the inputs and weights, at its peak
    ours_bytes: int | None = None
    leaner: float | None = None  # the bar of literal_bytes / ours_bytes
    frames_per_second: float | None = None  # of ours, where a part's calls are counted in frames


def relative_difference(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).abs().max() / b.double().abs().max())


def seconds(call: Callable[[], object], device: str, clock: Callable[[], float] = time.perf_counter) -> float:
    """Of one call, all work of the device included."""
    wait_for(device)
    start = clock()
    call()
    wait_for(device)
    return clock() - start


def wait_for(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


@torch.inference_mode()
def compare(preset: str, name: str, device: str, repeats: int, clock: Callable[[], float] = time.perf_counter) -> Comparison:
    """In turns, so that a busy machine disturbs both alike; each call's ratio is that to its neighbour."""
    part = PARTS[name](SIZES[preset], device)
    difference = relative_difference(part.ours(), part.literal())  # and the first call prepares
    pairs = [(seconds(part.literal, device, clock), seconds(part.ours, device, clock)) for _ in range(repeats)]
    ratios = [literal / ours for literal, ours in pairs]
    literal, ours = (statistics.median(column) for column in zip(*pairs))
    memory = [None, None]
    if part.leaner is not None:
        memory = [peak_bytes(preset, name, side, device) for side in ("literal", "ours")]
    return Comparison(
        part.name,
        part.size,
        literal,
        ours,
        statistics.median(ratios),
        tuple(ratios),
        difference,
        part.faster,
        *memory,
        part.leaner,
        part.frames and part.frames / ours,
    )


def peak_bytes(preset: str, name: str, side: str, device: str) -> int:
    """Memory that one call takes beside its inputs and weights. On the CPU it is a process's own, of a fresh process."""
    command = [sys.executable, "-m", "benchmarks.measure", preset, name, side, device]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return int(done.stdout)


@torch.inference_mode()
def peak_of_call(part: Part, side: str, device: str) -> int:
    call = getattr(part, side)
    if device == "cuda":
        call()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - before
    before = resident_bytes()
    call()
    return max(0, peak_resident_bytes() - before)


def resident_bytes() -> int:
    """What the process holds now; its peak so far where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return peak_resident_bytes()


def peak_resident_bytes() -> int:
    """Linux counts it anew in every program; ru_maxrss there begins with that of the parent."""
    try:
        status = Path("/proc/self/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        pass
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    preset_, name_, side_, device_ = sys.argv[1:]
    sys.stdout.write(str(peak_of_call(PARTS[name_](SIZES[preset_], device_), side_, device_)))
