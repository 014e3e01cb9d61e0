"""A small file of each kind that a loader of the pack opens, whole and sound: what tests damage."""

from pathlib import Path

import torch
import toy_sizes
from public import TINY
from safetensors.torch import save_file

from realportrait_core.animation.driving_motion import DrivingMotion
from realportrait_core.config import ConditionerConfig, DiTConfig
from realportrait_core.dit.checkpoint import load_dit, save_dit
from realportrait_core.dit.model import RealPortraitDiT
from realportrait_core.motion_file import load_motion, save_motion
from realportrait_core.vae.files import load_vae
from realportrait_core.vae.kl import AutoencoderKL
from realportrait_core.vae.tiny import TinyVAE, save_vae
from realportrait_core.vid2vid import FaceVid2Vid
from realportrait_core.vid2vid.checkpoint import load_stitching, load_vid2vid, save_vid2vid
from realportrait_core.vid2vid.keypoints import rotation_matrix
from realportrait_core.vid2vid.retarget import MotionParameters
from realportrait_core.vid2vid.stitching import KeypointMLP

LOADERS = {
    "dit": load_dit,
    "vid2vid": load_vid2vid,
    "stitching": load_stitching,
    "tiny_vae": load_vae,
    "sd_vae": load_vae,
    "motion": load_motion,
}


def write_all(folder: Path) -> dict[str, Path]:
    """FOLDER/KIND.safetensors of each kind, which its loader takes."""
    torch.manual_seed(0)
    paths = {kind: folder / f"{kind}.safetensors" for kind in LOADERS}
    conditioner = ConditionerConfig(motion_latent=6, reference_motion=True, draft_widths=(8, 8, 8))
    save_dit(paths["dit"], RealPortraitDiT(DiTConfig(**toy_sizes.DIT, conditioner=conditioner)))
    save_vid2vid(paths["vid2vid"], FaceVid2Vid(TINY))
    save_file(stitching(), paths["stitching"])
    save_vae(paths["tiny_vae"], TinyVAE((4, 4, 4, 4)))
    save_file({key: value.half() for key, value in AutoencoderKL(32).state_dict().items()}, paths["sd_vae"])
    save_motion(paths["motion"], motion())
    for kind, load in LOADERS.items():
        load(paths[kind])
    return paths


def stitching(shoulder: dict[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
    """The state of the three MLPs for 5 keypoints; `shoulder` in place of tensors of the first."""
    sizes = {"retarget_shoulder": [30, 8, 17], "retarget_mouth": [17, 8, 15], "retarget_eye": [18, 8, 15]}
    state = {f"{g}_module.{key}": value for g, n in sizes.items() for key, value in KeypointMLP(n).state_dict().items()}
    return state | {f"retarget_shoulder_module.{key}": value for key, value in (shoulder or {}).items()}


def motion(frames: int = 3, k: int = 5) -> DrivingMotion:
    torch.manual_seed(0)
    parameters = MotionParameters(
        rotation_matrix(*(10 * torch.randn(3, frames))),
        torch.randn(frames, k, 3) / 10,
        torch.ones(frames, 1),
        torch.zeros(frames, 3),
    )
    crop, present = torch.eye(3, dtype=torch.float64), torch.ones(frames, dtype=torch.bool)
    return DrivingMotion(parameters, torch.randn(frames, k, 3), torch.rand(frames, 5, 2), crop, present, (64, 64), 25.0, "")
