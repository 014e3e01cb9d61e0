"""Still pictures from files."""

import numpy as np

from ..errors import InputError
from ..opencv import import_cv2
from .source import Readable

JPEG, END = b"\xff\xd8", 0xD9  # first bytes, and the kind of its last marker


def read_picture(source: Readable) -> np.ndarray:
    """(H, W, 3) uint8 RGB, rotated by its EXIF, without alpha.

    Raises InputError where it is damaged or no picture, RealPortraitError where OpenCV is missing.
    """
    cv2 = import_cv2()
    try:
        with source.open() as stream:
            data = stream.read()
        if not is_whole(data):
            raise InputError(f"{source.name} is cut short, or no JPEG, PNG or WebP picture. Copy it again, or convert it.")
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except (OSError, MemoryError, cv2.error) as error:
        raise InputError(f"{source.name} cannot be read as a picture ({error}).") from error
    if picture is None:
        raise InputError(f"{source.name} cannot be read as a picture: it is damaged.")
    return np.ascontiguousarray(picture[..., ::-1])


def is_picture(start: bytes) -> bool:
    """Whether a file is a JPEG, PNG or WebP, by its first 12 bytes."""
    return start.startswith((JPEG, b"\x89PNG\r\n\x1a\n")) or start[:4] == b"RIFF" and start[8:12] == b"WEBP"


def is_whole(data: bytes) -> bool:
    """Whether a JPEG, PNG or WebP is complete; OpenCV fills the missing part of one with grey."""
    if data.startswith(JPEG):
        return jpeg_ends(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return b"IEND\xaeB`\x82" in data
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return len(data) >= 8 + int.from_bytes(data[4:8], "little")
    return False


def jpeg_ends(data: bytes) -> bool:
    """Whether the end of a JPEG's picture is there. Telephones write a film, or other pictures, behind it."""
    at = data.find(b"\xff", len(JPEG))
    while 0 <= at < len(data) - 1:
        kind = data[at + 1]
        if kind == END:
            return True
        if kind == 0xFF:  # filled up
            at += 1
            continue
        # In a picture's data 00 stands behind each FF, and D0 to D7 are marks without content; all others say their length.
        at += 2 if kind <= 1 or 0xD0 <= kind <= 0xD8 else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        at = data.find(b"\xff", at)
    return False
