"""From keypoints to motion position maps, which is what the diffusion model reads."""

from comfy_api.latest import io

from ..realportrait_core.config import Vid2VidConfig
from ..realportrait_core.errors import InputError
from ..realportrait_core.generate import motion_maps
from .host.draw import evenly, motion_picture
from .host.run import Progress, loaded
from .sockets import Keypoints, Motion, Vid2Vid

MODES = ["relative", "absolute", "paper-absolute"]
FRAMINGS = ["auto", "whole"]
FRAME_CROPS = 2             # side of the animated frame / of the face crop: 512 and 256 px in the paper, 256 and 128 px in MINI


def check_weights(cfg: Vid2VidConfig, keypoints) -> None:
    """Raises InputError for keypoints that another Face Vid2vid extracted."""
    points, feature = keypoints.driver.canonical.shape[1], tuple(keypoints.feature.shape[1:])
    wanted = (cfg.reshape_channel, cfg.reshape_depth, cfg.feature_size, cfg.feature_size)
    if points != cfg.num_kp or feature != wanted:
        raise InputError(
            f"These keypoints are of another Face Vid2vid: {points} points and a feature {feature}, where the loaded one has "
            f"{cfg.num_kp} and {wanted}. Connect the same Load Face Vid2vid to both nodes."
        )


class MakeMotionMaps(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        gain = {"default": 1.0, "min": 0.0, "max": 2.0, "step": 0.05}
        return io.Schema(
            node_id="RealPortraitMotionMaps",
            display_name="Motion Position Maps",
            category="RealPortrait",
            description="Bends the portrait's features to every driver frame and places them where the face shall be: the motion "
            "that steers the diffusion model. Kept as a small recipe, whatever the length of the video.",
            inputs=[
                Vid2Vid.Input("vid2vid", tooltip="From Load Face Vid2vid, the same as for the keypoints."),
                Keypoints.Input("keypoints", tooltip="From Extract Vid2vid Keypoints."),
                io.Combo.Input(
                    "mode", options=MODES, default="relative",
                    tooltip="'relative' adds the driver's change since its neutral frame to the portrait: best between two "
                    "people, and what the networks were trained with. 'absolute' takes the driver's pose as it is, and the "
                    "expression where LivePortrait's 21 keypoints allow it. 'paper-absolute' takes the driver's whole motion.",
                ),
                io.Float.Input("pose_gain", **gain, tooltip="Turns, size, place: 0 keeps the portrait's, 1 is the driver's."),
                io.Float.Input("expression_gain", **gain, tooltip="The expression: 0 keeps the portrait's, 1 is the driver's."),
                io.Int.Input(
                    "neutral_frame", default=0, min=0, max=10**6,
                    tooltip="For 'relative': the driver frame, counted from 0, that looks most like the portrait; a calm face "
                    "seen from the front is best. Its motion counts as none.",
                ),
                io.Combo.Input(
                    "framing", options=FRAMINGS, default="auto",
                    tooltip="The square of the portrait that is animated: 'auto' comes closer where the face is small, as in "
                    "training; 'whole' takes as much of the picture as a square can.",
                ),
            ],
            outputs=[
                Motion.Output(display_name="motion", tooltip="The motion of every driver frame."),
                io.Image.Output(display_name="preview", tooltip="The maps in false colours, for at most 32 frames."),
            ],
        )

    @classmethod
    def execute(cls, vid2vid, keypoints, mode, pose_gain, expression_gain, neutral_frame, framing) -> io.NodeOutput:
        progress, network = Progress(len(keypoints.driver)), loaded(vid2vid)
        check_weights(network.cfg, keypoints)
        motion = motion_maps(
            network, keypoints, mode, pose_gain, expression_gain, size=FRAME_CROPS * network.cfg.crop_size, framing=framing,
            neutral=neutral_frame, callback=lambda done, total: progress.to(done),
        )
        return io.NodeOutput(motion, motion_picture(motion.maps[evenly(len(motion.maps))]))
