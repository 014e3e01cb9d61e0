"""Pictures as compressed bytes inside a sample: lossless where a network's input is kept, JPEG where a photograph is.

Of a face crop of 256 px (real talking heads): 44 KB as lossless WebP, 75 KB as PNG, 20 KB as JPEG at quality 95, 4,194 KB as
the feature f_r of it in fp16. JPEG would change f_r by 1.1 %, rounding to whole grey values alone changes it by 0.2 %.
"""

import numpy as np
import torch

from ...errors import InputError

JPEG_QUALITY = 95  # with colours at full resolution


def pack_lossless(picture: torch.Tensor) -> torch.Tensor:
    """(3, H, W) uint8 RGB -> the bytes (N,) uint8 of a lossless WebP."""
    import cv2

    return packed(picture, ".webp", [cv2.IMWRITE_WEBP_QUALITY, 101])  # above 100 is lossless


def pack_jpeg(picture: torch.Tensor) -> torch.Tensor:
    """(3, H, W) uint8 RGB -> the bytes (N,) uint8 of a JPEG."""
    import cv2

    sampling = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return packed(picture, ".jpg", [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY, *sampling])


def packed(picture: torch.Tensor, form: str, options: list[int]) -> torch.Tensor:
    import cv2

    pixels = np.ascontiguousarray(picture.movedim(0, -1).numpy()[..., ::-1])
    return torch.from_numpy(cv2.imencode(form, pixels, options)[1].reshape(-1).copy())


def unpack(data: torch.Tensor) -> torch.Tensor:
    """The bytes (N,) uint8 of a WebP or JPEG -> (3, H, W) uint8 RGB. Raises InputError where they are damaged."""
    import cv2

    pixels = cv2.imdecode(data.numpy(), cv2.IMREAD_COLOR)
    if pixels is None:
        raise InputError(f"A picture of {len(data)} bytes in a training sample is damaged: prepare the sample anew.")
    return torch.from_numpy(np.ascontiguousarray(pixels[..., ::-1])).movedim(-1, 0)
