"""Frames and audio as an mp4 file."""

import errno
import shutil
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError
from ..whole_file import whole_file
from .audio import Audio

BT601, BT709 = 6, 1  # by the codec's standard: the matrix by which PyAV turns RGB into YUV; primaries and transfer of the RGB
LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}  # of so many channels, as FFmpeg's
CRF = 18  # of H.264, its usual value for no visible loss
AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no room on the disk, in the quota, or for so large a file
SAID_FULL = (39, 112) if sys.platform == "win32" else FULL  # the same in the texts of safetensors' errors


def frame_rate(fps: float) -> Fraction:
    """The rate as a video file has it: 23.976, 29.97 and 12.5 are 2997/125, 2997/100 and 25/2; 30000/1001 stays."""
    return Fraction(fps).limit_denominator(1001)


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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path.parent} cannot be made: {error}") from error
    try:
        with whole_file(path) as partial, av.open(str(partial), "w", format="mp4") as file:
            if comment is not None:
                file.metadata["comment"] = comment
            picture = file.add_stream("libx264", rate=frame_rate(fps), options={"crf": str(crf)})
            picture.width, picture.height, picture.pix_fmt = width, height, "yuv420p"
            # Untagged, players take a picture of 720 lines or more for BT.709, whose colours are others.
            codec = picture.codec_context
            codec.colorspace, codec.color_primaries, codec.color_trc = BT601, BT709, BT709
            sound = None if audio is None else sound_stream(file, audio.rate, audio.waveform.shape[1])
            for frame in frames[:, :height, :width]:
                values = frame if frame.dtype == torch.uint8 else (frame * 255).round().clamp(0, 255).byte()
                pixels = values.cpu().contiguous().numpy()
                file.mux(picture.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            file.mux(picture.encode(None))
            if sound is not None:
                file.mux(sound.encode(sound_frame(audio.waveform[0], audio.rate, 0)))
                file.mux(sound.encode(None))
    except (av.FFmpegError, OSError, ValueError) as error:
        raise not_written(path, f"as H.264 video of {width}x{height} px", error) from error


def check_sound(audio: Audio) -> None:
    """Raises InputError for audio that `sound_frame` cannot take: before a long video is made, not when it is joined."""
    waveform, rate = audio.waveform, audio.rate
    if waveform.ndim != 3 or not len(waveform) or waveform.shape[1] not in LAYOUTS or rate < 1:
        raise InputError(
            f"The sound is {tuple(waveform.shape)} at {rate} samples a second; it must be (1, channels, samples) with 1 to "
            f"{max(LAYOUTS)} channels, and at least 1 sample a second."
        )
    bad = waveform.numel() - int(torch.isfinite(waveform).sum())
    if bad:
        raise InputError(f"{bad} of {waveform.numel()} samples of the sound are NaN or infinite: look at what made it.")


def sound_stream(file: Any, rate: int, channels: int) -> Any:
    """An AAC stream for audio of this rate in an open av container, resampled where AAC has not its rate."""
    return file.add_stream("aac", rate=rate if rate in AAC_RATES else 48000, layout="mono" if channels == 1 else "stereo")


def sound_frame(waveform: torch.Tensor, rate: int, first: int) -> Any:
    """An av.AudioFrame of samples (channels, n), the first of which is number `first` of the sound. PyAV mixes more than two
    channels down where the stream is stereo.
    """
    import av

    packed = torch.stack(list(waveform.float().cpu()), 1).reshape(1, -1).numpy()  # by samples: PyAV 18 fails at 8 planes
    frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=LAYOUTS[len(waveform)])
    frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
    frame.pts = first  # else the encoder's delay of 1024 samples stays in the file
    return frame


# Files that cannot be written


def is_full(error: BaseException | None) -> bool:
    """Whether a disk without room was the reason, or the reason of the reason."""
    while error is not None:
        if getattr(error, "errno", None) in FULL or any(f"(os error {code})" in str(error) for code in SAID_FULL):
            return True
        error = error.__cause__
    return False


def room(folder: Path) -> int | None:
    """Free bytes where the folder is; None where that cannot be told."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def not_written(path: Path, what: str, error: Exception) -> InputError:
    """The error for a file that could not be written."""
    if not is_full(error):
        return InputError(f"{path} cannot be written {what} ({error}).")
    free = room(path.parent)
    left = "" if free is None else f" ({free / 2**20:.1f} MB free)"
    return InputError(f"{path} cannot be written: the disk or the quota is full{left}. Make room, or choose another folder.")
