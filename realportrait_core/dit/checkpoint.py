"""Weight files of the RealPortrait DiT, and its initialisation from the public STDiT2 backbone.

Keys are those of STDiT2 (hpcai-tech/OpenSora-STDiT-v2-stage3) and of PixArt-delta's half ControlNet.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from ..checkpoint import (
    METADATA_KEY,
    bundle_metadata,
    config_from_fields,
    load_strictly,
    read_bundle_metadata,
    read_safetensors,
    save,
    sniff,
    wrong_role,
)
from ..config import ConditionerConfig, DiTConfig
from ..errors import InputError, WeightsError
from .conditioner import Conditioner
from .model import RealPortraitDiT
from .motion_mapper import MotionMapper

logger = logging.getLogger(__name__)

# Keys of STDiT2 that RealPortrait does not use: the text path, and a table that is computed at run time.
TEXT = ("y_embedder.", ".cross_attn.")
ROPE = "rope.freqs"
# Key prefixes in files that ComfyUI's own save nodes write.
HOST_PREFIXES = ("model.diffusion_model.", "diffusion_model.")
DRAFT = "conditioner.draft"
DRAFT_LAYERS = ("enter", "halve", "quarter")  # one for each of its widths
# Files from before the conditioner was a module of its own: key prefixes that only they have, prefixes -> today's, and those fields
# of their configs that are the conditioner's today.
OLDER = ("draft.", "reference_proj.", "motion_embedder.", "motion_net.5.")
RENAMED = {name: f"conditioner.{name}" for name in ("draft.", "reference_proj.")} | {
    "motion_embedder.": "conditioner.embedder.",
    "motion_net.": "conditioner.mapper.",
}
OLDER_FIELDS = tuple(field.name for field in fields(ConditionerConfig))
CONFIG_KEY = "realportrait_config"  # bytes of our metadata, which these nodes drop


# Sizes from shapes


def sizes_from_shapes(state: Mapping[str, Tensor]) -> dict:
    """Every field of DiTConfig, and of its ConditionerConfig, that follows from the shapes. Raises WeightsError naming a missing
    key."""

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
    conditioned = any(key.startswith("conditioner.") for key in state)
    mapper = "conditioner.mapper" if conditioned else "motion_net"
    blocks = count("conditioner.deeper.{}.conv1.weight")
    return {
        "hidden": hidden,
        "depth": count("blocks.{}.attn.qkv.weight"),
        "heads": hidden // max(1, size("blocks.0.attn.q_norm.weight", 0)),
        "control_depth": count("controlnet.{}.after_proj.weight"),
        "mlp_ratio": size("blocks.0.mlp.fc1.weight", 0) // max(1, hidden),
        "in_channels": in_channels,
        "patch": patch,
        "learned_sigma": size("final_layer.linear.weight", 0) == 2 * patch**2 * in_channels,
        "motion_channels": size(f"{mapper}.0.weight", 1),
        "motion_widths": (size(f"{mapper}.0.weight", 0), size(f"{mapper}.2.weight", 0)),
        "conditioner": None
        if not conditioned
        else {
            "motion_latent": size(f"conditioner.deeper.{blocks}.weight" if blocks else f"{mapper}.4.weight", 0),
            "motion_blocks": blocks,
            "reference_motion": "conditioner.reference_proj.weight" in state,
            "draft_widths": tuple(size(f"{DRAFT}.{layer}.weight", 0) for layer in DRAFT_LAYERS)
            if f"{DRAFT}.enter.weight" in state
            else (),
        },
    }


def dit_config_from_state(state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> DiTConfig:
    """The config of a state.

    It is that of our metadata, which must agree with the shapes. Without metadata it is inferred from the shapes, and what does not
    follow from them (prediction, the order of RoPE and norm, input_sq_size, clip_frames, fps, mask_reach) is PAPER's.
    Raises WeightsError on missing keys, contradictions and impossible sizes.
    """
    sizes = sizes_from_shapes(state)
    values = read_bundle_metadata(metadata, "dit")
    try:
        inferred = config_from_values(sizes)
        stated = inferred if values is None else config_from_values(values)
    except InputError as error:
        raise WeightsError(f"The weights have impossible sizes: {error}") from error
    conditioner = sizes.pop("conditioner")
    if (stated.conditioner is None) != (conditioner is None):
        raise WeightsError(f"The file's config has conditioner = {stated.conditioner} and its weights have {inferred.conditioner}.")
    for config, found in ((stated, sizes), (stated.conditioner, conditioner or {})):
        for name, value in found.items():
            if getattr(config, name) != value:
                raise WeightsError(f"The file's config has {name} = {getattr(config, name)} and its weights have {value}.")
    return stated


def config_from_values(values: Mapping) -> DiTConfig:
    """A config from its fields as read from JSON; in older files the conditioner's fields are among them.

    Raises WeightsError on wrong names or types, InputError on impossible sizes.
    """
    values = dict(values)
    older = {name: values.pop(name) for name in OLDER_FIELDS if name in values}
    conditioner = config_from_fields(ConditionerConfig, older)
    if conditioner == ConditionerConfig():
        return config_from_fields(DiTConfig, values)
    return replace(config_from_fields(DiTConfig, values), conditioner=conditioner)


# Our files


def without_host_traces(state: dict[str, Tensor], metadata: dict[str, str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """State and metadata as save_dit writes them, of a file that may be from ComfyUI's save nodes."""
    prefix = next((p for p in HOST_PREFIXES if any(key.startswith(p) for key in state)), "")
    state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    if (stored := state.pop(CONFIG_KEY, None)) is not None:
        try:
            metadata = {**metadata, METADATA_KEY: bytes(stored.flatten().tolist()).decode()}
        except (TypeError, ValueError) as error:  # other numbers than bytes, or no text
            raise WeightsError(f"The weights' {CONFIG_KEY} of the type {stored.dtype} is no text.") from error
    return renamed(state), metadata


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state with today's keys."""
    if not any(key.startswith(OLDER) for key in state):
        return state
    result = {}
    for key, value in state.items():
        name = next((name for name in RENAMED if key.startswith(name)), "")
        rest = key.removeprefix(name)
        layer, _, parameter = rest.partition(".")
        if name == "motion_net." and layer.isdecimal() and int(layer) > 4:  # after the three convolutions
            result[f"conditioner.deeper.{int(layer) - 5}.{parameter}"] = value
        else:
            result[RENAMED.get(name, "") + rest] = value
    if not any(key.startswith("motion_embedder.") for key in state):  # they used the latents' embedder
        result |= {f"conditioner.{key[2:]}": value for key, value in state.items() if key.startswith("x_embedder.")}
    return result


def read_dit(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict[str, str]]:
    """State and metadata of a RealPortrait DiT as save_dit writes them. Raises WeightsError for any other file."""
    whole, metadata = read_safetensors(path)
    try:
        state, metadata = without_host_traces(whole, metadata)
    except WeightsError as error:
        raise WeightsError(f"{path} cannot be used as RealPortrait weights. {error}") from error
    if sniff(state) != "dit":
        raise wrong_role(path, sniff(whole), "dit")  # with the prefixes, which tell a whole checkpoint from a UNet
    return state, metadata


def load_dit(path: str | os.PathLike) -> RealPortraitDiT:
    """A RealPortrait DiT, saved by us or by ComfyUI, in float32 on the CPU, frozen, in eval mode.

    Raises WeightsError if the file is missing, damaged, incomplete, or something else.
    """
    state, metadata = read_dit(path)
    try:
        model = RealPortraitDiT(dit_config_from_state(state, metadata), device="meta")
        load_strictly(model, {key: value.float() if value.is_floating_point() else value for key, value in state.items()})
    except WeightsError as error:
        raise WeightsError(f"{path} cannot be used as RealPortrait weights. {error}") from error
    return model.eval().requires_grad_(False)


def save_dit(path: str | os.PathLike, model: RealPortraitDiT, dtype: torch.dtype = torch.float16) -> None:
    """Write a DiT and its config to a file; weights in `dtype`."""
    state = {key: value.to(dtype) for key, value in model.state_dict().items()}
    save(path, state, bundle_metadata("dit", model.cfg))


# Initialisation from the public backbone


@dataclass(frozen=True)
class Start:
    """The state of a RealPortraitDiT initialised from a public STDiT2, and the origin of its keys."""

    state: dict[str, Tensor]  # in the dtype of the public weights
    kept: list[str]  # unchanged
    copied: list[str]  # the ControlNet's blocks, copies of the backbone's first ones
    new: list[str]  # zero projections; the motion mapper or the conditioner, random
    dropped: list[str]  # of the public file: the text path and RoPE's table
    unknown: list[str]  # of the public file: keys that no known STDiT2 has


def start_state(public: Mapping[str, Tensor], cfg: DiTConfig) -> Start:
    """Initial weights for the paper's training: STDiT2 as the backbone, copies of its first blocks as the ControlNet.

    The ControlNet's projections are zero, so that it starts without effect. `public` may be on the meta device. Raises WeightsError
    if it is not an STDiT2 of the size of `cfg`.
    """
    public = {key.removeprefix("module."): value for key, value in public.items()}
    bare = RealPortraitDiT(cfg, device="meta")
    expected = bare.state_dict()
    kept = {key: value for key, value in public.items() if key in expected}
    left = [key for key in public if key not in expected]
    dropped = [key for key in left if key == ROPE or any(text in key for text in TEXT)]
    copied: dict[str, torch.Tensor] = {}
    for i in range(cfg.control_depth):
        prefix = f"blocks.{i}."
        copied |= {
            f"controlnet.{i}.copied_block.{key.removeprefix(prefix)}": value.clone()
            for key, value in kept.items()
            if key.startswith(prefix)
        }
    dtype = next((value.dtype for value in kept.values()), torch.float32)
    if cfg.conditioner is None:
        name, module = "motion_net", MotionMapper(cfg.motion_channels, cfg.motion_widths, cfg.in_channels, operations=torch.nn)
    else:
        name, module = "conditioner", Conditioner(cfg, operations=torch.nn)
    module.initialize()
    new = {f"{name}.{key}": value.to(dtype) for key, value in module.state_dict().items()}
    new |= {
        key: torch.zeros(value.shape, dtype=dtype)
        for key, value in expected.items()
        if ".after_proj." in key or ".before_proj." in key
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
    logger.info("%s: %d of %d tensors are used; those of the text path are not.", path, len(start.kept), len(public))
    load_strictly(model, {key: value.float() for key, value in start.state.items()})
