"""Golden vectors: inputs, weights and outputs of the original networks, recorded once.

Small ones lie in tests/golden/; the few that are too large for the repository lie in ../shared/golden on a developer's
machine, and a test that needs one is skipped elsewhere.
"""

import json
import lzma
from pathlib import Path

import pytest
import safetensors.torch
import torch

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = (ROOT / "tests" / "golden", ROOT.parent / "shared" / "golden")


def find(kind: str, filename: str) -> Path:
    """The path of golden/<kind>/<filename>, or a skipped test."""
    for folder in FOLDERS:
        path = folder / kind / filename
        if path.is_file():
            return path
    pytest.skip(f"golden/{kind}/{filename} is not on this machine (it is too large for the repository)")


def load(kind: str, name: str) -> tuple[dict[str, torch.Tensor], dict]:
    """Tensors named state/<key>, in/<name>, mid/<name>, out/<name>, and the JSON beside them."""
    tensors = read_tensors(kind, name)
    description = json.loads(find(kind, f"{name}.json").read_text(encoding="utf-8"))
    return tensors, description


def read_tensors(kind: str, name: str) -> dict[str, torch.Tensor]:
    """The repository holds them compressed without loss, at two thirds of the size."""
    packed = FOLDERS[0] / kind / f"{name}.safetensors.xz"
    if packed.is_file():
        return safetensors.torch.load(lzma.decompress(packed.read_bytes()))
    return safetensors.torch.load_file(find(kind, f"{name}.safetensors"))


def state(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state dict among golden tensors."""
    return {key.removeprefix("state/"): value for key, value in tensors.items() if key.startswith("state/")}
