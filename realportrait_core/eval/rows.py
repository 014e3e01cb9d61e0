"""The pictures of every row of the tables: baselines, parts of the model, and the model."""

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from ..animation.extraction import CHUNK, device_of
from ..animation.mapping import PortraitMotion
from ..animation.rendering import render
from ..dit.model import RealPortraitDiT
from ..face.crop import CROP, paste_crop, rescale
from ..speed import Speed
from ..vae import VAE
from ..vid2vid import FaceVid2Vid
from .networks import Networks
from .observe import unique

STATIC = "static portrait"  # the portrait in every frame
ROUND_TRIP = "VAE round trip"  # the truth through the VAE: the upper bound of everything that it decodes
FACE_VID2VID = "Face Vid2vid"  # G's picture, where the weights have a G
MOTION_LATENTS = "motion latents"  # prediction of mapper and draft, decoded without the backbone
REALPORTRAIT = "RealPortrait"
SEED = 0  # of RealPortrait's noise
TRUTH, DRIVING = "truth", "driving video"  # what rows are compared with, as rows of their own where a figure needs no comparison
# Of the crop's side, over which G's picture is blended into the portrait. The nodes' mask is LivePortrait's (face/blend.py), 1/32:
# with it the square of MINI's blurred G shows, and this row has 0.2 to 0.9 dB less.
SOFT_BORDER = 1 / 8


@dataclass(frozen=True)
class Rows:
    """Rows of a case of L frames, frame 0 included."""

    pictures: dict[str, Tensor]  # row -> (L, 3, S, S) in [0, 1], in a table's order
    seconds: dict[str, float]  # row -> time from portrait and motion to its pictures
    sampling_seconds: float  # of RealPortrait's latents


@torch.inference_mode()
def rows_of(
    networks: Networks, motion: PortraitMotion, portrait: Tensor, truth: Tensor | None, speed: Speed, guidance: float = 1.0
) -> Rows:
    """The baselines, the parts of the model, and the model.

    portrait (1, 3, S, S) as the motion frames it; truth (L, 3, S, S) in [0, 1], or None: then there is no round trip. No row of
    G where the weights have none, nor of the motion latents where they are no pictures.
    """
    pictures, seconds, began = {}, {}, time.perf_counter()

    def add(row: str, made: Tensor) -> None:
        nonlocal began
        pictures[row], seconds[row], began = made, time.perf_counter() - began, time.perf_counter()

    latent = encode(networks.vae, portrait)
    latents = render(
        networks.dit,
        networks.schedule,
        latent,
        motion,
        speed.steps,
        SEED,
        solver=speed.solver,
        caching=speed.caching,
        guidance=guidance,
    )
    sampling = time.perf_counter() - began
    began = time.perf_counter()
    add(STATIC, portrait.expand(len(motion.maps), -1, -1, -1))
    if truth is not None:
        first, number = unique(truth)  # a clip that is played forwards and backwards repeats its frames
        add(ROUND_TRIP, decode(networks.vae, encode(networks.vae, truth[first]))[number])
    if networks.vid2vid.generator is not None:
        add(FACE_VID2VID, face_vid2vid_frames(networks.vid2vid, portrait, motion))
    draft = draft_latents(networks.dit, latent, motion)
    if draft is not None:
        add(MOTION_LATENTS, decode(networks.vae, draft))
    add(REALPORTRAIT, decode(networks.vae, latents))
    seconds[REALPORTRAIT] += sampling
    return Rows(pictures, seconds, sampling)


def network_frames(
    networks: Networks, dit: RealPortraitDiT, motion: PortraitMotion, portrait: Tensor, speed: Speed, guidance: float = 1.0
) -> Tensor:
    """The pictures (L, 3, S, S) of another diffusion transformer on the same motion and portrait (1, 3, S, S)."""
    latent = encode(networks.vae, portrait)
    latents = render(dit, networks.schedule, latent, motion, speed.steps, SEED, solver=speed.solver, guidance=guidance)
    return decode(networks.vae, latents)


def soft_square(size: int) -> Tensor:
    """Blending mask (1, 1, size, size): 1 inside, smoothstep to 0 at the border; a Gaussian blur of kornia's reaches neither."""
    x = (torch.arange(size) + 0.5) / size
    ramp = (torch.minimum(x, 1 - x) / SOFT_BORDER).clamp(max=1)
    ramp = ramp * ramp * (3 - 2 * ramp)
    return (ramp[:, None] * ramp)[None, None]


def face_vid2vid_frames(vid2vid: FaceVid2Vid, portrait: Tensor, motion: PortraitMotion) -> Tensor:
    """G's picture of every frame, pasted into the portrait's frame (1, 3, S, S) where the portrait's crop lies: (L, 3, S, S)."""
    painted = []
    for start in range(0, len(motion.maps), CHUNK):
        maps = motion.maps[slice(start, start + CHUNK)]
        face = vid2vid.generator(maps.f.float().to(device_of(vid2vid))).cpu()  # (chunk, 3, s, s)
        to_face = rescale(face.shape[-1] / CROP) @ maps.frame_to_crop.double()
        soft = soft_square(face.shape[-1]).expand(len(maps), -1, -1, -1)
        painted.append(paste_crop(portrait.expand(len(maps), -1, -1, -1), face, soft, to_face))
    return torch.cat(painted)


def draft_latents(dit: RealPortraitDiT, portrait: Tensor, motion: PortraitMotion) -> Tensor | None:
    """The draft of the frames' latents (L, 4, h, w), the first channels of the motion latents; portrait (1, 4, h, w).

    None for weights without a draft, whose motion latents do not decode to pictures.
    """
    if not dit.cfg.drafts:
        return None
    device = device_of(dit)
    maps, portrait_maps = (each.to(device, torch.float32) for each in (motion.maps, motion.portrait_maps))
    features = dit.conditioner.reference_features(portrait.to(device), portrait_maps)
    return dit.motion_latents(maps, features)[:, : dit.cfg.in_channels].float().cpu()


def decode(vae: VAE, latents: Tensor) -> Tensor:
    """(L, 4, h, w) -> (L, 3, H, W) in [0, 1] on the CPU, a few frames at a time."""
    return torch.cat([vae.decode(chunk.to(device_of(vae))).cpu() for chunk in latents.split(CHUNK)])


def encode(vae: VAE, pictures: Tensor) -> Tensor:
    """(L, 3, H, W) in [0, 1] -> (L, 4, h, w) on the CPU, a few frames at a time."""
    return torch.cat([vae.encode(chunk.to(device_of(vae))).cpu() for chunk in pictures.split(CHUNK)])


def to_bytes(pictures: Tensor) -> Tensor:
    """(N, 3, S, S) in [0, 1] -> (N, S, S, 3) uint8."""
    return (pictures.movedim(1, -1).clamp(0, 1) * 255).round().to(torch.uint8)
