"""Samplers as functions of a denoiser. Conditional frames stay clean at every step and are bit-identical in the result."""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from ..errors import InputError
from .conditional import Known, known_first_frames, restore_known
from .nonfinite import check_finite
from .schedule import Schedule, gather, learned_log_variance, posterior_mean, to_epsilon, to_x0

# (z (L, 4, h, w), t (L,) float, conditional (L,) bool) -> prediction (L, 4, h, w), or (L, 8, h, w) with the learned variance
Denoise = Callable[[Tensor, Tensor, Tensor], Tensor]
Draw = Callable[[Tensor], Tensor]  # noise of the shape, dtype and device of its argument
# x_t, t, the prediction of x_0 and, where it is learned, of the variance -> x at the next timestep
Step = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
Callback = Callable[[int], None]  # called with the number of the step that has just been taken, from 0
Solver = Literal["ddim", "ddim_trailing", "dpmpp_2m", "ancestral"]


def cpu_noise(seed: int) -> Draw:
    """Noise from the CPU's generator, so that a seed gives the same noise on every device."""
    generator = torch.Generator().manual_seed(seed)
    return lambda like: torch.randn(like.shape, generator=generator).to(like)


def ddim_step(schedule: Schedule, x: Tensor, t: Tensor, x_0: Tensor, eta: float = 0.0, noise: Tensor | None = None) -> Tensor:
    """x_t -> x_{t-1}: Song, Meng, Ermon 2021, Eq. 12 and 16; t (L,) are indices of the schedule."""
    abar, before = gather(schedule.alphas_cumprod, t, x), gather(schedule.alphas_cumprod_prev, t, x)
    sigma = eta * ((1 - before) / (1 - abar)).sqrt() * (1 - abar / before).sqrt()
    mean = before.sqrt() * x_0 + (1 - before - sigma**2).sqrt() * to_epsilon(schedule, x, t, x_0)
    return mean if noise is None else mean + sigma * noise


def extrapolate_x0(schedule: Schedule, x_0: Tensor, before: Tensor, t: Tensor) -> Tensor:
    """D of DPM-Solver++(2M) (Lu et al. 2022, Algorithm 2) from x_0 at t (L,) and `before`, x_0 at the step before it.

    Linear in lambda, half the log of the signal-to-noise ratio, and evaluated in the middle of the next step. The last step goes to
    lambda = infinity, has no middle, and takes x_0.
    """
    abar = schedule.alphas_cumprod
    step = (abar / (1 - abar)).log().diff().neg()  # (T - 1,), down from t = 1 .. T - 1
    weight = torch.cat([step.new_zeros(1), step[:-1] / step[1:] / 2, step.new_zeros(1)])  # (T,)
    return torch.lerp(before, x_0, 1 + gather(weight, t, x_0))


def ancestral_step(schedule: Schedule, x: Tensor, t: Tensor, x_0: Tensor, variance: Tensor | None, noise: Tensor) -> Tensor:
    """x_t -> x_{t-1} by the posterior (Ho et al. 2020, Eq. 6-7), with IDDPM's learned variance, or beta~ where it is None."""
    log_variance = gather(schedule.posterior_log_variance, t, x)
    if variance is not None:
        log_variance = learned_log_variance(schedule, t, variance)
    noisy = (t > 0).to(x)[:, None, None, None]  # the last step returns the mean
    return posterior_mean(schedule, x, t, x_0) + noisy * torch.exp(0.5 * log_variance) * noise


def predict_x0(
    denoise: Denoise, schedule: Schedule, x: Tensor, t: Tensor, prediction: str, conditional: Tensor
) -> tuple[Tensor, Tensor | None]:
    """One call of the network: x_0 and, where it is learned, the variance's interpolation."""
    timesteps = schedule.timesteps.to(x.device)[t].float().masked_fill(conditional, 0)
    out = denoise(x, timesteps, conditional).to(x.dtype)
    out, variance = out.split(x.shape[1], dim=1) if out.shape[1] == 2 * x.shape[1] else (out, None)
    return to_x0(schedule, x, t, out, prediction), variance


def sample_ddim(
    denoise: Denoise,
    noise: Tensor,  # (L, 4, h, w)
    schedule: Schedule,  # respaced to the number of steps
    prediction: str,  # "epsilon" or "v"
    eta: float = 0.0,  # 0: deterministic; 1: the noise of DDPM
    draw: Draw | None = None,  # needed for eta > 0
    known: Known | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """DDIM from pure noise to x_0 (L, 4, h, w)."""

    def step(x: Tensor, t: Tensor, x_0: Tensor, variance: Tensor | None) -> Tensor:
        return ddim_step(schedule, x, t, x_0, eta, draw(x) if eta else None)

    return sample(step, denoise, noise, schedule, prediction, known, callback)


def sample_dpmpp_2m(
    denoise: Denoise,
    noise: Tensor,  # (L, 4, h, w)
    schedule: Schedule,  # respaced to the number of steps
    prediction: str,  # "epsilon" or "v"
    known: Known | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """DPM-Solver++(2M), of second order, from pure noise to x_0 (L, 4, h, w): DDIM steps with an extrapolated x_0."""
    before: Tensor | None = None

    def step(x: Tensor, t: Tensor, x_0: Tensor, variance: Tensor | None) -> Tensor:
        nonlocal before
        ahead = x_0 if before is None else extrapolate_x0(schedule, x_0, before, t)
        before = x_0
        return ddim_step(schedule, x, t, ahead)

    return sample(step, denoise, noise, schedule, prediction, known, callback)


def sample_ancestral(
    denoise: Denoise,
    noise: Tensor,  # (L, 4, h, w)
    schedule: Schedule,  # respaced to the number of steps
    prediction: str,  # "epsilon" or "v"
    draw: Draw,
    known: Known | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """IDDPM's ancestral sampling from pure noise to x_0 (L, 4, h, w), the paper's with 50 steps."""

    def step(x: Tensor, t: Tensor, x_0: Tensor, variance: Tensor | None) -> Tensor:
        return ancestral_step(schedule, x, t, x_0, variance, draw(x))

    return sample(step, denoise, noise, schedule, prediction, known, callback)


def sample(
    step: Step, denoise: Denoise, x: Tensor, schedule: Schedule, prediction: str, known: Known | None, callback: Callback | None
) -> Tensor:
    """The loop of every sampler: denoise, step, restore the known frames, from the noisiest timestep down.

    Raises NonFiniteError at the step that makes NaN or infinity.
    """
    conditional = torch.zeros(len(x), dtype=torch.bool, device=x.device) if known is None else known.mask
    x = restore_known(known, x)
    for i, index in enumerate(reversed(range(len(schedule)))):
        t = torch.full((len(x),), index, device=x.device)
        x = restore_known(known, step(x, t, *predict_x0(denoise, schedule, x, t, prediction, conditional)))
        check_finite(x, i + 1, len(schedule))
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
    frames = None if known is None else known_first_frames(known, noise)
    if solver == "ddim":
        return sample_ddim(denoise, noise, schedule.respaced(steps), prediction, known=frames, callback=callback)
    if solver == "ddim_trailing":
        return sample_ddim(denoise, noise, schedule.trailing(steps), prediction, known=frames, callback=callback)
    if solver == "dpmpp_2m":  # a step to t = 0 would be too long in lambda, and overshoot
        return sample_dpmpp_2m(denoise, noise, schedule.trailing(steps), prediction, frames, callback)
    if solver == "ancestral":
        return sample_ancestral(denoise, noise, schedule.respaced(steps), prediction, draw, frames, callback)
    raise InputError(f"The solver is {solver!r}; it must be one of: {', '.join(get_args(Solver))}.")
