"""A photograph as portrait, and random crops of it as driving frames (the paper's "random crop augmentation").

"Although random cropping does not alter the facial expression or pose, the resulting changes in scale and translation are
sufficient to prevent the network from taking the shortcut" of copying the portrait (Training).

A sample keeps the photograph, and a step encodes a new crop of it. Storing latents of a few crops instead would cost more, in
PAPER's sizes:
- disk: the photograph at 731 px, enough for every crop of 512 px, takes 123 and 159 KB as JPEG (two photographs measured); a
  crop's latent takes 33 KB, mean and deviation 66 KB. That is four crops at most: 0.14 TB for the paper's million images.
- time: the SD1.5 VAE encodes 512 px in 1.12 TFLOP (9.1 s on one CPU core), 11 % of what the step takes for that portrait
  otherwise (DiT 3 x 3.10, W 2 x 0.34, F 0.06 TFLOP). Stage 1 draws 32 portraits in each of 20,000 steps, fewer than a million
  images: even one stored crop an image would be encoded more often.
"""

from dataclasses import replace
from math import ceil

import torch

from ...animation.framing import sample_frame
from ...animation.keypoints import PUBLIC_KEYPOINT_PX, Keypoints
from ...errors import InputError
from ...face.crop import CROP_MIDDLE, face_square, rescale
from ...vid2vid.keypoints import Pose, cat
from .packed import unpack
from .sample import Sample

# Side of a crop in sides of the portrait's square. The paper names none. At 0.7 the face is 1.4 times as large, and the
# bundled W and G still render it 5 dB better than the portrait unmoved (19.3 dB in the face against 14.4).
SMALLEST, LARGEST = 0.7, 0.95


def smallest_crop(native: float, size: int, enlargement: float) -> float:
    """Least side of a crop, in sides of a square of `native` px in the photograph: its pixels grow by at most `enlargement`."""
    return max(SMALLEST, size / (enlargement * native))


def photo_side(native: float, size: int) -> int:
    """px, side at which a square of `native` px is kept: no more than the smallest crop needs to fill size x size px."""
    return min(ceil(native), ceil(size / SMALLEST))


def random_crop(points: torch.Tensor, size: int, smallest: float, source: torch.Generator) -> torch.Tensor | None:
    """A square inside the frame that holds the whole face: (3, 3) float64, frame px -> px of the crop, size x size both.

    points (5, 2) px of the frame; smallest: least side, in sides of the frame. None where the face leaves no room for one.
    kornia's RandomResizedCrop cannot be bound to hold the face.
    """
    face = face_square(points, scale=1.4, vy=-0.1)  # with the forehead and the chin
    low = (face.center - face.size / 2 + 0.5).clamp(min=0)
    high = (face.center + face.size / 2 + 0.5).clamp(max=size)
    smallest = max(smallest * size, float((high - low).max()))
    if smallest > LARGEST * size:
        return None
    zoom, *position = torch.rand(3, dtype=torch.float64, generator=source)
    length = smallest + float(zoom) * (LARGEST * size - smallest)
    first, last = (high - length).clamp(min=0), low.clamp(max=size - length)
    start = first + torch.stack(position) * (last - first)
    crop = torch.diag(torch.tensor([size / length, size / length, 1.0], dtype=torch.float64))
    crop[:2, 2] = (0.5 - start) * size / length - 0.5
    return crop


def draw_crops(sample: Sample, count: int, source: torch.Generator) -> torch.Tensor:
    """Random crops of a sample with a photograph: (count, 3, 3) float64, frame px -> crop px. InputError without room for one."""
    crops = [random_crop(sample.points[0], sample.size, sample.smallest, source) for _ in range(count)]
    if any(crop is None for crop in crops):
        raise InputError(
            f"A training sample's face leaves no room for a crop in its photograph of {sample.size} px: prepare it anew."
        )
    return torch.stack(crops)


def crop_photo(sample: Sample, crops: torch.Tensor) -> torch.Tensor:
    """What crops (N, 3, 3) of the frame show of the sample's photograph: (N, 3, S, S) uint8."""
    photo = unpack(sample.photo)[None].float() / 255  # (1, 3, P, P)
    to_frame = rescale(sample.size / photo.shape[-1])
    shown = [sample_frame(photo, crop @ to_frame, sample.size) for crop in crops]
    return (255 * torch.cat(shown)).round().byte()


def crop_keypoints(sample: Sample, crops: torch.Tensor) -> Keypoints:
    """The photograph as portrait and crops (N, 3, 3) of it as driving frames, the photograph itself before them.

    M runs on the photograph alone; a crop's pose is the photograph's, transformed by the crop. M was trained on faces within 10 %
    of the usual size in its crop. Of a face 1.4 times as large it predicts 0.91 of the zoom and a position that is 8 of 256 px off
    (mean of six rendered heads).
    """
    poses = [moved(sample.poses, sample.driver_crop @ crop @ torch.linalg.inv(sample.driver_crop)) for crop in crops]
    points = [transform_points(sample.points[0], crop) for crop in crops]
    return sample.driven(0, cat([sample.poses, *poses]), torch.stack([sample.points[0], *points]))


def moved(pose: Pose, zoom_and_shift: torch.Tensor) -> Pose:
    """The pose of the same face after crop px -> crop px (3, 3), which does not turn: z (s x + t) + c."""
    zoom = float(zoom_and_shift[0, 0])
    shift = (zoom_and_shift[:2, 2] + (zoom - 1) * CROP_MIDDLE) / PUBLIC_KEYPOINT_PX  # of the grid's own middle
    translation = pose.translation.double().clone()
    translation[:, :2] = zoom * translation[:, :2] + shift
    return replace(pose, scale=zoom * pose.scale, translation=translation.to(pose.translation.dtype))


def transform_points(points: torch.Tensor, transform: torch.Tensor) -> torch.Tensor:
    """Points (..., 2) px of one picture -> px of another, float32; transform (3, 3): px -> px."""
    return (points.double() @ transform[:2, :2].T + transform[:2, 2]).float()
