"""The nodes of RealPortrait, split by concept. Only this package imports comfy."""

from comfy_api.latest import ComfyExtension, io

from .animate import AnimatePortrait
from .continue_clip import ContinueClip
from .expression import EditExpression
from .face import ExtractKeypoints
from .host import folders, media
from .iddpm import IDDPMSampler, IDDPMSigmas
from .inspect import Inspect
from .judge import JudgeAnimation
from .live import AnimateOneFrame
from .load import LoadModel, LoadVid2Vid
from .long import AnimateLongVideo
from .motion import EditMotion, MakeMotionMaps
from .motion_file import LoadMotion, SaveMotion
from .paste import PasteBack
from .portrait import LoadPortrait
from .render import RenderVid2Vid
from .sample import Conditioning, SampleClips
from .state import LoadState, SaveState
from .stitch import LoadStitching, StitchAndRetarget
from .video import LoadDrivingVideo, StreamDrivingVideo

folders.register()
media.register()


class RealPortraitExtension(ComfyExtension):
    """The entry point that ComfyUI's loader calls for the list of nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            LoadModel,
            LoadVid2Vid,
            ExtractKeypoints,
            EditMotion,
            MakeMotionMaps,
            Conditioning,
            SampleClips,
            ContinueClip,
            LoadDrivingVideo,
            StreamDrivingVideo,
            PasteBack,
            Inspect,
            SaveMotion,
            LoadMotion,
            IDDPMSigmas,
            IDDPMSampler,
            LoadStitching,
            StitchAndRetarget,
            EditExpression,
            RenderVid2Vid,
            AnimateOneFrame,
            AnimatePortrait,
            LoadPortrait,
            JudgeAnimation,
            AnimateLongVideo,
            SaveState,
            LoadState,
        ]
