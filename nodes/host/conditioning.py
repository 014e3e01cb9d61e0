"""A portrait and its motion as the inputs of samplers: CONDITIONING with keys of our own, and a LATENT of frames."""

import comfy.model_management
import torch

from ...realportrait_core.animation.mapping import PortraitMotion, frame_portrait, portrait_of
from ...realportrait_core.dit.cache import Caching
from ...realportrait_core.dit.sparing import Sparing
from ...realportrait_core.errors import InputError
from ...realportrait_core.motion_map import MotionMaps
from . import images

CHANNELS, DOWN = 4, 8  # of the SD1.5 latent


def encode_portrait(vae, portrait: torch.Tensor | None, motion: PortraitMotion) -> torch.Tensor:
    """The portrait, or else the motion's own, on the motion's frame as a latent (1, 4, h, w), not scaled.

    Raises InputError where neither is there, or for a VAE that does not fit.
    """
    latent = vae.encode(frame_portrait(images.portrait(portrait_of(motion) if portrait is None else portrait), motion))
    expected = (1, CHANNELS, motion.maps.height // DOWN, motion.maps.width // DOWN)
    if tuple(latent.shape) != expected:
        raise InputError(
            f"This VAE makes a latent {tuple(latent.shape)} of a {motion.maps.width}x{motion.maps.height} picture; RealPortrait "
            f"needs {expected}. Load a VAE of Stable Diffusion 1.5, or the one that comes with the pack."
        )
    if not torch.isfinite(latent).all():
        raise InputError("The VAE made NaN of the portrait. Start ComfyUI with --fp32-vae, or load another SD1.5 VAE.")
    return latent


def conditioning(
    reference: torch.Tensor,
    maps: MotionMaps,
    portrait_maps: MotionMaps,
    strength: float,
    caching: Caching = Caching(),
    sparing: Sparing | None = None,
) -> tuple[list, list]:
    """(positive, negative) for one clip. The negative has no motion; with cfg 1, as in the paper, it is not computed.

    sparing: of a run of several clips; by default each sampling has its own.
    """
    prompt = torch.zeros(1, 1, 8)  # unused; stock conditioning nodes expect a tensor
    shared = {
        "rp_reference": reference,
        "rp_motion": maps,
        "rp_portrait_motion": portrait_maps,
        "rp_caching": caching,
        "rp_sparing": sparing,
    }
    return [[prompt, {**shared, "rp_strength": strength}]], [[prompt, {**shared, "rp_strength": 0.0}]]


def part(maps: MotionMaps, start: int, frames: int) -> MotionMaps:
    """At most `frames` frames of a motion from frame `start` on. Raises InputError where there is none."""
    if start >= len(maps):
        raise InputError(
            f"The clip starts at frame {start} and the motion has {len(maps)} frames (0 to {len(maps) - 1}): nothing is left."
        )
    return maps[start : start + frames]


def new_latent(maps: MotionMaps) -> torch.Tensor:
    """Zeros (L, 4, h, w)."""
    device = comfy.model_management.intermediate_device()
    return torch.zeros(len(maps), CHANNELS, maps.height // DOWN, maps.width // DOWN, device=device)


def continued_latent(maps: MotionMaps, previous: torch.Tensor, overlap: int) -> dict:
    """A LATENT whose first `overlap` frames are the last of `previous`, with a noise_mask that keeps them.

    The latents are copied: decoding and encoding them would shift their colours a little with every clip. Raises InputError where
    `previous` or `overlap` does not fit the motion.
    """
    samples = new_latent(maps)
    if previous.ndim != 4 or previous.shape[1:] != samples.shape[1:]:
        raise InputError(
            f"The previous LATENT is {tuple(previous.shape)}; the motion needs frames of {tuple(samples.shape[1:])}. Connect "
            "the LATENT that RealPortrait sampled, not resized."
        )
    if not 0 < overlap <= len(previous):
        raise InputError(f"{overlap} frames cannot be taken over from a LATENT of {len(previous)}.")
    if overlap >= len(samples):
        raise InputError(
            f"All {len(samples)} frames of this clip are taken over from the previous one ({overlap}): nothing is left to "
            "animate. The motion ends here."
        )
    samples[:overlap] = previous[-overlap:]
    mask = torch.ones(len(samples), 1, *samples.shape[2:])
    mask[:overlap] = 0
    return {"samples": samples, "noise_mask": mask}
