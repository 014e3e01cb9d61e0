"""How a clip is denoised: by default as the weights were trained for, or in fewer steps for less likeness.

`python -m benchmarks quality` measures the presets.
"""

from dataclasses import dataclass

from .config import DiTConfig
from .diffusion.sampling import Solver
from .dit.cache import Caching
from .errors import InputError

PAPER_STEPS = 50  # "Our denoising process consists of 50 steps", of IDDPM; for weights that predict epsilon
STEPS = 10  # for weights that predict v
GUIDANCE = 1.5  # classifier-free guidance for weights that were trained with and without motion; 1 for none


@dataclass(frozen=True)
class Speed:
    """Steps, solver and step caching of a clip."""

    steps: int
    solver: Solver = "ddim"
    caching: Caching = Caching()


# Beside "exact", every step of any number and solver, and "distilled", whose number of steps belongs to the weights.
PRESETS = {"balanced": Speed(10, "dpmpp_2m"), "fast": Speed(8, "dpmpp_2m", Caching(control_every=2))}
NAMES = ("exact", *PRESETS, "distilled")


def default_sampling(cfg: DiTConfig, steps: int | None = None, solver: Solver | None = None) -> Speed:
    """Every step computed; steps and solver that are None are those the weights were trained for.

    Epsilon weights, the paper's: 50 steps of IDDPM with their learned variance, of DDIM without one. v weights: 10 steps of DDIM.
    Distilled weights: their own number of steps, whatever `steps` is, with trailing spacing.
    """
    if cfg.distilled_steps:
        usual, steps = Speed(cfg.distilled_steps, "ddim_trailing"), None
    elif cfg.prediction == "epsilon":
        usual = Speed(PAPER_STEPS, "ancestral" if cfg.learned_sigma else "ddim")
    else:
        usual = Speed(STEPS, "ddim")
    return Speed(usual.steps if steps is None else steps, solver or usual.solver)


def default_guidance(cfg: DiTConfig) -> float:
    """None (1) for epsilon weights, as in the paper, and for distilled weights, which were trained without."""
    return 1.0 if cfg.distilled_steps or cfg.prediction == "epsilon" else GUIDANCE


def preset(name: str, cfg: DiTConfig) -> Speed:
    """The preset of a name other than "exact". Raises InputError where weights and preset do not fit together."""
    if name == "distilled" and not cfg.distilled_steps:
        raise InputError("speed is 'distilled', and these weights are not: load distilled ones, or choose another speed.")
    if name != "distilled" and cfg.distilled_steps:
        raise InputError(
            f"These weights are distilled for {cfg.distilled_steps} steps, and speed {name!r} takes others: choose 'distilled'."
        )
    return default_sampling(cfg) if name == "distilled" else PRESETS[name]
