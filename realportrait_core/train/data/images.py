"""A still picture as portrait, and a random crop of it as driver (the paper's "random crop augmentation").

"Although random cropping does not alter the facial expression or pose, the resulting changes in scale and translation are
sufficient to prevent the network from taking the shortcut" of copying the portrait.
"""

import hashlib

import numpy as np
import torch

from ...errors import InputError
from ...face.crop import face_square
from .sources import Source

# Side of the crop in sides of the portrait's square. The paper names none. At 0.7 the face is 1.4 times as large, and the
# bundled W still draws it 5 dB better than the portrait unmoved (19.3 dB in the face against 14.4); beyond, its map gets vague.
SMALLEST, LARGEST = 0.7, 0.95


def read_picture(source: Source) -> np.ndarray:
    """(H, W, 3) uint8 RGB, turned as its EXIF says, without alpha. Raises InputError where it is damaged or no picture."""
    import cv2

    try:
        data = source.read()
        if not is_whole(data):
            raise InputError(f"{source.name} is cut short, or no JPEG, PNG or WebP picture.")
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except (OSError, MemoryError, cv2.error) as error:
        raise InputError(f"{source.name} cannot be read as a picture ({error}).") from error
    if picture is None:
        raise InputError(f"{source.name} cannot be read as a picture: it is damaged.")
    return np.ascontiguousarray(picture[..., ::-1])


def is_whole(data: bytes) -> bool:
    """Whether a JPEG, PNG or WebP ends where it should; OpenCV fills what is missing of one with grey."""
    if data.startswith(b"\xff\xd8"):
        return data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda") > 0  # the end after the start of the last scan
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return b"IEND\xaeB`\x82" in data
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return len(data) >= 8 + int.from_bytes(data[4:8], "little")
    return False


def random_crop(square: torch.Tensor, points: torch.Tensor, size: int, enlargement: float, seed: str) -> torch.Tensor | None:
    """A square inside the portrait's own that holds the whole face: (3, 3) float64, picture px -> px of a size x size frame.

    square (3, 3) is the portrait's, points (5, 2) px of the picture. The pixels are enlarged by at most `enlargement`. The
    same seed gives the same crop. None where the face leaves no room for one.
    """
    side = size / float(square[0, 0])
    corner = (-0.5 - square[:2, 2]) / square[0, 0] + 0.5  # outer corner of the portrait's square
    face = face_square(points, scale=1.4, vy=-0.1)  # with the forehead and the chin
    low = torch.maximum(face.center - face.size / 2 + 0.5, corner)
    high = torch.minimum(face.center + face.size / 2 + 0.5, corner + side)
    smallest = max(SMALLEST * side, float((high - low).max()), size / enlargement)
    if smallest > LARGEST * side:
        return None
    generator = torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(seed.encode()).digest()[:6], "big"))
    zoom, *place = torch.rand(3, dtype=torch.float64, generator=generator)
    length = smallest + float(zoom) * (LARGEST * side - smallest)
    first, last = torch.maximum(corner, high - length), torch.minimum(low, corner + side - length)
    start = first + torch.stack(place) * (last - first)
    forward = torch.diag(torch.tensor([size / length, size / length, 1.0], dtype=torch.float64))
    forward[:2, 2] = (0.5 - start) * size / length - 0.5
    return forward
