"""What the frozen networks compute of a segment, or of a photograph: the tensors of a Sample.

Frames are uint8 and are converted a few at a time, so that a segment may be long. The crops are those of
animation.extraction.extract_keypoints, which users run.
"""

import torch

from ...animation.extraction import CHUNK, device_of
from ...errors import InputError
from ...face.crop import clip_crop, points_to_crop, sample_crop
from ...vae import VAE
from ...vid2vid import FaceVid2Vid
from ...vid2vid.keypoints import Pose, cat
from .packed import pack_jpeg, pack_lossless
from .sample import OPTIONAL, TENSORS, Sample

ENCODED_AT_ONCE = 4  # frames: the SD1.5 VAE takes 0.8 GB for each of 512 px


def evenly_spaced(present: torch.Tensor, count: int) -> torch.Tensor:
    """Numbers of at most `count` of the frames (T,) in which the face is there, first and last among them."""
    seen = present.nonzero()[:, 0]
    return seen[torch.linspace(0, len(seen) - 1, min(count, len(seen))).round().long()]


@torch.inference_mode()
def freeze_segment(
    vid2vid: FaceVid2Vid,
    vae: VAE,
    frames: torch.Tensor,
    points: torch.Tensor,
    present: torch.Tensor,
    portraits: int | None = None,
    precision: torch.dtype = torch.float32,
    from_posterior: bool = False,
) -> Sample:
    """frames (T, S, S, 3) uint8, points (T, 5, 2) px, present (T,) -> a sample.

    portraits: how many frames can be the portrait, with their features; None: every frame with a face, by its crop.
    precision: of the VAE's encoder. from_posterior: keep the posterior's deviations too; the VAE must have a posterior.
    Raises InputError where a network gives NaN or infinity.
    """
    chosen = present.nonzero()[:, 0] if portraits is None else evenly_spaced(present, portraits)
    driver_crop = clip_crop(points)
    every = torch.arange(len(frames))
    driver_poses, _ = face_poses(vid2vid, frames, driver_crop.expand(len(frames), 3, 3), every)
    portrait_crops = torch.stack([points_to_crop(points[i]) for i in chosen])
    portrait_poses, faces = face_poses(vid2vid, frames, portrait_crops, chosen)
    latents, deviations = encode(vae, frames, precision, from_posterior)
    return finite(
        Sample(
            kind="video",
            size=frames.shape[1],
            latents=latents,
            portraits=chosen,
            f=None if portraits is None else features(vid2vid, faces),
            portrait_poses=portrait_poses,
            portrait_crops=portrait_crops,
            poses=driver_poses,
            points=points,
            driver_crop=driver_crop,
            pictures=frames.movedim(-1, 1),
            faces=tuple(pack_lossless(face) for face in to_bytes(faces)) if portraits is None else None,
            deviations=deviations,
            from_posterior=from_posterior,
        )
    )


@torch.inference_mode()
def freeze_photo(
    vid2vid: FaceVid2Vid,
    vae: VAE,
    portrait: torch.Tensor,
    points: torch.Tensor,
    photo: torch.Tensor,
    smallest: float,
    from_posterior: bool = False,
) -> Sample:
    """A photograph as a sample whose driving frames are crops that each step draws (images.py).

    portrait (1, 3, S, S) uint8, points (5, 2) px in it; photo (1, 3, P, P) uint8: the same at a resolution of its own.
    smallest: least side of a crop, in sides of the frame. from_posterior: whether a crop's latent is sampled from the posterior.
    Raises InputError where a network gives NaN or infinity.
    """
    frames, only = portrait.movedim(1, -1), torch.tensor([0])
    portrait_crop, driver_crop = points_to_crop(points), clip_crop(points[None])
    portrait_pose, face = face_poses(vid2vid, frames, portrait_crop[None], only)
    driver_pose, _ = face_poses(vid2vid, frames, driver_crop[None], only)
    return finite(
        Sample(
            kind="image",
            size=frames.shape[1],
            latents=encode(vae, frames)[0],
            portraits=only,
            f=None,
            portrait_poses=portrait_pose,
            portrait_crops=portrait_crop[None],
            poses=driver_pose,
            points=points[None],
            driver_crop=driver_crop,
            faces=(pack_lossless(to_bytes(face)[0]),),
            photo=pack_jpeg(photo[0]),
            smallest=smallest,
            from_posterior=from_posterior,
        )
    )


def face_poses(vid2vid: FaceVid2Vid, frames: torch.Tensor, crops: torch.Tensor, chosen: torch.Tensor) -> tuple[Pose, torch.Tensor]:
    """M on the chosen (N,) of frames (T, S, S, 3) uint8 in crops (N, 3, 3): poses N and the face crops (N, 3, size, size)."""
    poses, faces = [], []
    for some, crop in zip(chosen.split(CHUNK), crops.split(CHUNK)):
        pictures = floats(frames[some]).to(device_of(vid2vid))
        face = sample_crop(pictures, crop, vid2vid.cfg.crop_size)
        poses.append(vid2vid.motion(face).to("cpu"))
        faces.append(face.cpu())
    return cat(poses), torch.cat(faces)


def features(vid2vid: FaceVid2Vid, faces: torch.Tensor) -> torch.Tensor:
    """f_r (P, C, D, h, w) float16 of face crops (P, 3, size, size)."""
    return torch.cat([vid2vid.appearance(some.to(device_of(vid2vid))).half().cpu() for some in faces.split(CHUNK)])


def encode(
    vae: VAE, frames: torch.Tensor, precision: torch.dtype = torch.float32, from_posterior: bool = False
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """(T, S, S, 3) uint8 -> latents (T, 4, S/8, S/8) float16, the posterior's mean where the VAE has one, and its deviations
    where latents are to be sampled from it."""
    device = device_of(vae)
    means, deviations = [], []
    with torch.autocast(device.type, precision, enabled=precision != torch.float32):
        for some in frames.split(ENCODED_AT_ONCE):
            pictures = floats(some).to(device)
            if from_posterior:
                posterior = vae.posterior(pictures)
                deviations.append(posterior.deviation.half().cpu())
            means.append((posterior.mean if from_posterior else vae.encode(pictures)).half().cpu())
    return torch.cat(means), torch.cat(deviations) if from_posterior else None


def floats(frames: torch.Tensor) -> torch.Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) in [0, 1]."""
    return frames.movedim(-1, 1).float() / 255


def to_bytes(pictures: torch.Tensor) -> torch.Tensor:
    """(B, 3, H, W) in [0, 1] -> uint8."""
    return (255 * pictures).round().clamp(0, 255).byte()


def finite(sample: Sample) -> Sample:
    for name in (*TENSORS, *OPTIONAL):
        value = getattr(sample, name)
        bad = 0 if value is None else int((~torch.isfinite(value)).sum())
        if bad:
            raise InputError(f"{bad} of {value.numel()} values of {name} are NaN or beyond what fp16 holds")
    return sample
