"""Supervision of M by photographs: pairs of one photo in two poses, turned in 3-D, in crops as the pipeline makes them.

The face mesh gives the 2-D positions of 25 of the 26 keypoints (head_rotation/keypoints.py), by the convention of the rendered
heads. It gives neither their depth nor the split into x_c and delta: these are learned from the rendered heads. But the two
pictures of a pair show one person, and the head's rotation from one to the other is known exactly.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...face.crop import clip_crop, crop_roll, face_square, points_to_crop
from ...head_rotation.dataset import Photos, augmented
from ...head_rotation.keypoints import KNOWN, residuals, seen_keypoints
from ...head_rotation.pairs import draw_pairs
from ...head_rotation.topology import FIVE, Topology
from ...vid2vid.keypoints import Pose, angle_between, transform
from ...vid2vid.motion import MotionExtractor
from .crops import crop_batch, jitter, to_unit
from .head_truth import MOUTH_AND_EYES

# Crops by the detector's five points are larger by this factor than crops by the mesh's: the median of 60 photos.
WIDER = 1.07


@dataclass(frozen=True)
class PhotoSet:
    """Photos with their meshes (N, 478, 3), and the meshes' topology."""

    photos: Photos
    topology: Topology


def draw_turned(photo_set: PhotoSet, chosen: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs of photos `chosen` (N,), adjacent in the batch, in jittered portrait or clip crops.

    Returns pictures (2 N, 3, size, size); keypoint positions (2 N, 26, 2) in the crop's [-1, 1], 0 for a keypoint that the mesh
    lacks; the head's rotation (N, 3, 3) from the first picture of a pair to the second, each seen in its crop, for row vectors.
    """
    pictures, mesh = augmented(*photo_set.photos.take(chosen), photo_set.topology, torch.default_generator)
    pair = draw_pairs(pictures, mesh, photo_set.topology, torch.default_generator, untouched=0.5)
    mesh = torch.stack([pair.portrait_mesh, pair.target_mesh], 1)  # (N, 2, 478, 3)
    portrait, clip = mesh_crops(mesh[:, :, FIVE, :2])
    of_clip = (torch.rand(len(chosen)) < 0.5)[:, None, None, None]
    crops = jitter(torch.where(of_clip, clip[:, None], portrait).flatten(0, 1), scale=0.1, shift=0.04, degrees=6.0)
    images = crop_batch(torch.stack([pair.portrait, pair.target], 1).flatten(0, 1), crops, size)
    places, _ = seen_keypoints(mesh.flatten(0, 1))
    return images, *seen_in(crops, places[..., :2], pair.rotation)


def mesh_crops(points: Tensor) -> tuple[Tensor, Tensor]:
    """Portrait crops (N, T, 3, 3) and clip crops (N, 3, 3) of N clips of T pictures, float64 on the CPU.

    points (N, T, 5, 2) px: FIVE of the mesh. The crops are as large as those by the detector's points.
    """
    return points_to_crop(points, scale=2.3 * WIDER), torch.stack([clip_crop(clip, scale=2.2 * WIDER) for clip in points])


def widened(points: Tensor) -> Tensor:
    """Points FIVE (..., 5, 2) px of the mesh, spread about the face's centre such that any crop by them is that of mesh_crops: the
    code that crops by a detector's points can be used on them."""
    centre = face_square(points, scale=1.0, vy=0.0).center[..., None, :]
    return (centre + WIDER * (points - centre)).to(points.dtype)


def seen_in(crops: Tensor, places: Tensor, rotation: Tensor) -> tuple[Tensor, Tensor]:
    """Positions (2 N, 26, 2) px and head rotations (N, 3, 3) of N pairs, as seen in crops (2 N, 3, 3): positions in the crop's
    [-1, 1], rotations from the first crop's axes to the second's."""
    unit = to_unit(crops)  # (2 N, 2, 3)
    spin = crop_roll(unit[..., :2])
    return places @ unit[..., :2].mT + unit[:, None, :, 2], spin[::2].mT @ rotation @ spin[1::2]


def weight_by_residual(weight: Tensor) -> Tensor:
    """Weights of keypoints (26, 1), divided by the mesh's residual at each; of mean 1, 0 for a keypoint that the mesh lacks."""
    weight = weight / residuals(weight.device)[:, None]
    return weight / weight.mean()


def photos_loss(pose: Pose, places: Tensor, turned: Tensor, weight: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of M's estimates on pairs of photos, and its parts. places (B, 26, 2), turned (B / 2, 3, 3), weight (26, 1).

    `change` does not count errors that both pictures of a pair share.
    """
    error = transform(pose)[..., :2] - places
    points = (weight * error.abs()).mean()
    change = (weight * (error[::2] - error[1::2]).abs()).mean()
    canonical = (pose.canonical[::2] - pose.canonical[1::2]).abs().mean()
    rotation = (pose.rotation[::2] @ turned - pose.rotation[1::2]).abs().mean()
    total = 10 * points + 10 * change + 5 * canonical + 5 * rotation
    parts = dict(points=points, change=change, canonical=canonical, rotation=rotation)
    return total, {name: part.detach() for name, part in parts.items()}


@torch.inference_mode()
def photo_error(model: MotionExtractor, photo_set: PhotoSet, chosen: Tensor) -> dict[str, float]:
    """Mean errors on pairs of photos `chosen` (N,): keypoints in crop px of 128, the rotation from one to the other in degrees."""
    images, places, turned = draw_turned(photo_set, chosen, model.cfg.crop_size)
    pose = model(images)
    apart = torch.linalg.vector_norm(transform(pose)[..., :2] - places, dim=-1) * model.cfg.crop_size / 2
    return {
        "keypoints_px": round(float(apart[:, list(KNOWN)].mean()), 3),
        "mouth_eyes_px": round(float(apart[:, list(MOUTH_AND_EYES)].mean()), 3),
        "turn_deg": round(float(angle_between(pose.rotation[::2] @ turned, pose.rotation[1::2]).mean()), 3),
    }
