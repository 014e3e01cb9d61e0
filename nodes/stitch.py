"""LivePortrait's stitching, eye and lip retargeting, where one has their weights."""

import logging
from dataclasses import replace

from comfy_api.latest import io, ui

from ..realportrait_core.errors import InputError
from ..realportrait_core.licences import licence_line
from ..realportrait_core.vid2vid.checkpoint import load_stitching
from ..realportrait_core.vid2vid.public import PUBLIC_FILES, REPOSITORY, find_stitching
from ..realportrait_core.vid2vid.stitching import Finish, Opening, check_keypoints
from .host import folders
from .host.newer import aliases
from .host.run import finite
from .load import INFO
from .sockets import Keypoints, Stitching

log = logging.getLogger(__name__)

LEAVE = -1.0  # eyes, lips: as they are
OPEN_EYES = 0.35  # opening / width, of most portraits


def opening(portrait: float, wanted: float) -> Opening | None:
    return Opening(portrait, wanted) if wanted >= 0 else None


class LoadStitching(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="RealPortraitLoadStitching",
            display_name="Load Stitching (LivePortrait)",
            category="RealPortrait",
            description="Loads LivePortrait's stitching, eye and lip retargeting, three small networks on keypoints. No weights "
            "of this kind come with the pack.",
            inputs=[
                io.Combo.Input(
                    "weights",
                    options=folders.stitching_names(),
                    tooltip="A folder or file in models/liveportrait or models/realportrait that holds LivePortrait's stitching "
                    "and retargeting: stitching_retargeting_module.safetensors of Kijai/LivePortrait_safetensors (Hugging Face, "
                    "0.9 MB), or a bundle. Press R after adding a file.",
                )
            ],
            outputs=[Stitching.Output(display_name="stitching", tooltip="For Stitch and Retarget."), INFO],
            **aliases("live portrait stitching", "live portrait retargeting"),
        )

    @classmethod
    def validate_inputs(cls, weights):
        return folders.problem(folders.stitching_path, weights)

    @classmethod
    def fingerprint_inputs(cls, weights):
        return folders.stamp(folders.stitching_path(weights))

    @classmethod
    def execute(cls, weights: str) -> io.NodeOutput:
        path = find_stitching(folders.stitching_path(weights))
        info = licence_line(path)
        return io.NodeOutput(load_stitching(path), info, ui=ui.PreviewText(info))


class StitchAndRetarget(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        ratio = {"max": 1.0, "step": 0.05}
        return io.Schema(
            node_id="RealPortraitStitch",
            display_name="Stitch and Retarget (LivePortrait)",
            category="RealPortrait",
            description="Keeps the shoulders where the portrait's are, and opens or closes eyes and mouth, by LivePortrait's "
            "own networks. The last node before Apply Motion to Portrait; for keypoints of LivePortrait's Face Vid2vid "
            "only.",
            inputs=[
                Stitching.Input(
                    "stitching",
                    tooltip="From Load Face Vid2vid or Load Stitching. If the weights have none, the keypoints pass unchanged.",
                ),
                Keypoints.Input("keypoints", tooltip="From Extract Face Motion, or from Edit Motion."),
                io.Boolean.Input(
                    "hold_shoulders",
                    default=True,
                    tooltip="Stitching: the shoulders stay where the portrait's are. Without it they move with the head, as "
                    "RealPortrait renders them.",
                ),
                io.Float.Input(
                    "eyes",
                    default=LEAVE,
                    min=LEAVE,
                    **ratio,
                    tooltip="How open the portrait's eyes are set before the driving motion is added: height / width. 0 is "
                    "closed, 0.35 open, 0.6 wide open. Below 0 they are left as they are.",
                ),
                io.Float.Input(
                    "portrait_eyes",
                    default=OPEN_EYES,
                    min=0.0,
                    **ratio,
                    tooltip="How open they are in the picture, measured in the same way. Counts only where eyes is 0 or more.",
                ),
                io.Float.Input(
                    "lips",
                    default=LEAVE,
                    min=LEAVE,
                    **ratio,
                    tooltip="How open the portrait's mouth is set before the driving motion is added: height / width. 0 is "
                    "closed. Below 0 it is left as it is.",
                ),
                io.Float.Input(
                    "portrait_lips",
                    default=0.0,
                    min=0.0,
                    **ratio,
                    tooltip="How open it is in the picture, measured in the same way. Counts only where lips is 0 or more.",
                ),
            ],
            outputs=[Keypoints.Output(display_name="keypoints", tooltip="For Apply Motion to Portrait, which applies all this.")],
            **aliases("live portrait stitching", "live portrait retargeting", "eye retargeting", "lip retargeting"),
        )

    @classmethod
    def execute(cls, stitching, keypoints, hold_shoulders, eyes, portrait_eyes, lips, portrait_lips) -> io.NodeOutput:
        finite(eyes=eyes, portrait_eyes=portrait_eyes, lips=lips, portrait_lips=portrait_lips)
        if stitching is None:
            return io.NodeOutput(unstitched(keypoints, eyes, lips))
        check_keypoints(stitching, keypoints.portrait.canonical.shape[1])
        return io.NodeOutput(
            replace(keypoints, finish=Finish(stitching, hold_shoulders, opening(portrait_eyes, eyes), opening(portrait_lips, lips)))
        )


def unstitched(keypoints, eyes: float, lips: float):
    """The keypoints as they are, for weights without stitching. Raises InputError where eyes or lips are set."""
    if eyes >= 0 or lips >= 0:
        raise InputError(
            f"Retargeting of eyes ({eyes:g}) and lips ({lips:g}) needs LivePortrait's stitching and retargeting networks, and the "
            f"weights of Load Face Vid2vid have none. Put {PUBLIC_FILES['stitching']} of {REPOSITORY} (Hugging Face) beside the "
            "others, or set both to -1."
        )
    log.info("These Face Vid2vid weights have no stitching: the shoulders are not held.")
    return keypoints
