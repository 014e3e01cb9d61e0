"""Videos made for a test."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

RATE = 16000  # samples a second of their sound


def write(
    path: Path,
    pictures,
    fps: float = 12.5,
    times=None,
    rotation: int = 0,
    crf: int = 18,
    seconds: float = 0.0,
    options: dict[str, str] | None = None,
    **codec,
) -> Path:
    """An H.264 video; times in s for a rate that varies; seconds of a sound whose sample at time t is t / 100."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w", options=options or {}) as video:
        stream = video.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.options = "yuv420p", {"crf": str(crf), "preset": "ultrafast"}
        for name, value in codec.items():
            setattr(stream.codec_context, name, value)
        if rotation:
            stream.set_display_rotation(rotation)
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        ramp = video.add_stream("pcm_s16le" if path.suffix == ".mkv" else "aac", rate=RATE, layout="mono") if seconds else None
        for i, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = round(1000 * times[i]), Fraction(1, 1000)
            video.mux(stream.encode(frame))
        video.mux(stream.encode())
        if ramp:
            wave = np.arange(int(RATE * seconds)) / RATE / 100
            samples = av.AudioFrame.from_ndarray(np.int16(wave * 32767)[None], format="s16", layout="mono")
            samples.sample_rate = RATE
            video.mux(ramp.encode(samples))
            video.mux(ramp.encode())
    return path
