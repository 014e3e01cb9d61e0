"""Render: the diffusion transformer denoises every clip of a portrait's motion (Figure 2)."""

import torch
from torch import Tensor

from ..diffusion.guidance import guided
from ..diffusion.sampling import Denoise, Solver, cpu_noise, sample_clip
from ..diffusion.schedule import Schedule
from ..dit.cache import Caching, with_cache
from ..dit.embed import ClipShape
from ..dit.model import RealPortraitDiT
from ..errors import InputError
from ..speed import default_sampling
from .clips import Clip, denoise_clips, plan
from .extraction import device_of
from .keypoints import Progress
from .mapping import PortraitMotion, motion_input


def render(
    dit: RealPortraitDiT,
    schedule: Schedule,
    z_r: Tensor,
    motion: PortraitMotion,
    steps: int | None = None,
    seed: int = 0,
    strength: float = 1.0,
    callback: Progress | None = None,
    solver: Solver | None = None,
    caching: Caching = Caching(),
    guidance: float = 1.0,
    known: Tensor | None = None,
) -> Tensor:
    """Latents (L, 4, h, w) of every driving frame, clip after clip; z_r (1, 4, h, w): the framed portrait's.

    Clip i draws its noise with seed + i. The network runs in its own dtype, the samples are float32. strength: factor on the
    motion control. guidance: classifier-free, from the portrait without motion to the portrait with it; 1 is off, above 1
    each step runs the network twice. callback(done, total) counts steps over all clips.
    known (n, 4, h, w): latents of the first n frames, where the motion is one clip that continues another.
    steps and solver: by default as the weights were trained for, the paper's 50 of IDDPM for epsilon weights.
    Raises InputError for steps or a solver that distilled weights do not have.
    """
    cfg, device, dtype = dit.cfg, device_of(dit), dit.x_embedder.proj.weight.dtype
    usual = default_sampling(cfg)
    steps, solver = usual.steps if steps is None else steps, solver or usual.solver
    if cfg.distilled_steps and (steps, solver) != (usual.steps, usual.solver):
        raise InputError(
            f"These weights are distilled for {usual.steps} steps of {usual.solver}; {steps} of {solver} were asked for."
        )
    shape = ClipShape(motion.maps.height, motion.maps.width, cfg.clip_frames, cfg.fps)
    portrait_maps = motion.portrait_maps.to(device, dtype) if cfg.reference_motion else None
    reference = dit.encode_reference(z_r.to(device, dtype), shape, portrait_maps)  # K_r, V_r of every block
    clips = plan(len(motion.maps), cfg.clip_frames)

    def denoise_clip(clip: Clip, before: Tensor | None) -> Tensor:
        control = dit.encode_motion(motion_input(cfg, motion, clip.frames).to(device, dtype), reference)  # (L, S, C)
        draw = cpu_noise(clip.noise_seed(seed))
        noise = draw(torch.empty(clip.length, *z_r.shape[1:], device=device))  # (L, 4, h, w)

        def denoiser(control: Tensor | None) -> Denoise:
            predict = with_cache(dit, caching)

            def denoise(z: Tensor, t: Tensor, conditional: Tensor) -> Tensor:
                return predict(z[None].to(dtype), t[None], shape, reference, control, conditional[None], strength)[0]

            return denoise

        def count(step: int) -> None:
            if callback is not None:
                callback(clip.number * steps + step + 1, len(clips) * steps)

        given = known if clip.number == 0 else before
        denoise = guided(denoiser(control), denoiser(None), guidance)
        return sample_clip(denoise, noise, schedule, steps, cfg.prediction, given, count, solver, draw).cpu()

    return denoise_clips(clips, denoise_clip)
