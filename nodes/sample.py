"""The whole animation in one node, or one clip's conditioning for the host's samplers."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import comfy.sample
import comfy.samplers
import comfy.utils
import torch
from comfy_api.latest import io, ui

from ..realportrait_core.animation.clips import Clip, denoise_clips, plan
from ..realportrait_core.animation.mapping import PortraitMotion
from ..realportrait_core.config import DiTConfig
from ..realportrait_core.diffusion.guidance import check_guidance
from ..realportrait_core.diffusion.nonfinite import sample_finite
from ..realportrait_core.dit.cache import Caching
from ..realportrait_core.motion_map import MotionMaps
from ..realportrait_core.speed import GUIDANCE, NAMES, PAPER_STEPS, STEPS, default_sampling, preset
from .host.conditioning import conditioning, continued_latent, encode_portrait, new_latent, part
from .host.iddpm import IDDPM, sampler_and_sigmas
from .host.memory import SamplingMemory
from .host.model import config_of
from .host.newer import advanced, aliases
from .host.precision import compute_dtype, in_dtype
from .host.run import Progress, finite, one_of, preview_of_middle
from .sockets import Motion

log = logging.getLogger(__name__)

TIMED = 2  # steps after which the rest is estimated; the first also reads portrait and maps
PORTRAIT_TIP = "Not needed: the motion holds its portrait. A picture connected here is used instead, and must have the same size."
VAE_TIP = "A VAE of Stable Diffusion 1.5, or realportrait_mini_vae that comes with the pack."
STRENGTH_TIP = "How strongly the motion steers the picture. 1 is what the model was trained with; 0 switches the motion off."
REFINE = "refine"  # a scheduler of the pack's own that older workflows name: its pictures were a blur
# The core's solvers as sampler and scheduler: the host's, and the pack's own for the paper's.
SOLVERS = {
    "ddim": ("euler", "normal"),
    "ddim_trailing": ("euler", "sgm_uniform"),
    "dpmpp_2m": ("dpmpp_2m", "sgm_uniform"),
    "ancestral": (IDDPM, IDDPM),
}
DISTILLED_SCHEDULER = SOLVERS["ddim_trailing"][1]
BUNDLED_STEPS = 4  # of the weights that come with the pack, which are distilled


@dataclass(frozen=True)
class Sampling:
    """What a run samples with; why: a sentence about the widgets that are not used, if there are any."""

    steps: int
    sampler_name: str
    scheduler: str
    caching: Caching = Caching()
    why: str = ""

    def report(self) -> str:
        return f"{self.steps} steps of {self.sampler_name} with {self.scheduler}. {self.why}".rstrip()


def sampling(cfg: DiTConfig, speed: str, steps: int, sampler_name: str, scheduler: str) -> Sampling:
    """What the widgets come to: speed and steps 0 overrule the others, and distilled weights take no steps but their own.

    Raises InputError where speed does not fit the weights.
    """
    if speed != "exact":
        chosen, why = preset(speed, cfg), f"Speed {speed!r} sets these itself: steps, sampler_name and scheduler are not used."
    elif steps == 0:
        chosen, why = (default_sampling(cfg), "Steps 0 is what the weights were trained for: sampler_name, scheduler are not used.")
    elif cfg.distilled_steps and (steps, scheduler) != (cfg.distilled_steps, DISTILLED_SCHEDULER):
        why = (
            f"These weights are distilled for {cfg.distilled_steps} steps with {DISTILLED_SCHEDULER!r}: these are taken instead of "
            f"{steps} with {scheduler!r}."
        )
        log.warning("%s", why)
        return Sampling(cfg.distilled_steps, sampler_name, DISTILLED_SCHEDULER, why=why)
    else:
        return Sampling(steps, sampler_name, scheduler)
    return Sampling(chosen.steps, *SOLVERS[chosen.solver], chosen.caching, why)


def checked_sampling(model, speed: str, steps: int, sampler_name: str, scheduler: str, guidance: float) -> Sampling:
    """What the widgets come to. Raises InputError for a word that is on no menu."""
    check_guidance(guidance)
    one_of(NAMES, speed, "speed")
    one_of(comfy.samplers.KSampler.SAMPLERS, sampler_name, "sampler_name")
    one_of(comfy.samplers.KSampler.SCHEDULERS, scheduler, "scheduler")
    return sampling(config_of(model), speed, steps, sampler_name, scheduler)


def sample_clip(
    model,
    reference: torch.Tensor,
    maps: MotionMaps,
    portrait_maps: MotionMaps,
    clip: Clip,
    known: torch.Tensor | None,
    used: Sampling,
    *,
    seed: int,
    strength: float,
    guidance: float,
    after_step: Callable[[int, torch.Tensor, torch.Tensor, int], None],
    memory: SamplingMemory | None = None,
) -> torch.Tensor:
    """Latents (L, 4, h, w) of a clip with L maps, by the host's sampler.

    known (n, 4, h, w): the latents of the conditional frames, which are kept. seed: of this clip's noise. after_step(step, x0, x,
    steps): the host's callback, which may end in its interrupt. memory: of a run of several clips. A clip that becomes NaN or
    infinite is sampled once more in a wider dtype, one that does not fit into memory with fewer weights on the device; the next
    clip begins in the MODEL's own dtype again. Raises NonFiniteError and InsufficientMemory.
    """
    memory = memory or SamplingMemory(model)
    latent = {"samples": new_latent(maps)} if known is None else continued_latent(maps, known, clip.overlap)
    positive, negative = conditioning(reference, maps, portrait_maps, strength, used.caching, memory.sparing)

    def sample_with(model) -> torch.Tensor:
        sampler, sigmas = sampler_and_sigmas(model, used.sampler_name, used.scheduler, used.steps)
        return comfy.sample.sample_custom(
            model,
            comfy.sample.prepare_noise(latent["samples"], seed),
            guidance,
            sampler,
            sigmas,
            positive,
            negative,
            latent["samples"],
            noise_mask=latent.get("noise_mask"),
            callback=after_step,
            disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
            seed=seed,
        )

    samples = sample_finite(
        lambda dtype: memory.sample(in_dtype(model, dtype), sample_with),
        compute_dtype(model),
        f"Frames {clip.start} to {clip.stop - 1}",
    )
    return samples.to(latent["samples"])


def sample_clips(
    model, reference: torch.Tensor, motion: PortraitMotion, used: Sampling, *, seed: int, strength: float, guidance: float
) -> torch.Tensor:
    """Latents (frames, 4, h, w) of every driving frame: the core's loop over clips around the host's sampler.

    Clip i is sampled with seed + i. Each step moves the bar and shows a preview, and may end in the host's interrupt.
    Raises NonFiniteError and InsufficientMemory as `sample_clip` does.
    """
    clips, memory = plan(len(motion.maps), config_of(model).clip_frames), SamplingMemory(model)
    bar = StepsBar(model, used.steps, len(motion.maps))

    def denoise_clip(clip: Clip, known: torch.Tensor | None) -> torch.Tensor:
        return sample_clip(
            model,
            reference,
            motion.maps[clip.frames],
            motion.portrait_maps,
            clip,
            known,
            used,
            seed=clip.noise_seed(seed),
            strength=strength,
            guidance=guidance,
            after_step=bar.of_clip(clip),
            memory=memory,
        )

    return denoise_clips(clips, denoise_clip)


class StepsBar:
    """The node's bar over the steps of all clips, with previews; the log says once how long the rest will take.

    A run that goes on with an earlier one's clips begins with a later clip than 0.
    """

    def __init__(self, model, steps: int, frames: int, overlap: int = 1):
        self.steps, self.frames, self.overlap = steps, frames, overlap
        self.progress, self.preview = Progress(steps), preview_of_middle(model)
        self.first, self.started = None, time.monotonic()

    def of_clip(self, clip: Clip) -> Callable[[int, torch.Tensor, torch.Tensor, int], None]:
        """The host's callback of a clip's sampling."""
        self.first = clip.number if self.first is None else self.first
        clips = clip.number + 1 + ceil((self.frames - clip.stop) / (clip.length - self.overlap))
        before, wanted = clip.number * self.steps, (clips - self.first) * self.steps
        self.progress.total = clips * self.steps

        def after_step(step: int, x0: torch.Tensor, x: torch.Tensor, total: int) -> None:
            self.progress.to(before + round((step + 1) * self.steps / total), self.preview(x0))
            if before + step + 1 - self.first * self.steps == TIMED < wanted:
                left = (time.monotonic() - self.started) / TIMED * (wanted - TIMED)
                log.info("%d frames in %d clips of %d steps: about %.0f s left.", self.frames, clips, self.steps, left)

        return after_step


class SampleClips(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="RealPortraitSampler",
            display_name="RealPortrait Sampler",
            category="RealPortrait",
            description="Denoises all driving frames in clips of 16; each clip starts with the last latent of the one before. "
            "Decode the result with VAE Decode.",
            inputs=[
                io.Model.Input("model", tooltip="From Load RealPortrait Model, with or without LoRAs and patches."),
                io.Vae.Input("vae", tooltip=VAE_TIP),
                io.Image.Input("portrait", optional=True, tooltip=PORTRAIT_TIP),
                Motion.Input("motion", tooltip="From Apply Motion to Portrait. It sets the number of frames."),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**64 - 1,
                    control_after_generate=True,
                    tooltip="The noise: the same seed gives the same frames. Clip i uses seed + i.",
                ),
                io.Int.Input(
                    "steps",
                    default=0,
                    min=0,
                    max=1000,
                    tooltip="Denoising steps of each clip. 0 samples as the weights were trained for, whatever sampler_name and "
                    f"scheduler are: {BUNDLED_STEPS} steps for the weights that come with the pack, which take no other number; "
                    f"the paper's {PAPER_STEPS} steps of IDDPM for weights that predict epsilon; {STEPS} steps of DDIM for others.",
                ),
                io.Combo.Input(
                    "sampler_name",
                    options=comfy.samplers.KSampler.SAMPLERS,
                    default="euler",
                    tooltip="'euler' is DDIM, the deterministic sampler; 'euler_ancestral' is nearest to the paper's IDDPM; "
                    "'dpmpp_2m' with 'sgm_uniform' often needs fewer steps.",
                    **advanced(),
                ),
                io.Combo.Input(
                    "scheduler",
                    options=comfy.samplers.KSampler.SCHEDULERS,
                    default=DISTILLED_SCHEDULER,
                    tooltip="Which noise levels the steps visit. 'sgm_uniform' is that of the weights that come with the pack; "
                    "'normal' spaces the timesteps evenly, as IDDPM does, for weights for any number of steps.",
                    **advanced(),
                ),
                io.Float.Input("strength", default=1.0, min=0.0, max=2.0, step=0.05, tooltip=STRENGTH_TIP),
                # Optional, so that workflows from before it was there still run.
                io.Combo.Input(
                    "speed",
                    options=list(NAMES),
                    default="exact",
                    optional=True,
                    tooltip="'exact' computes every step, with steps, sampler_name and scheduler as they are set. The others set "
                    "these themselves and take less time for less likeness: 'balanced' is 10 steps of 'dpmpp_2m' with "
                    "'sgm_uniform'; 'fast' is 8, with the ControlNet computed at every 2nd only; 'distilled' is for weights that "
                    "were made for few steps, such as those that come with the pack.",
                ),
                io.Float.Input(
                    "guidance",
                    default=1.0,
                    min=1.0,
                    max=10.0,
                    step=0.1,
                    round=0.01,
                    optional=True,
                    tooltip="Classifier-free guidance, the cfg of the stock samplers: how far to go from the portrait without "
                    "motion to the one with it. 1 is off, right for the weights that come with the pack. With weights for any "
                    f"number of steps {GUIDANCE:g} to 2 make eyes and mouth sharper and follow the driving video more closely, in "
                    "twice the time.",
                    **advanced(),
                ),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="One latent for each driving frame.")],
            **aliases(
                "live portrait",
                "liveportrait",
                "talking head",
                "face animation",
                "animate portrait",
                "reenactment",
                "lip sync",
                "video driven portrait",
            ),
        )

    @classmethod
    def validate_inputs(cls, scheduler):
        """In place of the host's own look at the menu, by which workflows that still name 'refine' would not run."""
        known = [*comfy.samplers.KSampler.SCHEDULERS, REFINE]
        return scheduler is None or scheduler in known or f"scheduler is {scheduler!r}; it must be one of: {', '.join(known[:-1])}."

    @classmethod
    def execute(
        cls, model, vae, motion, seed, steps, sampler_name, scheduler, strength, speed="exact", guidance=1.0, portrait=None
    ) -> io.NodeOutput:
        finite(strength=strength)
        if scheduler == REFINE:
            log.warning("The scheduler 'refine' is no longer offered, because it blurs: using 'normal'.")
            scheduler = "normal"
        used = checked_sampling(model, speed, steps, sampler_name, scheduler, guidance)
        log.info("Sampling %d frames in %s", len(motion.maps), used.report())
        reference = encode_portrait(vae, portrait, motion)
        samples = sample_clips(model, reference, motion, used, seed=seed, strength=strength, guidance=guidance)
        return io.NodeOutput({"samples": samples}, ui=ui.PreviewText(used.report()))


class Conditioning(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="RealPortraitConditioning",
            display_name="RealPortrait Conditioning",
            category="RealPortrait",
            description="One clip for a stock sampler: the portrait and the motion as CONDITIONING, and an empty LATENT of as "
            "many frames. Use cfg 1 with the weights that come with the pack. Continue Clip makes the clip after it.",
            inputs=[
                io.Vae.Input("vae", tooltip=VAE_TIP),
                io.Image.Input("portrait", optional=True, tooltip=PORTRAIT_TIP),
                Motion.Input("motion", tooltip="From Apply Motion to Portrait."),
                io.Int.Input("start_frame", default=0, min=0, max=10**6, tooltip="The driving frame at which the clip starts."),
                io.Int.Input(
                    "frames",
                    default=16,
                    min=1,
                    max=128,
                    tooltip="Frames of the clip, fewer where the motion ends. The model was trained with 16.",
                ),
                io.Float.Input("strength", default=1.0, min=0.0, max=2.0, step=0.05, tooltip=STRENGTH_TIP),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive", tooltip="The portrait with its motion."),
                io.Conditioning.Output(
                    display_name="negative",
                    tooltip="The portrait without motion, from which a cfg above 1 leads away. No CLIP prompt fits here.",
                ),
                io.Latent.Output(display_name="latent", tooltip="An empty latent with the clip's frames."),
            ],
            **aliases("face animation", "portrait to conditioning"),
        )

    @classmethod
    def execute(cls, vae, motion, start_frame, frames, strength, portrait=None) -> io.NodeOutput:
        finite(strength=strength)
        maps = part(motion.maps, start_frame, frames)
        reference = encode_portrait(vae, portrait, motion)
        positive, negative = conditioning(reference, maps, motion.portrait_maps, strength)
        return io.NodeOutput(positive, negative, {"samples": new_latent(maps)})
