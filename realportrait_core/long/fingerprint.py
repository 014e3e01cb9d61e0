"""What a continuation state belongs to, as a few hexadecimal digits of each one's content."""

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ..animation.retargeting import DrivenKeypoints
from ..errors import InputError
from ..video.source import Readable

DIGITS = 16
SAMPLED = 2**20  # bytes that are read of a file's start, and of its end


def fingerprint(parts: Iterable[tuple[str, Tensor | None]]) -> str:
    """16 hexadecimal digits of named tensors: their names, shapes and values."""
    digest = hashlib.sha256()
    for name, value in parts:
        if value is not None:
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()[:DIGITS]


def weights_fingerprint(network: nn.Module) -> str:
    """Of a network's weights; the same in float32 and float16, as of `vid2vid.checkpoint.motion_fingerprint`."""
    state = sorted(network.state_dict().items())
    return fingerprint((key, value.half() if value.is_floating_point() else value) for key, value in state)


def portrait_fingerprint(pictures: Tensor | None, points: Tensor) -> str:
    """Of a portrait (1 or L, H, W, 3) in [0, 1] and the points of the face (5, 2) in it that is animated."""
    return fingerprint([("picture", None if pictures is None else pictures.float()), ("points", points)])


def driving_fingerprint(driven: DrivenKeypoints) -> str:
    """Of a driving motion: the driven keypoints of all frames, and where the face is in them."""
    keypoints = driven.keypoints
    parts = {
        "x_d": driven.x_d,
        "points": keypoints.driver_points,
        "crop": keypoints.driver_crop,
        "weight": keypoints.motion_weight,
        "first": torch.tensor(driven.first),
    }
    return fingerprint(parts.items())


def file_fingerprint(source: Readable) -> str:
    """Of a file's size, first and last MB. Raises InputError where it cannot be read."""
    digest = hashlib.sha256()
    try:
        with source.open() as stream:
            size = stream.seek(0, 2)
            for at in (0, max(0, size - SAMPLED)):
                stream.seek(at)
                digest.update(stream.read(SAMPLED))
    except OSError as error:
        raise InputError(f"{source.name} cannot be read ({error}).") from error
    digest.update(str(size).encode())
    return digest.hexdigest()[:DIGITS]
