"""Weight files of the RealPortrait DiT, and a start from the public STDiT2 backbone.

Names are those of STDiT2 (hpcai-tech/OpenSora-STDiT-v2-stage3) and of PixArt-delta's half control.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ..checkpoint import (
    bundle_metadata, config_from_fields, load_strictly, read_bundle_metadata, read_safetensors, save, sniff, wrong_role,
)
from ..config import DiTConfig
from ..errors import InputError, WeightsError
from .model import RealPortraitDiT

logger = logging.getLogger(__name__)

# Of STDiT2, what RealPortrait has no use for: the text, and a table that is computed anew.
TEXT = ("y_embedder.", ".cross_attn.")
ROPE = "rope.freqs"


# Sizes from shapes

def sizes_from_shapes(state: Mapping[str, Tensor]) -> dict:
    """Every field of DiTConfig that the shapes fix. Raises WeightsError naming a key that is not there."""

    def size(key: str, axis: int) -> int:
        if key not in state or axis >= state[key].ndim:
            raise WeightsError(f"The weights lack {key}.")
        return state[key].shape[axis]

    def count(pattern: str) -> int:
        n = 0
        while pattern.format(n) in state:
            n += 1
        return n

    hidden, in_channels = size("x_embedder.proj.weight", 0), size("x_embedder.proj.weight", 1)
    patch = size("x_embedder.proj.weight", 3)
    return {
        "hidden": hidden,
        "depth": count("blocks.{}.attn.qkv.weight"),
        "heads": hidden // max(1, size("blocks.0.attn.q_norm.weight", 0)),
        "control_depth": count("controlnet.{}.after_proj.weight"),
        "mlp_ratio": size("blocks.0.mlp.fc1.weight", 0) // max(1, hidden),
        "in_channels": in_channels,
        "patch": patch,
        "learned_sigma": size("final_layer.linear.weight", 0) == 2 * patch**2 * in_channels,
        "motion_channels": size("motion_net.0.weight", 1),
        "motion_widths": (size("motion_net.0.weight", 0), size("motion_net.2.weight", 0)),
        "reference_motion": "reference_proj.weight" in state,
    }


def dit_config_from_state(state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> DiTConfig:
    """The config of a state.

    Our metadata states it and must agree with the shapes. Without metadata the shapes decide, and what no shape shows
    (prediction, the order of RoPE and norm, input_sq_size, clip_frames, fps) is the paper's.
    Raises WeightsError on missing keys, contradictions and impossible sizes.
    """
    sizes = sizes_from_shapes(state)
    values = read_bundle_metadata(metadata, "dit")
    try:
        if values is None:
            return DiTConfig(**sizes)
        stated = config_from_fields(DiTConfig, values)
        replace(stated, **sizes)
    except InputError as error:
        raise WeightsError(f"The weights have impossible sizes: {error}") from error
    for name, found in sizes.items():
        if getattr(stated, name) != found:
            raise WeightsError(f"The file's config has {name} = {getattr(stated, name)} and its weights have {found}.")
    return stated


# Our files

def load_dit(path: str | os.PathLike) -> RealPortraitDiT:
    """A RealPortrait DiT in float32 on the CPU, frozen, in eval mode.

    Raises WeightsError if the file is missing, damaged, incomplete, or something else.
    """
    state, metadata = read_safetensors(path)
    if (role := sniff(state)) != "dit":
        raise wrong_role(path, role, "dit")
    try:
        model = RealPortraitDiT(dit_config_from_state(state, metadata), device="meta")
        load_strictly(model, {key: value.float() for key, value in state.items()})
    except WeightsError as error:
        raise WeightsError(f"{path} cannot be used as RealPortrait weights. {error}") from error
    return model.eval().requires_grad_(False)


def save_dit(path: str | os.PathLike, model: RealPortraitDiT, dtype: torch.dtype = torch.float16) -> None:
    """Write a DiT with its config; weights in `dtype`."""
    state = {key: value.to(dtype) for key, value in model.state_dict().items()}
    save(path, state, bundle_metadata("dit", model.cfg))


# The public backbone

@torch.no_grad()
def start_from_stdit2(model: RealPortraitDiT, path: str | os.PathLike) -> None:
    """Initialise `model` for the paper's training: STDiT2 in the backbone, copies of its first blocks in the control.

    Everything else starts as `model.initialize()` says. The file's text path is left out.
    Raises WeightsError if the file is not an STDiT2 of the model's size.
    """
    state, _ = read_safetensors(path)
    if (role := sniff(state)) != "stdit2":
        raise wrong_role(path, role, "stdit2")
    kept = {key: value.float() for key, value in state.items() if key != ROPE and not any(text in key for text in TEXT)}
    logger.info("%s: %d of %d tensors taken over; the text path is left out.", path, len(kept), len(state))
    model.initialize()
    for i in range(len(model.controlnet)):
        prefix = f"blocks.{i}."
        block = {key.removeprefix(prefix): value for key, value in kept.items() if key.startswith(prefix)}
        kept |= {f"controlnet.{i}.copied_block.{key}": value for key, value in block.items()}
    own = {
        key: value for key, value in model.state_dict().items()
        if key.startswith(("motion_net.", "reference_proj.")) or "after_proj" in key or "before_proj" in key
    }
    try:
        load_strictly(model, own | kept)
    except WeightsError as error:
        raise WeightsError(f"{path} is not an STDiT2 of this model's size. {error}") from error
