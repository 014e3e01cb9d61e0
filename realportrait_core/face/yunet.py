"""YuNet (Wu, Peng, Yu 2023; MIT), the version of March 2023: its network in torch, the decoding of its maps, and its file.

The same faces as OpenCV's FaceDetectorYN finds with the same file (tests/test_yunet.py), without OpenCV.
"""

import hashlib
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import WeightsError
from .onnx_file import initializers

MODEL_NAME = "face_detection_yunet_2023mar.onnx"
SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
SIZE = 232589  # bytes
STRIDES = (8, 16, 32)  # px of the picture per cell of each map
HEADS = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}  # channels of each head, in the order of YuNet.heads
MOST = 200  # boxes before the suppression of overlapping ones


class Unit(nn.Module):
    """A 1x1 convolution, then a depthwise 3x3 one."""

    def __init__(self, channels: int, out: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 1)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, groups=out)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x))


class Stage(nn.Module):
    """Two convolutions of the backbone: the first keeps the channels, or is the stride-2 one that reads the picture."""

    def __init__(self, channels: int, out: int):
        super().__init__()
        self.conv1 = nn.Conv2d(3, out, 3, stride=2, padding=1) if channels == 3 else Unit(channels, channels)
        self.conv2 = Unit(out if channels == 3 else channels, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x).relu_()).relu_()


class YuNet(nn.Module):
    """Picture (B, 3, H, W), BGR in 0..255, H and W multiples of 32 -> for each stride s a map (B, 16, H / s, W / s).

    Channels: logits of cls and obj, then the box (4) and the five points (10) in cells, relative to the cell.
    """

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 16, 32, 64, 64, 64, 64)
        self.backbone = nn.ModuleList([Stage(*pair) for pair in zip(widths, widths[1:])])
        self.laterals = nn.ModuleList([Unit(64, 64) for _ in STRIDES])
        self.heads = nn.ModuleList([Unit(64, sum(HEADS.values())) for _ in STRIDES])

    def forward(self, picture: Tensor) -> list[Tensor]:
        x, found = picture, []
        for n, stage in enumerate(self.backbone):
            x = stage(x if n in (0, 2) else F.max_pool2d(x, 2))
            found.append(x)
        levels: list[Tensor] = []
        above: Tensor | None = None
        for x, lateral in zip(found[:-4:-1], reversed(self.laterals)):  # from the coarsest map to the finest
            above = lateral(x if above is None else x + F.interpolate(above, scale_factor=2, mode="nearest")).relu()
            levels.insert(0, above)
        return [head(level) for head, level in zip(self.heads, levels)]


def decode(maps: list[Tensor], threshold: float) -> Tensor:
    """The maps of one picture (1, 16, h, w) -> (n, 15): box x, y, width, height, five points x, y, score >= threshold.

    In px of the network's input, best first; boxes overlap as they are found.
    """
    rows = []
    for stride, level in zip(STRIDES, maps):
        cls, obj, box, points = level[0].split(list(HEADS.values()))
        score = (cls.sigmoid() * obj.sigmoid())[0].sqrt()  # (h, w)
        y, x = (score >= threshold).nonzero().unbind(1)
        cell = torch.stack([x, y], 1)  # (n, 2)
        centre = (box[:2, y, x].mT + cell) * stride
        size = box[2:, y, x].mT.exp() * stride
        marks = (points[:, y, x].mT.reshape(-1, 5, 2) + cell[:, None]) * stride
        rows.append(torch.cat([centre - size / 2, size, marks.flatten(1), score[y, x, None]], 1))
    found = torch.cat(rows)
    found = found[found.isfinite().all(1)]
    return found[found[:, 14].sort(descending=True, stable=True).indices]


def suppress(found: Tensor, overlap: float) -> Tensor:
    """Of rows (n, 15), best first, those whose box overlaps none that is better by more than `overlap` (of the union).

    FaceDetectorYN compares boxes in whole pixels, and so does this. No library's: MINI is trained where there is neither
    torchvision nor kornia.
    """
    found = found[:MOST]
    low, size = found[:, :2].trunc(), found[:, 2:4].trunc()
    high = low + size
    common = (torch.minimum(high[:, None], high) - torch.maximum(low[:, None], low)).clamp(min=0).prod(-1)  # (n, n) px^2
    area = size.prod(-1)
    same = common / (area[:, None] + area - common) > overlap
    kept: list[int] = []
    for n in range(len(found)):
        if not same[n, kept].any():
            kept.append(n)
    return found[kept]


def detect(network: YuNet, picture: Tensor, threshold: float, overlap: float) -> Tensor:
    """Faces in one picture (3, H, W) float32, BGR in 0..255: (n, 15) as of `decode`, best first."""
    height, width = picture.shape[1:]
    return suppress(decode(network(F.pad(picture[None], (0, -width % 32, 0, -height % 32))), threshold), overlap)


def load(path: Path) -> YuNet:
    """The network with the weights of MODEL_NAME, on the CPU. Raises WeightsError where the file is any other."""
    with path.open("rb") as file:
        data = file.read(SIZE + 1)
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256:
        size = "more" if len(data) > SIZE else len(data)
        raise WeightsError(
            f"{path} is not the face detector {MODEL_NAME}: it has {size} bytes and the SHA-256 {found}; {SIZE} bytes and {SHA256} "
            "were expected. Delete the file and run `python install.py` in the RealPortrait folder."
        )
    with torch.device("meta"):  # no random numbers are drawn
        network = YuNet()
    stored = {
        name: tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor  # half the time
        for name, tensor in state(initializers(data)).items()
    }
    network.load_state_dict(stored, assign=True)
    return network.requires_grad_(False).eval()


def state(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """The file's tensors by our names. Its exporter folded a batch norm into some convolutions and numbered those in order."""
    folded = ["backbone.0.conv1", "backbone.0.conv2.conv2"]
    folded += [f"backbone.{n}.conv{i}.conv2" for n in range(1, 6) for i in (1, 2)]
    folded += [f"laterals.{n}.conv2" for n in (2, 1, 0)]
    ours = {}
    for n, name in enumerate(folded):
        ours[f"{name}.weight"], ours[f"{name}.bias"] = stored[str(420 + 3 * n)], stored[str(421 + 3 * n)]
    for name, tensor in stored.items():
        if name.startswith(("backbone.", "neck.")):
            ours[name.replace("backbone.model", "backbone.").replace("neck.lateral_convs", "laterals")] = tensor
    for n in range(len(STRIDES)):
        for part in ("conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias"):
            ours[f"heads.{n}.{part}"] = torch.cat([stored[f"bbox_head.multi_level_{head}.{n}.{part}"] for head in HEADS])
    return ours
