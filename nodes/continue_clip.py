"""The clip after a clip, for stock samplers: its first frames are the last latents of the one before."""

from comfy_api.latest import io

from ..realportrait_core.errors import InputError
from .host.conditioning import conditioning, continued_latent, part
from .host.newer import aliases
from .sockets import Motion


class ContinueClip(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="RealPortraitContinueClip",
            display_name="Continue Clip",
            category="RealPortrait",
            description="Continues an animation: the last frames of the previous LATENT are the known first frames of the new "
            "clip. Join both with LatentFromBatch (from frame 'overlap' on) and LatentBatch.",
            inputs=[
                io.Conditioning.Input(
                    "positive",
                    tooltip="The positive of RealPortrait Conditioning for the clip before: the portrait is taken from it.",
                ),
                io.Latent.Input("previous", tooltip="The sampled LATENT of the clip before, or of all clips before."),
                Motion.Input("motion", tooltip="The same motion as for the clip before, or another one for the same portrait."),
                io.Int.Input(
                    "start_frame",
                    default=15,
                    min=0,
                    max=10**6,
                    tooltip="The driving frame at which the new clip starts, its known frames included: after 16 frames with "
                    "an overlap of 1 it is 15, then 30, 45.",
                ),
                io.Int.Input(
                    "frames",
                    default=16,
                    min=2,
                    max=128,
                    tooltip="Frames of the new clip, the known ones included; fewer where the motion ends. The model was trained "
                    "with 16.",
                ),
                io.Int.Input(
                    "overlap",
                    default=1,
                    min=1,
                    max=16,
                    tooltip="How many frames are taken over from the clip before. They are kept as they are.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive", tooltip="The portrait with the motion of the new clip."),
                io.Conditioning.Output(
                    display_name="negative", tooltip="The portrait without motion, from which a cfg above 1 leads away."
                ),
                io.Latent.Output(display_name="latent", tooltip="The new clip, its known frames filled in and masked."),
            ],
            **aliases("extend clip", "long video"),
        )

    @classmethod
    def execute(cls, positive, previous, motion, start_frame, frames, overlap) -> io.NodeOutput:
        condition = positive[0][1]
        if "rp_reference" not in condition:
            raise InputError(
                "The CONDITIONING does not come from RealPortrait, so it names no portrait. Connect the positive of "
                "RealPortrait Conditioning."
            )
        maps = part(motion.maps, start_frame, frames)
        latent = continued_latent(maps, previous["samples"], overlap)
        positive, negative = conditioning(condition["rp_reference"], maps, motion.portrait_maps, condition["rp_strength"])
        return io.NodeOutput(positive, negative, latent)
