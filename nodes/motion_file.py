"""Motion files: the motion of a driving video, saved once and applied to other portraits later."""

import logging
from pathlib import Path

import torch
from comfy_api.latest import io, ui

from ..realportrait_core.animation.driving_motion import apply_to_portrait, driving_motion
from ..realportrait_core.face.detect import MODEL_NAME, FaceDetector
from ..realportrait_core.motion_file import load_motion, save_motion
from .face import BOX_TIP, FACES, at_a_glance, find_portrait, portrait_face_input, preview
from .host import folders, images, media
from .host.newer import advanced, aliases
from .host.run import Progress, finite, loaded, one_of
from .sockets import Keypoints, Vid2Vid

log = logging.getLogger(__name__)


class SaveMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="RealPortraitSaveMotion",
            display_name="Save RealPortrait Motion",
            category="RealPortrait",
            description="Saves the motion of the driving video, edits included, to ComfyUI's output folder: 0.7 KB a frame "
            "with the bundled networks, and nothing of the portrait. Load RealPortrait Motion finds it there.",
            inputs=[
                Keypoints.Input("keypoints", tooltip="From Extract Face Motion, or from Edit Motion."),
                io.Float.Input(
                    "fps",
                    default=25.0,
                    min=0.01,
                    max=1000.0,
                    step=0.01,
                    tooltip="The driving video's frames a second, from Get Video Components. It is only recorded in the file.",
                ),
                io.String.Input(
                    "filename_prefix",
                    default="motion/RealPortrait",
                    tooltip="Folder and beginning of the file's name, below the output folder. A number is added; no file is "
                    "overwritten.",
                ),
            ],
            outputs=[io.String.Output(display_name="file", tooltip="The file's name below the output folder.")],
            is_output_node=True,
            **aliases("save motion template", "export motion"),
        )

    @classmethod
    def execute(cls, keypoints, fps, filename_prefix) -> io.NodeOutput:
        finite(fps=fps)
        path, name = folders.new_output(filename_prefix)
        save_motion(path, driving_motion(keypoints, fps))
        return io.NodeOutput(name)


class LoadMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="RealPortraitLoadMotion",
            display_name="Load RealPortrait Motion",
            category="RealPortrait",
            description="Applies the motion of a file to a portrait, in place of Extract Face Motion and a driving video.",
            inputs=[
                Vid2Vid.Input("vid2vid", tooltip="From Load Face Vid2vid: the weights with which the motion was extracted."),
                io.Image.Input("portrait", tooltip="The picture to animate, of any size; or the frames of a video."),
                io.Combo.Input(
                    "file",
                    options=list(media.motions()),
                    tooltip="A motion file (.safetensors): one that Save RealPortrait Motion saved to the output folder (press R "
                    "for a new one), one in the input folder, such as a converted LivePortrait template, or the pack's example.",
                ),
                portrait_face_input(),
                io.String.Input("portrait_box", default="", optional=True, tooltip=BOX_TIP, **advanced()),
            ],
            outputs=[
                Keypoints.Output(
                    display_name="keypoints", tooltip="Keypoints and poses of the portrait and of every frame of the motion."
                ),
                io.Image.Output(
                    display_name="preview",
                    tooltip="The portrait with crop and face points, and where the face was in the driving video, for at most "
                    "32 frames.",
                ),
                io.Float.Output(display_name="fps", tooltip="The motion's frames a second, for Create Video."),
                io.String.Output(display_name="report", tooltip="What the file holds, and what to watch for."),
            ],
            **aliases("load motion template", "live portrait template", "import motion"),
        )

    @classmethod
    def validate_inputs(cls, file):
        return folders.problem(lambda name: load_motion(media.motion_path(name)), file)

    @classmethod
    def fingerprint_inputs(cls, file, portrait_face, vid2vid=None, portrait=None, portrait_box=""):
        return folders.stamp(media.motion_path(file))

    @classmethod
    def execute(cls, vid2vid, portrait, file, portrait_face, portrait_box="") -> io.NodeOutput:
        driver = load_motion(media.motion_path(file))
        portrait, box = images.rgb(portrait, "portrait"), images.box(portrait_box, "portrait_box")
        whose = FACES[one_of(FACES, portrait_face, "portrait_face")]
        detector = FaceDetector(folders.detector_path(MODEL_NAME)) if box is None else None
        text = report(driver, file)
        if len(portrait) > 1:
            frames = min(len(portrait), len(driver))
            text += f" The portrait is a video of {len(portrait)} frames; animated are {frames}."
            portrait, driver = portrait[:frames], driver[:frames]
        progress = Progress(len(portrait))
        points = find_portrait(portrait, detector, whose, "hold", box, None, lambda done, total: progress.to(done))
        keypoints = apply_to_portrait(loaded(vid2vid), portrait, points, driver)
        black = torch.zeros(()).expand(len(driver), *driver.size, 3)  # one value, whatever the size
        on_node = ui.PreviewImage(at_a_glance(keypoints, portrait, black), cls=cls)
        return io.NodeOutput(keypoints, preview(keypoints, portrait, black), driver.fps, text, ui=on_node)


def report(driver, file: str) -> str:
    """What the file holds; a warning where it is not known whether the weights fit."""
    frames, k = driver.motion.expression.shape[:2]
    height, width = driver.size
    lines = [f"{Path(file).name}: {frames} frames of {k} keypoints at {driver.fps:g} a second, driving video {width}x{height} px."]
    missing = int((~driver.present).sum())
    if missing:
        lines.append(f"The face was missing in {missing} of them.")
    if driver.points is None:
        lines.append("It holds no face points: the facial mask goes where the portrait's face would.")
    if not driver.encoder:
        lines.append("It does not name the Face Vid2vid that extracted it: if it was another one, the expressions will differ.")
        log.warning("%s", lines[-1])
    return " ".join(lines)
