"""What the frozen networks say of a segment, or of a picture and a crop of it: the tensors of a Sample.

By animation.extraction.extract_keypoints, the code that users run, on the sample's own frames.
"""

from dataclasses import replace

import torch

from ...animation.extraction import CHUNK, device_of, extract_keypoints
from ...animation.keypoints import KEYPOINT_PX, Keypoints
from ...errors import InputError
from ...face.crop import CROP
from ...face.track import FaceTrack
from ...vae import TinyVAE
from ...vid2vid import FaceVid2Vid
from ...vid2vid.keypoints import Pose, cat
from .sample import TENSORS, Sample


def spread(present: torch.Tensor, count: int) -> list[int]:
    """At most `count` of the frames (T,) in which the face is there, first and last among them, evenly apart."""
    seen = present.nonzero()[:, 0]
    places = torch.linspace(0, len(seen) - 1, min(count, len(seen))).round().long()
    return seen[places].tolist()


@torch.inference_mode()
def freeze_segment(
    vid2vid: FaceVid2Vid,
    vae: TinyVAE,
    frames: torch.Tensor,
    points: torch.Tensor,
    present: torch.Tensor,
    portraits: int,
    precision: torch.dtype = torch.float32,
) -> Sample:
    """frames (T, S, S, 3) in [0, 1], points (T, 5, 2) px, present (T,) -> a sample with up to `portraits` portrait frames.
    precision: of the VAE's encoder.

    Raises InputError where a network gives NaN or infinity.
    """
    chosen = spread(present, portraits)
    driven = extract_keypoints(vid2vid, frames[chosen[:1]], frames, points[chosen[0]], FaceTrack(points, present, ""))
    seen = [driven] + [portrait_keypoints(vid2vid, frames[[i]], points[i]) for i in chosen[1:]]
    return finite(
        Sample(
            kind="video",
            size=frames.shape[1],
            latents=encode(vae, frames, precision),
            portraits=torch.tensor(chosen),
            f=torch.cat([keypoints.feature for keypoints in seen]).half(),
            portrait_poses=cat([keypoints.portrait for keypoints in seen]),
            portrait_crops=torch.stack([keypoints.portrait_crop for keypoints in seen]),
            poses=driven.driver,
            points=points,
            driver_crop=driven.driver_crop,
            pictures=to_bytes(frames),
        )
    )


@torch.inference_mode()
def freeze_crop(vid2vid: FaceVid2Vid, vae: TinyVAE, frames: torch.Tensor, points: torch.Tensor, crop: torch.Tensor) -> Sample:
    """A picture and a crop of it, frames (2, S, S, 3), as portrait and driver; points (2, 5, 2) px in them.

    crop (3, 3): px of frame 0 -> px of frame 1, a zoom and a shift. M reads frame 0 alone, and frame 1's pose is that one
    moved by the crop: M knows faces whose size in the crop is within 10 % of the usual one, and of two faces 1.4 times apart
    in one driver's crop it reads 0.91 of the zoom and puts the second one 8 px of 256 beside its place, on six rendered heads.
    Raises InputError where a network gives NaN or infinity.
    """
    driven = portrait_keypoints(vid2vid, frames[:1], points[0])
    return finite(
        Sample(
            kind="image",
            size=frames.shape[1],
            latents=encode(vae, frames),
            portraits=torch.tensor([0]),
            f=driven.feature.half(),
            portrait_poses=driven.portrait,
            portrait_crops=driven.portrait_crop[None],
            poses=cat([driven.driver, moved(driven.driver, driven.driver_crop @ crop @ torch.linalg.inv(driven.driver_crop))]),
            points=points,
            driver_crop=driven.driver_crop,
            pictures=to_bytes(frames),
        )
    )


def portrait_keypoints(vid2vid: FaceVid2Vid, picture: torch.Tensor, points: torch.Tensor) -> Keypoints:
    """A picture (1, S, S, 3) with points (5, 2) as its own driver of one frame."""
    return extract_keypoints(vid2vid, picture, picture, points, FaceTrack(points[None], torch.tensor([True]), ""))


def moved(pose: Pose, zoom_and_shift: torch.Tensor) -> Pose:
    """The pose of the same face after crop px -> crop px (3, 3), which does not turn: z (s x + t) + c."""
    zoom, middle = float(zoom_and_shift[0, 0]), (CROP - 1) / 2
    shift = (zoom_and_shift[:2, 2] + (zoom - 1) * middle) / KEYPOINT_PX  # of the grid's own middle
    translation = pose.translation.double().clone()
    translation[:, :2] = zoom * translation[:, :2] + shift
    return replace(pose, scale=zoom * pose.scale, translation=translation.to(pose.translation.dtype))


def encode(vae: TinyVAE, frames: torch.Tensor, precision: torch.dtype = torch.float32) -> torch.Tensor:
    """(T, S, S, 3) in [0, 1] -> latents (T, 4, S/8, S/8) float16."""
    device = device_of(vae)
    with torch.autocast(device.type, precision, enabled=precision != torch.float32):
        parts = [vae.encode(part.movedim(-1, 1).to(device)) for part in frames.split(CHUNK)]
    return torch.cat([part.half().cpu() for part in parts])


def to_bytes(frames: torch.Tensor) -> torch.Tensor:
    """(T, S, S, 3) in [0, 1] -> (T, 3, S, S) uint8."""
    return (255 * frames).round().byte().movedim(-1, 1)


def finite(sample: Sample) -> Sample:
    for name in TENSORS:
        bad = int((~torch.isfinite(getattr(sample, name))).sum())
        if bad:
            raise InputError(f"{bad} of {getattr(sample, name).numel()} values of {name} are NaN or beyond what fp16 holds")
    return sample
