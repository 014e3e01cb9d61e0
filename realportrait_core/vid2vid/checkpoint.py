"""Face Vid2vid from one of our bundles, or from the separate files of LivePortrait.

A bundle is one file with the prefixes appearance., motion., warping., generator. and its config in the metadata; the
stitching and retargeting MLPs may be in it too.
Of LivePortrait's files (public.py) every size is inferred from the shapes, so variants with another number of keypoints load
too. Its .pth files are for `convert` (convert/).
"""

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch

from ..checkpoint import (
    VID2VID_PARTS,
    bundle_metadata,
    check_finite,
    load_strictly,
    read_header,
    read_safetensors,
    save,
    sniff,
    wrong_role,
)
from ..errors import WeightsError
from . import FaceVid2Vid
from .public import find_parts, find_stitching, role_of, roles_in
from .sizes import Shapes, vid2vid_config_from_state
from .stitching import KeypointMLP

STITCHING_GROUPS = {"stitching": "retarget_shoulder", "lip": "retarget_mouth", "eye": "retarget_eye"}
STITCHING_PREFIXES = tuple(f"{group}_module." for group in STITCHING_GROUPS.values())


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


def without_wrapper(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Keys without the `module.` of DistributedDataParallel."""
    return {key.removeprefix("module."): value for key, value in state.items()}


def bundle_parts(parts: Mapping[str, Mapping[str, torch.Tensor]], source: str) -> dict[str, torch.Tensor]:
    """Flat states by network -> one state with the bundle's prefixes, spectral norm folded in.

    Raises WeightsError, naming `source`, where u or v is missing or a norm is zero.
    """
    state: dict[str, torch.Tensor] = {}
    for part, flat in parts.items():
        flat = fuse_spectral_norm(without_wrapper(flat))
        check_finite(flat, source)  # a spectral norm of zero would divide by zero
        state |= {f"{part}.{key}": value for key, value in flat.items()}
    return state


def read_parts(parts: Mapping[str, Path]) -> dict[str, torch.Tensor]:
    """Separate files as one state with the bundle's prefixes."""
    state: dict[str, torch.Tensor] = {}
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
    role = role_of(path)
    if role == "vid2vid":
        return {"vid2vid": path}
    if role in VID2VID_PARTS:
        return find_parts(path.parent, path)
    raise wrong_role(path, role, "vid2vid")


def stitching_beside(path: str | os.PathLike) -> Path | None:
    """The file with stitching and retargeting MLPs beside those that load_vid2vid(path) reads, or one of these; None without."""
    path = Path(path)
    if not path.is_dir() and role_of(path) == "vid2vid":
        return path if stitching_part(read_header(path).shapes) else None
    folder = path if path.is_dir() else path.parent
    return next((file for file, role in roles_in(folder) if role == "stitching"), None)


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
        part = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        layers = [part[f"mlp.{2 * i}.weight"] for i in range(Shapes(part).count("mlp.{}.weight", step=2))]
        if not layers or any(weight.ndim != 2 for weight in layers):
            raise WeightsError(f"The {name} network ({prefix}mlp.0.weight) is missing, or of another kind.")
        with torch.device("meta"):  # two thin layers of a file may claim a square one between them
            network = KeypointMLP([layers[0].shape[-1], *(weight.shape[0] for weight in layers)])
        load_strictly(network, {key: value.float() if value.is_floating_point() else value for key, value in part.items()})
        networks[name] = network.eval().requires_grad_(False)
    return networks


def load_stitching(path: str | os.PathLike) -> dict[str, KeypointMLP]:
    """LivePortrait's stitching, lip and eye MLPs by these names, of their own file, its folder, or a bundle that holds them.

    Raises WeightsError if the file is missing, damaged, or something else.
    """
    path = find_stitching(Path(path))
    state, _ = read_safetensors(path)
    part = stitching_part(state)
    if not part:
        raise wrong_role(path, sniff(state), "stitching")
    try:
        return stitching_networks(part)
    except WeightsError as error:
        raise WeightsError(f"{path} cannot be used for stitching and retargeting. {error}") from error
