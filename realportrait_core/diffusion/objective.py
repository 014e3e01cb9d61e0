"""The training loss: the error of the prediction and, with a learned variance, IDDPM's variational bound."""

from math import log, pi, sqrt

import torch
from torch import Tensor

from .schedule import Schedule, gather, learned_log_variance, posterior_mean, q_sample, target, to_x0


def noise_clip(schedule: Schedule, x_0: Tensor, t: Tensor, noise: Tensor, conditional: Tensor | None = None) -> Tensor:
    """x_t (B, L, 4, h, w) for t (B, L) int; conditional frames (B, L) stay clean."""
    x_t = q_sample(schedule, x_0, t, noise)
    return x_t if conditional is None else torch.where(conditional[..., None, None, None], x_0, x_t)


def diffusion_loss(
    schedule: Schedule,
    out: Tensor,  # (B, L, 4 or 8, h, w) the network's prediction
    x_0: Tensor,  # (B, L, 4, h, w)
    x_t: Tensor,
    t: Tensor,  # (B, L) int
    noise: Tensor,
    prediction: str,  # "epsilon" or "v"
    conditional: Tensor | None = None,  # (B, L) bool: frames without loss
    weight: Tensor | None = None,  # (B, L, 1, h, w) weights of the mean over frames and places
) -> Tensor:
    """Loss of every clip (B,): L_simple, plus L_vlb if the variance is learned (Nichol, Dhariwal 2021, Eq. 16, as Open-Sora)."""
    out, *variance = out.split(x_0.shape[2], dim=2)
    error = (out - target(schedule, x_0, t, noise, prediction)) ** 2
    if variance:
        error = error + variational_bound(schedule, out.detach(), variance[0], x_0, x_t, t, prediction)
    return noised_mean(error if weight is None else error * weight, conditional)


def noised_mean(values: Tensor, conditional: Tensor | None) -> Tensor:
    """Mean of values (B, L, c, h, w) over the noised frames of each clip (B,)."""
    frames = values.flatten(2).mean(2)  # (B, L)
    if conditional is None:
        return frames.mean(1)
    return frames.masked_fill(conditional, 0).sum(1) / (~conditional).sum(1)


def variational_bound(
    schedule: Schedule, out: Tensor, variance: Tensor, x_0: Tensor, x_t: Tensor, t: Tensor, prediction: str
) -> Tensor:
    """L_{t-1} in bits per value: KL(true posterior || the network's), and at t = 0 the negative log-likelihood of x_0."""
    mean, log_variance = posterior_mean(schedule, x_t, t, x_0), gather(schedule.posterior_log_variance, t, x_0)
    predicted_mean = posterior_mean(schedule, x_t, t, to_x0(schedule, x_t, t, out, prediction))
    predicted_log_variance = learned_log_variance(schedule, t, variance)
    ratio = log_variance - predicted_log_variance
    kl = 0.5 * (ratio.exp() - 1 - ratio + (mean - predicted_mean) ** 2 * torch.exp(-predicted_log_variance))
    likelihood = discretized_log_likelihood(x_0, predicted_mean, 0.5 * predicted_log_variance)
    return torch.where((t == 0)[..., None, None, None], -likelihood, kl) / log(2)


def discretized_log_likelihood(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """log of a Gaussian's probability in x's bin of width 2/255 (Ho et al. 2020, Eq. 13); the outermost bins are open."""
    below_upper = normal_cdf((x - mean + 1 / 255) * torch.exp(-log_scale))
    below_lower = normal_cdf((x - mean - 1 / 255) * torch.exp(-log_scale))
    mass = torch.where(x < -0.999, below_upper, torch.where(x > 0.999, 1 - below_lower, below_upper - below_lower))
    return mass.clamp(min=1e-12).log()


def normal_cdf(z: Tensor) -> Tensor:
    """The tanh approximation that GELU also uses."""
    return 0.5 * (1 + torch.tanh(sqrt(2 / pi) * (z + 0.044715 * z**3)))
