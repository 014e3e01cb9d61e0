"""From a portrait and a driving video to an animation, as in the paper's Figures 1 and 2: extract -> drive -> map -> render.

The nodes share extraction, retargeting, mapping and the loop over clips; there ComfyUI samples (nodes/sample.py).
"""

import torch
from torch import Tensor

from .animation.extraction import device_of, extract_keypoints
from .animation.mapping import frame_portrait, motion_maps
from .animation.rendering import decode_frames, render
from .animation.retargeting import drive_keypoints
from .diffusion.schedule import Schedule
from .dit.model import RealPortraitDiT
from .face.track import FaceTrack
from .speed import Speed, default_guidance, default_sampling
from .vae import VAE
from .vid2vid import FaceVid2Vid


@torch.inference_mode()
def generate(
    vid2vid: FaceVid2Vid,
    dit: RealPortraitDiT,
    vae: VAE,
    schedule: Schedule,
    portrait: Tensor,
    driving: Tensor,
    portrait_points: Tensor,
    track: FaceTrack,
    speed: Speed | None = None,
    *,
    seed: int = 0,
    guidance: float | None = None,
    neutral: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The animation (L, S, S, 3) and the portrait's square that it animates (1, S, S, 3), both in [0, 1] on the CPU.

    portrait (1, H, W, 3) and driving frames (L, H', W', 3) in [0, 1], portrait_points (5, 2) px, the face track of the driving
    frames. S is the side that the transformer was trained at. speed and guidance: by default those that the weights were trained
    for, the paper's 50 steps of IDDPM without guidance for epsilon weights. neutral: the driving frame whose motion counts as none;
    None chooses it. Raises InputError where inputs do not fit together.
    """
    speed = default_sampling(dit.cfg) if speed is None else speed
    guidance = default_guidance(dit.cfg) if guidance is None else guidance

    # Figure 1: the motion position maps.
    keypoints = extract_keypoints(vid2vid, portrait, driving, portrait_points, track)  # poses of both, f_r
    driven = drive_keypoints(keypoints, neutral=neutral)  # x_d (L, K, 3)
    motion = motion_maps(vid2vid, driven, dit.cfg.input_sq_size)  # f_{r->d} (L, C, h, w) and its place on the S x S square

    # Figure 2: the diffusion transformer.
    framed = frame_portrait(portrait, motion)  # (1, S, S, 3)
    z_r = vae.encode(framed.movedim(-1, 1).to(device_of(vae)))  # (1, 4, h, w)
    z = render(dit, schedule, z_r, motion, speed.steps, seed, solver=speed.solver, caching=speed.caching, guidance=guidance)
    frames = decode_frames(vae, z)  # (L, 3, S, S)
    return frames.movedim(1, -1), framed
