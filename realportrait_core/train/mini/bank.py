"""What a training on a GPU reads: rendered clips with their truth, and photographs, all as tensors on the device.

Nothing is read or decoded while it trains; a step indexes into this.
"""

import logging
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
import torch
import torch.nn.functional as F

from rendered_heads.camera import Camera
from rendered_heads.clips import FPS
from rendered_heads.identity import Identity, sample_identity
from rendered_heads.motion import Motion, sample_motion
from rendered_heads.renderer import Heads as Rendered
from rendered_heads.renderer import choose_camera, render
from rendered_heads.rig import Rig
from rendered_heads.scene import background

from ...errors import InputError
from ...face.crop import clip_crop, face_ellipse, points_to_crop
from ...vae import TinyVAE
from ...vid2vid.interpolation import interpolate_poses
from ...vid2vid.keypoints import Pose, cat
from ...vid2vid.motion import MotionExtractor
from .five import five_points
from .store import crop_batch, to_unit
from .truth import READ, Heads, head_truth, pick

log = logging.getLogger(__name__)

FRAMES = 24  # of a clip
PLANNERS = 8  # threads that choose identities, cameras and backgrounds ahead of the device
AHEAD = 16  # clips
ENCODED_AT_ONCE = 64  # frames
READ_AT_ONCE = 256  # faces that go through M together
ALPHA_DOWN = 4  # the foreground is kept at a quarter of the size
SLOWEST = 3.0  # times the mean clip: the next one may take so long, and must end in time


@dataclass(frozen=True)
class Clips:
    """N clips of T frames of S px. Poses are numbered clip by clip: frame t of clip n is n T + t."""

    frames: torch.Tensor  # (N, T, 3, S, S) uint8
    latents: torch.Tensor  # (N, T, 4, S / 8, S / 8) fp16
    portrait_crops: torch.Tensor  # (N, T, 3, 3) float64, frame px -> crop px of a portrait
    clip_crops: torch.Tensor  # (N, 3, 3) float64, frame px -> crop px of a driver
    faces: torch.Tensor  # (N, T, 2, 3) float64, frame px -> unit disc
    portrait_poses: Pose  # N T, each frame in its own portrait crop
    driver_poses: Pose  # N T, each frame in its clip's crop

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def length(self) -> int:
        """T."""
        return self.frames.shape[1]

    @property
    def size(self) -> int:
        """S, px."""
        return self.frames.shape[-1]

    @property
    def device(self) -> torch.device:
        return self.frames.device

    @property
    def nbytes(self) -> int:
        return sum(value.nbytes for value in vars(self).values() if isinstance(value, torch.Tensor))


@dataclass(frozen=True)
class Bank(Clips):
    """Rendered clips with the true poses, and P photographs."""

    alpha: torch.Tensor  # (N, T, S / 4, S / 4) uint8, the foreground's share of 255
    heads: Heads  # the truth
    points: torch.Tensor  # (N, T, 5, 2) px
    photos: torch.Tensor  # (P, 3, S, S) uint8


# Rendering


@dataclass(frozen=True)
class Plan:
    """A clip before anything is drawn of it."""

    seed: int
    identity: Identity
    motion: Motion
    camera: Camera
    behind: np.ndarray  # (S, S, 3) linear light


@dataclass(frozen=True)
class Row:
    """One clip of a bank: pictures on the device, the rest still on the CPU."""

    frames: torch.Tensor
    alpha: torch.Tensor
    latents: torch.Tensor
    truth: tuple[np.ndarray, ...]
    points: np.ndarray  # (T, 5, 2)


def plan_clip(rig: Rig, seed: int, frames: int, size: int) -> Plan:
    """On the CPU; `rig` lies there too."""
    identity, motion = sample_identity(rig, seed), sample_motion(seed, frames, FPS)
    return Plan(seed, identity, motion, choose_camera(rig, identity, motion), background(identity, size))


def plans(rig: Rig, seeds: Iterator[int], frames: int, size: int, pool: Executor) -> Iterator[Plan]:
    """In the order of the seeds, some ahead of the one that is asked for."""
    waiting = [pool.submit(plan_clip, rig, next(seeds), frames, size) for _ in range(AHEAD)]
    while True:
        plan = waiting.pop(0).result()
        waiting.append(pool.submit(plan_clip, rig, next(seeds), frames, size))
        yield plan


@torch.inference_mode()
def draw_row(rig: Rig, plan: Plan, vae: TinyVAE, size: int) -> Row:
    """A planned clip, rendered on the rig's device and encoded."""
    device = rig.vertices.device
    heads = render(rig, plan.identity, plan.motion, plan.camera, size, device, plan.behind)
    frames = (heads.pixels * 255).round().to(torch.uint8)
    latents = torch.cat([vae.encode(part.float() / 255).half() for part in frames.split(ENCODED_AT_ONCE)])
    alpha = (F.avg_pool2d(heads.alpha[:, None], ALPHA_DOWN)[:, 0] * 255).round().to(torch.uint8)
    known = known_of(heads)
    # In the pixels of the rasteriser, whose centres lie at halves.
    return Row(frames, alpha, latents, head_truth(known), five_points(known["verts2d"].astype(np.float64) - 0.5))


def known_of(heads: Rendered) -> dict[str, np.ndarray]:
    """What heads256's npz says, by its names."""
    values = (heads.neutral3d, heads.template3d, heads.points3d, heads.points2d, heads.eyes2d, heads.gaze, heads.expression)
    return {name: value.cpu().numpy() for name, value in zip(READ, values, strict=True)}


def render_bank(
    rig: Rig,
    vae: TinyVAE,
    first: int,
    size: int,
    photos: torch.Tensor,
    device: torch.device,
    seconds: float,
    most: int,
    frames: int = FRAMES,
) -> Bank:
    """Clips of the seeds from `first` on, for so many seconds or until there are `most` of them; at least one."""
    began, rows = time.perf_counter(), []
    moved, vae = rig.to(device), vae.to(device)
    with ThreadPoolExecutor(PLANNERS) as pool:
        source = plans(rig.to("cpu"), count(first), frames, size, pool)
        while len(rows) < most:
            spent = time.perf_counter() - began
            if rows and spent * (1 + SLOWEST / len(rows)) > seconds:
                break
            rows.append(draw_row(moved, next(source), vae, size))
        pool.shutdown(cancel_futures=True)
    bank = gather(rows, photos)
    spent = time.perf_counter() - began
    log.info(
        "rendered %d clips of %d frames of %d px in %.1f s: %.0f frames/s, %.2f GB",
        len(bank),
        frames,
        size,
        spent,
        len(bank) * frames / spent,
        bank.nbytes / 1e9,
    )
    return bank


def gather(rows: list[Row], photos: torch.Tensor) -> Bank:
    """Rows as one bank on their device, with the true poses."""
    device = rows[0].frames.device
    heads = Heads(*(torch.from_numpy(np.stack(column)).float() for column in zip(*(row.truth for row in rows)))).to(device)
    points = torch.from_numpy(np.stack([row.points for row in rows]))  # (N, T, 5, 2) float64
    portrait, clip = points_to_crop(points), torch.stack([clip_crop(each) for each in points])
    own = true_poses(heads, portrait.to(device))
    driven = true_poses(heads, clip.to(device)[:, None].expand(-1, points.shape[1], -1, -1))
    frames, alpha, latents = (torch.stack([getattr(row, name) for row in rows]) for name in ("frames", "alpha", "latents"))
    return Bank(
        frames,
        latents,
        portrait.to(device),
        clip.to(device),
        face_ellipse(points).to(device),
        own,
        driven,
        alpha,
        heads,
        points.float().to(device),
        photos.to(device),
    )


def true_poses(heads: Heads, crops: torch.Tensor) -> Pose:
    """Of every frame in its crop (N, T, 3, 3): N T poses."""
    clips, frames = (places.flatten() for places in numbers(*crops.shape[:2], crops.device))
    return pick(heads, clips, frames, to_unit(crops.flatten(0, 1)))[0]


def numbers(clips: int, frames: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, T) number of each frame's clip, and its own."""
    return torch.meshgrid(torch.arange(clips, device=device), torch.arange(frames, device=device), indexing="ij")


# Poses that M reads


@torch.no_grad()
def leaning(bank: Bank, motion: MotionExtractor, share: float) -> Bank:
    """The bank with poses a share of the way from those that M reads to the true ones: 1 keeps the truth.

    A network whose maps are off learns that no map says quite where an eye is, and blurs; one whose maps are right learns to
    follow them.
    """
    if not 0 <= share <= 1:
        raise InputError(f"The poses' share of the truth is {share}; it must be 0 (M's) to 1 (the rendered ones).")
    if share == 1:
        return bank
    read = read_poses(motion, bank.frames, bank.portrait_crops, bank.clip_crops)
    share = torch.full((len(read[0]),), share, device=bank.device)
    portrait, driver = (interpolate_poses(*poses, share) for poses in zip(read, (bank.portrait_poses, bank.driver_poses)))
    return replace(bank, portrait_poses=portrait, driver_poses=driver)


@torch.no_grad()
def read_poses(motion: MotionExtractor, frames: torch.Tensor, portrait: torch.Tensor, clip: torch.Tensor) -> tuple[Pose, Pose]:
    """What M reads in every frame (N, T, 3, S, S): N T poses in portrait crops (N, T, 3, 3), and in the clips' (N, 3, 3)."""
    return poses_in(motion, frames, portrait), poses_in(motion, frames, clip[:, None].expand_as(portrait))


def poses_in(motion: MotionExtractor, frames: torch.Tensor, crops: torch.Tensor) -> Pose:
    """Of frames (N, T, 3, S, S) in crops (N, T, 3, 3): N T poses."""
    pictures, crops, found = frames.flatten(0, 1), crops.flatten(0, 1), []
    for some in torch.arange(len(crops), device=frames.device).split(READ_AT_ONCE):
        found.append(motion(crop_batch(pictures[some].float() / 255, crops[some], motion.cfg.crop_size)))
    return cat(found)
