"""The paper's sampling, IDDPM with 50 steps, for the host's custom samplers."""

import comfy.samplers
from comfy_api.latest import io

from .host.iddpm import respaced_sigmas, sample_iddpm
from .host.model import config_of
from .host.newer import aliases


class IDDPMSigmas(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="RealPortraitSigmas",
            display_name="RealPortrait IDDPM Sigmas",
            category="RealPortrait",
            description="The noise levels of IDDPM, the paper's diffusion process, for a given number of steps; for "
            "SamplerCustomAdvanced and SamplerCustom with any sampler.",
            inputs=[
                io.Model.Input("model", tooltip="From Load RealPortrait Model: the noise levels are those of its training."),
                io.Int.Input(
                    "steps",
                    default=50,
                    min=1,
                    max=1000,
                    tooltip="Denoising steps. The paper takes 50; fewer are faster, and smoother.",
                ),
            ],
            outputs=[io.Sigmas.Output(display_name="sigmas", tooltip="From the most noise down to 0: steps + 1 levels.")],
            **aliases("iddpm schedule", "improved ddpm"),
        )

    @classmethod
    def execute(cls, model, steps) -> io.NodeOutput:
        config_of(model)
        return io.NodeOutput(respaced_sigmas(model.get_model_object("model_sampling"), steps))


class IDDPMSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="RealPortraitIDDPMSampler",
            display_name="RealPortrait IDDPM Sampler",
            category="RealPortrait",
            description="The paper's ancestral sampler with the learned variance, for SamplerCustomAdvanced and SamplerCustom. "
            "Use it with RealPortrait IDDPM Sigmas.",
            inputs=[],
            outputs=[io.Sampler.Output(display_name="sampler", tooltip="For SamplerCustomAdvanced or SamplerCustom.")],
            **aliases("improved ddpm", "ancestral sampler"),
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(comfy.samplers.KSAMPLER(sample_iddpm))
