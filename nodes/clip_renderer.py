"""What animates one clip of a long video in the host: its sampler and VAE."""

from dataclasses import dataclass
from typing import Any

import torch

from ..realportrait_core.animation.clips import Clip
from ..realportrait_core.animation.mapping import PortraitMotion, frame_portrait, motion_maps
from ..realportrait_core.animation.retargeting import DrivenKeypoints
from ..realportrait_core.dit.cache import Caching
from ..realportrait_core.long.fingerprint import portrait_fingerprint, weights_fingerprint
from ..realportrait_core.long.renderers import RenderedClip
from ..realportrait_core.paste import paste
from .animate import FEATHER, SQUARE, WHOLE
from .host import fingerprint, images
from .host.conditioning import encode_portrait
from .host.memory import SamplingMemory
from .host.model import config_of
from .host.run import loaded
from .motion import FRAME_CROPS
from .sample import Sampling, StepsBar, sample_clip


@dataclass(frozen=True)
class HostRenderer:
    """RealPortrait by the host's sampler and VAE: what RealPortrait Sampler, VAE Decode and Paste Animation Back do, for one clip.

    A ClipRenderer of the core. Made by `host_renderer`.
    """

    model: Any  # MODEL
    vae: Any  # VAE
    vid2vid: Any  # VID2VID, which the next clip's maps need
    portrait: torch.Tensor  # (1, H, W, 3)
    portrait_square: torch.Tensor  # (1, S, S, 3)
    portrait_latent: torch.Tensor  # (1, 4, h, w)
    used: Sampling
    seed: int
    strength: float
    guidance: float
    framing: str
    whole: bool  # the square pasted into the portrait; else the square alone
    fingerprints: dict[str, str]
    bar: StepsBar
    memory: SamplingMemory

    continues = True

    @property
    def clip_frames(self) -> int:
        return config_of(self.model).clip_frames

    @property
    def size(self) -> int:
        return self.portrait_square.shape[1]

    @property
    def settings(self) -> dict[str, str]:
        caching = self.used.caching
        return {
            "renderer": "RealPortrait in ComfyUI",
            "size": f"{self.size}",
            "clip_frames": f"{self.clip_frames}",
            "steps": f"{self.used.steps}",
            "sampler": f"{self.used.sampler_name}/{self.used.scheduler}",
            "step_caching": "none" if caching == Caching() else repr(caching),
            "guidance": f"{self.guidance:g}",
            "strength": f"{self.strength:g}",
            "framing": self.framing,
            "result": WHOLE if self.whole else SQUARE,
        }

    def __call__(self, clip: Clip, motion: PortraitMotion, known: torch.Tensor | None) -> RenderedClip:
        z = sample_clip(
            self.model,
            self.portrait_latent,
            motion.maps[clip.positions],
            motion.portrait_maps,
            clip,
            known,
            self.used,
            seed=clip.noise_seed(self.seed),
            strength=self.strength,
            guidance=self.guidance,
            after_step=self.bar.of_clip(clip),
            memory=self.memory,
        )[: clip.stop - clip.start]  # (n, 4, h, w)
        square = images.rgb(self.vae.decode(z), "frames").cpu()  # (n, S, S, 3)
        frames = square
        if self.whole:
            frames, _ = paste(self.portrait, square, motion.portrait_to_frame, self.size, FEATHER / 100)
        loaded(self.vid2vid)  # where memory is short, model and VAE have put it off the device
        return RenderedClip(frames, square, z.cpu())


def host_renderer(
    model, vae, vid2vid, portrait, driven: DrivenKeypoints, used: Sampling, seed, strength, guidance, framing, whole, overlap
) -> HostRenderer:
    """Raises InputError where portrait, keypoints, VAE and model do not fit together."""
    network = loaded(vid2vid)
    motion = motion_maps(network, driven[:1], FRAME_CROPS * network.cfg.crop_size, framing)
    return HostRenderer(
        model,
        vae,
        vid2vid,
        portrait,
        frame_portrait(portrait, motion),
        encode_portrait(vae, portrait, motion),
        used,
        seed,
        strength,
        guidance,
        framing,
        whole,
        {
            "portrait": portrait_fingerprint(portrait, driven.keypoints.portrait_points),
            "transformer": fingerprint.of_model(model),
            "vid2vid": weights_fingerprint(network),
            "vae": fingerprint.of_vae(vae),
        },
        StepsBar(model, used.steps, len(driven), overlap),
        SamplingMemory(model),
    )
