"""The original's chain at full size: networks and pictures filled by the recorded formula, 130 M parameters."""

import importlib.util
import json
from functools import cache

import torch
from golden import find

from realportrait_core.config import PAPER
from realportrait_core.vid2vid.checkpoint import fuse_spectral_norm


@cache
def formulas():
    """detfill.py: weights and pictures from a counter."""
    spec = importlib.util.spec_from_file_location("detfill", find("motion", "detfill.py"))
    detfill = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(detfill)
    return detfill


def filled(network_class: type, net: str) -> torch.nn.Module:
    """A network of PAPER's size with the recorded weights; net: its name in full_keys.json."""
    keys = json.loads(find("motion", "full_keys.json").read_text(encoding="utf-8"))["keys"][net]
    shapes = {key: tuple(shape) for key, (shape, _) in keys.items()}
    weights = {key: torch.as_tensor(formulas().fill(key, shapes)) for key in shapes}
    with torch.device("meta"):
        network = network_class(PAPER.vid2vid)
    network.load_state_dict(fuse_spectral_norm(weights), assign=True)
    return network.eval().requires_grad_(False)


def picture(name: str) -> torch.Tensor:
    """The recorded crop (1, 3, 256, 256): "source" or "driving"."""
    return torch.from_numpy(formulas().image(name))


def keypoint_change() -> torch.Tensor:
    """x_d - x_s (1, 21, 3) of the recorded chain."""
    return torch.from_numpy(0.15 * formulas().unit("x_d_delta", (1, 21, 3))).float()
