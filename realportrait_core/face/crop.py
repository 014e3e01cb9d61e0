"""From face points to the input crop of F and M, to the facial mask, and back into the picture.

Coordinates are pixels with integer centres; an affine is a 3x3 that maps column vectors (x, y, 1).
The rule for 9 points and more is LivePortrait's (Guo et al. 2024); the five of YuNet need a fit of their own.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from ..errors import InputError

Points = torch.Tensor | np.ndarray | Sequence  # (..., N, 2) px, as torch.as_tensor takes them

CROP = 512  # px, the unit in which crops are measured
CROP_MIDDLE = (CROP - 1) / 2  # px, the centre of a crop
ROUNDING = 1e-6  # samples along a pixel, beyond a whole number
SAMPLES = 2**22  # of a warp that are taken at once: 80 MB with their positions
EMPTY_FACE = ((0.0, 0.0, 2.0), (0.0, 0.0, 2.0))  # a facial ellipse that contains no pixel

# Indices of the points whose means are the image-left eye, the image-right eye and the mouth, by number of points.
LANDMARKS = {
    5: ((0,), (1,), (3, 4)),
    9: ((2, 3), (0, 1), (5, 6)),
    68: ((36, 39), (42, 45), (48, 54)),
    101: ((39, 42, 45, 48), (51, 54, 57, 60), (75, 81)),
    106: ((33, 35, 40, 39), (87, 89, 94, 93), (52, 61)),
    203: ((0, 6, 12, 18), (24, 30, 36, 42), (48, 66)),
    478: ((468,), (473,), (14,)),
}


@dataclass(frozen=True)
class Square:
    """A square on the picture; tensors in float64 with any leading axes."""

    center: torch.Tensor  # (..., 2) px
    size: torch.Tensor  # (...,) px, the side
    ux: torch.Tensor  # (..., 2) unit vector to the right of the face
    uy: torch.Tensor  # (..., 2) unit vector from the eyes to the mouth

    @property
    def angle(self) -> torch.Tensor:
        """(...,) roll in radians, positive clockwise on the screen."""
        return torch.atan2(self.ux[..., 1], self.ux[..., 0])


def checked_points(points: Points) -> torch.Tensor:
    """(..., N, 2) float64 on the CPU; InputError unless N is one of LANDMARKS and every number is finite."""
    points = torch.as_tensor(points).detach().to("cpu", torch.float64)
    if points.ndim < 2 or points.shape[-1] != 2 or points.shape[-2] not in LANDMARKS:
        raise InputError(f"Face points must be (..., N, 2) with N one of {sorted(LANDMARKS)}; these are {tuple(points.shape)}.")
    if not torch.isfinite(points).all():
        bad = int((~torch.isfinite(points)).sum())
        raise InputError(
            f"{bad} of {points.numel()} face coordinates are NaN or infinite. Look at the node or model that found the face."
        )
    return points


def face_axes(points: torch.Tensor, use_lip: bool = True) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Eye centre e, mouth centre m, and the unit axes ux, uy of a face: each (..., 2)."""
    left, right, mouth = (points[..., rows, :].mean(-2) for rows in LANDMARKS[points.shape[-2]])
    eyes = (left + right) / 2
    line = right - left
    down = mouth - eyes if use_lip else torch.stack([-line[..., 1], line[..., 0]], -1)
    length = down.norm(dim=-1, keepdim=True)
    upright = torch.tensor([0.0, 1.0], dtype=points.dtype)
    uy = torch.where(length > 1e-3, down / length.clamp(min=1e-3), upright)
    return eyes, mouth, torch.stack([uy[..., 1], -uy[..., 0]], -1), uy


def landmark_square(points: Points, scale: float, vy: float, vx: float = 0.0, use_lip: bool = True) -> Square:
    """The square around all points, `scale` times their rotated extent: LivePortrait's `parse_rect_from_landmark`."""
    points = checked_points(points)
    _, _, ux, uy = face_axes(points, use_lip)
    center = points.mean(-2)
    turned = (points - center[..., None, :]) @ torch.stack([ux, uy], -1)  # (..., N, 2)
    low, high = turned.amin(-2), turned.amax(-2)
    size = (high - low).amax(-1) * scale
    middle = (high + low) / 2
    center = center + ux * (middle[..., :1] + vx * size[..., None]) + uy * (middle[..., 1:] + vy * size[..., None])
    return Square(center, size, ux, uy)


def face_square(points: Points, scale: float, vy: float) -> Square:
    """The square around a face, by any number of points.

    Five points span about half of what 68 do, so their extent is predicted from the eye-mouth distance, the eye
    distance and the nose's sideways shift t (a sign of yaw): a fit to a 68-point mean face within pitch 30 and
    yaw 60 degrees, size off by 2.8 % on average (5.6 % at most), centre by 1.6 % (3.3 %) of the side.
    """
    points = checked_points(points)
    if points.shape[-2] != 5:
        return landmark_square(points, scale, vy)
    eyes, mouth, ux, uy = face_axes(points)
    d = (mouth - eyes).norm(dim=-1, keepdim=True)
    iod = (points[..., 1, :] - points[..., 0, :]).norm(dim=-1, keepdim=True)
    t = ((points[..., 2, :] - eyes) * ux).sum(-1, keepdim=True)
    size = scale * torch.maximum(2.04 * d, 2.24 * iod + 1.55 * t.abs())
    center = eyes - 1.46 * t * ux + (0.626 * d + vy * size) * uy
    return Square(center, size[..., 0], ux, uy)


def mean_square(squares: Square) -> Square:
    """One upright square for a clip: the mean of the axis-aligned boxes along the first axis."""
    axes = torch.eye(2, dtype=torch.float64)
    return Square(squares.center.mean(0), squares.size.mean(0), axes[0], axes[1])


def square_to_crop(square: Square, size: int, rotate: bool = True) -> torch.Tensor:
    """(..., 3, 3) float64 affine: picture px -> px of the size x size crop. InputError for a square without extent."""
    if not bool((square.size > 0).all()):
        raise InputError("The face points coincide: a crop needs a face with an extent above 0 px.")
    scale = (size / square.size)[..., None, None]
    turn = torch.stack([square.ux, square.uy], -2) if rotate else torch.eye(2, dtype=torch.float64).expand(*square.size.shape, 2, 2)
    linear = scale * turn  # (..., 2, 2)
    shift = size / 2 - linear @ square.center[..., None]  # (..., 2, 1)
    last = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64).expand(*square.size.shape, 1, 3)
    return torch.cat([torch.cat([linear, shift], -1), last], -2)


def points_to_crop(points: Points, size: int = CROP, scale: float = 2.3, vy: float = -0.125, rotate: bool = True) -> torch.Tensor:
    """Crop of a portrait: points (..., N, 2) px -> affine (..., 3, 3) float64, picture px -> crop px."""
    return square_to_crop(face_square(points, scale, vy), size, rotate)


def clip_crop(points: Points, size: int = CROP, scale: float = 2.2, vy: float = -0.1) -> torch.Tensor:
    """One fixed, upright crop for a driving clip: points (L, N, 2) px -> affine (3, 3) float64.

    The mean box of the clip: head motion stays in the keypoints, and the motion maps move smoothly.
    """
    points = checked_points(points)
    if points.ndim != 3 or not len(points):
        raise InputError(f"A clip's points must be (frames, N, 2) with at least one frame; these are {tuple(points.shape)}.")
    return square_to_crop(mean_square(face_square(points, scale, vy)), size)


def crop_roll(to_crop: torch.Tensor) -> torch.Tensor:
    """The roll Q (B, 3, 3), for row vectors, of crops whose linear part is to_crop (B, 2, 2): picture px -> crop px."""
    (a, b), (c, d) = (row.unbind(-1) for row in to_crop.unbind(-2))
    zoom = (a * d - b * c).sqrt()[:, None, None]  # written out, because a solver would synchronise the GPU with the host
    roll = to_crop.new_zeros(len(to_crop), 3, 3)
    roll[:, :2, :2] = (to_crop / zoom).mT
    roll[:, 2, 2].fill_(1)
    return roll


def warp_affine(image: torch.Tensor, forward: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Bilinear warp, zeros outside: out(forward @ p) = image(p), as OpenCV's warpAffine.

    image (B, C, H, W); forward (3, 3) or (B, 3, 3), image px -> output px. Returns (B, C, height, width). kornia's warp_affine
    differs by up to 2e-4 (positions in float32, picture of 1024 px); the bundled weights were trained with this one.
    """
    return warp_rows(image, forward, height, width, slice(0, height))


def warp_rows(image: torch.Tensor, forward: torch.Tensor, height: int, width: int, rows: slice) -> torch.Tensor:
    """Some rows of `warp_affine`: (B, C, n, width), the same to the bit."""
    if image.ndim != 4 or 0 in image.shape:
        raise InputError(f"A batch of pictures must be (B, C, height, width); this one is {tuple(image.shape)}.")
    back = torch.linalg.inv(forward.double()).to(image.device)
    size = torch.tensor([image.shape[-1], image.shape[-2]], dtype=torch.float64, device=image.device)
    # px -> [-1, 1] between the outer edges of the border pixels
    to_unit = torch.diag(torch.cat([2 / size, size.new_ones(1)]))
    to_unit[:2, 2] = 1 / size - 1
    affine = (to_unit @ back)[..., :2, :].expand(len(image), 2, 3).to(image.dtype)
    return F.grid_sample(image, pixel_grid(affine, height, width, rows), mode="bilinear", padding_mode="zeros", align_corners=False)


def warp_averaged(image: torch.Tensor, forward: torch.Tensor, height: int, width: int, fine: int) -> torch.Tensor:
    """warp_affine with `fine` x `fine` samples per pixel, averaged against aliasing: (B, C, height, width).

    A few rows at once, so that the samples of a huge picture do not take several times its memory.
    """
    forward = rescale(fine).to(forward.device) @ forward.double()
    step = max(1, SAMPLES // (len(image) * fine * fine * width))
    parts = []
    for top in range(0, height, step):
        rows = slice(fine * top, fine * min(top + step, height))
        parts.append(F.avg_pool2d(warp_rows(image, forward, fine * height, fine * width, rows), fine))
    return torch.cat(parts, 2) if len(parts) > 1 else parts[0]


def samples_along(forward: torch.Tensor) -> int:
    """The `fine` of `warp_averaged` at which a picture that forward (3, 3) makes smaller does not alias."""
    return max(1, math.ceil(float(torch.linalg.det(forward[:2, :2]).abs()) ** -0.5 - ROUNDING))


def pixel_grid(affine: torch.Tensor, height: int, width: int, rows: slice = slice(None)) -> torch.Tensor:
    """affine @ (x, y, 1) for every pixel of the rows: (B, 2, 3) -> (B, n, width, 2)."""
    x = torch.arange(width, dtype=affine.dtype, device=affine.device)
    y = torch.arange(height, dtype=affine.dtype, device=affine.device)[rows]
    return (affine[:, None, None, :, 0] * x[:, None] + affine[:, None, None, :, 1] * y[:, None, None]) + affine[:, None, None, :, 2]


def sample_crop(image: torch.Tensor, frame_to_crop: torch.Tensor, size: int, units: int = CROP) -> torch.Tensor:
    """The input of F and M: image (B, 3, H, W), frame_to_crop (3, 3) or (B, 3, 3) in crops of `units` px.

    Returns (B, 3, size, size). The crop is sampled at twice the size or more and averaged down (LivePortrait: 512 px,
    then area to 256), and at as many points as the picture has pixels, so that a large portrait does not alias.
    """
    frame_to_crop = frame_to_crop.double().expand(len(image), 3, 3)
    to_size = rescale(size / units).to(frame_to_crop.device)
    crops = []
    for picture, forward in zip(image.split(1), frame_to_crop):
        shrink = 1 / math.sqrt(float(torch.linalg.det((to_size @ forward)[:2, :2]).abs()))
        fine = max(2, math.ceil(shrink))
        crops.append(warp_averaged(picture, to_size @ forward, size, size, fine))
    return torch.cat(crops)  # (B, 3, size, size)


def upright_square(centre: torch.Tensor, side: float, height: int, width: int, size: int) -> torch.Tensor:
    """(3, 3) float64: picture px -> px of a size x size frame that shows the square of `side` px around centre (2,).

    The square is moved inside the picture of height x width px, which must have room for it.
    """
    room = torch.tensor([width, height], dtype=torch.float64)
    corner = torch.minimum((centre - side / 2 + 0.5).clamp(min=0), room - side)  # outer corner of the square
    zoom = size / side
    forward = torch.diag(torch.tensor([zoom, zoom, 1.0], dtype=torch.float64))
    forward[:2, 2] = (0.5 - corner) * zoom - 0.5
    return forward


def rescale(factor: float) -> torch.Tensor:
    """(3, 3) float64: px of a picture -> px of the same picture resized by `factor`, both with half-pixel centres."""
    shift = (factor - 1) / 2
    return torch.tensor([[factor, 0, shift], [0, factor, shift], [0, 0, 1]], dtype=torch.float64)


def paste_crop(image: torch.Tensor, crop: torch.Tensor, mask: torch.Tensor, frame_to_crop: torch.Tensor) -> torch.Tensor:
    """A crop blended into its picture: image (B, C, H, W), crop (B, C, S, S), mask (B or 1, 1, S, S) -> (B, C, H, W)."""
    crop_to_frame = torch.linalg.inv(frame_to_crop.double())
    height, width = image.shape[-2:]
    weight = warp_affine(mask.to(image.dtype), crop_to_frame, height, width)
    return weight * warp_affine(crop, crop_to_frame, height, width) + (1 - weight) * image


def face_ellipse(points: Points) -> torch.Tensor:
    """The facial mask: (..., N, 2) px -> (..., 2, 3) float64, picture px -> unit disc (inside: norm <= 1).

    The paper masks "non-facial regions" and gives no shape. Ours is an ellipse in the face's own axes around the
    middle of the landmarks, 1.10 by 0.94 times their extent: hair and neck stay outside.
    """
    square = face_square(points, scale=1.0, vy=0.0)
    axes = torch.stack([square.ux / 0.55, square.uy / 0.47], -2) / square.size[..., None, None]  # (..., 2, 2)
    return torch.cat([axes, -axes @ square.center[..., None]], -1)


def warp_ellipse(face: torch.Tensor, driver_crop: torch.Tensor, output_crop: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """The driving frames' facial mask on the output frame: A_i T A_d,i^-1 applied to each ellipse.

    face (L, 2, 3) driving frame px -> disc; driver_crop, output_crop (L, 3, 3) or (3, 3) frame px -> crop px;
    shift (L, 2) crop px, by which the face moves inside the crop. Returns (L, 2, 3), output px -> disc.
    """
    face = face.double()
    back = torch.eye(3, dtype=torch.float64, device=face.device).repeat(len(face), 1, 1)
    back[:, :2, 2] = -shift.double()  # T^-1
    output_to_driver = torch.linalg.inv(driver_crop.double()) @ back @ output_crop.double()
    last = face.new_tensor([0.0, 0.0, 1.0]).expand(len(face), 1, 3)
    return (torch.cat([face, last], 1) @ output_to_driver)[:, :2]
