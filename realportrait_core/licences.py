"""Licences of weight files: one line per file, for the loader nodes and for `convert inspect`."""

import os
from collections.abc import Mapping
from pathlib import Path

from .checkpoint import DESCRIPTIONS, LICENCE_KEY, read_header, sniff

BUNDLED = Path(__file__).resolve().parent / "weights"
BUNDLED_LICENCE = "Apache-2.0: comes with RealPortrait, trained on CC0 renderings (realportrait_core/weights/CARD.md)"
# Files are recognised by their keys, which do not show the publisher; so each line names whose weights it is about.
LIVEPORTRAIT = "MIT, where they are LivePortrait's own weights (its authors, KwaiVGI/LivePortrait issue #193)"
OPEN_SORA = "Apache-2.0, where the backbone is hpcai-tech/OpenSora-STDiT-v2-stage3 (licence of Open-Sora's repository)"
UNKNOWN = "the file states none; ask whoever made it"
LICENCES = {
    "appearance": LIVEPORTRAIT,
    "motion": LIVEPORTRAIT,
    "warping": LIVEPORTRAIT,
    "generator": LIVEPORTRAIT,
    "stitching": LIVEPORTRAIT,
    "stdit2": OPEN_SORA,
    "one_shot_vid2vid": "CC BY-NC 4.0, where they are zhanglonghao1992/One-Shot_Free-View's: not for commercial use",
    "vae": "MIT, where it is TAESD",
    "sd_vae": "MIT for sd-vae-ft-mse and sd-vae-ft-ema, CreativeML OpenRAIL-M for Stable Diffusion 1.5's own",
}


def licence(path: str | os.PathLike, role: str, metadata: Mapping[str, str]) -> str:
    """The licence of a file of `role`: the pack's, else what its metadata states, else what is known of such files."""
    if Path(path).resolve().is_relative_to(BUNDLED):
        return BUNDLED_LICENCE
    return metadata.get(LICENCE_KEY) or LICENCES.get(role, UNKNOWN)


def licence_line(path: str | os.PathLike) -> str:
    """ "name: what it is. Licence: ..." of a safetensors file. Raises WeightsError if it is none."""
    header = read_header(path)
    role = sniff(header.shapes)
    return f"{Path(path).name}: {DESCRIPTIONS[role][0]}. Licence: {licence(path, role, header.metadata)}."
