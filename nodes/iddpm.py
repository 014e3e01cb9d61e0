"""The paper's sampling, IDDPM with 50 steps, for the host's custom samplers."""

import comfy.samplers
from comfy_api.latest import io

from .host.iddpm import refining_sigmas, respaced_sigmas, sample_iddpm
from .host.model import config_of
from .host.run import one_of

SPACINGS = {"even": respaced_sigmas, "refine": refining_sigmas}


class IDDPMSigmas(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="RealPortraitSigmas",
            display_name="RealPortrait IDDPM Sigmas",
            category="RealPortrait",
            description="The noise levels that IDDPM, the paper's diffusion process, visits in so many steps, for "
            "SamplerCustomAdvanced and SamplerCustom with any sampler.",
            inputs=[
                io.Model.Input("model", tooltip="From Load RealPortrait Model: the levels are those it was trained with."),
                io.Int.Input(
                    "steps", default=50, min=1, max=1000,
                    tooltip="Denoising steps. The paper takes 50; fewer are faster, and smoother.",
                ),
                # Optional, so that workflows from before it was there still run.
                io.Combo.Input(
                    "spacing", options=list(SPACINGS), default="even", optional=True,
                    tooltip="'even' is IDDPM's. 'refine' goes in one step from pure noise to the model's first answer and spends "
                    "the others on its details, as RealPortrait Sampler's scheduler of that name; for samplers other than "
                    "RealPortrait IDDPM Sampler.",
                ),
            ],
            outputs=[io.Sigmas.Output(display_name="sigmas", tooltip="From the most noise down to 0: steps + 1 levels.")],
        )

    @classmethod
    def execute(cls, model, steps, spacing="even") -> io.NodeOutput:
        config_of(model)
        one_of(SPACINGS, spacing, "spacing")
        return io.NodeOutput(SPACINGS[spacing](model.get_model_object("model_sampling"), steps))


class IDDPMSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="RealPortraitIDDPMSampler",
            display_name="RealPortrait IDDPM Sampler",
            category="RealPortrait",
            description="The paper's own ancestral sampler, with the variance that the weights have learned, for "
            "SamplerCustomAdvanced and SamplerCustom. RealPortrait IDDPM Sigmas belongs to it.",
            inputs=[],
            outputs=[io.Sampler.Output(display_name="sampler", tooltip="For SamplerCustomAdvanced or SamplerCustom.")],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(comfy.samplers.KSAMPLER(sample_iddpm))
