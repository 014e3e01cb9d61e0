"""Edits of the driving motion, and motion position maps from keypoints, the condition of the diffusion model."""

import logging

from comfy_api.latest import io, ui

from ..realportrait_core.animation.framing import FRAMINGS
from ..realportrait_core.animation.mapping import maps_ladder, motion_maps
from ..realportrait_core.animation.retargeting import drive_keypoints, find_neutral, frame_range, upright_in_crop
from ..realportrait_core.config import Vid2VidConfig
from ..realportrait_core.edit import Edit, edit_driver
from ..realportrait_core.errors import InputError
from ..realportrait_core.vid2vid.edit import MOST_SMOOTH
from ..realportrait_core.vid2vid.neutral import head_angle
from ..realportrait_core.vid2vid.retarget import Gains
from .host.draw import GLANCE, evenly, motion_picture, sheet
from .host.memory import freeing_others
from .host.newer import advanced, aliases
from .host.run import Progress, finite, loaded
from .sockets import Keypoints, Motion, Vid2Vid

log = logging.getLogger(__name__)

MODES = ["relative", "absolute", "paper-absolute"]
HEAD_SIZES = ["driven", "steady", "constant"]
FRAME_CROPS = 2  # side of the animated frame / of the face crop: 512 and 256 px in the paper, 256 and 128 px in MINI
CHOOSE = -1  # neutral_frame: the node chooses
NOT_NEUTRAL = 20.0  # degrees between the portrait's head and the neutral frame's that are worth a warning


def check_weights(cfg: Vid2VidConfig, keypoints) -> None:
    """Raises InputError for keypoints that another Face Vid2vid extracted."""
    points, feature = keypoints.driver.canonical.shape[1], tuple(keypoints.feature.shape[1:])
    wanted = (cfg.reshape_channel, cfg.reshape_depth, cfg.feature_size, cfg.feature_size)
    if points != cfg.num_kp or feature != wanted:
        raise InputError(
            f"These keypoints are of another Face Vid2vid: {points} points and a feature {feature}, where the loaded one has "
            f"{cfg.num_kp} and {wanted}. Connect the same Load Face Vid2vid to both nodes."
        )


class EditMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        smooth = {"default": 0.0, "min": 0.0, "max": MOST_SMOOTH, "step": 0.5}
        return io.Schema(
            node_id="RealPortraitEditMotion",
            display_name="Edit Motion",
            category="RealPortrait",
            description="Edits the motion of the driving video: reduces jitter, keeps the head's size, mirrors left and right. "
            "Goes between Extract Face Motion and Apply Motion to Portrait. With its defaults nothing changes.",
            inputs=[
                Keypoints.Input("keypoints", tooltip="From Extract Face Motion, or from another Edit Motion."),
                io.Combo.Input(
                    "head_size",
                    options=HEAD_SIZES,
                    default="driven",
                    tooltip="The size of the head: 'driven' follows the driving video, 'steady' allows slow changes only, "
                    "which removes swelling and jitter, 'constant' keeps it fixed.",
                ),
                io.Float.Input(
                    "smooth_head",
                    **smooth,
                    tooltip="Smooths rotation, position and size of the head over this many frames on either side. 0 is off, 1 "
                    "to 3 steady a jittering head; more makes it float.",
                ),
                io.Float.Input(
                    "smooth_expression",
                    **smooth,
                    tooltip="Smooths the expression over this many frames on either side. 0 is off; above 1, lip motion and "
                    "blinks become weak.",
                ),
                io.Float.Input(
                    "smooth_track",
                    **smooth,
                    tooltip="Smooths the face points, which place the facial mask, over this many frames on either side. 0 is off.",
                    **advanced(),
                ),
                io.Boolean.Input(
                    "mirror",
                    default=False,
                    tooltip="Mirrors the motion: a head that turns to the left in the driving video turns to the right in the "
                    "portrait.",
                ),
            ],
            outputs=[Keypoints.Output(display_name="keypoints", tooltip="The keypoints with the edited motion.")],
            **aliases("smooth motion", "stabilize face", "mirror motion"),
        )

    @classmethod
    def execute(cls, keypoints, head_size, smooth_head, smooth_expression, smooth_track, mirror) -> io.NodeOutput:
        finite(smooth_head=smooth_head, smooth_expression=smooth_expression, smooth_track=smooth_track)
        edit = Edit(head_size, smooth_head, smooth_expression, smooth_track, mirror)
        return io.NodeOutput(edit_driver(keypoints, edit))


class MakeMotionMaps(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        gain = {"default": 1.0, "min": 0.0, "max": 2.0, "step": 0.05}
        part = {**gain, "optional": True, **advanced()}
        return io.Schema(
            node_id="RealPortraitMotionMaps",
            display_name="Apply Motion to Portrait (Motion Position Maps)",
            category="RealPortrait",
            description="Warps the portrait's appearance feature to every driving frame and places it where the face will be: "
            "the motion condition of the diffusion model, in a compact form: 256 KB a frame with the bundled "
            "networks.",
            inputs=[
                Vid2Vid.Input("vid2vid", tooltip="From Load Face Vid2vid, the same as for the keypoints."),
                Keypoints.Input("keypoints", tooltip="From Extract Face Motion, or from Edit Motion."),
                io.Combo.Input(
                    "mode",
                    options=MODES,
                    default="relative",
                    tooltip="'relative' adds the change since the driving video's neutral frame to the portrait: best between "
                    "two people, and what the networks were trained with. 'absolute' takes the driving pose as it is, "
                    "and the expression where LivePortrait's 21 keypoints allow it. 'paper-absolute' takes pose and "
                    "expression as they are.",
                ),
                io.Float.Input(
                    "pose_gain", **gain, tooltip="Rotation, size, position: 0 keeps the portrait's, 1 is the driving video's."
                ),
                io.Float.Input(
                    "expression_gain", **gain, tooltip="The expression: 0 keeps the portrait's, 1 is the driving video's."
                ),
                io.Int.Input(
                    "neutral_frame",
                    default=CHOOSE,
                    min=CHOOSE,
                    max=10**6,
                    tooltip="For 'relative': the driving frame, counted from 0, whose motion counts as none. -1 chooses the "
                    "calm frame whose pose and expression are nearest the portrait's; the report names it.",
                ),
                io.Combo.Input(
                    "framing",
                    options=list(FRAMINGS),
                    default="auto",
                    tooltip="The square of the portrait that is animated: 'auto' crops closer where the face is small, as in "
                    "training; 'half-body' shows head to waist, on which the bundled weights were not trained; 'whole' "
                    "is the largest square of the picture.",
                ),
                io.Float.Input("eye_gain", **part, tooltip="Times expression_gain, around the eyes: blinks and gaze."),
                io.Float.Input("mouth_gain", **part, tooltip="Times expression_gain, around the mouth: above 1 it opens wider."),
                io.Float.Input("rotation_gain", **part, tooltip="Times pose_gain: how far the head turns and tilts."),
                io.Float.Input(
                    "translation_gain", **part, tooltip="Times pose_gain: how far the head moves to the sides, up and down."
                ),
                io.Float.Input(
                    "scale_gain",
                    **part,
                    tooltip="Times pose_gain: how much the head grows and shrinks. 0 keeps the portrait's size.",
                ),
                io.Int.Input(
                    "first_frame",
                    default=0,
                    min=0,
                    max=10**6,
                    optional=True,
                    tooltip="The driving frame, counted from 0, at which the animation begins. The neutral frame may lie "
                    "before it.",
                    **advanced(),
                ),
                io.Int.Input(
                    "frames",
                    default=0,
                    min=0,
                    max=10**6,
                    optional=True,
                    tooltip="How many driving frames are animated, fewer where the video ends. 0 takes all from first_frame on.",
                    **advanced(),
                ),
                io.Float.Input(
                    "rest_gain",
                    **part,
                    tooltip="Times expression_gain, everywhere but around eyes and mouth: brows, cheeks, jaw. To transfer the lips "
                    "alone, set pose_gain, eye_gain and rest_gain to 0.",
                ),
            ],
            outputs=[
                Motion.Output(display_name="motion", tooltip="The motion position map of every chosen driving frame."),
                io.Image.Output(display_name="preview", tooltip="The maps in false colours, for at most 32 frames."),
                io.String.Output(display_name="report", tooltip="Which frames are animated, and the neutral one."),
            ],
            **aliases(
                "motion position maps", "live portrait", "face animation", "reenactment", "motion transfer", "video driven portrait"
            ),
        )

    @classmethod
    def execute(
        cls,
        vid2vid,
        keypoints,
        mode,
        pose_gain,
        expression_gain,
        neutral_frame,
        framing,
        eye_gain=1.0,
        mouth_gain=1.0,
        rotation_gain=1.0,
        translation_gain=1.0,
        scale_gain=1.0,
        first_frame=0,
        frames=0,
        rest_gain=1.0,
    ) -> io.NodeOutput:
        finite(pose_gain=pose_gain, expression_gain=expression_gain, eye_gain=eye_gain, mouth_gain=mouth_gain, rest_gain=rest_gain)
        finite(rotation_gain=rotation_gain, translation_gain=translation_gain, scale_gain=scale_gain)
        chosen = frame_range(keypoints, first_frame, frames)
        progress, network = Progress(chosen.stop - chosen.start), loaded(vid2vid)
        check_weights(network.cfg, keypoints)
        neutral = find_neutral(keypoints) if neutral_frame == CHOOSE else neutral_frame
        gains = Gains(rotation_gain, translation_gain, scale_gain, eye_gain, mouth_gain, rest_gain)
        driven = drive_keypoints(keypoints, mode, pose_gain, expression_gain, neutral, gains, chosen)
        size = FRAME_CROPS * network.cfg.crop_size
        ladder = freeing_others(maps_ladder(), vid2vid)
        motion = motion_maps(network, driven, size, framing, lambda done, total: progress.to(done), ladder)
        report = f"Frames {chosen.start} to {chosen.stop - 1} of the driving video's {len(keypoints.driver)}."
        if mode == "relative":
            report += " " + neutral_report(keypoints, neutral, neutral_frame == CHOOSE)
        preview = motion_picture(motion.maps[evenly(len(motion.maps))])
        on_node = ui.PreviewImage(sheet(preview[evenly(len(preview), GLANCE)]), cls=cls)
        return io.NodeOutput(motion, preview, report, ui=on_node)


def neutral_report(keypoints, neutral: int, chosen: bool) -> str:
    """Which frame is the neutral one, and how far its head is turned from the portrait's; a warning where that is far."""
    still = keypoints.at_rest()
    at_rest = upright_in_crop(keypoints.driver[neutral : neutral + 1], still.portrait_crop)
    degrees = float(head_angle(still.portrait, at_rest)[0])
    report = (
        f"The neutral frame is {neutral}, chosen {'automatically' if chosen else 'by hand'}; its head is turned "
        f"{degrees:.0f} degrees away from the portrait's."
    )
    if degrees > NOT_NEUTRAL:
        report += (
            " That is far: throughout the animation the portrait's head is off the driving head by as much. Choose a "
            "frame or a driving video with the portrait's pose, or the mode 'paper-absolute'."
        )
        log.warning("%s", report)
    return report
