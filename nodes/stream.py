"""VIDEOs that are read from their files: the host's, and one that is a part of its file."""

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import comfy.model_management
import torch
from comfy_api.latest import Input, InputImpl, Types

from ..realportrait_core.errors import InputError
from ..realportrait_core.video.loading import Footage, load_video
from ..realportrait_core.video.source import VideoFile
from ..realportrait_core.video.stream import VideoStream
from ..realportrait_core.video.timeline import Selection
from .host import images
from .host.run import on_node

SPARE = 1 << 30  # bytes of the free memory that are left to others


@dataclass(frozen=True)
class StreamedVideo(Input.Video):
    """The selected frames of a file and their sound, which are decoded each time they are asked for.

    The nodes of this pack take `stream`, of which one frame at a time is in memory; what other nodes ask for loads all frames,
    and raises InputError as `load_video` does where the file cannot be read or the frames do not fit into the free memory.
    """

    stream: VideoStream
    width: int  # px, of the frames
    height: int

    @classmethod
    def of(cls, stream: VideoStream) -> "StreamedVideo":
        """Decodes the first frame. Raises InputError where there is none."""
        check_file(stream.source)
        _, picture = stream.first(on_node())
        return cls(stream, picture.shape[1], picture.shape[0])

    def get_components(self) -> Types.VideoComponents:
        return components(load(self.stream))

    def save_to(self, path, *given, **named) -> None:  # format, codec, metadata, and more in newer hosts
        InputImpl.VideoFromComponents(self.get_components()).save_to(path, *given, **named)

    def as_trimmed(self, *given, **named) -> Input.Video | None:
        """Newer hosts' cut in time."""
        return InputImpl.VideoFromComponents(self.get_components()).as_trimmed(*given, **named)

    def get_dimensions(self) -> tuple[int, int]:
        return self.width, self.height

    def get_frame_rate(self) -> Fraction:
        return Fraction(self.stream.fps)

    def get_frame_count(self) -> int:
        return self._count

    def get_duration(self) -> float:
        return float(self.get_frame_count() / self.get_frame_rate())

    @cached_property
    def _count(self) -> int:
        """Exact: what a container declares may be wrong by some frames."""
        return sum(1 for _ in self.stream.timed(on_node()))


def stream_of(video) -> VideoStream | None:
    """The frames of a VIDEO that is read from its file; None for one whose frames lie in memory, or that newer hosts have cut.

    Raises InputError where the file is gone.
    """
    if isinstance(video, StreamedVideo):
        stream = video.stream
    else:
        source = source_of(video)
        if source is None:
            return None
        stream = VideoStream(source, Selection())
    check_file(stream.source)
    return stream


def source_of(video) -> VideoFile | None:
    """The file of the host's VIDEO, or None for one whose frames lie in memory, or that is a part of its file."""
    if not isinstance(video, InputImpl.VideoFromFile):
        return None
    content = video.get_stream_source()
    if hasattr(video, "as_trimmed"):  # newer hosts cut a VIDEO, in time or to a rectangle, but not its file
        whole = InputImpl.VideoFromFile(content)
        if (video.get_duration(), *video.get_dimensions()) != (whole.get_duration(), *whole.get_dimensions()):
            return None
    if isinstance(content, str):
        return VideoFile(Path(content).name, Path(content))
    content.seek(0)
    return VideoFile("the video", content.read())


def check_file(source: VideoFile) -> None:
    if isinstance(source.content, Path) and not source.content.is_file():
        raise InputError(f"There is no file {source.content}. Was it moved after it was chosen?")


def driving_frames(video) -> torch.Tensor | VideoStream:
    """The frames of an IMAGE or of a VIDEO: (L, H, W, 3) in [0, 1] where they lie in memory, else a stream from the file."""
    if isinstance(video, Input.Video):
        stream = stream_of(video)
        if stream is not None:
            return stream
        video = video.get_components().images
    return images.rgb(video, "driving video")


def load(stream: VideoStream) -> Footage:
    """Its frames and sound in memory. Raises InputError where they do not fit into what is free."""
    check_file(stream.source)
    free = comfy.model_management.get_free_memory(torch.device("cpu")) - SPARE
    return load_video(stream.source, stream.selection, free, on_node())


def sound_in(footage: Footage) -> dict | None:
    """An AUDIO of the host."""
    return None if footage.audio is None else {"waveform": footage.audio.waveform, "sample_rate": footage.audio.rate}


def components(footage: Footage) -> Types.VideoComponents:
    return Types.VideoComponents(images=footage.images, audio=sound_in(footage), frame_rate=Fraction(footage.fps))
