"""Fréchet distances of two sets of pictures: FID by the user's Inception, and one in the features of ST-LPIPS' VGG16.

Both fit a Gaussian to each set's features and measure the distance of the two (Heusel et al., NeurIPS 2017), by torchmetrics' own
mathematics: |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)). Only FID is called FID. Never part of a loss.

n, the pictures of a set, decides what the figure means. Below D, the length of the features, the covariance has not its full
rank; the distance is still defined, and too large: two halves of one set do not give 0, and the surplus falls as 1 / n. So only
figures of the same n, of the same cases, can be compared, n stands beside them, and those of papers, by thousands of pictures,
are others: FID (D = 2048) is read in absolute terms from about 10,000 pictures on.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ...convert.files import read_weights
from ...errors import InputError, WeightsError
from ...stlpips import AT_ONCE, STLPIPS
from .lpips import PACKAGE

INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
HOW_TO_GET = (
    f'pip install "{PACKAGE}", and {INCEPTION_FILE} of torch-fidelity\'s releases on GitHub (95 MB; '
    "pytorch-fid's pt_inception-2015-12-05-6726825d.pth is the same), then --inception FILE"
)
OFFLINE = "Fréchet (ST-LPIPS' VGG)"
STAGE = 3  # conv4_3: of the five the one in which neither blur, noise nor another person hides the others
CLASSES = (1008, 2048)  # of TensorFlow's Inception of 2015, which FID is defined by; torchvision's has 1000 classes


def frechet_distance(a: Tensor, b: Tensor) -> float | None:
    """Of features (N, D) and (M, D); the same both ways round, 0 for equal sets, at least 0.

    None below 2 pictures, or where a feature is NaN or infinite. InputError for other shapes, or where torchmetrics is missing.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or not a.shape[1]:
        raise InputError(f"A Fréchet distance is of (N, D) and (M, D); these are {tuple(a.shape)} and {tuple(b.shape)}.")
    if min(len(a), len(b)) < 2 or not all(bool(torch.isfinite(x).all()) for x in (a, b)):
        return None
    try:
        from torchmetrics.image.fid import FrechetInceptionDistance
    except ImportError as error:
        raise missing_package(error) from error
    a, b = in_their_span(a.double(), b.double())
    given = nn.Identity()
    given.num_features = a.shape[1]  # type: ignore[assignment]  # what torchmetrics asks of a network: here pictures are features
    metric = FrechetInceptionDistance(feature=given)
    metric.update(a, real=False)
    metric.update(b, real=True)
    return max(float(metric.compute()), 0.0)  # rounding may leave -1e-9


def missing_package(error: ImportError) -> InputError:
    return InputError(
        f'Fréchet distances need torchmetrics, FID torch-fidelity too ({error}). Install both: pip install "{PACKAGE}"'
    )


def in_their_span(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The same points about their common mean, in min(D, N + M) coordinates of the space that they span.

    A rotation and a shift of both sets changes no Fréchet distance, and its cost grows with the cube of the coordinates.
    """
    points = torch.cat([a, b])
    points = points - points.mean(0)
    if len(points) < points.shape[1]:
        points = points @ torch.linalg.qr(points.T).Q  # (N + M, N + M)
    return points[: len(a)], points[len(a) :]


# FID's features


@dataclass(frozen=True)
class Inception:
    """The Inception that FID is defined by, frozen: `load_inception`."""

    model: nn.Module  # torchmetrics'

    @torch.inference_mode()
    def features(self, pictures: Tensor) -> Tensor:
        """(L, 2048) of pictures (L, 3, H, W) in [0, 1], which are rounded to 8 bits and resized to 299x299 px. 0.17 s each."""
        check_pictures(pictures)
        eight_bits = (255 * pictures).round().clamp(0, 255).to(torch.uint8)
        return torch.cat([self.model(part) for part in eight_bits.split(AT_ONCE)])


def load_inception(path: str | Path) -> Inception:
    """The network in INCEPTION_FILE, a .pth or converted to .safetensors.

    Raises InputError where torchmetrics or torch-fidelity is missing, WeightsError where the file is, or holds another network.
    """
    try:
        import torch_fidelity  # noqa: F401  # torchmetrics needs it and says so only later
        from torchmetrics.image.fid import NoTrainInceptionV3
    except ImportError as error:
        raise missing_package(error) from error
    state = read_weights(Path(path))
    if "fc.weight" not in state or state["fc.weight"].shape != CLASSES:
        raise WeightsError(
            f"{path} is not the Inception that FID is defined by: its fc.weight is not {CLASSES}, as where torchvision's own "
            f"inception_v3 was named. Get it: {HOW_TO_GET}."
        )
    # The constructor insists on a file and unpickles whatever is in it: it receives our own, of the tensors read safely.
    plain = io.BytesIO()
    torch.save(state, plain)
    plain.seek(0)
    try:
        return Inception(NoTrainInceptionV3("inception-v3-compat", ["2048"], plain).eval().requires_grad_(False))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(f"{path} is not {INCEPTION_FILE}: {reason}. Get it: {HOW_TO_GET}.") from error


# The offline features


@torch.inference_mode()
def stlpips_features(network: STLPIPS, pictures: Tensor) -> Tensor:
    """Features (L, 512) of pictures (L, 3, H, W) in [0, 1] for OFFLINE, by ST-LPIPS' "vgg".

    STAGE's features at every place, of a root mean square of 1, and of these the mean over the picture. 0.39 s a picture of 256 px
    on one core; every fourth frame of a clip says nearly the same as all. InputError for another network or shape.

    On 12 frames of a rendered clip (tests/data): 0.2 to the frames between them, 1.2 to the first one standing still, 10 to another
    person, 21, 99 and 188 to a blur of 0.7, 1.5 and 3 px, 48 and 518 to noise of 0.03 and 0.1. So it tells how a picture is
    drawn far better than who is in it.
    """
    check_pictures(pictures)
    if network.net != "vgg":
        raise InputError(f'{OFFLINE} is in the features of another network: load_stlpips(wheel, "vgg").')
    pooled = [network.features(part)[STAGE].mean((2, 3)) for part in pictures.split(AT_ONCE)]  # of length 1 before the mean
    return torch.cat(pooled) * pooled[0].shape[1] ** 0.5


def check_pictures(pictures: Tensor) -> None:
    """InputError unless (L, 3, H, W), of one picture or more and finite."""
    if pictures.ndim != 4 or pictures.shape[1] != 3 or 0 in pictures.shape:
        raise InputError(f"Features are of pictures (L, 3, H, W); these are {tuple(pictures.shape)}.")
    if bad := int((~torch.isfinite(pictures)).sum()):
        raise InputError(f"{bad} of the pictures' {pictures.numel()} values are NaN or infinite.")
