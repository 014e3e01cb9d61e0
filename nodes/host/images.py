"""Pictures at the border: whatever an IMAGE socket carries becomes (B, H, W, 3) float32 in [0, 1], or an error."""

import logging

import torch

from ...realportrait_core.errors import InputError

log = logging.getLogger(__name__)

FARTHEST = 1e6  # px, of a box's numbers
SMALLEST = 16  # px, side below which no face can be found or shown


def rgb(images: torch.Tensor, what: str) -> torch.Tensor:
    """(B, H, W, C) or (H, W, C) -> (B, H, W, 3) float32 in [0, 1]; `what` names the input in errors.

    Grey (C = 1) becomes RGB, RGBA is laid over white. Values outside [0, 1] are clamped with a warning. Raises InputError
    on no frames, another rank or number of channels, whole numbers, NaN, or sides under 16 px.
    """
    if not isinstance(images, torch.Tensor):
        raise InputError(f"The {what} must be an IMAGE; this is a {type(images).__name__}.")
    if images.layout != torch.strided or images.is_quantized or images.is_meta:
        kind = "without values" if images.is_meta else f"with the layout {images.layout}"
        raise InputError(f"The {what} is a tensor {kind}; an IMAGE holds every pixel. An earlier node failed.")
    if not (images.is_floating_point() or images.dtype == torch.bool):
        raise InputError(
            f"The {what} holds values of the type {images.dtype}; an IMAGE has fractions of 0 to 1. Divide whole numbers by 255."
        )
    if images.ndim == 3:
        images = images[None]
    if images.ndim != 4:
        raise InputError(f"The {what} must be an IMAGE (frames, height, width, channels); this one is {tuple(images.shape)}.")
    frames, height, width, channels = images.shape
    if frames == 0:
        raise InputError(f"The {what} has 0 frames; it needs at least 1. Was the video cut to nothing?")
    if channels not in (1, 3, 4):
        raise InputError(f"The {what} has {channels} channels; it must have 1 (grey), 3 (RGB) or 4 (RGBA).")
    if min(height, width) < SMALLEST:
        raise InputError(f"The {what} is {width}x{height} px; both sides must be at least {SMALLEST} px.")

    images = images.float()
    low, high = images.aminmax()  # NaN where there is one
    if not (torch.isfinite(low) and torch.isfinite(high)):
        bad = [i for i, frame in enumerate(images) if not torch.isfinite(frame).all()]
        raise InputError(
            f"{len(bad)} of {frames} frames of the {what} hold NaN or infinite values, frame {bad[0]} first. "
            "An earlier node failed (often a VAE in half precision); look at its output."
        )
    if low < 0 or high > 1:  # a long driver is not copied without need
        if low < -1e-3 or high > 1 + 1e-3:
            log.warning("The %s has values from %.3g to %.3g; it is clamped to 0..1.", what, low, high)
        images = images.clamp(0, 1)
    if channels == 4:
        alpha = images[..., 3:]
        images = images[..., :3] * alpha + (1 - alpha)
    return images.expand(frames, height, width, 3).contiguous()


def portrait(images: torch.Tensor) -> torch.Tensor:
    """The portrait as (1, H, W, 3). Of a batch, the first picture is taken, with a warning."""
    images = rgb(images, "portrait")
    if len(images) > 1:
        log.warning("The portrait is a batch of %d pictures; the first is animated.", len(images))
    return images[:1]


def box(text: str, what: str) -> torch.Tensor | None:
    """'x, y, width, height' in pixels -> (4,) float; None for an empty text. Raises InputError on anything else."""
    if not isinstance(text, str):
        raise InputError(f"The {what} is {text!r:.80}; it must be a text, 'x, y, width, height' in pixels.")
    if not text.strip():
        return None
    try:
        numbers = [float(number) for number in text.replace(",", " ").split()]
    except ValueError:
        numbers = []
    if len(numbers) == 4 and not all(abs(number) <= FARTHEST for number in numbers):
        raise InputError(f"The {what} is {text!r:.80}; it must be four finite numbers, at most {FARTHEST:g} px.")
    if len(numbers) != 4:
        raise InputError(
            f"The {what} is {text!r:.80}; it must be four numbers 'x, y, width, height' in pixels, or empty to look for the face."
        )
    return torch.tensor(numbers)
