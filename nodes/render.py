"""Face Vid2vid's own animation: G's picture of every frame, in the full-size portrait or as the bare face crop."""

import torch
from comfy_api.latest import io, ui

from ..realportrait_core.animation.vid2vid_frames import (
    check_rendering,
    face_frames,
    frames_mask,
    generator_ladder,
    picture_size,
    portrait_frames,
    portrait_pictures,
)
from ..realportrait_core.face.blend import soft_square
from .host import images
from .host.draw import GLANCE, evenly, sheet, small
from .host.memory import freeing_others
from .host.newer import advanced, aliases
from .host.run import Progress, loaded, one_of
from .paste import check_room
from .sockets import Motion, Vid2Vid

PORTRAIT, FACE_CROP = RESULTS = ["portrait", "face crop"]


class RenderVid2Vid(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="RealPortraitRenderVid2Vid",
            display_name="Render Face Vid2vid (LivePortrait)",
            category="RealPortrait",
            description="Renders the motion by Face Vid2vid's own generator, without RealPortrait's transformer, and pastes the "
            "face into the full-size portrait: LivePortrait's animation, with its public weights.",
            inputs=[
                Vid2Vid.Input("vid2vid", tooltip="From Load Face Vid2vid, the same as for the motion; with the generator's file."),
                Motion.Input("motion", tooltip="From Apply Motion to Portrait."),
                io.Combo.Input(
                    "result",
                    options=RESULTS,
                    default=PORTRAIT,
                    tooltip="'portrait' is the whole portrait in which the face moves, at its own size. 'face crop' is the "
                    "generator's square picture alone: 512 px with LivePortrait's weights.",
                ),
                io.Image.Input(
                    "portrait",
                    optional=True,
                    tooltip="The portrait, or frames of its size, such as the result for another face. Without it the face is "
                    "pasted into the picture that the motion was made from.",
                ),
                io.Boolean.Input(
                    "even_size",
                    default=False,
                    optional=True,
                    tooltip="Drops the last column or row of a portrait of odd width or height, which Save Video (mp4) refuses.",
                    **advanced(),
                ),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="The animation, one picture for each driving frame."),
                io.Mask.Output(display_name="mask", tooltip="Where, and how strongly, the face is blended into the portrait."),
            ],
            **aliases("live portrait", "liveportrait process", "face animation", "reenactment", "vid2vid render"),
        )

    @classmethod
    def execute(cls, vid2vid, motion, result, portrait=None, even_size=False) -> io.NodeOutput:
        one_of(RESULTS, result, "result")
        pictures = None
        if result == PORTRAIT:
            pictures = portrait_pictures(motion, None if portrait is None else images.rgb(portrait, "portrait"))
        progress, network = Progress(len(motion.maps)), loaded(vid2vid)
        check_rendering(network, motion)
        side, ladder = picture_size(network), freeing_others(generator_ladder(network), vid2vid)
        if pictures is None:
            size, mask = (side, side), soft_square(side)[None]
            chunks = (faces.movedim(1, -1) for faces in face_frames(network, motion, ladder=ladder))
        else:
            size, mask = tuple(motion.portrait_size), frames_mask(motion, side)
            chunks = portrait_frames(network, motion, pictures, ladder=ladder)
        if even_size:
            size = tuple(length // 2 * 2 for length in size)
        check_room(len(motion.maps), *size)
        out, done = torch.empty(len(motion.maps), *size, 3), 0
        for chunk in chunks:
            out[done : done + len(chunk)] = chunk[:, : size[0], : size[1]]
            done += len(chunk)
            progress.to(done)
        on_node = ui.PreviewImage(sheet(small(out[evenly(len(out), GLANCE)])), cls=cls)
        return io.NodeOutput(out, mask[:, : size[0], : size[1]], ui=on_node)
