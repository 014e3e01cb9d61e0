"""Public weight files in miniature: the keys, containers and spellings in which LivePortrait and others publish theirs."""

from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import save_file

from realportrait_core.config import Vid2VidConfig
from realportrait_core.vid2vid import FaceVid2Vid
from realportrait_core.vid2vid.stitching import KeypointMLP

TINY = Vid2VidConfig(
    crop_size=32,
    num_kp=5,
    appearance_width=4,
    reshape_channel=4,
    reshape_depth=3,
    appearance_resblocks=1,
    motion_depths=(1, 1, 2, 1),
    motion_dims=(8, 8, 12, 8),
    dense_width=4,
    dense_max=8,
    dense_blocks=2,
    compress=2,
    mask_kernel=3,
    warped_channels=6,
    generator_blocks=2,
    generator_out=4,
    spade_hidden=8,
    upscale=2,
)
NAMES = {
    "appearance": "appearance_feature_extractor",
    "motion": "motion_extractor",
    "warping": "warping_module",
    "generator": "spade_generator",
}
STITCHING = "stitching_retargeting_module"


def with_spectral_norm(weights: dict) -> dict:
    """A generator's state as public files keep it: W = weight_orig / (u^T weight_orig v).

    In float64, on copies: the same bits at every call, wherever in memory the weights lie.
    """
    public = {}
    for key, value in weights.items():
        if "conv_" in key and "conv_img" not in key and key.endswith("weight"):
            value = value.to(torch.float64, copy=True)
            flat = value.flatten(1)
            u = torch.nn.functional.normalize(flat.sum(1), dim=0)
            v = torch.nn.functional.normalize(flat.T @ u, dim=0)
            sigma = torch.dot(u, flat @ v)
            public |= {f"{key}_orig": (value * 3 / sigma).float(), f"{key}_u": u.float(), f"{key}_v": v.float()}
        else:
            public[key] = value
    return public


def public_states(model: FaceVid2Vid) -> dict[str, dict]:
    """The flat state of each network as it is published, G with spectral norm."""
    states = {part: {key: value.clone() for key, value in getattr(model, part).state_dict().items()} for part in NAMES}
    return states | {"generator": with_spectral_norm(states["generator"])}


def stitching_groups(num_kp: int) -> dict[str, dict]:
    """LivePortrait's three MLPs, narrow, with the keys of DistributedDataParallel."""
    sizes = {
        "retarget_shoulder": (6 * num_kp, 8, 3 * num_kp + 2),
        "retarget_mouth": (3 * num_kp + 2, 8, 3 * num_kp),
        "retarget_eye": (3 * num_kp + 3, 8, 8, 3 * num_kp),
    }
    torch.manual_seed(1)
    return {
        group: OrderedDict((f"module.{key}", value) for key, value in KeypointMLP(widths).state_dict().items())
        for group, widths in sizes.items()
    }


def write_originals(folder: Path, model: FaceVid2Vid, prefix: str = "", half: bool = False) -> None:
    """The .pth files of LivePortrait, in its two folders."""
    for part, state in public_states(model).items():
        state = {prefix + key: value.half() if half and value.is_floating_point() else value for key, value in state.items()}
        path = folder / "base_models" / f"{NAMES[part]}.pth"
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(OrderedDict(state), path)
    (folder / "retargeting_models").mkdir()
    torch.save(stitching_groups(model.cfg.num_kp), folder / "retargeting_models" / f"{STITCHING}.pth")


def write_kijai(folder: Path, model: FaceVid2Vid) -> None:
    """The safetensors conversions that people have: side by side, the groups of stitching flattened."""
    folder.mkdir(exist_ok=True)
    for part, state in public_states(model).items():
        save_file(state, folder / f"{NAMES[part]}.safetensors")
    groups = stitching_groups(model.cfg.num_kp)
    flat = {f"{group}_{key}": value.clone() for group, state in groups.items() for key, value in state.items()}
    save_file(flat, folder / f"{STITCHING}.safetensors")
