"""Combinations of steps, solver and caching, each a trade of likeness for time: `python -m benchmarks quality` measures them."""

from dataclasses import dataclass

from .diffusion.sampling import Solver
from .dit.cache import Caching


@dataclass(frozen=True)
class Speed:
    """How a clip is denoised."""

    steps: int
    solver: Solver = "ddim"
    caching: Caching = Caching()


# Beside "exact", which computes every step of whatever number and solver one chooses.
PRESETS = {
    "balanced": Speed(10, "dpmpp_2m"),
    "fast": Speed(8, "dpmpp_2m", Caching(control_every=2)),
}
