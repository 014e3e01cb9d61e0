"""Weight files: safetensors are read and written, and recognised by their keys; errors name the remedy.

No file is unpickled. Configs and key maps live beside their networks (vid2vid/checkpoint.py, dit/checkpoint.py).
"""

import json
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from ..errors import WeightsError
from ..whole_file import whole_file
from .header import BITS, Header, foreign_format, is_pickle, read_header

__all__ = ["Header", "foreign_format", "is_pickle", "read_header"]  # of header.py, for other rooms

logger = logging.getLogger(__name__)

METADATA_KEY = "realportrait"
LICENCE_KEY = "modelspec.license"  # of the ModelSpec standard; other programs write and read it too
VERSION = 1
LISTED = 5  # names in a message
LARGEST_SIZE = 2**31 - 1  # of a whole number in a config


# Reading


def check_finite(state: Mapping[str, torch.Tensor], source: str) -> None:
    """Raises WeightsError for NaN, infinity, and what is infinite in float32; safetensors does not check it."""
    for key, value in state.items():
        if value.is_floating_point():
            wide = value.float() if value.element_size() in (1, 8) else value  # float8 has no isfinite
            bad = wide.numel() - int(torch.isfinite(wide).sum())
            if bad:
                raise WeightsError(f"{source} is damaged: {bad} of {value.numel()} values of {key} are not finite numbers.")


def read_safetensors(path: str | os.PathLike, prefix: str = "") -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Every tensor on the CPU in its stored dtype, or only those whose names begin with `prefix`, and the file's metadata.

    Raises WeightsError if the file is missing, cut short, damaged, not safetensors, or holds NaN, infinity or an unknown type.
    """
    header = read_header(path)
    foreign = {key: kind for key, kind in header.dtypes.items() if kind not in BITS and key.startswith(prefix)}
    if foreign:
        raise WeightsError(
            f"{path} cannot be read: {len(foreign)} of its tensors are of the type {next(iter(foreign.values())):.20}, "
            f"{listed(foreign)} among them. RealPortrait reads {', '.join(BITS)}."
        )
    try:
        if prefix:
            with safe_open(path, "pt") as file:
                state = {key: file.get_tensor(key) for key in header.shapes if key.startswith(prefix)}
        else:
            state = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read: {error}. Download it again.") from error
    check_finite(state, str(path))
    return state, header.metadata


# Writing


def save(path: str | os.PathLike, state: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Writes a safetensors file atomically; `metadata` as from bundle_metadata. Raises WeightsError where it cannot."""
    path = Path(path)
    check_finite(state, f"What should go into {path}")
    tensors = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    try:
        with whole_file(path) as partial:
            save_file(tensors, partial, dict(metadata))
            partial.chmod(0o644)  # safetensors creates files readable by their owner only
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} could not be written: {error}.") from error


# The config in our own files


def bundle_metadata(role: str, config: Any, licence: str | None = None) -> dict[str, str]:
    """Metadata of our own files: the role ("vid2vid", "dit", ...), the fields of the frozen config dataclass, the licence."""
    metadata = {METADATA_KEY: json.dumps({"role": role, "version": VERSION, "config": asdict(config)})}
    return metadata if licence is None else metadata | {LICENCE_KEY: licence}


def read_bundle_metadata(metadata: Mapping[str, str], role: str) -> dict | None:
    """The config's fields that bundle_metadata wrote, or None if the file is not ours."""
    if METADATA_KEY not in metadata:
        return None
    try:
        info = json.loads(metadata[METADATA_KEY])
        found, version, config = str(info["role"]), int(info["version"]), info["config"]
        if not isinstance(config, dict):
            raise TypeError(f"its config is a {type(config).__name__}")
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise WeightsError(
            f"The file's '{METADATA_KEY}' metadata cannot be read ({type(error).__name__}: {error!s:.200})."
        ) from error
    if version > VERSION:
        raise WeightsError(f"The file is of format {version} and this RealPortrait reads up to {VERSION}. Update the pack.")
    if found != role:
        raise WeightsError(f"The file's metadata gives the role {found!r:.80}; {role!r} is needed here.")
    return config


def config_from_fields(kind: type, values: Mapping) -> Any:
    """The frozen config dataclass `kind` from fields as JSON keeps them.

    Raises WeightsError on wrong and missing names, on wrong types, on NaN, infinity, and whole numbers of more than 31 bits.
    """
    types = {field.name: field.type for field in fields(kind)}
    unknown = sorted(set(values) - set(types))
    if unknown:
        raise WeightsError(f"The file's config has fields that this RealPortrait does not know: {listed(unknown)}.")
    missing = [
        field.name for field in fields(kind) if field.default is field.default_factory is MISSING and field.name not in values
    ]
    if missing:
        raise WeightsError(f"The file's config lacks {listed(missing)}.")
    arguments = {}
    for name, value in values.items():
        wanted = types[name]
        if isinstance(wanted, UnionType):  # a config in the config, or None
            part = get_args(wanted)[0]
            right = value is None or isinstance(value, Mapping)
            value = config_from_fields(part, value) if isinstance(value, Mapping) else value
        elif get_origin(wanted) is tuple:
            right = isinstance(value, (list, tuple)) and all(type(item) is int and is_size(item) for item in value)
            value = tuple(value) if right else value
        else:
            right = (type(value) is wanted or (wanted is float and type(value) is int)) and is_size(value)
        if not right:
            raise WeightsError(f"The file's config has {name} = {value!r:.80}, which is not of the type {wanted}, or too large.")
        arguments[name] = value
    return kind(**arguments)


def is_size(value: Any) -> bool:
    """Whether a number of a config is finite and not beyond all sizes; anything else is."""
    return not isinstance(value, (int, float)) or abs(value) <= LARGEST_SIZE


# Recognising a file

# role -> keys that only such a file has, with or without a prefix. The first role that matches is taken.
SIGNATURES = {
    "lora": ("lora_up.weight", "lora_A.weight", "lora_B.weight", "lora_down.weight", "lora.up.weight", "hada_w1_a", "lokr_w1"),
    "controlnet": ("input_hint_block.0.weight", "controlnet_cond_embedding.conv_in.weight"),
    "sd_checkpoint": ("model.diffusion_model.input_blocks.0.0.weight",),
    "sd_unet": ("input_blocks.0.0.weight", "down_blocks.0.resnets.0.time_emb_proj.weight"),
    "vae": ("taesd_decoder.1.weight", "taesd_encoder.0.weight"),
    "sd_vae": ("decoder.up.0.block.0.conv1.weight", "decoder.up_blocks.0.resnets.0.conv1.weight"),
    "text_encoder": ("text_model.embeddings.token_embedding.weight",),
    "ablation": ("motion_net.index", "reference_embedder.proj.weight"),
    "dit": ("motion_net.0.weight", "conditioner.mapper.0.weight"),
    "stdit2": ("t_block_temp.1.weight",),
    "stdit": ("blocks.0.attn_temp.qkv.weight", "spatial_blocks.0.attn.qkv.weight"),
    "pixart": ("blocks.0.cross_attn.q_linear.weight",),
    "stitching": ("retarget_shoulder_module.mlp.0.weight", "retarget_eye_module.mlp.0.weight"),
}
# Face Vid2vid, in our bundles with a prefix per network, in public files without: attribute of FaceVid2Vid -> key.
VID2VID_PARTS = {
    "appearance": "resblocks_3d.3dr0.conv1.weight",
    "motion": "detector.fc_kp.weight",
    "warping": "dense_motion_network.mask.weight",
    "generator": "G_middle_0.conv_0.bias",
}
# The unofficial face-vid2vid keeps F and W in one network, alone or in a checkpoint of all.
ONE_SHOT_KEYS = {f"generator.{VID2VID_PARTS['appearance']}", f"generator.{VID2VID_PARTS['warping']}"}
# role -> (what it is, where it belongs)
DESCRIPTIONS = {
    "lora": ("a LoRA", "It belongs in models/loras and is loaded with Load LoRA"),
    "controlnet": ("a Stable Diffusion ControlNet", "It belongs in models/controlnet and is loaded with Load ControlNet Model"),
    "sd_checkpoint": ("a Stable Diffusion checkpoint", "It belongs in models/checkpoints and is loaded with Load Checkpoint"),
    "sd_unet": ("a Stable Diffusion UNet", "It belongs in models/diffusion_models and is loaded with Load Diffusion Model"),
    "sd_vae": ("a Stable Diffusion VAE", "It belongs in models/vae and is loaded with Load VAE"),
    "vae": ("a TAESD autoencoder", "It belongs in models/vae and is loaded with Load VAE"),
    "text_encoder": ("a text encoder", "RealPortrait reads no text"),
    "dit": ("a RealPortrait diffusion transformer", "It goes into the RealPortrait model slot"),
    "ablation": ("the network of an ablation of the paper", "`python -m realportrait_core.eval` compares it with RealPortrait's"),
    "stdit2": ("an Open-Sora STDiT2 backbone without RealPortrait's control half", "It can start a training, not animate"),
    "stdit": ("a transformer of Open-Sora 1.0 or 1.2", "RealPortrait starts from 1.1's, OpenSora-STDiT-v2-stage3"),
    "pixart": ("a PixArt transformer", "RealPortrait cannot use it"),
    "stitching": (
        "LivePortrait's stitching and retargeting MLPs",
        "They go into Load Stitching; RealPortrait animates without them",
    ),
    "vid2vid": ("a Face Vid2vid bundle", "It goes into the Face Vid2vid slot"),
    "appearance": ("LivePortrait's appearance extractor F", "It goes into the Face Vid2vid slot, with M and W beside it"),
    "motion": ("LivePortrait's motion extractor M", "It goes into the Face Vid2vid slot, with F and W beside it"),
    "warping": ("LivePortrait's warping network W", "It goes into the Face Vid2vid slot, with F and M beside it"),
    "generator": ("LivePortrait's generator G", "It goes into the Face Vid2vid slot, with F, M and W beside it"),
    "one_shot_vid2vid": (
        "the generator of the unofficial face-vid2vid",
        "Its motion extractor differs; use the files of LivePortrait",
    ),
    "unknown": ("something that RealPortrait does not recognise", "Look at where it came from"),
}


def sniff(keys: Iterable[str]) -> str:
    """The role of a file by its keys: one of those in DESCRIPTIONS."""
    keys = [key.removeprefix("module.") for key in keys]
    known = set(keys)
    if any(f"{part}.{key}" in known for part, key in VID2VID_PARTS.items()):
        return "vid2vid"
    for role, signatures in SIGNATURES.items():
        endings = tuple(f".{signature}" for signature in signatures)
        if any(key in signatures or key.endswith(endings) for key in keys):
            return role
    parts = [part for part, key in VID2VID_PARTS.items() if key in known]
    if {"appearance", "warping"} <= set(parts) or ONE_SHOT_KEYS <= known:
        return "one_shot_vid2vid"
    return parts[0] if parts else "unknown"


def wrong_role(path: str | os.PathLike, role: str, wanted: str) -> WeightsError:
    """The error for a file of `role` in a slot for `wanted`, both of DESCRIPTIONS."""
    what, where = DESCRIPTIONS[role]
    return WeightsError(f"{path} looks like {what}; this slot needs {DESCRIPTIONS[wanted][0]}. {where}.")


# From a state to a network


def listed(names: Iterable[str]) -> str:
    names = [f"{name:.200}" for name in sorted(names)]
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def load_strictly(module: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Assigns `state` to a module, which may have been built on the meta device.

    Raises WeightsError on missing keys, wrong shapes and integers for weights; extra keys are logged and left out. A batch
    norm's num_batches_tracked may be missing: it is not used.
    """
    wanted = module.state_dict()
    counters = {key: torch.zeros((), dtype=torch.long) for key in wanted if key.endswith("num_batches_tracked")}
    state = {**counters, **state}
    missing, extra = wanted.keys() - state.keys(), state.keys() - wanted.keys()
    if missing:
        raise WeightsError(f"{len(missing)} of {len(wanted)} tensors are missing: {listed(missing)}.")
    wrong = [
        f"{key} is {tuple(state[key].shape)}, needed {tuple(value.shape)}"
        for key, value in wanted.items()
        if state[key].shape != value.shape
    ]
    if wrong:
        raise WeightsError(f"{len(wrong)} of {len(wanted)} tensors have the wrong shape: {listed(wrong)}.")
    whole = [key for key, value in wanted.items() if value.is_floating_point() and not state[key].is_floating_point()]
    if whole:
        raise WeightsError(
            f"{len(whole)} of {len(wanted)} tensors hold whole numbers, as quantised files of other programs do: {listed(whole)}."
        )
    if extra:
        logger.warning("%d tensors of the file are not used: %s.", len(extra), listed(extra))
    module.load_state_dict({key: state[key] for key in wanted}, assign=True)
