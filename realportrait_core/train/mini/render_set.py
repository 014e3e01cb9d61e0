"""Clips rendered straight into the memory of a device, with their truth.

Threads sample identities, cameras and backgrounds ahead of the device, which renders and encodes.
"""

import logging
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch
import torch.nn.functional as F

from rendered_heads.camera import Camera
from rendered_heads.clips import FPS
from rendered_heads.identity import Identity
from rendered_heads.identity_sampling import sample_identity
from rendered_heads.motion import HeadMotion, sample_motion
from rendered_heads.renderer import RenderedHead, choose_camera, render
from rendered_heads.rig import Rig
from rendered_heads.scene import background

from ...face.crop import clip_crop, face_ellipse, points_to_crop
from ...vae import TinyVAE
from ...vid2vid.keypoints import Pose
from .clip_sets import ALPHA_DOWN, ENCODED_AT_ONCE, FRAMES, RenderedSet
from .crops import to_unit
from .five_points import five_points
from .head_truth import NPZ_ARRAYS, HeadTruth, truth_in_crops, truth_row

log = logging.getLogger(__name__)

PLANNERS = 8  # threads that sample identities, cameras and backgrounds
AHEAD = 16  # clips that they prepare ahead of the device
SLOWEST = 3.0  # times the mean duration of a clip: no clip is begun unless that much time is left


@dataclass(frozen=True)
class ClipPlan:
    """What a clip is rendered from."""

    seed: int
    identity: Identity
    motion: HeadMotion
    camera: Camera
    behind: np.ndarray  # (S, S, 3) linear light


@dataclass(frozen=True)
class RenderedRow:
    """One clip of a RenderedSet: pictures on the device, the rest still on the CPU."""

    frames: torch.Tensor
    alpha: torch.Tensor
    latents: torch.Tensor
    truth: tuple[np.ndarray, ...]
    points: np.ndarray  # (T, 5, 2)


def plan_clip(rig: Rig, seed: int, frames: int, size: int) -> ClipPlan:
    """On the CPU, where `rig` lies too."""
    identity, motion = sample_identity(rig, seed), sample_motion(seed, frames, FPS)
    return ClipPlan(seed, identity, motion, choose_camera(rig, identity, motion), background(identity, size))


def plans(rig: Rig, seeds: Iterator[int], frames: int, size: int, pool: Executor) -> Iterator[ClipPlan]:
    """In the order of the seeds, AHEAD of them prepared in advance."""
    waiting = [pool.submit(plan_clip, rig, next(seeds), frames, size) for _ in range(AHEAD)]
    while True:
        plan = waiting.pop(0).result()
        waiting.append(pool.submit(plan_clip, rig, next(seeds), frames, size))
        yield plan


@torch.inference_mode()
def render_row(rig: Rig, plan: ClipPlan, vae: TinyVAE, size: int) -> RenderedRow:
    """A planned clip, rendered on the rig's device and encoded."""
    device = rig.vertices.device
    head = render(rig, plan.identity, plan.motion, plan.camera, size, device, plan.behind)
    frames = (head.pixels * 255).round().to(torch.uint8)
    latents = torch.cat([vae.encode(part.float() / 255).half() for part in frames.split(ENCODED_AT_ONCE)])
    alpha = (F.avg_pool2d(head.alpha[:, None], ALPHA_DOWN)[:, 0] * 255).round().to(torch.uint8)
    known = npz_arrays(head)
    # The rasteriser's pixel centres lie at halves.
    return RenderedRow(frames, alpha, latents, truth_row(known), five_points(known["verts2d"].astype(np.float64) - 0.5))


def npz_arrays(head: RenderedHead) -> dict[str, np.ndarray]:
    """The arrays that truth_row reads, by the names that they have in a clip's npz."""
    values = (head.neutral3d, head.template3d, head.points3d, head.points2d, head.eyes2d, head.gaze, head.expression)
    return {name: value.cpu().numpy() for name, value in zip(NPZ_ARRAYS, values, strict=True)}


def render_set(
    rig: Rig,
    vae: TinyVAE,
    first: int,
    size: int,
    photos: torch.Tensor,
    device: torch.device,
    seconds: float,
    most: int,
    frames: int = FRAMES,
) -> RenderedSet:
    """Clips of the seeds from `first` on, for so many seconds or until there are `most` of them; at least one."""
    began, rows = time.perf_counter(), []
    moved, vae = rig.to(device), vae.to(device)
    with ThreadPoolExecutor(PLANNERS) as pool:
        source = plans(rig.to("cpu"), count(first), frames, size, pool)
        while len(rows) < most:
            spent = time.perf_counter() - began
            if rows and spent * (1 + SLOWEST / len(rows)) > seconds:
                break
            rows.append(render_row(moved, next(source), vae, size))
        pool.shutdown(cancel_futures=True)
    data = stack_rows(rows, photos)
    spent = time.perf_counter() - began
    log.info(
        "rendered %d clips of %d frames of %d px in %.1f s: %.0f frames/s, %.2f GB",
        len(data),
        frames,
        size,
        spent,
        len(data) * frames / spent,
        data.nbytes / 1e9,
    )
    return data


def stack_rows(rows: list[RenderedRow], photos: torch.Tensor) -> RenderedSet:
    """Rows as one set on their device, with the true poses."""
    device = rows[0].frames.device
    heads = HeadTruth(*(torch.from_numpy(np.stack(column)).float() for column in zip(*(row.truth for row in rows)))).to(device)
    points = torch.from_numpy(np.stack([row.points for row in rows]))  # (N, T, 5, 2) float64
    portrait, clip = points_to_crop(points), torch.stack([clip_crop(each) for each in points])
    portrait_poses = true_poses(heads, portrait.to(device))
    driving_poses = true_poses(heads, clip.to(device)[:, None].expand(-1, points.shape[1], -1, -1))
    frames, alpha, latents = (torch.stack([getattr(row, name) for row in rows]) for name in ("frames", "alpha", "latents"))
    return RenderedSet(
        frames,
        latents,
        portrait.to(device),
        clip.to(device),
        face_ellipse(points).to(device),
        portrait_poses,
        driving_poses,
        alpha,
        heads,
        points.float().to(device),
        photos.to(device),
    )


def true_poses(heads: HeadTruth, crops: torch.Tensor) -> Pose:
    """Of every frame in its crop (N, T, 3, 3): N T poses."""
    clips, frames = torch.meshgrid(*(torch.arange(n, device=crops.device) for n in crops.shape[:2]), indexing="ij")
    return truth_in_crops(heads, clips.flatten(), frames.flatten(), to_unit(crops.flatten(0, 1)))[0]
