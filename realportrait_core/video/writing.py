"""Frames and audio as an mp4 file."""

import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError
from .audio import Audio

CRF = 18  # of H.264, its usual value for no visible loss
AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)


def write_video(
    path: Path, frames: torch.Tensor, fps: float, audio: Audio | None = None, crf: int = CRF, comment: str | None = None
) -> None:
    """Frames (L, H, W, 3), uint8 or in [0, 1], as H.264 with AAC, written whole or not at all.

    crf: its quality, lower is better. comment: for the file's metadata.

    Of an odd width or height the last column or row is left out: the codec stores colours for every second pixel.
    Raises InputError where the folder cannot be written to, or PyAV has no such encoder.
    """
    import av

    height, width = (side // 2 * 2 for side in frames.shape[1:3])
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path.parent} cannot be made: {error}") from error
    try:
        with av.open(str(partial), "w", format="mp4") as file:
            if comment is not None:
                file.metadata["comment"] = comment
            picture = file.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options={"crf": str(crf)})
            picture.width, picture.height, picture.pix_fmt = width, height, "yuv420p"
            sound = add_sound(file, audio)
            for frame in frames[:, :height, :width]:
                values = frame if frame.dtype == torch.uint8 else (frame * 255).round().clamp(0, 255).byte()
                pixels = values.cpu().contiguous().numpy()
                file.mux(picture.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            file.mux(picture.encode(None))
            if sound is not None:
                waveform = audio.waveform[0].numpy()  # (channels, samples)
                samples = av.AudioFrame.from_ndarray(waveform, format="fltp", layout=sound.layout.name)
                samples.sample_rate, samples.time_base = audio.rate, Fraction(1, audio.rate)
                samples.pts = 0  # else the encoder's delay of 1024 samples stays in the file
                file.mux(sound.encode(samples))
                file.mux(sound.encode(None))
        os.replace(partial, path)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise InputError(f"{path} cannot be written as H.264 video of {width}x{height} px ({error}).") from error
    finally:
        partial.unlink(missing_ok=True)


def add_sound(file: Any, audio: Audio | None) -> Any:
    """An AAC stream for the audio in an open av container, resampled where AAC has not its rate; None without audio."""
    if audio is None:
        return None
    rate = audio.rate if audio.rate in AAC_RATES else 48000
    return file.add_stream("aac", rate=rate, layout="mono" if audio.waveform.shape[1] == 1 else "stereo")
