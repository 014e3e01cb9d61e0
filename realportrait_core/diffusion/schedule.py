"""DDPM's forward process (Ho, Jain, Abbeel 2020) on IDDPM's tables (Nichol, Dhariwal 2021): linear betas, 1000 steps."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError


@dataclass(frozen=True)
class Schedule:
    """Tables (T,) over the timesteps, float64, on the CPU unless moved: q(x_t | x_0) = N(sqrt(abar_t) x_0, 1 - abar_t)."""

    betas: Tensor
    timesteps: Tensor  # (T,) int64: the network's input t at each of them

    @property
    def alphas_cumprod(self) -> Tensor:
        """abar_t."""
        return (1 - self.betas).cumprod(0)

    @property
    def alphas_cumprod_prev(self) -> Tensor:
        """abar_{t-1}, 1 before the first."""
        return torch.cat([self.betas.new_ones(1), self.alphas_cumprod[:-1]])

    @property
    def posterior_variance(self) -> Tensor:
        """beta~_t, the variance of q(x_{t-1} | x_t, x_0)."""
        return self.betas * (1 - self.alphas_cumprod_prev) / (1 - self.alphas_cumprod)

    @property
    def posterior_log_variance(self) -> Tensor:
        """log beta~_t; that of the first step, where beta~ is 0, is taken from the second."""
        variance = self.posterior_variance
        return torch.cat([variance[1:2], variance[1:]]).log() if len(variance) > 1 else self.betas.log()

    def __len__(self) -> int:
        return len(self.betas)

    def to(self, device: torch.device) -> "Schedule":
        """With its tables on a device that has float64, where frequent look-ups need no copy from the CPU."""
        return Schedule(self.betas.to(device), self.timesteps.to(device))

    def respaced(self, steps: int) -> "Schedule":
        """IDDPM's respacing: only `steps` of the timesteps, evenly spaced from the first to the last."""
        chosen = space_timesteps(steps, len(self))
        return schedule_from_alphas(self.alphas_cumprod[chosen], self.timesteps[chosen])

    def trailing(self, steps: int) -> "Schedule":
        """As `respaced`, with trailing spacing (Lin et al. 2024): the lowest timestep is one interval above t = 0."""
        if not 1 <= steps < len(self):
            raise InputError(f"{steps} sampling steps; there must be 1 to {len(self) - 1}.")
        chosen = space_timesteps(steps + 1, len(self))[1:]
        return schedule_from_alphas(self.alphas_cumprod[chosen], self.timesteps[chosen])


def linear_schedule(steps: int = 1000, start: float = 1e-4, end: float = 0.02) -> Schedule:
    """beta_t linear in t, as DDPM, PixArt and Open-Sora 1.1."""
    return Schedule(torch.linspace(start, end, steps, dtype=torch.float64), torch.arange(steps))


def schedule_from_alphas(abar: Tensor, timesteps: Tensor) -> Schedule:
    """The schedule with these abar (T,), falling, float64; timesteps (T,) int64 are the network's inputs at them."""
    before = torch.cat([abar.new_ones(1), abar[:-1]])
    return Schedule(1 - abar / before, timesteps)


def space_timesteps(steps: int, total: int = 1000) -> Tensor:
    """round(i (total - 1) / (steps - 1)) for i < steps, int64; a single step is the last, the one of pure noise.

    Raises InputError for less than 1 or more than `total` steps.
    """
    if not 1 <= steps <= total:
        raise InputError(f"{steps} sampling steps; there must be 1 to {total}.")
    if steps == 1:
        return torch.tensor([total - 1])
    return torch.tensor([round(i * (total - 1) / (steps - 1)) for i in range(steps)])


def gather(table: Tensor, t: Tensor, like: Tensor) -> Tensor:
    """table[t] for t (...) int, shaped to multiply `like` (..., c, h, w), in its dtype and on its device."""
    values = table.to(like.dtype).to(t.device)[t].to(like.device)
    return values.reshape(*values.shape, *(1,) * (like.ndim - values.ndim))


def q_sample(schedule: Schedule, x_0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise; t (B, L) or (L,) int, x_0 (B, L, 4, h, w) or (L, 4, h, w)."""
    abar = schedule.alphas_cumprod
    return gather(abar.sqrt(), t, x_0) * x_0 + gather((1 - abar).sqrt(), t, x_0) * noise


def target(schedule: Schedule, x_0: Tensor, t: Tensor, noise: Tensor, prediction: str) -> Tensor:
    """The regression target: epsilon, or v = sqrt(abar) epsilon - sqrt(1 - abar) x_0 (Salimans, Ho 2022)."""
    if prediction == "epsilon":
        return noise
    abar = schedule.alphas_cumprod
    return gather(abar.sqrt(), t, x_0) * noise - gather((1 - abar).sqrt(), t, x_0) * x_0


def to_x0(schedule: Schedule, x_t: Tensor, t: Tensor, out: Tensor, prediction: str) -> Tensor:
    """x_0 from x_t and a prediction `out` of its shape."""
    abar = schedule.alphas_cumprod
    if prediction == "epsilon":
        return gather(abar.rsqrt(), t, x_t) * x_t - gather((1 / abar - 1).sqrt(), t, x_t) * out
    return gather(abar.sqrt(), t, x_t) * x_t - gather((1 - abar).sqrt(), t, x_t) * out


def to_epsilon(schedule: Schedule, x_t: Tensor, t: Tensor, x_0: Tensor) -> Tensor:
    """epsilon from x_t and x_0."""
    abar = schedule.alphas_cumprod
    return (gather(abar.rsqrt(), t, x_t) * x_t - x_0) / gather((1 / abar - 1).sqrt(), t, x_t)


def posterior_mean(schedule: Schedule, x_t: Tensor, t: Tensor, x_0: Tensor) -> Tensor:
    """Mean of q(x_{t-1} | x_t, x_0)."""
    abar, before = schedule.alphas_cumprod, schedule.alphas_cumprod_prev
    of_x0 = schedule.betas * before.sqrt() / (1 - abar)
    of_xt = (1 - before) * (1 - schedule.betas).sqrt() / (1 - abar)
    return gather(of_x0, t, x_t) * x_0 + gather(of_xt, t, x_t) * x_t


def learned_log_variance(schedule: Schedule, t: Tensor, out: Tensor) -> Tensor:
    """IDDPM's learned variance (Eq. 15): `out` in -1 .. 1 interpolates from log beta~_t to log beta_t."""
    low, high = gather(schedule.posterior_log_variance, t, out), gather(schedule.betas.log(), t, out)
    return torch.lerp(low, high, (out + 1) / 2)
