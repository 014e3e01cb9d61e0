"""Photographs of faces as an array, for trainings that only look at pictures."""

from pathlib import Path

import cv2
import numpy as np

from ..errors import InputError

ENDINGS = (".jpg", ".jpeg", ".png", ".webp")


def read_photos(folder: Path) -> np.ndarray:
    """(N, S, S, 3) uint8 of every picture in a folder, by name. InputError where there is none, or they differ in size."""
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS) if folder.is_dir() else []
    if not paths:
        raise InputError(f"{folder} holds no photograph ({', '.join(ENDINGS)}).")
    pictures = []
    for path in paths:
        picture = cv2.imread(str(path))
        if picture is None:
            raise InputError(f"{path} cannot be read as a picture.")
        if picture.shape[0] != picture.shape[1] or pictures and picture.shape != pictures[0].shape:
            raise InputError(f"{path} is {picture.shape[1]}x{picture.shape[0]} px; all must be square and of one size.")
        pictures.append(picture[..., ::-1])
    return np.stack(pictures)
