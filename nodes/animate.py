"""Two inputs, one output: a node that expands into the graph of the others, as `workflows/animate_portrait` has it.

The host runs, caches and shows each of them as if it stood in the graph; progress, previews and errors come at this node.
"""

from comfy_api.latest import io
from comfy_execution.graph_utils import GraphBuilder

from ..realportrait_core.animation.framing import FRAMINGS
from .host import folders
from .host.newer import advanced, aliases
from .host.run import finite, one_of
from .load import LoadModel, LoadVid2Vid
from .motion import CHOOSE
from .paste import LENGTHS
from .render import FACE_CROP, PORTRAIT
from .sample import VAE_TIP
from .stitch import LEAVE, OPEN_EYES
from .video import SOCKET, UNITS

ALONE = "(Face Vid2vid alone)"  # in the menu of the RealPortrait weights
WHOLE, SQUARE = "whole portrait", "animated square"
# The host gives the node the link itself, to be passed on: what is made of a picture is cached by where it comes from.
AS_LINK = {"rawLink": True}
FEATHER = 8.0  # percent, the default of Paste Animation Back


class AnimatePortrait(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        gain = {"default": 1.0, "min": 0.0, "max": 2.0, "step": 0.05, "optional": True, **advanced()}
        return io.Schema(
            node_id="RealPortraitAnimate",
            display_name="Animate Portrait",
            category="RealPortrait",
            description="A portrait and a driving video in, the animated portrait out, with the driving video's frame rate and "
            "sound. It runs the other nodes of this pack, each with its defaults; use these themselves for more control.",
            inputs=[
                io.Image.Input("portrait", extra_dict=AS_LINK, tooltip="The picture to animate, of any size, with one face."),
                io.Video.Input(
                    "driving_video",
                    extra_dict=AS_LINK,
                    tooltip="From Load Driving Video or Load Video: the face whose motion is transferred.",
                ),
                io.Combo.Input(
                    "weights",
                    options=[*folders.model_names(), ALONE],
                    tooltip="RealPortrait weights, as in Load RealPortrait Model. The first come with the pack: 256 px, a small "
                    f"demonstration model. '{ALONE}' is LivePortrait's way: Face Vid2vid renders its pictures itself.",
                ),
                io.Combo.Input(
                    "vid2vid_weights",
                    options=folders.vid2vid_names(),
                    tooltip="The Face Vid2vid weights that the RealPortrait weights were trained with; by themselves any, such as "
                    "LivePortrait's.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**64 - 1,
                    control_after_generate=True,
                    tooltip="The noise of RealPortrait: the same seed gives the same video.",
                ),
                io.Combo.Input(
                    "result",
                    options=[WHOLE, SQUARE],
                    default=WHOLE,
                    tooltip="'whole portrait' pastes what is animated back into the portrait, 'animated square' is that square "
                    "of it alone.",
                ),
                io.Int.Input(
                    "frames",
                    default=0,
                    min=0,
                    max=10**6,
                    optional=True,
                    tooltip="How many frames of the driving video are used, from its beginning; for a first trial 16. 0 is all.",
                ),
                io.Float.Input("pose_gain", **gain, tooltip="How far the head moves: 0 not at all, 1 as in the driving video."),
                io.Float.Input(
                    "expression_gain", **gain, tooltip="How strong the expression is: 0 the portrait's own, 1 the driving video's."
                ),
                io.Combo.Input(
                    "framing",
                    options=list(FRAMINGS),
                    default="auto",
                    optional=True,
                    **advanced(),
                    tooltip="The square of the portrait that is animated: 'auto' comes closer where the face is small, "
                    "'half-body' shows head to waist, 'whole' is the largest square.",
                ),
                io.Vae.Input("vae", optional=True, extra_dict=AS_LINK, tooltip=VAE_TIP + " If nothing is connected, the latter."),
            ],
            outputs=[
                io.Video.Output(
                    display_name="video", tooltip="For Save Video: as many frames as the driving video, with its sound."
                )
            ],
            enable_expand=True,
            **aliases("live portrait", "talking head", "face animation", "reenactment", "lip sync", "portrait to video"),
        )

    @classmethod
    def validate_inputs(cls, weights, vid2vid_weights):
        known = weights == ALONE or LoadModel.validate_inputs(weights)
        return known if known is not True else LoadVid2Vid.validate_inputs(vid2vid_weights)

    @classmethod
    def fingerprint_inputs(cls, weights, vid2vid_weights, **others):
        """Those of the loaders inside: the host asks them only when this node runs."""
        model = None if weights == ALONE else LoadModel.fingerprint_inputs(weights, "default")
        return model, LoadVid2Vid.fingerprint_inputs(vid2vid_weights)

    @classmethod
    def execute(
        cls,
        portrait,
        driving_video,
        weights,
        vid2vid_weights,
        seed,
        result,
        frames=0,
        pose_gain=1.0,
        expression_gain=1.0,
        framing="auto",
        vae=None,
    ) -> io.NodeOutput:
        one_of((WHOLE, SQUARE), result, "result")
        finite(pose_gain=pose_gain, expression_gain=expression_gain)
        graph = GraphBuilder()
        loader = graph.node("RealPortraitLoadVid2Vid", "vid2vid", weights=vid2vid_weights)
        vid2vid = loader.out(0)
        driving = graph.node(
            "RealPortraitLoadDrivingVideo",
            "driving",
            file=SOCKET,
            video=driving_video,
            start=0.0,
            start_in=UNITS[0],
            frames=frames,
            stride=1,
            fps=0.0,
            longest_side=0,
        )
        keypoints = graph.node(
            "RealPortraitExtractKeypoints",
            "keypoints",
            vid2vid=vid2vid,
            portrait=portrait,
            driver=driving.out(0),
            portrait_face="largest",
            driver_face="largest",
            missing_face="hold",
        ).out(0)
        if weights == ALONE:  # RealPortrait renders the shoulders itself
            keypoints = stitched(graph, loader.out(2), keypoints)
        motion = graph.node(
            "RealPortraitMotionMaps",
            "motion",
            vid2vid=vid2vid,
            keypoints=keypoints,
            mode="relative",
            pose_gain=pose_gain,
            expression_gain=expression_gain,
            neutral_frame=CHOOSE,
            framing=framing,
        ).out(0)
        if weights == ALONE:
            images = rendered(graph, vid2vid, motion, result)
        else:
            images = sampled(graph, weights, vae, motion, seed, result)
        video = graph.node("CreateVideo", "video", images=images, audio=driving.out(1), fps=driving.out(2))
        return io.NodeOutput(video.out(0), expand=graph.finalize())


def sampled(graph: GraphBuilder, weights: str, vae: list | None, motion: list, seed: int, result: str) -> list:
    """The link of RealPortrait's frames."""
    model = graph.node("RealPortraitLoadModel", "model", weights=weights, weight_dtype="default").out(0)
    vae = graph.node("VAELoader", "vae", vae_name=folders.BUNDLED_VAE).out(0) if vae is None else vae
    latent = graph.node(
        "RealPortraitSampler",
        "sampler",
        model=model,
        vae=vae,
        motion=motion,
        seed=seed,
        steps=0,  # as the weights were trained for
        sampler_name="euler",
        scheduler="sgm_uniform",
        strength=1.0,
    ).out(0)
    frames = graph.node("VAEDecode", "decode", samples=latent, vae=vae).out(0)
    if result == SQUARE:
        return frames
    return graph.node(
        "RealPortraitPasteBack", "paste", frames=frames, motion=motion, feather=FEATHER, length=LENGTHS[0], even_size=True
    ).out(0)


def stitched(graph: GraphBuilder, stitching: list, keypoints: list) -> list:
    """The link of keypoints that hold the shoulders, where the weights have the networks for it."""
    return graph.node(
        "RealPortraitStitch",
        "stitch",
        stitching=stitching,
        keypoints=keypoints,
        hold_shoulders=True,
        eyes=LEAVE,
        portrait_eyes=OPEN_EYES,
        lips=LEAVE,
        portrait_lips=0.0,
    ).out(0)


def rendered(graph: GraphBuilder, vid2vid: list, motion: list, result: str) -> list:
    """The link of Face Vid2vid's own frames."""
    shown = PORTRAIT if result == WHOLE else FACE_CROP
    return graph.node("RealPortraitRenderVid2Vid", "render", vid2vid=vid2vid, motion=motion, result=shown, even_size=True).out(0)
