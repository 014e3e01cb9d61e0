"""A look at every stage, for when the result is not what was expected."""

from comfy_api.latest import io

from ..realportrait_core.animation.mapping import frame_portrait, portrait_of
from ..realportrait_core.inspect.drift import drift, drift_table, frame_statistics, keypoint_errors
from ..realportrait_core.inspect.sheets import inspect
from .host import images
from .host.draw import evenly
from .host.newer import advanced, aliases
from .host.run import Progress, loaded
from .motion import check_weights
from .sample import PORTRAIT_TIP
from .sockets import Keypoints, Motion, Vid2Vid


class Inspect(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="RealPortraitInspect",
            display_name="Inspect RealPortrait",
            category="RealPortrait",
            description="Shows the result of each stage for each driving frame: crop, face points, keypoints, pose, warped "
            "feature, motion position map; and in numbers how colours, sharpness and motion drift from clip to "
            "clip.",
            inputs=[
                Keypoints.Input("keypoints", tooltip="From Extract Face Motion."),
                Motion.Input("motion", tooltip="From Apply Motion to Portrait, made from these keypoints."),
                io.Image.Input("portrait", optional=True, tooltip=PORTRAIT_TIP),
                io.Image.Input(
                    "driver",
                    display_name="driving_video",
                    tooltip="The driving video's frames from which the keypoints were extracted.",
                ),
                io.Int.Input(
                    "most",
                    default=32,
                    min=2,
                    max=10**4,
                    tooltip="At most this many frames are shown, evenly spaced, the first and the last among them.",
                ),
                io.Int.Input(
                    "clip_frames",
                    default=16,
                    min=2,
                    max=128,
                    tooltip="Frames of a clip, for the table of drift: 16 with RealPortrait Sampler and the bundled weights.",
                    **advanced(),
                ),
                io.Image.Input(
                    "frames",
                    optional=True,
                    tooltip="The animated frames, from VAE Decode: shown as well, and measured clip by clip.",
                ),
                Vid2Vid.Input(
                    "vid2vid",
                    optional=True,
                    tooltip="From Load Face Vid2vid: also measures how far the animated face is from the intended motion.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="sheets", tooltip="Six pictures for each animated driving frame, on one sheet."),
                io.String.Output(
                    display_name="report",
                    tooltip="Colour mean, deviation, sharpness and keypoint error of each clip, and how far the last is from the "
                    "first.",
                ),
            ],
            **aliases("debug portrait", "compare portrait", "keypoint error"),
        )

    @classmethod
    def execute(cls, keypoints, motion, driver, most, clip_frames, frames=None, vid2vid=None, portrait=None) -> io.NodeOutput:
        portrait = images.portrait(portrait_of(motion) if portrait is None else portrait)
        driver = images.rgb(driver, "driving video")
        frames = None if frames is None else images.rgb(frames, "frames")
        chosen = evenly(len(motion.maps), most)
        progress = Progress(len(chosen))
        sheets = inspect(keypoints, motion, driver, portrait, frames, chosen, clip_frames, lambda done, total: progress.to(done))
        found = int(keypoints.present.sum())
        report = f"Face found in {found} of {len(driver)} driving frames."
        if frames is None:
            report += "\nConnect the animated frames to measure their drift."
        else:
            own, errors = frame_statistics(frame_portrait(portrait, motion)), None
            if vid2vid is not None:
                network = loaded(vid2vid)
                check_weights(network.cfg, keypoints)
                errors = keypoint_errors(network, frames, motion)
            report += "\n" + drift_table(drift(frames, clip_frames, errors), own)
        return io.NodeOutput(sheets, report)
