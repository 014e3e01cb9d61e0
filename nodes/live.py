"""Real time: a node that runs once for each frame of a camera, and keeps what does not change between its runs."""

from dataclasses import dataclass

import torch
from comfy_api.latest import io

from ..realportrait_core.animation.live import Live
from ..realportrait_core.face.detect import MODEL_NAME, FaceDetector
from ..realportrait_core.face.follow import FaceFollower
from ..realportrait_core.face.track import portrait_points
from ..realportrait_core.memory import Ladder
from ..realportrait_core.vid2vid.stitching import Finish, check_keypoints
from .host import folders, images
from .host.kept import Kept
from .host.memory import freeing_others
from .host.newer import advanced, aliases
from .host.run import Progress, loaded, one_of
from .render import PORTRAIT, RESULTS
from .sockets import Stitching, Vid2Vid

KEPT = 4  # nodes whose state is kept for one Face Vid2vid: 2 MB of features each, and their portraits


@dataclass
class Session:
    """What a node keeps between two runs."""

    portrait: torch.Tensor  # as it came in
    live: Live


def begin(network, portrait: torch.Tensor) -> Session:
    picture, detector = images.portrait(portrait), FaceDetector(folders.detector_path(MODEL_NAME))
    return Session(portrait, Live(network, picture, portrait_points(picture[0], detector), FaceFollower(detector)))


SESSIONS: Kept[Session] = Kept(KEPT)  # by Face Vid2vid and node


def running(vid2vid, network, node: str, portrait: torch.Tensor) -> Live:
    """The node's running animation; another portrait or other weights begin a new one."""

    def is_of(session: Session) -> bool:
        return session.portrait is portrait or torch.equal(session.portrait, portrait)

    return SESSIONS.get(vid2vid, node, lambda: begin(network, portrait), is_of).live


class AnimateOneFrame(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="RealPortraitLive",
            display_name="Animate One Frame (Real-Time)",
            category="RealPortrait",
            description="Animates the portrait by one camera frame at a time: for graphs that are queued again for every "
            "frame of a webcam. The portrait's features, the position of the face and the neutral pose are kept from run to run.",
            inputs=[
                Vid2Vid.Input("vid2vid", tooltip="From Load Face Vid2vid, with the generator's file."),
                io.Image.Input("portrait", tooltip="The picture to animate. Another picture starts anew."),
                io.Image.Input("frame", tooltip="The camera's frame; of several, each is animated in turn."),
                io.Boolean.Input(
                    "reset",
                    default=False,
                    tooltip="Starts anew: this frame is the neutral one, whose pose and expression count as the portrait's own. "
                    "Look at the camera calmly, switch it on for one frame and off again.",
                ),
                io.Combo.Input(
                    "result",
                    options=RESULTS,
                    default=PORTRAIT,
                    tooltip="'portrait' is the whole portrait in which the face moves, at its own size. 'face crop' is the "
                    "generator's square picture alone: 512 px with LivePortrait's weights.",
                ),
                io.Int.Input(
                    "detect_every",
                    default=4,
                    min=1,
                    max=100,
                    tooltip="The face is looked for in every so many frames; between them its place is held. 1 follows a face that "
                    "moves fast through the picture, more is faster.",
                    **advanced(),
                ),
                Stitching.Input(
                    "stitching",
                    optional=True,
                    tooltip="From Load Face Vid2vid or Load Stitching: the shoulders stay where the portrait's are, and the pasted "
                    "face has no seam.",
                ),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The portrait in the camera's pose and expression.")],
            hidden=[io.Hidden.unique_id],
            **aliases("live portrait webcam", "realtime", "face animation", "avatar", "vtuber", "comfystream"),
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs):
        return float("nan")  # never equal: the result depends on the frames before

    @classmethod
    def execute(cls, vid2vid, portrait, frame, reset, result, detect_every, stitching=None) -> io.NodeOutput:
        one_of(RESULTS, result, "result")
        frames, network = images.rgb(frame, "frame"), loaded(vid2vid)
        finish = None
        if stitching is not None:
            check_keypoints(stitching, network.cfg.num_kp)
            finish = Finish(stitching, shoulders=True)
        live = running(vid2vid, network, str(cls.hidden and cls.hidden.unique_id), portrait)
        live.finish, live.follower.every = finish, detect_every
        if reset:
            live.reset()

        def animated(picture: torch.Tensor) -> torch.Tensor:
            return live.frame(picture) if result == PORTRAIT else live.face(picture).movedim(0, -1).cpu()

        progress, out = Progress(len(frames)), []
        ladder = freeing_others(Ladder("Animate One Frame", (1,)), vid2vid)
        for done, picture in enumerate(frames, 1):
            out.append(ladder.run(lambda _: animated(picture)))
            progress.to(done)
        return io.NodeOutput(torch.stack(out))
