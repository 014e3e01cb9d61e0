"""Golden vectors: inputs, weights and outputs of the original networks, recorded once.

Small ones lie in tests/golden/; the few that are too large for the repository lie in ../shared/golden on a developer's
machine, and a test that needs one is skipped elsewhere.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

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
    tensors = load_file(find(kind, f"{name}.safetensors"))
    description = json.loads(find(kind, f"{name}.json").read_text(encoding="utf-8"))
    return tensors, description


def state(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state dict among golden tensors."""
    return {key.removeprefix("state/"): value for key, value in tensors.items() if key.startswith("state/")}
