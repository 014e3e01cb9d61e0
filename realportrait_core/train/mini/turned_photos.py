"""Photographs for a training on a GPU, turned in 3-D before it begins: every photo becomes a clip.

Its first frame is the photo, cropped, mirrored and coloured at random; in the other frames the head is turned. Only the first frame
is used as a target, so that artefacts of turning are never learned.
"""

import logging
import time
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ...face.crop import face_ellipse
from ...head_rotation.change import Limits, random_changes
from ...head_rotation.dataset import augmented
from ...head_rotation.keypoints import KNOWN, seen_keypoints
from ...head_rotation.topology import FIVE, POINTS
from ...head_rotation.turning import turn
from ...vae import TinyVAE
from ...vid2vid.keypoints import cat, rotation_matrix
from ...vid2vid.motion import MotionExtractor
from .clip_sets import ALPHA_DOWN, ENCODED_AT_ONCE, ClipSet
from .pack import Packed
from .photo_supervision import WIDER, mesh_crops
from .poses import extract_poses

log = logging.getLogger(__name__)

TURNS = 4  # frames of a clip besides the photo itself
TURNED_AT_ONCE = 32  # photos
SURFACE = tuple(i * POINTS // 128 for i in range(128))  # points of the mesh, as many as the truth of rendered heads has


@dataclass(frozen=True)
class TurnedPhotos(ClipSet):
    """N photos as clips of T = 1 + TURNS frames, frame 0 the photo itself. Poses are M's estimates."""

    keypoints: Tensor  # (N, T, 26, 2) px by the mesh, 0 for a keypoint that it lacks
    rotation: Tensor  # (N, T, 3, 3) of the head from frame 0 to this one, for row vectors
    surface: Tensor  # (N, T, P, 3) px, points of the mesh; depth from the keypoints' middle, smaller nearer
    share: Tensor  # (N, S / 4, S / 4) uint8, of 255: share of the head's motion that a pixel of frame 0 follows
    seen: Tensor  # (N, T, S / 4, S / 4) uint8, of 255: visibility of frame 0's pixels in this frame


def turn_photos(
    packed: Packed, vae: TinyVAE, motion: MotionExtractor, device: torch.device, seconds: float, most: int
) -> TurnedPhotos | None:
    """Clips of the pack's photographs, repeatedly and with new random changes, for so many seconds or until there are `most`; at
    least TURNED_AT_ONCE of them. None if the pack has no photographs."""
    if not len(packed.photos):
        return None
    began, parts = time.perf_counter(), []
    for chosen in (torch.arange(most) % len(packed.photos)).split(TURNED_AT_ONCE):
        if parts and time.perf_counter() - began > seconds:
            break
        parts.append(turn_batch(packed, chosen, vae, motion, device))
    turned = joined(parts)
    spent = time.perf_counter() - began
    log.info("turned photographs in %.1f s: %d clips of %d, %.2f GB", spent, len(turned), len(packed.photos), turned.nbytes / 1e9)
    return turned


@torch.no_grad()
def turn_batch(packed: Packed, chosen: Tensor, vae: TinyVAE, motion: MotionExtractor, device: torch.device) -> TurnedPhotos:
    """Photographs `chosen` (N,) of the pack."""
    topology, source = packed.topology.to(device), torch.default_generator
    photos, mesh = packed.photos[chosen].to(device).float() / 255, packed.mesh[chosen].to(device)
    photos, mesh = augmented(photos, mesh, topology, source)
    change = random_changes((len(chosen), TURNS), Limits(), source, device)
    turned = turn(photos, mesh, topology, change)
    frames = (torch.cat([photos[:, None], turned.pictures], 1) * 255).round().to(torch.uint8)  # (N, T, 3, S, S)
    mesh = torch.cat([mesh[:, None], turned.mesh], 1)  # (N, T, 478, 3)
    flat = frames.flatten(0, 1)
    latents = torch.cat([vae.encode(part.float() / 255).half() for part in flat.split(ENCODED_AT_ONCE)])

    points = mesh[:, :, FIVE, :2].cpu()
    portrait, clip = (crops.to(device) for crops in mesh_crops(points))
    face = (face_ellipse(points) / WIDER).to(device)
    keypoints, _ = seen_keypoints(mesh.flatten(0, 1))
    keypoints = keypoints.unflatten(0, frames.shape[:2])
    surface = mesh[:, :, SURFACE].clone()
    surface[..., 2] -= keypoints[:, :, KNOWN, 2].mean(2, keepdim=True)
    seen = torch.cat([torch.ones_like(turned.hidden[:, :1]), 1 - turned.hidden], 1)  # (N, T, S, S)
    angles = (angle.flatten() for angle in (change.pitch, change.yaw, change.roll))
    rotation = rotation_matrix(*angles).unflatten(0, change.yaw.shape)
    none = torch.eye(3, device=device).expand(len(chosen), 1, 3, 3)
    return TurnedPhotos(
        frames,
        latents.unflatten(0, frames.shape[:2]),
        portrait,
        clip,
        face,
        *extract_poses(motion, frames, portrait, clip),
        keypoints[..., :2],
        torch.cat([none, rotation], 1),
        surface,
        quarter_size(turned.share),
        quarter_size(seen),
    )


def quarter_size(shares: Tensor) -> Tensor:
    """Of pictures (..., S, S) in 0..1, at a quarter of the size: uint8, of 255."""
    return (F.avg_pool2d(shares, ALPHA_DOWN) * 255).round().to(torch.uint8)


def joined(parts: list[TurnedPhotos]) -> TurnedPhotos:
    """Their clips, in a row."""
    columns = zip(*(vars(part).values() for part in parts))
    return TurnedPhotos(*(torch.cat(column) if isinstance(column[0], Tensor) else cat(column) for column in columns))


def with_poses_of(photos: TurnedPhotos, motion: MotionExtractor) -> TurnedPhotos:
    """With the poses that this M extracts."""
    portrait, driver = extract_poses(motion, photos.frames, photos.portrait_crops, photos.clip_crops)
    return replace(photos, portrait_poses=portrait, driver_poses=driver)
