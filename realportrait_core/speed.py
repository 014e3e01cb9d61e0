"""Combinations of steps, solver and caching, each a trade of likeness for time: `python -m benchmarks quality` measures them."""

from dataclasses import dataclass

from .config import DiTConfig
from .diffusion.sampling import Solver
from .dit.cache import Caching
from .errors import InputError

# Of weights that take any number of steps. Epsilon weights, as the paper's, were not trained to be led away from anything.
STEPS = 10
GUIDANCE = 1.5  # classifier-free guidance; 1 for none


@dataclass(frozen=True)
class Speed:
    """How a clip is denoised."""

    steps: int
    solver: Solver = "ddim"
    caching: Caching = Caching()


# Beside "exact", every step of whatever number and solver one chooses, and "distilled", whose number the weights fix.
PRESETS = {"balanced": Speed(10, "dpmpp_2m"), "fast": Speed(8, "dpmpp_2m", Caching(control_every=2))}
NAMES = ("exact", *PRESETS, "distilled")


def exact(cfg: DiTConfig, steps: int) -> Speed:
    """Every step computed: `steps` of the default solver; distilled weights have their own number and solver instead."""
    return Speed(cfg.distilled_steps, "ddim_trailing") if cfg.distilled_steps else Speed(steps)


def usual_guidance(cfg: DiTConfig) -> float:
    """What to use where nobody says: none for distilled weights, which learned without, and for epsilon weights."""
    return 1.0 if cfg.distilled_steps or cfg.prediction == "epsilon" else GUIDANCE


def preset(name: str, cfg: DiTConfig) -> Speed:
    """What a name other than "exact" means for these weights. InputError where the two do not fit."""
    if name == "distilled" and not cfg.distilled_steps:
        raise InputError("speed is 'distilled', and these weights are not: load distilled ones, or choose another speed.")
    if name != "distilled" and cfg.distilled_steps:
        raise InputError(
            f"These weights are distilled for {cfg.distilled_steps} steps, and speed {name!r} takes others: choose 'distilled'."
        )
    return PRESETS[name] if name in PRESETS else exact(cfg, 0)
