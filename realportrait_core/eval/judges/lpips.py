"""LPIPS, the perceptual distance of the paper's tables (Zhang et al., CVPR 2018), through torchmetrics.

torchmetrics brings the learnt weights of the channels (0.01 MB). The network whose features they weigh is torchvision's AlexNet,
VGG16 or SqueezeNet 1.1, trained on ImageNet; its file comes from the user, and nothing is downloaded. LPIPS by one network cannot
be set beside LPIPS by another; most papers use AlexNet. ST-LPIPS (stlpips.py) is another measure. 0.05 s a pair of 256 px by
AlexNet on one core. Never part of a loss.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from ...checkpoint import load_strictly
from ...convert.files import read_weights
from ...errors import InputError, WeightsError
from ..metrics.frames import check_pair

Net = Literal["alex", "vgg", "squeeze"]
PACKAGE = "torchmetrics[image]>=1.8,<2"  # the network is a class that its documentation does not list
HOW_TO_GET = (
    f'pip install "{PACKAGE}", and AlexNet as torchvision has it (download.pytorch.org/models/alexnet-owt-7be5be79.pth, 233 MB; '
    "vgg16-397923af.pth and squeezenet1_1-b8a52dc0.pth do too, as another LPIPS), then --lpips FILE"
)
# A kernel of each network that the others have not, or not in this shape.
TELLTALE: dict[Net, tuple[str, tuple[int, ...]]] = {
    "alex": ("features.0.weight", (64, 3, 11, 11)),
    "vgg": ("features.28.weight", (512, 512, 3, 3)),
    "squeeze": ("features.12.squeeze.weight", (64, 512, 1, 1)),
}
SMALLEST = 32  # px: smaller pictures leave nothing to the deepest features
AT_ONCE = 8  # pairs that go through the network together


@dataclass(frozen=True)
class LPIPS:
    """LPIPS by one of its networks, frozen: `load_lpips`."""

    net: Net
    model: nn.Module  # torchmetrics'

    @torch.inference_mode()
    def distances(self, result: Tensor, truth: Tensor) -> Tensor:
        """Of each pair (L,), both (L, 3, H, W) in [0, 1]. 0 for equal pictures; larger is less alike.

        InputError for shapes that differ, below SMALLEST px, or for NaN.
        """
        check_pair(result, truth)
        if min(result.shape[2:]) < SMALLEST or result.shape[1] != 3:
            raise InputError(f"LPIPS compares (L, 3, H, W) of at least {SMALLEST} px; these are {tuple(result.shape)}.")
        pairs = zip(result.split(AT_ONCE), truth.split(AT_ONCE))
        return torch.cat([self.model(a, b, normalize=True)[:, 0, 0, 0] for a, b in pairs])


def network_of(state: dict[str, Tensor]) -> Net | None:
    """Which of the three networks the tensors are, by torchvision's names; None: another one."""
    return next((net for net, (key, shape) in TELLTALE.items() if key in state and state[key].shape == shape), None)


def load_lpips(path: str | Path) -> LPIPS:
    """LPIPS by the network in a .pth or .safetensors file with torchvision's names, which tell which network it is.

    Raises InputError where torchmetrics or torchvision is missing, WeightsError where the file is, or holds another network.
    """
    try:
        from torchmetrics.functional.image.lpips import _LPIPS
        from torchvision.models import AlexNet  # noqa: F401  # torchmetrics needs it and says so only later
    except ImportError as error:
        raise InputError(f'LPIPS needs torchmetrics and torchvision ({error}). Install them: `pip install "{PACKAGE}"`.') from error
    state = read_weights(Path(path))
    net = network_of(state)
    if net is None:
        raise WeightsError(f"{path} is none of torchvision's AlexNet, VGG16 and SqueezeNet 1.1. Get one: {HOW_TO_GET}.")
    # The public class always downloads its network. Built with pnet_rand, this one has the learnt channels and a random network.
    model = _LPIPS(net=net, pnet_rand=True)
    # "slice2.3.weight" or "slices.2.3.squeeze.weight" -> "features.3..."; the classifier is not needed.
    own = {key: "features." + key.split(".", 2 if net == "squeeze" else 1)[-1] for key in model.net.state_dict()}
    try:
        load_strictly(model.net, {key: state[name].float() for key, name in own.items() if name in state})
    except WeightsError as error:
        raise WeightsError(f"{path} is not torchvision's {net} network: {error}") from error
    return LPIPS(net, model.eval().requires_grad_(False))
