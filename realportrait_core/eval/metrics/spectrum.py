"""`spectrum`: power by octave of frequency, relative to the truth's. A metric, never part of a loss.

The power spectrum of luma in a window of half the frame's side around the truth's facial mask, where face, hair and collar are.
Blur lowers the fine octaves; hatching, noise and ringing raise theirs. Positions are not compared, so a face that is sharp in the
wrong position passes: use it beside keypoints and ST-LPIPS. 1 ms a frame of 256 px on one core.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ...errors import InputError

OCTAVES = 5  # up to Nyquist; of a window of 128 px: 2 to 4, 4 to 8, 8 to 16, 16 to 32 and 32 to 64 periods
SMALLEST = 32  # px of the frame, below which the coarsest octave holds no frequency
ROUNDING = (1 / 255) ** 2 / 12  # variance of an 8-bit picture's rounding: no octave's power counts as less


def window(height: int, width: int, centre: Sequence[float]) -> tuple[slice, slice]:
    """Rows and columns of a square of half the frame's shorter side around centre (x, y) px, moved into the frame."""
    side = min(height, width) // 2
    starts = (min(max(round(c + 0.5 - side / 2), 0), room - side) for c, room in zip(centre, (width, height)))
    columns, rows = (slice(start, start + side) for start in starts)
    return rows, columns


def octave_power(frames: Tensor) -> Tensor:
    """Power (OCTAVES,) float64, coarse to fine, summed over frames (L, 3, S, S) in [0, 1] under a Hann window.

    Frequencies are distances from 0 in the plane; those beyond Nyquist, in the corners, are left out.
    """
    from kornia.color import rgb_to_grayscale

    side = frames.shape[-1]
    hann = torch.hann_window(side, dtype=torch.float64)
    hann = hann[:, None] * hann
    grey = rgb_to_grayscale(frames.double())[:, 0]  # (L, S, S), luma of ITU-R BT.601
    mean = (grey * hann).sum((1, 2), keepdim=True) / hann.sum()  # else brightness leaks into the coarsest octave
    spectrum = torch.fft.fft2((grey - mean) * hann)
    power = spectrum.real.square() + spectrum.imag.square()  # (L, S, S)
    frequency = torch.fft.fftfreq(side, dtype=torch.float64)  # periods a px
    radius = torch.hypot(frequency[:, None], frequency)
    rings = [(radius > 0.5 ** (k + 2)) & (radius <= 0.5 ** (k + 1)) for k in reversed(range(OCTAVES))]
    floor = ROUNDING * len(frames) * hann.square().sum()  # of one frequency
    return torch.stack([(power * ring).sum() + floor * ring.sum() for ring in rings])


def spectrum_db(result: Tensor, truth: Tensor, centre: Sequence[float]) -> list[float]:
    """dB of the result's power relative to the truth's in each octave, coarse to fine, over all frames of a clip.

    Both (L, 3, H, W) in [0, 1]; centre (x, y) px of the window. InputError for shapes that differ, or less than SMALLEST px.
    """
    if result.shape != truth.shape or result.ndim != 4 or min(result.shape[2:], default=0) < SMALLEST:
        raise InputError(
            f"The result is {tuple(result.shape)} and the truth {tuple(truth.shape)}; both must be (L, 3, H, W) of at least "
            f"{SMALLEST} px."
        )
    rows, columns = window(result.shape[2], result.shape[3], centre)
    ours, theirs = (octave_power(frames[..., rows, columns]) for frames in (result, truth))
    return (10 * (ours / theirs).log10()).tolist()


def worst_octave(octaves: Sequence[float]) -> float:
    """The dB of the octave that deviates most, with its sign; the finest octave is left out."""
    return max(octaves[:-1], key=abs)
