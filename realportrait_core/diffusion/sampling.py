"""Samplers as functions over a denoiser; conditional frames go in clean and come out bit-identical."""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from ..errors import InputError
from .conditional import Known, keep, known_head
from .schedule import Schedule, at, learned_log_variance, posterior_mean, to_epsilon, to_x0

# (z (L, 4, h, w), t (L,) float, conditional (L,) bool) -> prediction (L, 4, h, w), or (L, 8, h, w) with the learned variance
Denoise = Callable[[Tensor, Tensor, Tensor], Tensor]
Draw = Callable[[Tensor], Tensor]  # noise like this
# x_t, t, prediction of x_0 and, where it is learned, of the variance -> x of the next timestep.
Step = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
Callback = Callable[[int], None]  # told the step that was just taken, from 0
Solver = Literal["ddim", "ddim_trailing", "dpmpp_2m", "ancestral"]


def cpu_noise(seed: int) -> Draw:
    """Noise from the CPU's generator, so that a seed means the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    return lambda like: torch.randn(like.shape, generator=generator).to(like)


def ddim_step(schedule: Schedule, x: Tensor, t: Tensor, x_0: Tensor, eta: float = 0.0, noise: Tensor | None = None) -> Tensor:
    """x_t -> x_{t-1}: Song, Meng, Ermon 2021, Eq. 12 and 16; t (L,) counts the schedule's own steps."""
    abar, before = at(schedule.alphas_cumprod, t, x), at(schedule.alphas_cumprod_prev, t, x)
    sigma = eta * ((1 - before) / (1 - abar)).sqrt() * (1 - abar / before).sqrt()
    mean = before.sqrt() * x_0 + (1 - before - sigma**2).sqrt() * to_epsilon(schedule, x, t, x_0)
    return mean if noise is None else mean + sigma * noise


def extrapolated(schedule: Schedule, x_0: Tensor, before: Tensor, t: Tensor) -> Tensor:
    """D of DPM-Solver++(2M) (Lu et al. 2022, Algorithm 2), from x_0 at t and `before`, x_0 a step earlier; t (L,).

    A line through both in half the log of the signal-to-noise ratio, read in the middle of the step to come. The last step
    has no such middle and stays with x_0.
    """
    abar = schedule.alphas_cumprod
    step = (abar / (1 - abar)).log().diff().neg()  # (T - 1,), down from t = 1 .. T - 1
    weight = torch.cat([step.new_zeros(1), step[:-1] / step[1:] / 2, step.new_zeros(1)])  # (T,)
    return torch.lerp(before, x_0, 1 + at(weight, t, x_0))


def ancestral_step(schedule: Schedule, x: Tensor, t: Tensor, x_0: Tensor, variance: Tensor | None, noise: Tensor) -> Tensor:
    """x_t -> x_{t-1} by the posterior (Ho et al. 2020, Eq. 6-7), with IDDPM's learned variance or beta~ for none."""
    log_variance = at(schedule.posterior_log_variance, t, x)
    if variance is not None:
        log_variance = learned_log_variance(schedule, t, variance)
    noisy = (t > 0).to(x)[:, None, None, None]  # the last step ends on the mean
    return posterior_mean(schedule, x, t, x_0) + noisy * torch.exp(0.5 * log_variance) * noise


def denoised(
    denoise: Denoise, schedule: Schedule, x: Tensor, t: Tensor, prediction: str, conditional: Tensor
) -> tuple[Tensor, Tensor | None]:
    """x_0 and the variance's interpolation, if the network gives one, from one call of it."""
    told = schedule.timesteps.to(x.device)[t].float().masked_fill(conditional, 0)
    out = denoise(x, told, conditional).to(x.dtype)
    out, variance = out.split(x.shape[1], dim=1) if out.shape[1] == 2 * x.shape[1] else (out, None)
    return to_x0(schedule, x, t, out, prediction), variance


def sample_ddim(
    denoise: Denoise,
    noise: Tensor,  # (L, 4, h, w)
    schedule: Schedule,  # respaced to the steps wanted
    prediction: str,  # "epsilon" or "v"
    eta: float = 0.0,  # 0: deterministic; 1: the noise of DDPM
    draw: Draw | None = None,  # needed for eta > 0
    known: Known | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """DDIM from pure noise to x_0 (L, 4, h, w)."""

    def step(x: Tensor, t: Tensor, x_0: Tensor, variance: Tensor | None) -> Tensor:
        return ddim_step(schedule, x, t, x_0, eta, draw(x) if eta else None)

    return run(step, denoise, noise, schedule, prediction, known, callback)


def sample_dpmpp_2m(
    denoise: Denoise,
    noise: Tensor,  # (L, 4, h, w)
    schedule: Schedule,  # respaced to the steps wanted
    prediction: str,  # "epsilon" or "v"
    known: Known | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """DPM-Solver++(2M), of second order, from pure noise to x_0 (L, 4, h, w): DDIM steps with an extrapolated x_0."""
    before: Tensor | None = None

    def step(x: Tensor, t: Tensor, x_0: Tensor, variance: Tensor | None) -> Tensor:
        nonlocal before
        ahead = x_0 if before is None else extrapolated(schedule, x_0, before, t)
        before = x_0
        return ddim_step(schedule, x, t, ahead)

    return run(step, denoise, noise, schedule, prediction, known, callback)


def sample_ancestral(
    denoise: Denoise,
    noise: Tensor,  # (L, 4, h, w)
    schedule: Schedule,  # respaced to the steps wanted
    prediction: str,  # "epsilon" or "v"
    draw: Draw,
    known: Known | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """IDDPM's own sampler, from pure noise to x_0 (L, 4, h, w); "50 steps" in the paper."""

    def step(x: Tensor, t: Tensor, x_0: Tensor, variance: Tensor | None) -> Tensor:
        return ancestral_step(schedule, x, t, x_0, variance, draw(x))

    return run(step, denoise, noise, schedule, prediction, known, callback)


def run(
    step: Step, denoise: Denoise, x: Tensor, schedule: Schedule, prediction: str, known: Known | None, callback: Callback | None
) -> Tensor:
    """What every sampler here does: denoise, step, put the known frames back, from the noisiest timestep down."""
    conditional = torch.zeros(len(x), dtype=torch.bool, device=x.device) if known is None else known.mask
    x = keep(known, x)
    for i, index in enumerate(reversed(range(len(schedule)))):
        t = torch.full((len(x),), index, device=x.device)
        x = keep(known, step(x, t, *denoised(denoise, schedule, x, t, prediction, conditional)))
        if callback is not None:
            callback(i)
    return x


def sample_clip(
    denoise: Denoise,
    noise: Tensor,
    schedule: Schedule,
    steps: int,
    prediction: str,
    known: Tensor | None = None,
    callback: Callback | None = None,
    solver: Solver = "ddim",
    draw: Draw | None = None,  # needed for "ancestral"
) -> Tensor:
    """One clip (L, 4, h, w) in `steps` of the full schedule; its first n frames are `known` (n, 4, h, w), if given."""
    head = None if known is None else known_head(known, noise)
    if solver == "ddim":
        return sample_ddim(denoise, noise, schedule.respaced(steps), prediction, known=head, callback=callback)
    if solver == "ddim_trailing":
        return sample_ddim(denoise, noise, schedule.trailing(steps), prediction, known=head, callback=callback)
    if solver == "dpmpp_2m":  # visiting t = 0 too would be a leap in the logarithm, and overshoot
        return sample_dpmpp_2m(denoise, noise, schedule.trailing(steps), prediction, head, callback)
    if solver == "ancestral":
        return sample_ancestral(denoise, noise, schedule.respaced(steps), prediction, draw, head, callback)
    raise InputError(f"The solver is {solver!r}; it must be one of: {', '.join(get_args(Solver))}.")
