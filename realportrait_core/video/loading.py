"""The selected frames of a video as one tensor, with their audio."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from ..errors import InputError
from .apart import read_apart
from .audio import Audio, read_audio
from .decoding import fit
from .reading import timeline_rate
from .records import Request
from .source import VideoFile
from .timeline import Selection, select

LOADED = 1 + 4  # bytes per colour value while frames are loaded: uint8, then float32

Progress = Callable[[int, int], None]  # (done, total)


@dataclass(frozen=True)
class Footage:
    """Frames of a video, `fps` a second, and the audio from the first of them to the end of the last."""

    images: torch.Tensor  # (n, H, W, 3) float32 in [0, 1]
    fps: float
    times: list[float]  # s in the file, of each frame
    audio: Audio | None


def load_video(source: VideoFile, selection: Selection, most: float | None = None, callback: Progress | None = None) -> Footage:
    """The selected frames of a file and their audio. Frames before and between them are dropped as they are decoded, in another
    process.

    most: bytes that loading may take. callback(done, total) at every frame of the timeline; what it raises ends the loading.
    Raises InputError where the file is no video or damaged, gives no frame rate, changes its picture's size, where the range
    is behind its end, the frames would take more than `most` bytes, or the decoder crashes.
    """
    progress: TimelineProgress | None = None
    pictures: list[np.ndarray] = []
    times: list[float] = []
    with closing(read_apart(source, Request(selection), lambda n: progress.frame(n))) as records:
        info = next(records)
        fps = timeline_rate(source, selection, info)
        progress = TimelineProgress(selection, fps, info.duration, callback)
        for shown in records:
            pictures.append(pictures[-1] if shown.pixels is None else shown.pixels)
            times.append(shown.time)
            check_room(max(len(pictures), progress.expected), pictures[-1].shape, most, source.name)
    images = torch.empty(len(pictures), *pictures[0].shape)
    for i in range(len(pictures)):
        torch.div(torch.from_numpy(pictures[i]), 255, out=images[i])
        pictures[i] = None
    fps /= selection.stride
    audio = read_audio(source, times[0], len(times) / fps, progress.audio) if info.sound else None
    return Footage(images, fps, times, audio)


@dataclass(frozen=True)
class ImageFrame:
    """A frame that is in memory already."""

    number: int
    time: float
    anew: bool = False


def select_frames(
    images: torch.Tensor, rate: float, audio: Audio | None, selection: Selection, callback: Progress | None = None
) -> Footage:
    """As load_video, for frames (n, H, W, C) at `rate` a second that are in memory already; C of 1, 3 or more is kept."""
    fps = selection.fps or rate
    progress = TimelineProgress(selection, fps, len(images) / rate, callback)
    frames = (ImageFrame(i, i / rate) for i in range(len(images)))
    picked = list(select(frames, fps, selection, "The video", progress.frame))
    out, height, width = [], *images.shape[1:3]
    smaller = 0 < selection.longest_side < max(width, height)
    if smaller:
        width, height = fit(width, height, selection.longest_side)
    for frame, _ in picked:
        picture = images[frame.number].float()
        if smaller:
            picture = F.interpolate(picture.movedim(-1, 0)[None], (height, width), mode="area")[0].movedim(0, -1)
        out.append(picture)
    times, fps = [time for _, time in picked], fps / selection.stride
    if audio is not None:
        begin, samples = round(times[0] * audio.rate), round(len(times) / fps * audio.rate)
        audio = Audio(audio.waveform[..., begin : begin + samples], audio.rate)
    return Footage(torch.stack(out), fps, times, audio)


class TimelineProgress:
    """Progress over the timeline up to the last selected frame, as far as the declared duration is right."""

    def __init__(self, selection: Selection, fps: float, duration: float | None, callback: Progress | None):
        first, stride = selection.first(fps), selection.stride
        whole = round(duration * fps) if duration else None
        wanted = first + (selection.frames - 1) * stride + 1 if selection.frames else None
        self.total = min((n for n in (whole, wanted) if n), default=1)
        self.expected = max(0, -(-(self.total - first) // stride))  # frames that will be kept, 0 where it is not known
        self.callback = callback

    def frame(self, n: int) -> None:
        if self.callback is not None:
            self.callback(min(n, self.total), self.total)

    def audio(self) -> None:
        self.frame(self.total)


def check_room(frames: int, size: tuple[int, ...], most: float | None, name: str) -> None:
    """Raises InputError where `frames` frames of size (H, W, 3) take more than `most` bytes while they are loaded."""
    need = frames * size[0] * size[1] * size[2] * LOADED
    if most is not None and need > most:
        raise InputError(
            f"{frames} frames of {size[1]}x{size[0]} px of {name} take {need / 2**30:.1f} GB while they are loaded, and "
            f"{most / 2**30:.1f} GB are free. Set frames, a stride, a lower fps or longest_side; "
            "for any length connect Stream Driving Video to Animate Long Video."
        )
