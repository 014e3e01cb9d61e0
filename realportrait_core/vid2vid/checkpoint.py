"""Face Vid2vid from one of our bundles, or from the separate files of LivePortrait.

A bundle is one file with the prefixes appearance., motion., warping., generator. and its config in the metadata; the
stitching and retargeting MLPs may be in it too.
LivePortrait's files (the safetensors of Kijai/LivePortrait_safetensors) are flat, one network each; every size is inferred
from the shapes, so variants with another number of keypoints load too. Its .pth files are for `convert` (convert/).
"""

import hashlib
import math
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import torch

from ..checkpoint import (
    VID2VID_PARTS,
    bundle_metadata,
    check_finite,
    config_from_fields,
    load_strictly,
    read_bundle_metadata,
    read_header,
    read_safetensors,
    save,
    sniff,
    wrong_role,
)
from ..config import Vid2VidConfig
from ..errors import InputError, WeightsError
from . import FaceVid2Vid
from .stitching import KeypointMLP

NEEDED_PARTS = ("appearance", "motion", "warping")  # the generator is for evaluation only
GENERATOR_FIELDS = ("generator_blocks", "generator_out", "spade_hidden", "upscale")
STITCHING_GROUPS = {"stitching": "retarget_shoulder", "lip": "retarget_mouth", "eye": "retarget_eye"}
STITCHING_PREFIXES = tuple(f"{group}_module." for group in STITCHING_GROUPS.values())


# Sizes from shapes


class Shapes:
    """Shapes of a state by key. A missing key raises a WeightsError that names it."""

    def __init__(self, state: Mapping[str, torch.Tensor]):
        self.shapes = {key: tuple(value.shape) for key, value in state.items()}

    def size(self, key: str, axis: int) -> int:
        if axis >= len(self.shapes.get(key, ())):
            raise WeightsError(f"The weights lack {key}.")
        return self.shapes[key][axis]

    def count(self, pattern: str, step: int = 1) -> int:
        """How many of pattern.format(0), pattern.format(step), ... there are."""
        n = 0
        while pattern.format(n * step) in self.shapes:
            n += 1
        return n


def generator_sizes(shapes: Shapes) -> dict[str, int]:
    if "generator.conv_img.weight" in shapes.shapes:
        upscale = 1
    else:
        upscale = math.isqrt(shapes.size("generator.conv_img.0.weight", 0) // 3)
    return {
        "generator_blocks": shapes.count("generator.G_middle_{}.conv_0.weight"),
        "generator_out": shapes.size("generator.up_1.conv_1.weight", 0),
        "spade_hidden": shapes.size("generator.up_0.norm_0.mlp_shared.0.weight", 0),
        "upscale": upscale,
    }


def appearance_sizes(shapes: Shapes) -> dict[str, int]:
    channels = shapes.size("appearance.resblocks_3d.3dr0.conv1.weight", 0)
    return {
        "appearance_width": shapes.size("appearance.first.conv.weight", 0),
        "appearance_down": shapes.count("appearance.down_blocks.{}.conv.weight"),
        "reshape_channel": channels,
        "reshape_depth": shapes.size("appearance.second.weight", 0) // max(1, channels),
        "appearance_resblocks": shapes.count("appearance.resblocks_3d.3dr{}.conv1.weight"),
    }


def motion_sizes(shapes: Shapes) -> dict:
    stages = shapes.count("motion.detector.stages.{}.0.dwconv.weight")
    return {
        "num_kp": shapes.size("motion.detector.fc_kp.weight", 0) // 3,
        "motion_depths": tuple(shapes.count(f"motion.detector.stages.{i}.{{}}.dwconv.weight") for i in range(stages)),
        "motion_dims": tuple(shapes.size(f"motion.detector.stages.{i}.0.dwconv.weight", 0) for i in range(stages)),
        "num_bins": shapes.size("motion.detector.fc_pitch.weight", 0),
    }


def warping_sizes(shapes: Shapes) -> dict[str, int]:
    dense = "warping.dense_motion_network"
    blocks = shapes.count(f"{dense}.hourglass.encoder.down_blocks.{{}}.conv.weight")
    return {
        "num_kp": shapes.size(f"{dense}.mask.weight", 0) - 1,
        "reshape_channel": shapes.size(f"{dense}.compress.weight", 1),
        "reshape_depth": shapes.size(f"{dense}.occlusion.weight", 1) // max(1, shapes.size(f"{dense}.mask.weight", 1)),
        "dense_width": shapes.size(f"{dense}.hourglass.decoder.up_blocks.{blocks - 1}.conv.weight", 0),
        "dense_max": shapes.size(f"{dense}.hourglass.encoder.down_blocks.{blocks - 1}.conv.weight", 0),
        "dense_blocks": blocks,
        "compress": shapes.size(f"{dense}.compress.weight", 0),
        "mask_kernel": shapes.size(f"{dense}.mask.weight", 2),
        "warped_channels": shapes.size("warping.fourth.weight", 0),
    }


SIZES = {"appearance": appearance_sizes, "motion": motion_sizes, "warping": warping_sizes, "generator": generator_sizes}


def sizes_from_shapes(shapes: Shapes) -> dict:
    """Every field of Vid2VidConfig but crop_size, which no weight depends on."""
    appearance, motion, warping = appearance_sizes(shapes), motion_sizes(shapes), warping_sizes(shapes)
    if motion["num_kp"] != warping["num_kp"]:
        raise WeightsError(
            f"M finds {motion['num_kp']} keypoints and W moves {warping['num_kp']}: the networks come from different sets "
            "of weights."
        )
    volumes = [(sizes["reshape_channel"], sizes["reshape_depth"]) for sizes in (appearance, warping)]
    if volumes[0] != volumes[1]:
        raise WeightsError(
            "F's volume has {} channels and a depth of {}, W's {} and {}: the networks come from different sets of weights.".format(
                *volumes[0], *volumes[1]
            )
        )
    sizes = appearance | motion | warping
    if shapes.count("generator.G_middle_{}.conv_0.weight"):
        sizes |= generator_sizes(shapes)
    return sizes


def vid2vid_config_from_state(state: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> Vid2VidConfig:
    """The config of a state with the bundle's prefixes.

    A bundle's metadata states it and must agree with the shapes; without metadata the shapes decide and the crop is
    LivePortrait's 256 px. Raises WeightsError on missing keys, on contradictions, and on impossible sizes.
    """
    sizes = sizes_from_shapes(Shapes(state))
    values = read_bundle_metadata(metadata, "vid2vid")
    try:
        if values is None:
            return Vid2VidConfig(**sizes)
        stated = config_from_fields(Vid2VidConfig, values)
        inferred = replace(stated, **sizes)
    except InputError as error:
        raise WeightsError(f"The weights have impossible sizes: {error}") from error
    for name, value in asdict(stated).items():
        found = getattr(inferred, name)
        if found != value:
            raise WeightsError(f"The file's config has {name} = {value} and its weights have {found}.")
    return stated


# Public files


def fuse_spectral_norm(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """weight_orig / (u^T W v) in place of weight_orig, weight_u, weight_v: what spectral norm computes in eval mode.

    The stored u and v are used as they are: they are not quite converged, and a recomputed singular value would differ.
    Computed in float64, on copies, and rounded once: the last bits of a float32 matrix-vector product depend on the tensors'
    alignment in memory, which differs from file to file, while equal weights must give equal bundles.
    """
    fused = {}
    for key, value in state.items():
        if key.endswith(".weight_orig"):
            base = key.removesuffix("_orig")
            if f"{base}_u" not in state or f"{base}_v" not in state:
                raise WeightsError(f"The weights have {key} without its {base}_u and {base}_v.")
            weight, u, v = (tensor.to(torch.float64, copy=True) for tensor in (value, state[f"{base}_u"], state[f"{base}_v"]))
            if weight.ndim < 2 or (u.shape, v.shape) != (weight.shape[:1], weight.flatten(1).shape[1:]):
                raise WeightsError(
                    f"{key} is {tuple(value.shape)}, and its u and v are {tuple(u.shape)} and {tuple(v.shape)}: they do not "
                    "belong together."
                )
            fused[base] = (weight / torch.dot(u, weight.flatten(1) @ v)).float()
        elif not key.endswith((".weight_u", ".weight_v")):
            fused[key] = value
    return fused


def find_parts(folder: Path, chosen: Path | None) -> dict[str, Path]:
    """The files of a folder that hold F, M, W and G, recognised by keys; `chosen` takes precedence over another of its kind."""
    parts: dict[str, Path] = {}
    others = (path for path in sorted(folder.glob("*.safetensors")) if path != chosen)
    for path in ([chosen] if chosen else []) + list(others):
        try:
            role = sniff(read_header(path).shapes)
        except WeightsError:
            if path == chosen:
                raise
            continue  # a damaged neighbour matters only if its part is then missing
        if role not in VID2VID_PARTS:
            continue
        if role in parts and parts[role] != chosen:
            raise WeightsError(f"{parts[role].name} and {path.name} in {folder} both hold the {role} network. Keep one.")
        parts.setdefault(role, path)
    missing = [part for part in NEEDED_PARTS if part not in parts]
    if missing:
        raise WeightsError(
            f"{folder} lacks LivePortrait's {' and '.join(missing)} network. Put appearance_feature_extractor, "
            "motion_extractor and warping_module (.safetensors) there together."
        )
    return parts


def without_wrapper(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Keys without the `module.` of DistributedDataParallel."""
    return {key.removeprefix("module."): value for key, value in state.items()}


def bundle_parts(parts: Mapping[str, Mapping[str, torch.Tensor]], source: str) -> dict[str, torch.Tensor]:
    """Flat states by network -> one state with the bundle's prefixes, spectral norm folded in.

    Raises WeightsError, naming `source`, where u or v is missing or a norm is zero.
    """
    state = {}
    for part, flat in parts.items():
        flat = fuse_spectral_norm(without_wrapper(flat))
        check_finite(flat, source)  # a spectral norm of zero would divide by zero
        state |= {f"{part}.{key}": value for key, value in flat.items()}
    return state


def read_parts(parts: Mapping[str, Path]) -> dict[str, torch.Tensor]:
    """Separate files as one state with the bundle's prefixes."""
    state = {}
    for part, path in parts.items():
        state |= bundle_parts({part: read_safetensors(path)[0]}, str(path))
    return state


def stitching_part(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The stitching and retargeting MLPs of a state, as <group>_module.mlp.N.*; unknown groups are left out.

    LivePortrait's .pth keeps a dict a group, whose keys become <group>.module.mlp.N.* when it is flattened.
    """
    found = {}
    for key, value in state.items():
        match = re.fullmatch(r"(?:module\.)?(\w+?)(?:_module)?\.(?:module\.)?(mlp\.\d+\.\w+)", key)
        if match and match[1] in STITCHING_GROUPS.values():
            found[f"{match[1]}_module.{match[2]}"] = value
    return found


# Loading


def build(state: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> FaceVid2Vid:
    """The networks of a state with the bundle's prefixes, in float32, frozen, in eval mode."""
    cfg = vid2vid_config_from_state(state, metadata)
    state = {key: value for key, value in state.items() if not key.startswith(STITCHING_PREFIXES)}
    with_generator = any(key.startswith("generator.") for key in state)
    with torch.device("meta"):
        model = FaceVid2Vid(cfg, with_generator)
    load_strictly(model, {key: value.float() if value.is_floating_point() else value for key, value in state.items()})
    return model.eval().requires_grad_(False)


def vid2vid_files(path: str | os.PathLike) -> dict[str, Path]:
    """Which files load_vid2vid(path) reads: {"vid2vid": bundle}, or LivePortrait's by network. Raises WeightsError."""
    path = Path(path)
    if path.is_dir():
        return find_parts(path, None)
    role = sniff(read_header(path).shapes)
    if role == "vid2vid":
        return {"vid2vid": path}
    if role in VID2VID_PARTS:
        return find_parts(path.parent, path)
    raise wrong_role(path, role, "vid2vid")


def load_vid2vid(path: str | os.PathLike) -> FaceVid2Vid:
    """Face Vid2vid from a bundle, from a folder with LivePortrait's files, or from any one of these with its neighbours.

    In float32 on the CPU, frozen, in eval mode; `.generator` is None where the files have none.
    Raises WeightsError if a file is missing, damaged, or something else.
    """
    files = vid2vid_files(path)
    state, metadata = read_safetensors(files["vid2vid"]) if "vid2vid" in files else (read_parts(files), {})
    try:
        return build(state, metadata)
    except WeightsError as error:
        raise WeightsError(f"{path} cannot be used as Face Vid2vid. {error}") from error


def motion_fingerprint(model: FaceVid2Vid) -> str:
    """16 hexadecimal digits of M's weights, which identify the M of a motion file. Files in fp16 and fp32 have the same."""
    digest = hashlib.sha256()
    for key, value in sorted(model.motion.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().half().numpy().tobytes())
    return digest.hexdigest()[:16]


def save_vid2vid(path: str | os.PathLike, model: FaceVid2Vid, dtype: torch.dtype = torch.float16) -> None:
    """Write a bundle; float weights in `dtype`."""
    state = {key: value.to(dtype) if value.is_floating_point() else value for key, value in model.state_dict().items()}
    save(path, state, bundle_metadata("vid2vid", model.cfg))


def stitching_networks(state: Mapping[str, torch.Tensor]) -> dict[str, KeypointMLP]:
    """The stitching, lip and eye MLPs by these names, in float32, frozen, of a state as stitching_part gives it.

    Raises WeightsError if one is missing or incomplete.
    """
    networks = {}
    for name, group in STITCHING_GROUPS.items():
        prefix = f"{group}_module."
        part = {key.removeprefix(prefix): value.float() for key, value in state.items() if key.startswith(prefix)}
        layers = [part[f"mlp.{2 * i}.weight"] for i in range(Shapes(part).count("mlp.{}.weight", step=2))]
        if not layers or any(weight.ndim != 2 for weight in layers):
            raise WeightsError(f"The {name} network ({prefix}mlp.0.weight) is missing, or of another kind.")
        network = KeypointMLP([layers[0].shape[-1], *(weight.shape[0] for weight in layers)])
        load_strictly(network, part)
        networks[name] = network.eval().requires_grad_(False)
    return networks


def load_stitching(path: str | os.PathLike) -> dict[str, KeypointMLP]:
    """LivePortrait's stitching, lip and eye MLPs by these names, of their own file or of a bundle that holds them.

    Raises WeightsError if the file is missing, damaged, or something else.
    """
    state, _ = read_safetensors(path)
    part = stitching_part(state)
    if not part:
        raise wrong_role(path, sniff(state), "stitching")
    try:
        return stitching_networks(part)
    except WeightsError as error:
        raise WeightsError(f"{path} cannot be used for stitching and retargeting. {error}") from error
