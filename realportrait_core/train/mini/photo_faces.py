"""What photographs teach M: pairs of one photo in two poses, turned in 3-D, in crops as the pipeline makes them.

Of 25 of the 26 keypoints the face mesh says where they are seen (turn/keypoints.py), by the convention of the rendered heads. It
says nothing of their depth, nor what of a place is the person's and what an expression's: that is left to the rendered heads.
But the person of a pair is the same, and by how much the head is turned from one picture to the other is known exactly.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...face.crop import clip_crop, points_to_crop
from ...turn.dataset import Photos, augmented
from ...turn.keypoints import KNOWN, residuals, seen_keypoints
from ...turn.pairs import draw_pairs
from ...turn.topology import FIVE, Topology
from ...vid2vid.keypoints import Pose, angle_between, transform
from ...vid2vid.motion import MotionExtractor
from .store import crop_batch, jitter, to_unit
from .truth import MOUTH_AND_EYES, crop_roll

# The detector's points make crops that are larger by this than those of the mesh's: the median of 60 photos.
WIDER = 1.07


@dataclass(frozen=True)
class PhotoSet:
    """Photos with their meshes (N, 478, 3), and what the meshes mean."""

    photos: Photos
    topology: Topology


def draw_turned(photo_set: PhotoSet, chosen: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of photos `chosen` (N,) the pairs, one picture after the other, in jittered portrait or clip crops.

    Pictures (2 N, 3, size, size); the keypoints' places (2 N, 26, 2) in the crop's [-1, 1], 0 where the mesh has none; the head's
    turn (N, 3, 3) from the first picture of a pair to the second, each seen in its crop, for row vectors.
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
    """Of N clips of T pictures the portrait crops (N, T, 3, 3) and the clips' crops (N, 3, 3), float64 on the CPU, by points FIVE
    (N, T, 5, 2) px of the mesh."""
    return points_to_crop(points, scale=2.3 * WIDER), torch.stack([clip_crop(clip, scale=2.2 * WIDER) for clip in points])


def seen_in(crops: Tensor, places: Tensor, rotation: Tensor) -> tuple[Tensor, Tensor]:
    """Of N pairs in crops (2 N, 3, 3) the places (2 N, 26, 2) px in the crop's [-1, 1], and the turn (N, 3, 3) of the head from the
    first picture to the second, each seen in its crop."""
    unit = to_unit(crops)  # (2 N, 2, 3)
    spin = crop_roll(unit[..., :2])
    return places @ unit[..., :2].mT + unit[:, None, :, 2], spin[::2].mT @ rotation @ spin[1::2]


def turned_weight(weight: Tensor) -> Tensor:
    """A weight of keypoints (26, 1) by how well the mesh knows them, of mean 1: none where it does not."""
    weight = weight / residuals(weight.device)[:, None]
    return weight / weight.mean()


def turned_terms(pose: Pose, places: Tensor, turned: Tensor, weight: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of what M says of pairs of photos, and parts of it. places (B, 26, 2), turned (B / 2, 3, 3), weight (26, 1).

    `change` forgives what the mesh gets wrong of a person in both pictures alike.
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
def turned_error(model: MotionExtractor, photo_set: PhotoSet, chosen: Tensor) -> dict[str, float]:
    """Mean errors on pairs of photos `chosen` (N,): keypoints in crop px of 128, the turn from one to the other in degrees."""
    images, places, turned = draw_turned(photo_set, chosen, model.cfg.crop_size)
    pose = model(images)
    apart = torch.linalg.vector_norm(transform(pose)[..., :2] - places, dim=-1) * model.cfg.crop_size / 2
    return {
        "keypoints_px": round(float(apart[:, list(KNOWN)].mean()), 3),
        "mouth_eyes_px": round(float(apart[:, list(MOUTH_AND_EYES)].mean()), 3),
        "turn_deg": round(float(angle_between(pose.rotation[::2] @ turned, pose.rotation[1::2]).mean()), 3),
    }
