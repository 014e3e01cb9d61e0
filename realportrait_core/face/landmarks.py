"""MediaPipe's face landmarker: 478 points on a face, by the network of `face_landmarker.task`, run by OpenCV.

The file is Google's, Apache-2.0, from MediaPipe's model page (Face Landmarker); it is not part of this pack. It is a zip of
TensorFlow Lite networks, of which `face_landmarks_detector.tflite` is used, without the package `mediapipe`. Its input is a
square around the face, rotated upright, as in MediaPipe.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import InputError, WeightsError
from ..opencv import import_cv2
from .crop import Points, face_square, rescale
from .detect import checked_image

POINTS = 478  # 468 of the mesh, then 5 of each iris
SIDE = 256  # px of the network's input
MARGIN = 1.5  # side of the input square / longer side of the box around the points
EYE_CORNERS = (33, 263)  # outer, image-left and image-right: they define the roll of the face
PASSES = 2  # the first finds the square for the second; a third moves the points by less than 0.1 px
NETWORK = "face_landmarks_detector.tflite"
OUTPUT = "Identity"  # of the network: the points

# Regions of the face by MediaPipe's mesh connections; left and right are the person's.
LEFT_EYE = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)
RIGHT_EYE = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
LEFT_BROW = (276, 283, 282, 295, 285, 300, 293, 334, 296, 336)
RIGHT_BROW = (46, 53, 52, 65, 55, 70, 63, 105, 66, 107)
OUTER_LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
INNER_LIPS = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191)
UPPER_INNER, LOWER_INNER = (82, 13, 312), (87, 14, 317)  # the middle of the inner lips, one above the other


@dataclass(frozen=True)
class LandmarkRegion:
    """The square of the picture that is the network's input."""

    centre: tuple[float, float]  # px
    side: float  # px
    angle: float  # radians, clockwise on the screen

    def to_network(self) -> np.ndarray:
        """(2, 3) float64: px of the picture -> px of the network's input."""
        zoom, angle = SIDE / self.side, torch.tensor(self.angle, dtype=torch.float64)
        sin, cos = angle.sin() * zoom, angle.cos() * zoom
        linear = torch.stack([torch.stack([cos, sin]), torch.stack([-sin, cos])])
        shift = (SIDE - 1) / 2 - linear @ torch.tensor(self.centre, dtype=torch.float64)
        return torch.cat([linear, shift[:, None]], 1).numpy()


class FaceLandmarker:
    """MediaPipe's network through OpenCV 4.8 or newer, 5.x included; 25 ms per picture on one core.

    On 60 portraits of 256 px its points are 0.8 px on average from those of MediaPipe itself, without a common shift.
    Raises WeightsError where the file is missing or is not `face_landmarker.task`, RealPortraitError where OpenCV is missing.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._network = load_network(self.path)

    def points(self, picture: torch.Tensor | np.ndarray, five: Points) -> torch.Tensor:
        """picture (H, W, 3) in [0, 1] or uint8, the face's five points (5, 2) px -> (478, 3) float32 px; z smaller is nearer."""
        picture = checked_image(picture)
        region = region_of_five(five)
        for _ in range(PASSES):
            points = self._predict(picture, region)
            region = region_of_points(points)
        return points

    def _predict(self, picture: np.ndarray, region: LandmarkRegion) -> torch.Tensor:
        cv2 = import_cv2()

        matrix = region.to_network()
        # Sampled at the picture's resolution, then averaged, against aliasing.
        fine = max(1, round(region.side / SIDE))
        forward = rescale(fine).numpy()[:2, :2] @ matrix + rescale(fine).numpy()[:2, 2:] * [0, 0, 1]
        crop = cv2.warpAffine(picture, forward, (fine * SIDE,) * 2, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        crop = cv2.resize(crop, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        self._network.setInput(cv2.dnn.blobFromImage(crop, 1 / 255))
        found = torch.from_numpy(self._network.forward(OUTPUT).reshape(POINTS, 3)).double()
        matrix = torch.from_numpy(matrix)
        plane = torch.linalg.solve(matrix[:, :2], (found[:, :2] - matrix[:, 2]).T).T
        return torch.cat([plane, found[:, 2:] * (region.side / SIDE)], 1).float()


def region_of_five(five: Points) -> LandmarkRegion:
    """The region from five points (5, 2) px, by the extent of the face that they predict."""
    square = face_square(five, scale=MARGIN, vy=0.0)
    return LandmarkRegion(tuple(square.center.tolist()), float(square.size), float(square.angle))


def region_of_points(points: torch.Tensor) -> LandmarkRegion:
    """The region from points (478, 2 or more) px: MARGIN times the longer side of their box, with the roll of the eye corners."""
    points = points[:, :2].double()
    low, high = points.amin(0), points.amax(0)
    left, right = points[list(EYE_CORNERS)]
    across = right - left
    angle = float(torch.atan2(across[1], across[0]))
    return LandmarkRegion(tuple(((low + high) / 2).tolist()), MARGIN * float((high - low).max()), angle)


def read_part(path: Path, name: str) -> bytes:
    """One file of the zip `face_landmarker.task`. WeightsError where there is no such file in it."""
    if not path.is_file():
        raise WeightsError(
            f"MediaPipe's face landmarker is missing: looked for {path}. Its file face_landmarker.task (3.8 MB, Apache-2.0) "
            "is on MediaPipe's model page, under Face Landmarker."
        )
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(name)
    except (zipfile.BadZipFile, KeyError) as error:
        raise WeightsError(
            f"{path} is not MediaPipe's face_landmarker.task, a zip with {name} in it ({error}). Take that file from "
            "MediaPipe's model page, under Face Landmarker."
        ) from error


def load_network(path: Path, name: str = NETWORK) -> Any:
    """A network of `face_landmarker.task`, a cv2.dnn.Net. Raises WeightsError where it cannot be loaded."""
    cv2 = import_cv2()

    model = torch.frombuffer(bytearray(read_part(path, name)), dtype=torch.uint8).numpy()
    read = cv2.dnn.readNetFromTFLite
    try:
        # OpenCV 5 has two engines; the older one is known to run this network.
        return read(model, engine=cv2.dnn.ENGINE_CLASSIC) if hasattr(cv2.dnn, "ENGINE_CLASSIC") else read(model)
    except cv2.error as error:
        raise WeightsError(f"OpenCV {cv2.__version__} cannot run {name} of {path} ({error.err or error}).") from error


def check_landmarks(points: torch.Tensor) -> None:
    """InputError unless points are (L, 478, 2 or 3)."""
    if points.ndim != 3 or points.shape[1] != POINTS or points.shape[2] not in (2, 3):
        raise InputError(f"Landmarks must be (L, {POINTS}, 2 or 3); these are {tuple(points.shape)}.")
