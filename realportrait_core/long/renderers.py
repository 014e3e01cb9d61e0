"""What animates one clip of a long video: RealPortrait's transformer, or Face Vid2vid's own generator."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..animation.clips import Clip
from ..animation.extraction import device_of, dtype_of
from ..animation.keypoints import Progress
from ..animation.mapping import PortraitMotion, frame_portrait, motion_input, motion_maps
from ..animation.rendering import SampleClip, clip_sampler, decode_frames, decoding_ladder
from ..animation.retargeting import DrivenKeypoints
from ..animation.vid2vid_frames import (
    check_rendering,
    face_frames,
    generator_ladder,
    picture_size,
    portrait_frames,
    portrait_pictures,
)
from ..diffusion.schedule import Schedule
from ..dit.cache import Caching
from ..dit.model import RealPortraitDiT
from ..memory import Ladder
from ..paste import paste
from ..speed import Speed, default_guidance, default_sampling
from ..vae import VAE
from ..vid2vid import FaceVid2Vid
from .fingerprint import portrait_fingerprint, weights_fingerprint


@dataclass(frozen=True)
class RenderedClip:
    """The n frames of a clip, its conditional ones included; n is clip.stop - clip.start."""

    frames: Tensor  # (n, H, W, 3) in [0, 1] on the CPU, as they are written to the video
    square: Tensor | None = None  # (n, S, S, 3) the animated square, from which drift and tail are judged; None: they are not
    latents: Tensor | None = None  # (n, 4, h, w) on the CPU; None where clips do not continue one another


class ClipRenderer(Protocol):
    """Animates a clip. One run uses one renderer for all clips; every value but the call is constant."""

    @property
    def clip_frames(self) -> int: ...  # L

    @property
    def continues(self) -> bool: ...  # whether a clip starts from latents of the one before; else clips do not overlap

    @property
    def size(self) -> int: ...  # px, side of the square for which the motion maps are made

    @property
    def framing(self) -> str: ...  # of that square, as in animation.framing

    @property
    def portrait_square(self) -> Tensor | None: ...  # (1, S, S, 3) the portrait as `square` shows it

    @property
    def seed(self) -> int: ...  # clip i draws its noise with seed + i

    @property
    def fingerprints(self) -> dict[str, str]: ...  # "portrait", and every network's by its name

    @property
    def settings(self) -> dict[str, str]: ...  # all else that the frames depend on but the seed: size, steps, sampler, guidance ...

    def __call__(self, clip: Clip, motion: PortraitMotion, known: Tensor | None) -> RenderedClip:
        """motion: of the clip's n frames, the conditional ones included; `clip.positions` are its L frames among them.

        known (overlap, 4, h, w): the latents of the conditional frames.
        """
        ...


@dataclass(frozen=True)
class CoreRenderer:
    """RealPortrait's transformer with the core's samplers. Made by `core_renderer`."""

    dit: RealPortraitDiT
    vae: VAE
    sample: SampleClip
    decoding: Ladder
    portrait: Tensor  # (1, H, W, 3)
    portrait_square: Tensor
    portrait_latent: Tensor
    framing: str
    speed: Speed
    guidance: float
    strength: float
    seed: int
    whole: bool  # the square pasted into the portrait; else the square alone
    fingerprints: dict[str, str]
    callback: Progress | None = None

    continues = True

    @property
    def clip_frames(self) -> int:
        return self.dit.cfg.clip_frames

    @property
    def size(self) -> int:
        return self.dit.cfg.input_sq_size

    @property
    def settings(self) -> dict[str, str]:
        caching = self.speed.caching
        return {
            "renderer": "RealPortrait",
            "size": f"{self.size}",
            "clip_frames": f"{self.clip_frames}",
            "steps": f"{self.speed.steps}",
            "sampler": self.speed.solver,
            "step_caching": "none" if caching == Caching() else repr(caching),
            "guidance": f"{self.guidance:g}",
            "strength": f"{self.strength:g}",
            "framing": self.framing,
            "dtype": str(dtype_of(self.dit)).removeprefix("torch."),
            "result": "whole portrait" if self.whole else "animated square",
        }

    def __call__(self, clip: Clip, motion: PortraitMotion, known: Tensor | None) -> RenderedClip:
        def count(step: int) -> None:
            if self.callback is not None:
                self.callback(step + 1, self.speed.steps)

        given = motion_input(self.dit.cfg, motion, clip.positions)  # of L frames
        z = self.sample(clip, given, known, count)[: clip.stop - clip.start]  # (n, 4, h, w)
        square = decode_frames(self.vae, z, self.decoding).movedim(1, -1)  # (n, S, S, 3)
        frames = square
        if self.whole:
            frames, _ = paste(self.portrait, square, motion.portrait_to_frame, self.size)
        return RenderedClip(frames, square, z)


@torch.inference_mode()
def core_renderer(
    vid2vid: FaceVid2Vid,
    dit: RealPortraitDiT,
    vae: VAE,
    schedule: Schedule,
    portrait: Tensor,
    driven: DrivenKeypoints,
    speed: Speed | None = None,
    *,
    guidance: float | None = None,
    strength: float = 1.0,
    seed: int = 0,
    framing: str = "auto",
    whole: bool = False,
    callback: Progress | None = None,
) -> CoreRenderer:
    """RealPortrait's transformer for one portrait (1, H, W, 3), to the keypoints of which `driven` belongs.

    speed and guidance: by default those that the weights were trained for. whole: the animated square is pasted into the
    portrait. callback(done, total) counts the steps of each clip; what it raises ends the run, which can be resumed. Raises
    InputError where portrait and keypoints do not fit together.
    """
    speed = default_sampling(dit.cfg) if speed is None else speed
    guidance = default_guidance(dit.cfg) if guidance is None else guidance
    motion = motion_maps(vid2vid, driven[:1], dit.cfg.input_sq_size, framing)
    framed = frame_portrait(portrait, motion)  # (1, S, S, 3)
    z_r = vae.encode(framed.movedim(-1, 1).to(device_of(vae)))  # (1, 4, h, w)
    fingerprints = {
        "portrait": portrait_fingerprint(portrait, driven.keypoints.portrait_points),
        "transformer": weights_fingerprint(dit),
        "vid2vid": weights_fingerprint(vid2vid),
        "vae": weights_fingerprint(vae),
    }
    return CoreRenderer(
        dit,
        vae,
        clip_sampler(dit, schedule, z_r, motion.portrait_maps, speed.steps, seed, strength, speed.solver, speed.caching, guidance),
        decoding_ladder(),
        portrait,
        framed,
        z_r,
        framing,
        speed,
        guidance,
        strength,
        seed,
        whole,
        fingerprints,
        callback,
    )


@dataclass(frozen=True)
class Vid2VidRenderer:
    """Face Vid2vid's own generator. Made by `vid2vid_renderer`."""

    vid2vid: FaceVid2Vid
    pictures: Tensor | None  # (1 or L, H, W, 3) into which the face is pasted; None: the face crop alone
    clip_frames: int
    size: int
    framing: str
    fingerprints: dict[str, str]
    frames: int  # of the driving video
    drawing: Ladder
    callback: Progress | None = None

    continues = False
    seed = 0
    portrait_square = None

    @property
    def settings(self) -> dict[str, str]:
        return {
            "renderer": "Face Vid2vid",
            "size": f"{picture_size(self.vid2vid)}",
            "dtype": str(dtype_of(self.vid2vid.generator)).removeprefix("torch."),
            "result": "face crop" if self.pictures is None else "whole portrait",
        }

    def __call__(self, clip: Clip, motion: PortraitMotion, known: Tensor | None) -> RenderedClip:
        chunks = (faces.cpu().movedim(1, -1) for faces in face_frames(self.vid2vid, motion, ladder=self.drawing))
        if self.pictures is not None:
            pictures = self.pictures[[min(frame, len(self.pictures) - 1) for frame in range(clip.start, clip.stop)]]
            chunks = portrait_frames(self.vid2vid, motion, pictures, ladder=self.drawing)
        parts, done = [], 0
        for part in chunks:
            parts.append(part)
            done += len(part)
            if self.callback is not None:
                self.callback(clip.start + done, self.frames)
        return RenderedClip(torch.cat(parts))


def vid2vid_renderer(
    vid2vid: FaceVid2Vid,
    driven: DrivenKeypoints,
    pictures: Tensor | None = None,
    whole: bool = True,
    clip_frames: int = 16,
    callback: Progress | None = None,
    drawing: Ladder | None = None,
) -> Vid2VidRenderer:
    """Face Vid2vid's own generator for the portrait to the keypoints of which `driven` belongs.

    pictures (1 or L, H, W, 3): into which the face is pasted, by default the portrait. whole: paste it; else the face crop alone.
    clip_frames: rendered between two writings; the frames do not depend on it as long as it is a multiple of 4. callback(done,
    total) counts the driving frames; what it raises ends the run, which can be resumed. drawing: by default `generator_ladder`.
    Raises WeightsError without a generator, InputError for keypoints of other weights or pictures of another size.
    """
    size = picture_size(vid2vid)
    with torch.inference_mode():
        motion = motion_maps(vid2vid, driven[:1], size)
    check_rendering(vid2vid, motion)
    shown = portrait_pictures(motion, pictures) if whole else None
    portrait = driven.keypoints.picture if shown is None else shown
    fingerprints = {
        "portrait": portrait_fingerprint(portrait, driven.keypoints.portrait_points),
        "vid2vid": weights_fingerprint(vid2vid),
    }
    drawing = drawing or generator_ladder(vid2vid)
    return Vid2VidRenderer(vid2vid, shown, clip_frames, size, "auto", fingerprints, len(driven), drawing, callback)
