"""Weight files of the RealPortrait DiT, and a start from the public STDiT2 backbone.

Names are those of STDiT2 (hpcai-tech/OpenSora-STDiT-v2-stage3) and of PixArt-delta's half control.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..checkpoint import (
    METADATA_KEY, bundle_metadata, config_from_fields, load_strictly, read_bundle_metadata, read_safetensors, save, sniff,
    wrong_role,
)
from ..config import DiTConfig
from ..errors import InputError, WeightsError
from .embed import PatchEmbed
from .model import RealPortraitDiT
from .motion_mapper import MotionMapper

logger = logging.getLogger(__name__)

# Of STDiT2, what RealPortrait has no use for: the text, and a table that is computed anew.
TEXT = ("y_embedder.", ".cross_attn.")
ROPE = "rope.freqs"
# Of files that ComfyUI's own save nodes write.
HOST_PREFIXES = ("model.diffusion_model.", "diffusion_model.")
DRAFT = ("enter", "halve", "quarter")   # its convolutions, by width
CONFIG_KEY = "realportrait_config"      # bytes of our metadata, which these nodes drop


# Sizes from shapes

def sizes_from_shapes(state: Mapping[str, Tensor]) -> dict:
    """Every field of DiTConfig that the shapes fix. Raises WeightsError naming a key that is not there."""

    def size(key: str, axis: int) -> int:
        if key not in state or axis >= state[key].ndim:
            raise WeightsError(f"The weights lack {key}.")
        return state[key].shape[axis]

    def count(pattern: str, first: int = 0) -> int:
        n = 0
        while pattern.format(first + n) in state:
            n += 1
        return n

    hidden, in_channels = size("x_embedder.proj.weight", 0), size("x_embedder.proj.weight", 1)
    patch = size("x_embedder.proj.weight", 3)
    motion_blocks = count("motion_net.{}.conv1.weight", first=5)
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
        "motion_blocks": motion_blocks,
        "motion_latent": size(f"motion_net.{5 + motion_blocks if motion_blocks else 4}.weight", 0),
        "reference_motion": "reference_proj.weight" in state,
        "draft_widths": tuple(size(f"draft.{layer}.weight", 0) for layer in DRAFT) if "draft.enter.weight" in state else (),
    }


def dit_config_from_state(state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> DiTConfig:
    """The config of a state.

    Our metadata states it and must agree with the shapes. Without metadata the shapes decide, and what no shape shows
    (prediction, the order of RoPE and norm, input_sq_size, clip_frames, fps, mask_reach) is the paper's.
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

def without_host_traces(state: dict[str, Tensor], metadata: dict[str, str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """State and metadata as we write them, of a file that ComfyUI's save nodes may have written."""
    prefix = next((p for p in HOST_PREFIXES if any(key.startswith(p) for key in state)), "")
    state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    if (stored := state.pop(CONFIG_KEY, None)) is not None:
        metadata = {**metadata, METADATA_KEY: stored.numpy().tobytes().decode()}
    return state, metadata


def load_dit(path: str | os.PathLike) -> RealPortraitDiT:
    """A RealPortrait DiT, saved by us or by ComfyUI, in float32 on the CPU, frozen, in eval mode.

    Raises WeightsError if the file is missing, damaged, incomplete, or something else.
    """
    state, metadata = without_host_traces(*read_safetensors(path))
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

@dataclass(frozen=True)
class Start:
    """What becomes of a public STDiT2: the state of a RealPortraitDiT, and where its keys come from."""

    state: dict[str, Tensor]        # float tensors in the dtype of the public ones
    kept: list[str]                 # as they are
    copied: list[str]               # blocks of the control, copies of the backbone's first ones
    new: list[str]                  # zeros, and the motion mapper at random
    dropped: list[str]              # of the public file: text, and the table of RoPE
    unknown: list[str]              # of the public file too, and in no STDiT2 that we know


def start_state(public: Mapping[str, Tensor], cfg: DiTConfig) -> Start:
    """A start for the paper's training: STDiT2 in the backbone, copies of its first blocks in the control.

    Before and after the control lie zero projections, so that at first it changes nothing. `public` may be on the meta
    device. Raises WeightsError if it is not an STDiT2 of the size of `cfg`.
    """
    public = {key.removeprefix("module."): value for key, value in public.items()}
    bare = RealPortraitDiT(cfg, device="meta")
    wanted = bare.state_dict()
    kept = {key: value for key, value in public.items() if key in wanted}
    left = [key for key in public if key not in wanted]
    dropped = [key for key in left if key == ROPE or any(text in key for text in TEXT)]
    copied = {}
    for i in range(cfg.control_depth):
        prefix = f"blocks.{i}."
        copied |= {
            f"controlnet.{i}.copied_block.{key.removeprefix(prefix)}": value.clone()
            for key, value in kept.items() if key.startswith(prefix)
        }
    dtype = next((value.dtype for value in kept.values()), torch.float32)
    mapper = MotionMapper(cfg.motion_channels, cfg.motion_widths, cfg.motion_latent, cfg.motion_blocks, operations=torch.nn)
    mapper.initialize()
    new = {f"motion_net.{key}": value.to(dtype) for key, value in mapper.state_dict().items()}
    if cfg.motion_latent != cfg.in_channels:
        embedder = PatchEmbed(cfg.motion_latent, cfg.patch, cfg.hidden, operations=torch.nn)
        embedder.initialize()
        new |= {f"motion_embedder.{key}": value.to(dtype) for key, value in embedder.state_dict().items()}
    new |= {
        key: torch.zeros(value.shape, dtype=dtype) for key, value in wanted.items()
        if key.startswith("reference_proj.") or ".after_proj." in key or ".before_proj." in key
    }
    state = kept | copied | new
    load_strictly(bare, state)
    return Start(state, list(kept), list(copied), list(new), dropped, [key for key in left if key not in dropped])


def read_stdit2(path: str | os.PathLike) -> dict[str, Tensor]:
    """The state of Open-Sora's public backbone in one safetensors file. Raises WeightsError if it is something else."""
    state, _ = read_safetensors(path)
    if (role := sniff(state)) != "stdit2":
        raise wrong_role(path, role, "stdit2")
    return state


def start_from_stdit2(model: RealPortraitDiT, path: str | os.PathLike) -> None:
    """Initialise `model` by start_state, in float32. Raises WeightsError if the file is not an STDiT2 of the model's size."""
    public = read_stdit2(path)
    try:
        start = start_state(public, model.cfg)
    except WeightsError as error:
        raise WeightsError(f"{path} is not an STDiT2 of this model's size. {error}") from error
    logger.info("%s: %d of %d tensors taken over; the text path is left out.", path, len(start.kept), len(public))
    load_strictly(model, {key: value.float() for key, value in start.state.items()})
