"""Faces that another program has found, as the detector would give them: from a box, or from landmarks."""

from collections.abc import Sequence

import torch

from ..errors import InputError
from .crop import LANDMARKS, Points, checked_points, face_square
from .detect import Face
from .track import NOMINAL

# Indices of the nose and of the image-left and image-right corner of the mouth, by number of landmarks. Of MediaPipe's 478 the
# point 4 lies nearest to YuNet's nose: 3.0 px of 256 on 60 portraits, the point 1 4.7 px.
NOSE_AND_MOUTH = {5: (2, 3, 4), 68: (30, 48, 54), 106: (86, 52, 61), 478: (4, 61, 291)}
LARGEST = 2  # times the picture's longer side; crops are sampled at the picture's pixels, of which there would be too many


def five_points(landmarks: Points) -> torch.Tensor:
    """Landmarks (N, 2) px -> the five points (5, 2) float32 px of `detect.Face`. InputError for an unknown N, NaN, infinity."""
    landmarks = torch.as_tensor(landmarks)
    if landmarks.ndim != 2 or len(landmarks) not in NOSE_AND_MOUTH:
        raise InputError(
            f"A face's landmarks must be (N, 2) px with N one of {[*NOSE_AND_MOUTH]}; these are {(*landmarks.shape,)}."
        )
    points = checked_points(landmarks)
    eyes = [points[list(rows)].mean(0) for rows in LANDMARKS[len(points)][:2]]
    return torch.stack([*eyes, *points[list(NOSE_AND_MOUTH[len(points)])]]).float()


def face_of_landmarks(landmarks: Points) -> Face | None:
    """Of landmarks (N, 2) px; its box is the upright square around the face. None where they all lie within a pixel.

    InputError as `five_points`.
    """
    five = five_points(landmarks)
    square = face_square(landmarks, scale=1.0, vy=0.0)
    if square.size < 1:
        return None
    return Face(torch.cat([square.center - square.size / 2, square.size.expand(2)]).float(), five, 1.0)


def face_of_box(box: torch.Tensor | Sequence[float]) -> Face | None:
    """Of x, y, width, height px; the five points are those of an upright frontal face in it. None for a box of less than a
    pixel.

    InputError unless there are four finite numbers.
    """
    box = torch.as_tensor(box, dtype=torch.float32)
    if box.shape != (4,) or not torch.isfinite(box).all():
        raise InputError(f"A face's box must be four finite numbers x, y, width, height; this one is {box.tolist()}.")
    return Face(box, box[:2] + NOMINAL * box[2:], 1.0) if box[2:].min() >= 1 else None


def check_inside(face: Face, height: int, width: int) -> None:
    """InputError where the middle of the face is outside the picture of height x width px, or the face far larger than that."""
    w, h = face.box[2:].tolist()
    if max(w, h) > LARGEST * max(height, width):
        raise InputError(
            f"a face of {w:.4g}x{h:.4g} px is larger than {LARGEST} pictures of {width}x{height} px. Was it found on another "
            "picture, or on a resized one?"
        )
    x, y = (face.box[:2] + face.box[2:] / 2).tolist()
    if not (0 <= x <= width and 0 <= y <= height):
        raise InputError(
            f"a face in the middle of ({x:.0f}, {y:.0f}) px is outside the picture of {width}x{height} px. Was it found on another "
            "picture, or on a resized one?"
        )
