"""The driving video: the frames that are wanted, at the rate that is wanted, and no others in memory."""

from fractions import Fraction
from pathlib import Path

import comfy.model_management
import torch
from comfy_api.latest import Input, InputImpl, Types, io

from ..realportrait_core.errors import InputError
from ..realportrait_core.video.audio import Audio
from ..realportrait_core.video.loading import Footage, load_video, select_frames
from ..realportrait_core.video.source import VideoFile
from ..realportrait_core.video.stream import VideoStream
from ..realportrait_core.video.timeline import Selection
from .host import images, media
from .host.folders import stamp
from .host.newer import advanced, aliases
from .host.run import Progress, finite, one_of

SOCKET = "(the video input)"
UNITS = ["seconds", "frames"]
SPARE = 1 << 30  # bytes of the free memory that are left to others


class LoadDrivingVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="RealPortraitLoadDrivingVideo",
            display_name="Load Driving Video",
            category="RealPortrait",
            description="Loads a part of a video as frames, at a rate of your choice, with the matching sound. Frames outside "
            "the part take no memory, however long the video is.",
            inputs=[
                io.Combo.Input(
                    "file",
                    options=[SOCKET, *media.VIDEOS, *media.input_videos()],
                    default=SOCKET,
                    upload=io.UploadType.video,
                    tooltip="A video of ComfyUI's input folder (mp4, mov, mkv, webm, avi, gif), to which the button below uploads; "
                    "the example of the pack; or the video input.",
                ),
                io.Float.Input(
                    "start",
                    default=0.0,
                    min=0.0,
                    max=10**6,
                    step=0.01,
                    round=0.0001,
                    tooltip="Where the range starts, in seconds or in frames. Frames are counted from 0 at the rate of fps.",
                ),
                io.Combo.Input("start_in", options=UNITS, default="seconds", tooltip="The unit of start."),
                io.Int.Input(
                    "frames",
                    default=0,
                    min=0,
                    max=10**6,
                    tooltip="How many frames are loaded, fewer where the video ends. 0: all from the start on.",
                ),
                io.Int.Input(
                    "stride",
                    default=1,
                    min=1,
                    max=1000,
                    tooltip="Of the frames at the rate of fps, every stride-th is loaded: the motion stays as fast if the result "
                    "is saved at the fps that this node gives.",
                    **advanced(),
                ),
                io.Float.Input(
                    "fps",
                    default=0.0,
                    min=0.0,
                    max=240.0,
                    step=0.5,
                    round=0.001,
                    tooltip="Frames a second; the frames nearest in time are taken. 0 is the video's own average rate. The "
                    "bundled weights were trained at 12.5.",
                ),
                io.Int.Input(
                    "longest_side",
                    default=0,
                    min=0,
                    max=8192,
                    step=8,
                    tooltip="Larger frames are scaled down to this many pixels along their longer side. 0 leaves them as they "
                    "are. The face should stay at least 256 px wide.",
                    **advanced(),
                ),
                io.Video.Input(
                    "video", optional=True, tooltip="From Load Video, for example. Used when file selects the video input."
                ),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="The frames, upright."),
                io.Audio.Output(display_name="audio", tooltip="The sound of these frames; nothing where the video has none."),
                io.Float.Output(display_name="fps", tooltip="Frames a second of the images, for Create Video."),
                io.Int.Output(display_name="count", tooltip="How many frames there are."),
                io.Video.Output(display_name="video", tooltip="Frames, sound and rate in one, for Animate Portrait."),
            ],
            **aliases("load video", "video to frames", "video frames"),
        )

    @classmethod
    def validate_inputs(cls, file):
        try:
            return file == SOCKET or bool(media.video_path(file))
        except InputError as error:
            return str(error)

    @classmethod
    def fingerprint_inputs(cls, file, start, start_in, frames, stride, fps, longest_side, video=None):
        return None if file == SOCKET else stamp(media.video_path(file))

    @classmethod
    def execute(cls, file, start, start_in, frames, stride, fps, longest_side, video=None) -> io.NodeOutput:
        one_of(UNITS, start_in, "start_in")
        finite(start=start, fps=fps)
        selection = Selection(start, start_in, frames, stride, fps, longest_side)
        if file != SOCKET:
            path = media.video_path(file)
            footage = from_file(VideoFile(path.name, path), selection)
        elif video is None:
            raise InputError("No video: choose or upload a file, or connect Load Video to the video input.")
        else:
            source = stream_source(video)
            footage = from_memory(video, selection) if source is None else from_file(source, selection)
        audio = None
        if footage.audio is not None:
            audio = {"waveform": footage.audio.waveform, "sample_rate": footage.audio.rate}
        video = Types.VideoComponents(images=footage.images, audio=audio, frame_rate=Fraction(footage.fps))
        return io.NodeOutput(footage.images, audio, footage.fps, len(footage.images), InputImpl.VideoFromComponents(video))


def stream_source(video) -> VideoFile | None:
    """The file behind a VIDEO, or None for one whose frames lie in memory, or that is a part of its file."""
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


def driving_frames(video) -> torch.Tensor | VideoStream:
    """The frames of an IMAGE or of a VIDEO: (L, H, W, 3) in [0, 1] where they lie in memory, else a stream from the file."""
    if isinstance(video, Input.Video):
        source = stream_source(video)
        if source is not None:
            check_file(source)
            return VideoStream(source, Selection(), comfy.model_management.throw_exception_if_processing_interrupted)
        video = video.get_components().images
    return images.rgb(video, "driving video")


def check_file(source: VideoFile) -> None:
    if isinstance(source.content, Path) and not source.content.is_file():
        raise InputError(f"There is no file {source.content}. Was it moved after Load Video was set?")


def from_file(source: VideoFile, selection: Selection) -> Footage:
    check_file(source)
    free = comfy.model_management.get_free_memory(torch.device("cpu")) - SPARE
    return load_video(source, selection, free, on_node(), comfy.model_management.throw_exception_if_processing_interrupted)


def from_memory(video, selection: Selection) -> Footage:
    parts = video.get_components()
    audio = None if parts.audio is None else Audio(parts.audio["waveform"], parts.audio["sample_rate"])
    return select_frames(images.rgb(parts.images, "video"), float(parts.frame_rate), audio, selection, on_node())


def on_node():
    """A callback (done, total) that moves the node's bar and ends in the host's interrupt."""
    bar = None

    def tick(done: int, total: int) -> None:
        nonlocal bar
        if bar is None:
            bar = Progress(total)
        bar.to(done)

    return tick
