"""Sliders for a portrait's pose and expression, whose result the node shows while they move (web/js/live_preview.js)."""

import hashlib

import torch
from comfy_api.latest import io, ui

from ..realportrait_core.animation.expressions import edit_portrait, portrait_keypoints
from ..realportrait_core.animation.keypoints import Keypoints
from ..realportrait_core.animation.mapping import motion_maps
from ..realportrait_core.animation.vid2vid_frames import check_generator, frames_mask, picture_size, portrait_frames
from ..realportrait_core.face.detect import MODEL_NAME, FaceDetector
from ..realportrait_core.face.track import portrait_points
from ..realportrait_core.vid2vid.expressions import MOST_DEGREES, Expression
from .face import BOX_TIP, FACES, portrait_face_input
from .host import folders, images
from .host.draw import small
from .host.kept import Kept
from .host.newer import advanced, aliases
from .host.run import Progress, finite, loaded, one_of
from .motion import FRAME_CROPS
from .sockets import Motion, Stitching, Vid2Vid

PORTRAITS_KEPT = 2  # with each Face Vid2vid: a move of a slider runs neither the detector nor M nor F
SHOWN = 768  # px, most of a side of the picture on the node
BUNDLED_KEYPOINTS = 26

HELD: Kept[Keypoints] = Kept(PORTRAITS_KEPT)  # by Face Vid2vid, and hash of the portrait, its face and box


class EditExpression(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        slider = {"default": 0.0, "display_mode": io.NumberDisplay.slider}
        degrees = {**slider, "min": -MOST_DEGREES, "max": MOST_DEGREES, "step": 0.5, "round": 0.01}
        share = {**slider, "min": -1.0, "max": 1.0, "step": 0.05, "round": 0.01}
        return io.Schema(
            node_id="RealPortraitEditExpression",
            display_name="Edit Expression (Sliders)",
            category="RealPortrait",
            description="Turns the head of a portrait and changes its expression by sliders, without a driving video. The picture "
            "is drawn by the generator of Face Vid2vid and pasted into the portrait; the node shows it while a slider moves.",
            inputs=[
                Vid2Vid.Input("vid2vid", tooltip="From Load Face Vid2vid. It needs the generator, which the bundled weights have."),
                io.Image.Input("portrait", tooltip="The portrait, of any size."),
                io.Float.Input("yaw", **degrees, tooltip="Turns the head, in degrees: above 0 to the right of the picture."),
                io.Float.Input("pitch", **degrees, tooltip="Nods the head, in degrees: above 0 down."),
                io.Float.Input("roll", **degrees, tooltip="Tilts the head, in degrees: above 0 clockwise."),
                io.Float.Input("smile", **share, tooltip="1 is a smile, -1 turns the corners of the mouth down."),
                io.Float.Input("mouth", **share, tooltip="1 opens the mouth wide; below 0 an open mouth closes."),
                io.Float.Input(
                    "eyes", **share, tooltip="-1 closes the eyes, 1 opens them wide. The bundled weights hardly show it."
                ),
                io.Float.Input(
                    "gaze_x", **share, tooltip="Gaze: above 0 to the right of the picture. The bundled weights hardly show it."
                ),
                io.Float.Input("gaze_y", **share, tooltip="Gaze: above 0 up. The bundled weights hardly show it."),
                io.Boolean.Input(
                    "live_preview",
                    default=True,
                    tooltip="Shows the result on the node, and runs this node alone as soon as a slider moves. Off: it runs with "
                    "the whole workflow only and shows no picture.",
                ),
                portrait_face_input(),
                Stitching.Input(
                    "stitching",
                    optional=True,
                    tooltip="From Load Face Vid2vid or Load Stitching: LivePortrait's networks then open and close eyes and mouth "
                    "and keep the shoulders in place. Without it the keypoints around eyes and mouth are moved directly.",
                ),
                io.String.Input("portrait_box", default="", optional=True, tooltip=BOX_TIP, **advanced()),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The whole portrait with the edited face, at its own size."),
                io.Mask.Output(
                    display_name="mask", tooltip="Where, and how strongly, the edited face was blended into the portrait."
                ),
                Motion.Output(
                    display_name="motion",
                    tooltip="The edited pose and expression as a motion of one frame, for RealPortrait Sampler.",
                ),
                io.String.Output(display_name="report", tooltip="What was changed, and what these weights cannot show."),
            ],
            is_output_node=True,
            **aliases("live portrait", "expression editor", "face editor", "head pose", "smile"),
        )

    @classmethod
    def execute(
        cls,
        vid2vid,
        portrait,
        yaw,
        pitch,
        roll,
        smile,
        mouth,
        eyes,
        gaze_x,
        gaze_y,
        live_preview,
        portrait_face,
        stitching=None,
        portrait_box="",
    ) -> io.NodeOutput:
        finite(yaw=yaw, pitch=pitch, roll=roll, smile=smile, mouth=mouth, eyes=eyes, gaze_x=gaze_x, gaze_y=gaze_y)
        expression = Expression(yaw, pitch, roll, smile, mouth, eyes, gaze_x, gaze_y)
        progress, network = Progress(2), loaded(vid2vid)
        check_generator(network)
        keypoints = held_keypoints(network, images.portrait(portrait), portrait_face, portrait_box)
        motion = motion_maps(network, edit_portrait(keypoints, expression, stitching), FRAME_CROPS * network.cfg.crop_size)
        progress.to(1)
        picture = torch.cat(list(portrait_frames(network, motion)))  # (1, H, W, 3)
        mask = frames_mask(motion, picture_size(network))
        progress.to(2)
        on_node = ui.PreviewImage(small(picture, SHOWN), cls=cls) if live_preview else None
        text = report(expression, keypoints.portrait.canonical.shape[1], stitching is not None)
        return io.NodeOutput(picture, mask, motion, text, ui=on_node)


def held_keypoints(network, portrait: torch.Tensor, whose: str, box: str) -> Keypoints:
    """The portrait's keypoints and f_r, made once for a portrait, a face of it and a Face Vid2vid."""

    def extracted() -> Keypoints:
        where = images.box(box, "portrait_box")
        detector = FaceDetector(folders.detector_path(MODEL_NAME)) if where is None else None
        points = portrait_points(portrait[0], detector, FACES[one_of(FACES, whose, "portrait_face")], where)
        return portrait_keypoints(network, portrait, points)

    digest = hashlib.blake2b(portrait.cpu().numpy().tobytes())
    digest.update(repr((tuple(portrait.shape), whose, box)).encode())
    return HELD.get(network, digest.digest(), extracted)


def report(expression: Expression, k: int, networks: bool) -> str:
    """The sliders that are not 0, and what is known of them with these weights."""
    changed = {name: value for name, value in vars(expression).items() if value}
    if not changed:
        return "No slider is moved: this is the portrait as Face Vid2vid draws it."
    lines = [", ".join(f"{name} {value:+g}" for name, value in changed.items()) + "."]
    if k == BUNDLED_KEYPOINTS and changed.keys() & {"eyes", "gaze_x", "gaze_y"}:
        lines.append("The bundled weights hardly show eyes and gaze.")
    elif k != BUNDLED_KEYPOINTS and changed.keys() & {"smile", "mouth", "eyes"} and not networks:
        lines.append("Eyes and mouth are more natural with Load Stitching connected.")
    return " ".join(lines)
