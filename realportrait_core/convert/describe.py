"""A description of a weight file: role, sizes, parameters, dtype, licence, and what it loads as."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch

from ..checkpoint import DESCRIPTIONS, METADATA_KEY, VID2VID_PARTS, Header, load_strictly, read_header, read_safetensors, sniff
from ..dit.checkpoint import dit_config_from_state, without_host_traces
from ..dit.checkpoint import sizes_from_shapes as dit_sizes
from ..dit.model import RealPortraitDiT
from ..errors import WeightsError
from ..licences import licence
from ..vae import load_vae
from ..vid2vid.checkpoint import (
    build,
    fuse_spectral_norm,
    load_stitching,
    load_vid2vid,
    stitching_networks,
    stitching_part,
    vid2vid_files,
)
from ..vid2vid.sizes import SIZES, Shapes

State = dict[str, torch.Tensor]
BUFFERS = ("running_mean", "running_var", "num_batches_tracked", "weight_u", "weight_v", "y_embedding", "rope.freqs")


def sizes_of(role: str, state: State, metadata: Mapping[str, str]) -> dict:
    """Sizes by the weights' shapes, and for our own files by their config. Raises WeightsError if keys are missing."""
    if role == "dit":
        sizes = asdict(dit_config_from_state(state, metadata))
        return sizes | (sizes.pop("conditioner") or {})
    if role == "stdit2":
        return backbone_sizes(state)
    if role == "vid2vid":
        return asdict(build(state, metadata).cfg)
    if role in VID2VID_PARTS:
        flat = fuse_spectral_norm({key.removeprefix("module."): value for key, value in state.items()})
        return SIZES[role](Shapes({f"{role}.{key}": value for key, value in flat.items()}))
    if role == "stitching":
        networks = stitching_networks(stitching_part(state))
        return {
            name: tuple([network.mlp[0].in_features] + [layer.out_features for layer in network.mlp[::2]])
            for name, network in networks.items()
        }
    return {}


def backbone_sizes(state: State) -> dict:
    """Of an STDiT2: dit_sizes without what only RealPortrait has."""
    motion = {f"motion_net.{i}.weight": torch.empty(1, 1) for i in (0, 2, 4)}
    found = dit_sizes({key.removeprefix("module."): value for key, value in state.items()} | motion)
    kept = ("hidden", "depth", "heads", "mlp_ratio", "in_channels", "patch", "learned_sigma")
    return {name: found[name] for name in kept}


def architecture(role: str, sizes: dict) -> str:
    """One line; empty for what is not ours."""
    if role in ("dit", "stdit2"):
        rest = f"half control of {sizes['control_depth']} blocks, motion mapper" if role == "dit" else "text cross-attention"
        return f"STDiT2: {sizes['depth']} blocks of width {sizes['hidden']}, {sizes['heads']} heads, {rest}"
    if role == "vid2vid":
        return f"F, M, W in LivePortrait's layout, K = {sizes['num_kp']} keypoints, crops of {sizes['crop_size']} px"
    return {
        "appearance": "F in LivePortrait's layout",
        "motion": "M in LivePortrait's layout: ConvNeXt V2 and heads",
        "warping": "W in LivePortrait's layout: dense motion and warp",
        "generator": "G in LivePortrait's layout: SPADE decoder",
        "stitching": "three MLPs on keypoints",
    }.get(role, "")


def loads_as(path: Path, role: str, state: State, sizes: dict, metadata: Mapping[str, str]) -> str:
    """Where the file can be used, checked by loading it."""
    if role == "dit":
        load_strictly(RealPortraitDiT(dit_config_from_state(state, metadata), device="meta"), state)
        zero = sizes["control_depth"] and not any(
            bool(state[f"controlnet.{i}.after_proj.weight"].count_nonzero()) for i in range(sizes["control_depth"])
        )
        if zero:
            return "a start for training (train frames --init): its control is all zeros, so the motion has no effect yet"
        return "a MODEL, by Load RealPortrait Model; for training by --init"
    if role == "stdit2":
        return "a start for training (train frames --init); `convert opensora` writes one that holds the control too"
    if role == "vid2vid" or role in VID2VID_PARTS:
        files = vid2vid_files(path)
        load_vid2vid(path)
        beside = ", ".join(found.name for found in files.values() if found != path)
        return "Face Vid2vid, by Load Face Vid2vid" + (f", with {beside} beside it" if beside else "")
    if role == "stitching":
        load_stitching(path)
        return "STITCHING, by Load Stitching; for keypoints of LivePortrait's Face Vid2vid"
    if role == "vae":
        load_vae(path)
        return "a VAE, by Load VAE"
    return f"nothing of RealPortrait's nodes. {DESCRIPTIONS[role][1]}"


def counted(header: Header) -> str:
    """Numbers of parameters, of values in buffers, which no training changes, and of tensors."""
    sizes = {key: math.prod(shape) for key, shape in header.shapes.items()}
    buffers = sum(size for key, size in sizes.items() if key.endswith(BUFFERS))
    beside = f" and {buffers:,} numbers in buffers" if buffers else ""
    return f"{sum(sizes.values()) - buffers:,}{beside}, {len(sizes)} tensors"


def describe(path: Path) -> list[str]:
    """Lines about a safetensors file. Raises WeightsError, naming the format, if it is another or damaged."""
    header = read_header(path)
    state, metadata = read_safetensors(path)
    role = sniff(state)
    if role == "dit":
        state, metadata = without_host_traces(state, metadata)
    rows = {"file": f"{path}, {path.stat().st_size:,} bytes", "what": DESCRIPTIONS[role][0]}
    try:
        sizes = sizes_of(role, state, metadata)
        rows["architecture"] = architecture(role, sizes)
        rows["sizes"] = ", ".join(f"{name} {value}" for name, value in sizes.items())
        rows["config"] = ("in the file" if METADATA_KEY in metadata else "from the shapes") if sizes else ""
        loads = loads_as(path, role, state, sizes, metadata)
    except WeightsError as error:
        loads = f"nothing as it is: {error}"
    rows["parameters"] = counted(header)
    rows["dtype"] = ", ".join(f"{dtype} ({n})" for dtype, n in Counter(header.dtypes.values()).most_common())
    if stitching_part(state) and role != "stitching":
        rows["also"] = DESCRIPTIONS["stitching"][0]
    rows["licence"] = licence(path, role, metadata)
    rows["loads as"] = loads
    return [f"{name:<13} {text}" for name, text in rows.items() if text]
