"""Golden vectors: inputs, weights and outputs of the original networks, recorded once.

Small ones lie in tests/golden/; the few that are too large for the repository lie in ../shared/golden on a developer's
machine, and a test that needs one is skipped elsewhere.

The random weights of the largest are not stored: the originals were filled by torch.randn(shape, generator=seed) * std, which
`draw` repeats up to the rounding of logarithm and cosine, and the file holds what is missing to the recorded bits. So
"state/<key>" is int8 there, in units in the last place, and the file's metadata says {"drawn": {key: [seed, offset, std]}}.
"""

import json
import lzma
from functools import cache
from pathlib import Path

import numpy as np
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
    """The repository holds them compressed without loss."""
    packed = FOLDERS[0] / kind / f"{name}.safetensors.xz"
    if not packed.is_file():
        return safetensors.torch.load_file(find(kind, f"{name}.safetensors"))
    content = lzma.decompress(packed.read_bytes())
    tensors = safetensors.torch.load(content)
    for key, (seed, offset, std) in drawn_keys(content).items():
        near = draw(seed, offset, std, tensors[key].shape)
        tensors[key] = (near.view(torch.int32) + tensors[key]).view(torch.float32)
    return tensors


def drawn_keys(content: bytes) -> dict[str, tuple[int, int, float]]:
    """What the metadata of a safetensors file says of its drawn tensors."""
    length = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + length]).get("__metadata__", {})
    return json.loads(metadata.get("drawn", "{}"))


def draw(seed: int, offset: int, std: float, shape: torch.Size) -> torch.Tensor:
    """torch.randn(shape) * std, within some units in the last place, from the generator's word number `offset` on.

    The elementary functions are taken in float64 and rounded, so that the result depends on no processor.
    """
    mantissas = words(seed)[offset : offset + shape.numel()] & 0xFFFFFF
    uniform = (mantissas / 2**24).reshape(-1, 2, 8)  # sixteen at a time: Box and Muller's u1, then u2
    radius = np.sqrt(np.float32(-2) * np.log(1 - uniform[:, 0]).astype(np.float32))
    angle = (np.float32(2 * np.pi) * uniform[:, 1].astype(np.float32)).astype(np.float64)
    pairs = [radius * np.cos(angle).astype(np.float32), radius * np.sin(angle).astype(np.float32)]
    return torch.from_numpy(np.stack(pairs, axis=1) * np.float32(std)).reshape(shape)


@cache
def words(seed: int) -> np.ndarray:
    """The first million words of the Mersenne Twister, torch's generator on CPU; NumPy promises never to change RandomState's."""
    return np.random.RandomState(seed).randint(0, 2**32, 2**20, dtype=np.uint32)


def state(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state dict among golden tensors."""
    return {key.removeprefix("state/"): value for key, value in tensors.items() if key.startswith("state/")}
