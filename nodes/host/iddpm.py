"""The paper's noise levels and ancestral step as the host's SIGMAS and SAMPLER.

The host's noise level is sigma = sqrt(1 / abar - 1), and its latents are scaled by sqrt(1 + sigma^2): x = x_t / sqrt(abar_t).
"""

import comfy.samplers
import torch
from torch import Tensor
from tqdm.auto import trange

from ...realportrait_core.diffusion.sampling import ancestral_step, cpu_noise
from ...realportrait_core.diffusion.schedule import Schedule, schedule_from_alphas, space_timesteps
from ...realportrait_core.errors import InputError
from .model import LearnedVariance, config_of

IDDPM = "iddpm"  # beside the names of the host's samplers


def respaced_sigmas(model_sampling, steps: int) -> Tensor:
    """The noise levels (steps + 1,) of IDDPM with `steps` steps, from the model's own table, and 0."""
    sigmas = model_sampling.sigmas[space_timesteps(steps, len(model_sampling.sigmas))].cpu()
    return torch.cat([sigmas.flip(0), sigmas.new_zeros(1)])


def schedule_from_sigmas(sigmas: Tensor) -> Schedule:
    """The schedule of falling noise levels sigmas (T,), without a last 0; its timesteps are mere indices: the host sets t.

    Raises InputError where a level is not below the one before.
    """
    if not (sigmas.diff() < 0).all():
        levels = ", ".join(f"{level:.4g}" for level in sigmas.tolist())
        raise InputError(
            f"The SIGMAS are {levels}: RealPortrait IDDPM Sampler goes from noise to picture, so each must be below the one "
            "before. Take away Flip Sigmas, or connect RealPortrait IDDPM Sigmas."
        )
    abar = 1 / (1 + sigmas[sigmas > 0].cpu().double().flip(0) ** 2)
    return schedule_from_alphas(abar, torch.arange(len(abar)))


def sample_iddpm(model, x: Tensor, sigmas: Tensor, extra_args: dict, callback=None, disable=None) -> Tensor:
    """IDDPM's ancestral sampling (Nichol, Dhariwal 2021) of x (L, 4, h, w), with the learned variance where there is one.

    The noise continues the seed's stream on the CPU after the clip's first noise, which the host draws from it. Sampling ends at
    the last of sigmas (T,), with noise left where that is not 0. A step that a cache node skips uses the last variance.
    """
    config_of(model.inner_model.model_patcher)
    schedule = schedule_from_sigmas(sigmas)
    scale = (1 + sigmas.cpu().double() ** 2).sqrt().tolist()
    draw = cpu_noise(extra_args["seed"] or 0)
    draw(x)
    learned = LearnedVariance()
    options = extra_args["model_options"]
    options = {**options, "transformer_options": {**options["transformer_options"], "rp_variance": learned}}
    for i in trange(len(sigmas) - 1, disable=disable):
        x_0 = model(x, sigmas[i].repeat(len(x)), **{**extra_args, "model_options": options})
        if callback is not None:
            callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": x_0})
        t = torch.full((len(x),), len(schedule) - 1 - i, device=x.device)
        variance = None if learned.value is None else learned.value.to(x)
        x = ancestral_step(schedule, x / scale[i], t, x_0, variance, draw(x)) * scale[i + 1]
    return x


def sampler_and_sigmas(model, sampler_name: str, scheduler: str, steps: int) -> tuple[comfy.samplers.KSAMPLER, Tensor]:
    """SAMPLER and SIGMAS (steps + 1,) as the stock KSampler has them; IDDPM is one more sampler_name, with its own noise levels."""
    if sampler_name == IDDPM:
        sigmas = respaced_sigmas(model.get_model_object("model_sampling"), steps)
        return comfy.samplers.KSAMPLER(sample_iddpm), sigmas
    stock = comfy.samplers.KSampler(model, steps, model.load_device, sampler_name, scheduler, model_options=model.model_options)
    return comfy.samplers.sampler_object(sampler_name), stock.sigmas
