"""A clip of one's own in figures: as the tables of the paper measure, for results of this pack or of any other method."""

from comfy_api.latest import io

from ..realportrait_core.eval.clip.frames import clip_of
from ..realportrait_core.eval.clip.report import judge_clip
from ..realportrait_core.eval.clip.table import figures_json, table, worst_frames
from ..realportrait_core.face.detect import MODEL_NAME, FaceDetector
from ..realportrait_core.inspect.strip import strip
from .host import folders, images, judges
from .host.draw import evenly
from .host.newer import advanced, aliases
from .host.run import loaded, on_node
from .sockets import Vid2Vid

EVENLY, WORST = 4, 3  # frames of the strip
WITHOUT_TRUTH = "connect the truth, where there is one: in self-reenactment the driving video itself, framed like the result."


class JudgeAnimation(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="RealPortraitJudge",
            display_name="Judge Animation",
            category="RealPortrait",
            description="Measures an animation, of this pack or of any other method: identity, head pose, expression, mouth, "
            "flicker, jitter, seams and drift; with the truth also PSNR, SSIM and ST-LPIPS.",
            inputs=[
                io.Image.Input("portrait", tooltip="The picture that was animated."),
                io.Image.Input("driving_video", tooltip="The frames that drove it."),
                io.Image.Input(
                    "result",
                    tooltip="The animated frames: the square from VAE Decode, or another method's, one for each driving frame.",
                ),
                Vid2Vid.Input("vid2vid", tooltip="From Load Face Vid2vid: its motion extractor measures pose and expression."),
                io.Image.Input(
                    "truth",
                    optional=True,
                    tooltip="What the result should be, frame by frame, and framed like it: for self-reenactment, where the "
                    "portrait is a frame of the driving video.",
                ),
                io.Int.Input(
                    "clip_frames",
                    default=16,
                    min=0,
                    max=128,
                    optional=True,
                    tooltip="Frames of a clip of the network, for seams and drift: 16 with RealPortrait Sampler and the bundled "
                    "weights. 0: the frames were made at once.",
                    **advanced(),
                ),
            ],
            outputs=[
                io.String.Output(
                    display_name="table",
                    tooltip="The figures as a table in Markdown, and what is left out and why. For Preview Any.",
                ),
                io.Image.Output(
                    display_name="strip",
                    tooltip="Portrait, driving video, truth and result at frames evenly spaced, and at the worst ones.",
                ),
                io.String.Output(display_name="figures", tooltip="Every figure as JSON, with a value for every frame."),
            ],
            **aliases("evaluate animation", "metrics", "identity similarity", "PSNR SSIM LPIPS", "flicker", "compare methods"),
        )

    @classmethod
    def fingerprint_inputs(cls, portrait, driving_video, result, vid2vid, truth=None, clip_frames=16):
        return judges.stamps()

    @classmethod
    def execute(cls, portrait, driving_video, result, vid2vid, truth=None, clip_frames=16) -> io.NodeOutput:
        clip = clip_of(
            images.rgb(portrait, "portrait"),
            images.rgb(driving_video, "driving video"),
            images.rgb(result, "result"),
            None if truth is None else images.rgb(truth, "truth"),
        )
        detector = FaceDetector(folders.detector_path(MODEL_NAME))
        networks, left_out, _patchers = judges.load_judges(truth is not None)  # which live as long as the run
        if truth is None:
            left_out["PSNR, SSIM, ST-LPIPS, spectrum"] = WITHOUT_TRUTH
        report = judge_clip(clip, loaded(vid2vid), detector, networks, clip_frames, on_node())
        videos = {"driving video": clip.driving} | ({} if truth is None else {"truth": clip.truth}) | {"result": clip.result}
        worst = dict(worst_frames(report, WORST))
        columns = [(frame, worst.get(frame, "")) for frame in sorted({*evenly(len(clip), EVENLY), *worst})]
        return io.NodeOutput(table(report, left_out), strip(clip.portrait, videos, columns), figures_json(report, left_out))
