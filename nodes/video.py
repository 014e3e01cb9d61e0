"""The driving video: the frames that are wanted, at the rate that is wanted, in memory or read from the file as they are needed."""

from comfy_api.latest import Input, InputImpl, io

from ..realportrait_core.errors import InputError
from ..realportrait_core.video.audio import Audio
from ..realportrait_core.video.loading import Footage, select_frames
from ..realportrait_core.video.source import VideoFile
from ..realportrait_core.video.stream import VideoStream
from ..realportrait_core.video.timeline import Selection
from .host import images, media
from .host.folders import stamp
from .host.newer import advanced, aliases
from .host.run import finite, on_node, one_of
from .stream import StreamedVideo, components, load, stream_of

SOCKET = "(the video input)"
UNITS = ["seconds", "frames"]


def choosing() -> list[io.Input]:
    """The inputs that say which frames of which video are wanted."""
    return [
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
        io.Video.Input("video", optional=True, tooltip="From Load Video, for example. Used when file selects the video input."),
    ]


class DrivingVideo(io.ComfyNode):
    """What the host asks of both nodes before they run."""

    @classmethod
    def validate_inputs(cls, file):
        try:
            return file == SOCKET or bool(media.video_path(file))
        except InputError as error:
            return str(error)

    @classmethod
    def fingerprint_inputs(cls, file, start, start_in, frames, stride, fps, longest_side, video=None):
        return None if file == SOCKET else stamp(media.video_path(file))


class LoadDrivingVideo(DrivingVideo):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="RealPortraitLoadDrivingVideo",
            display_name="Load Driving Video",
            category="RealPortrait",
            description="Loads a part of a video as frames, at a rate of your choice, with the matching sound. Frames outside "
            "the part take no memory, however long the video is.",
            inputs=choosing(),
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
    def execute(cls, file, start, start_in, frames, stride, fps, longest_side, video=None) -> io.NodeOutput:
        found = chosen(file, start, start_in, frames, stride, fps, longest_side, video)
        footage = load(found) if isinstance(found, VideoStream) else found
        parts = components(footage)
        return io.NodeOutput(parts.images, parts.audio, footage.fps, len(footage.images), InputImpl.VideoFromComponents(parts))


class StreamDrivingVideo(DrivingVideo):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="RealPortraitStreamDrivingVideo",
            display_name="Stream Driving Video",
            category="RealPortrait",
            description="Chooses a part of a video, as Load Driving Video does, and leaves it in its file: Animate Long Video and "
            "Extract Face Motion read it one frame at a time, so a video of any length takes no memory.",
            inputs=choosing(),
            outputs=[
                io.Video.Output(
                    display_name="video",
                    tooltip="For Animate Long Video or Extract Face Motion. Save Video and Get Video Components take it too, and "
                    "load all its frames.",
                ),
                io.Float.Output(display_name="fps", tooltip="Frames a second of the video."),
            ],
            **aliases("long video", "streaming", "video path", "trim video", "video frame rate"),
        )

    @classmethod
    def execute(cls, file, start, start_in, frames, stride, fps, longest_side, video=None) -> io.NodeOutput:
        found = chosen(file, start, start_in, frames, stride, fps, longest_side, video)
        if isinstance(found, VideoStream):
            return io.NodeOutput(StreamedVideo.of(found), found.fps)
        return io.NodeOutput(InputImpl.VideoFromComponents(components(found)), found.fps)


def chosen(file, start, start_in, frames, stride, fps, longest_side, video) -> VideoStream | Footage:
    """The frames that `choosing` asks for: a stream from the file, or, of a VIDEO whose frames lie in memory, these.

    Raises InputError where there is no such file or no VIDEO.
    """
    one_of(UNITS, start_in, "start_in")
    finite(start=start, fps=fps)
    selection = Selection(start, start_in, frames, stride, fps, longest_side)
    if file != SOCKET:
        path = media.video_path(file)
        return VideoStream(VideoFile(path.name, path), selection)
    if video is None:
        raise InputError("No video: choose or upload a file, or connect Load Video to the video input.")
    stream = stream_of(video)
    return from_memory(video, selection) if stream is None else stream.part(selection)


def from_memory(video: Input.Video, selection: Selection) -> Footage:
    parts = video.get_components()
    audio = None if parts.audio is None else Audio(parts.audio["waveform"], parts.audio["sample_rate"])
    return select_frames(images.rgb(parts.images, "video"), float(parts.frame_rate), audio, selection, on_node())
