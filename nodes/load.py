"""Load the two sets of weights: the diffusion transformer as an ordinary MODEL, and Face Vid2vid."""

from pathlib import Path

import comfy.model_patcher
import torch
from comfy_api.latest import io, ui

from ..realportrait_core.licences import licence_line
from ..realportrait_core.vid2vid.blocks import fold_norms
from ..realportrait_core.vid2vid.checkpoint import load_stitching, load_vid2vid, stitching_beside, vid2vid_files
from ..realportrait_core.vid2vid.precision import to_dtype
from .host import folders, model, run
from .host.newer import advanced, aliases
from .sockets import Stitching, Vid2Vid

VID2VID_DTYPES = {"default": None, "fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

# The last output of each loader: new ones go to the end, where no saved link points.
INFO = io.String.Output(
    display_name="info", tooltip="What each file holds, and its licence: one line a file. Connect Preview Any to read it."
)


class LoadModel(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="RealPortraitLoadModel",
            display_name="Load RealPortrait Model",
            category="RealPortrait",
            description="Loads the diffusion transformer with its motion ControlNet. The MODEL works with LoRA loaders, "
            "model patches and samplers of ComfyUI.",
            inputs=[
                io.Combo.Input(
                    "weights",
                    options=folders.model_names(),
                    tooltip="A RealPortrait .safetensors file. First the weights that come with the pack (256 px, a small "
                    "demonstration model), then those in models/realportrait and models/diffusion_models.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(model.WEIGHT_DTYPES),
                    default="default",
                    tooltip="Precision in which the weights are kept. 'default' is what suits your device; fp8 halves the "
                    "memory of large weights and costs a little quality.",
                    **advanced(),
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="For RealPortrait Sampler or a stock sampler."), INFO],
            **aliases("real portrait", "portrait animation model"),
        )

    @classmethod
    def validate_inputs(cls, weights):
        return folders.problem(folders.model_path, weights)

    @classmethod
    def fingerprint_inputs(cls, weights, weight_dtype):
        return folders.stamp(folders.model_path(weights))

    @classmethod
    def execute(cls, weights: str, weight_dtype: str) -> io.NodeOutput:
        run.one_of(model.WEIGHT_DTYPES, weight_dtype, "weight_dtype")
        path = folders.model_path(weights)
        loaded = model.load(path, weight_dtype)
        info = licence_line(path)
        return io.NodeOutput(loaded, info, ui=ui.PreviewText(info))


class LoadVid2Vid(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="RealPortraitLoadVid2Vid",
            display_name="Load Face Vid2vid (LivePortrait)",
            category="RealPortrait",
            description="Loads Face Vid2vid, which extracts the motion of the driving video and warps the portrait's "
            "appearance feature by it.",
            inputs=[
                io.Combo.Input(
                    "weights",
                    options=folders.vid2vid_names(),
                    tooltip="First the Face Vid2vid that comes with the pack. LivePortrait's public weights do not come with it: "
                    "put the five .safetensors of Kijai/LivePortrait_safetensors (Hugging Face, 521 MB) into "
                    "models/liveportrait or models/realportrait and press R; the folder is then in this list. RealPortrait "
                    "weights need the Face Vid2vid that they were trained with.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(VID2VID_DTYPES),
                    default="default",
                    optional=True,
                    tooltip="Precision of the networks that render: 'default' is fp16 on a GPU that is good at it, fp32 "
                    "elsewhere. Poses are always extracted in fp32.",
                ),
            ],
            outputs=[
                Vid2Vid.Output(display_name="vid2vid", tooltip="For Extract Face Motion and Apply Motion to Portrait."),
                INFO,
                Stitching.Output(
                    display_name="stitching",
                    tooltip="For Stitch and Retarget: LivePortrait's stitching, if its file is beside the others. Without it that "
                    "node passes the keypoints on as they are.",
                ),
            ],
            **aliases("live portrait", "liveportrait", "live portrait loader", "facevid2vid"),
        )

    @classmethod
    def validate_inputs(cls, weights):
        return folders.problem(folders.vid2vid_path, weights)

    @classmethod
    def fingerprint_inputs(cls, weights, weight_dtype="default"):
        # Of LivePortrait's files all: the generator's, or the stitching's, may be put there later.
        return [folders.stamp(file) for file in files_of(folders.vid2vid_path(weights))]

    @classmethod
    def execute(cls, weights: str, weight_dtype: str = "default") -> io.NodeOutput:
        run.one_of(VID2VID_DTYPES, weight_dtype, "weight_dtype")
        path = folders.vid2vid_path(weights)
        load_device, offload_device = run.small_net_devices()
        dtype = VID2VID_DTYPES[weight_dtype] or run.small_net_dtype(load_device)
        network = to_dtype(fold_norms(load_vid2vid(path)), dtype)
        patcher = comfy.model_patcher.ModelPatcher(network, load_device=load_device, offload_device=offload_device)
        stitching = stitching_beside(path)
        info = "\n".join(licence_line(file) for file in files_of(path))
        return io.NodeOutput(patcher, info, stitching and load_stitching(stitching), ui=ui.PreviewText(info))


def files_of(path: Path) -> list[Path]:
    """The files that are loaded: a bundle, or LivePortrait's, with the stitching where it is there."""
    stitching = stitching_beside(path)
    return list(dict.fromkeys([*vid2vid_files(path).values(), *([stitching] if stitching else [])]))
