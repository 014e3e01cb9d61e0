"""Render: the diffusion transformer denoises every clip of a portrait's motion (Figure 2)."""

import copy
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from ..diffusion.guidance import guided
from ..diffusion.nonfinite import sample_finite
from ..diffusion.sampling import Callback, Denoise, Solver, cpu_noise, sample_clip
from ..diffusion.schedule import Schedule
from ..dit.cache import Caching, with_cache
from ..dit.embed import ClipShape
from ..dit.model import RealPortraitDiT, Reference
from ..dit.sparing import Sparing, encode_motion, sparing_attention
from ..errors import InputError
from ..memory import Ladder, halves, pieces
from ..motion_map import MotionMaps
from ..speed import default_sampling
from ..vae import VAE
from .clips import Clip, denoise_clips, plan
from .extraction import CHUNK, device_of
from .keypoints import Progress
from .mapping import PortraitMotion, motion_input

# (clip, its motion (L frames), latents (n, 4, h, w) of its conditional frames or None, called after each step) -> (L, 4, h, w)
SampleClip = Callable[[Clip, MotionMaps | Tensor, Tensor | None, Callback | None], Tensor]


def sampling_of(dit: RealPortraitDiT, steps: int | None, solver: Solver | None) -> tuple[int, Solver]:
    """Steps and solver, by default as the weights were trained for, the paper's 50 of IDDPM for epsilon weights.

    Raises InputError for steps or a solver that distilled weights do not have.
    """
    usual = default_sampling(dit.cfg)
    steps, solver = usual.steps if steps is None else steps, solver or usual.solver
    if dit.cfg.distilled_steps and (steps, solver) != (usual.steps, usual.solver):
        raise InputError(
            f"These weights are distilled for {usual.steps} steps of {usual.solver}; {steps} of {solver} were asked for."
        )
    return steps, solver


def clip_sampler(
    dit: RealPortraitDiT,
    schedule: Schedule,
    z_r: Tensor,
    portrait_maps: MotionMaps,
    steps: int | None = None,
    seed: int = 0,
    strength: float = 1.0,
    solver: Solver | None = None,
    caching: Caching = Caching(),
    guidance: float = 1.0,
) -> SampleClip:
    """What denoises the clips of one portrait, z_r (1, 4, h, w), one by one, from the noise of seed + the clip's number.

    portrait_maps: the portrait's own, of 1 frame. A clip that becomes NaN or infinite is sampled again, once, with the same noise
    and the network in a wider dtype; the next clip begins in the network's own again, so that no clip depends on how many were
    sampled before it. Arguments otherwise as in `render`. The result raises NonFiniteError and InsufficientMemory.
    """
    cfg, device, own = dit.cfg, device_of(dit), dit.x_embedder.proj.weight.dtype
    steps, solver = sampling_of(dit, steps, solver)
    shape = ClipShape(portrait_maps.height, portrait_maps.width, cfg.clip_frames, cfg.fps)
    sparing = Sparing(cfg.clip_frames)

    @cache
    def network_in(dtype: torch.dtype) -> tuple[RealPortraitDiT, Reference]:
        network = dit if dtype == own else copy.deepcopy(dit).to(dtype)
        maps = portrait_maps.to(device, dtype) if cfg.reference_motion else None
        with sparing_attention(network, sparing.attention):
            return network, network.encode_reference(z_r.to(device, dtype), shape, maps)  # K_r, V_r of every block

    def sample_in(
        dtype: torch.dtype, clip: Clip, motion: MotionMaps | Tensor, known: Tensor | None, callback: Callback | None
    ) -> Tensor:
        network, reference = network_in(dtype)
        draw = cpu_noise(clip.noise_seed(seed))
        noise = draw(torch.empty(clip.length, *z_r.shape[1:], device=device))  # (L, 4, h, w)

        def denoiser(control: Tensor | None) -> Denoise:
            predict = with_cache(network, caching)

            def denoise(z: Tensor, t: Tensor, conditional: Tensor) -> Tensor:
                return predict(z[None].to(dtype), t[None], shape, reference, control, conditional[None], strength)[0]

            return denoise

        with sparing_attention(network, sparing.attention):
            control = encode_motion(network, motion, reference, z_r.to(device, dtype), sparing.motion)  # (L, S, C)
            denoise = guided(denoiser(control), denoiser(None), guidance)
            return sample_clip(denoise, noise, schedule, steps, cfg.prediction, known, callback, solver, draw).cpu()

    def sample(clip: Clip, motion: MotionMaps | Tensor, known: Tensor | None, callback: Callback | None = None) -> Tensor:
        frames = f"Frames {clip.start} to {clip.stop - 1}"
        return sample_finite(lambda dtype: sample_in(dtype, clip, motion, known, callback), own, frames)

    return sample


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
) -> Tensor:
    """Latents (L, 4, h, w) of every driving frame, clip after clip; z_r (1, 4, h, w): the framed portrait's.

    Clip i draws its noise with seed + i. The network runs in its own dtype, the samples are float32. strength: factor on the
    motion control. guidance: classifier-free, from the portrait without motion to the portrait with it; 1 is off, above 1
    each step runs the network twice. callback(done, total) counts steps over all clips.
    steps and solver: by default as the weights were trained for, the paper's 50 of IDDPM for epsilon weights.
    Raises InputError for steps or a solver that distilled weights do not have, NonFiniteError and InsufficientMemory as
    `clip_sampler` does.
    """
    steps, solver = sampling_of(dit, steps, solver)
    sample = clip_sampler(dit, schedule, z_r, motion.portrait_maps, steps, seed, strength, solver, caching, guidance)
    clips = plan(len(motion.maps), dit.cfg.clip_frames)

    def denoise_clip(clip: Clip, known: Tensor | None) -> Tensor:
        def count(step: int) -> None:
            if callback is not None:
                callback(clip.number * steps + step + 1, len(clips) * steps)

        return sample(clip, motion_input(dit.cfg, motion, clip.frames), known, count)

    return denoise_clips(clips, denoise_clip)


def decoding_ladder() -> Ladder:
    return Ladder("VAE's decoding", halves(CHUNK))


def decode_frames(vae: VAE, latents: Tensor, ladder: Ladder | None = None) -> Tensor:
    """Pictures (L, 3, H, W) in [0, 1] on the CPU of latents (L, 4, h, w), as many at once as fit into memory.

    ladder: `decoding_ladder` of a run that decodes clip by clip. Raises InsufficientMemory.
    """
    device = device_of(vae)

    def decoded(part: slice) -> Tensor:
        return vae.decode(latents[part].to(device)).cpu()

    return torch.cat([frames for frames, _ in pieces(len(latents), ladder or decoding_ladder(), decoded)])
