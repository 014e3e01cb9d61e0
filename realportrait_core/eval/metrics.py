"""How far a result is from the truth: PSNR, SSIM, and what M sees of keypoints and head."""

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from ..animation.extraction import CHUNK
from ..errors import InputError
from ..face.crop import CROP, sample_crop
from ..vid2vid.keypoints import transform
from ..vid2vid.motion import MotionExtractor
from ..vid2vid.regions import EYES_AND_MOUTH, LIPS, check_known

SAME = 1e-10  # mean squared error below which two pictures count as equal: PSNR ends at 100 dB
STILL = 1e-3  # px, standard deviation of a mouth's opening
WINDOW, SIGMA = 11, 1.5  # px, SSIM's Gaussian (Wang, Bovik, Sheikh, Simoncelli 2004)
C1, C2 = 0.01**2, 0.03**2  # for pictures in [0, 1]
KEYPOINT_PX = CROP / 2  # crop px a unit of the keypoints, -1 to 1 between the crop's outer edges


def check_pair(result: Tensor, truth: Tensor) -> None:
    if result.shape != truth.shape or result.ndim != 4 or 0 in result.shape:
        raise InputError(f"The result is {tuple(result.shape)} and the truth {tuple(truth.shape)}; both must be (L, 3, H, W).")
    bad = int((~torch.isfinite(result)).sum())
    if bad:
        raise InputError(f"{bad} of the result's {prod(result.shape)} values are NaN or infinite.")


def psnr(result: Tensor, truth: Tensor) -> Tensor:
    """dB of each frame (L,); both (L, 3, H, W) in [0, 1]. 100 dB for equal frames."""
    check_pair(result, truth)
    return -10 * (result - truth).square().mean((1, 2, 3)).clamp(min=SAME).log10()


def gaussian_mean(x: Tensor) -> Tensor:
    """Local means under SSIM's window wherever it lies inside: (L, 3, H, W) -> (L, 3, H - 10, W - 10)."""
    place = torch.arange(WINDOW, dtype=x.dtype) - (WINDOW - 1) / 2
    weight = torch.exp(-0.5 * (place / SIGMA) ** 2)
    weight = (weight / weight.sum()).repeat(x.shape[1], 1, 1, 1)  # (3, 1, 1, 11)
    x = F.conv2d(x, weight, groups=x.shape[1])
    return F.conv2d(x, weight.mT, groups=x.shape[1])


def ssim(result: Tensor, truth: Tensor) -> Tensor:
    """SSIM of each frame (L,), mean over colours and over all places of the window; both (L, 3, H, W) in [0, 1]."""
    check_pair(result, truth)
    if min(result.shape[2:]) < WINDOW:
        raise InputError(f"SSIM needs pictures of at least {WINDOW}x{WINDOW} px; these are {tuple(result.shape[2:])}.")
    a, b = gaussian_mean(result), gaussian_mean(truth)
    aa, bb, ab = (gaussian_mean(x) for x in (result * result, truth * truth, result * truth))
    likeness = (2 * a * b + C1) / (a * a + b * b + C1)  # of brightness
    structure = (2 * (ab - a * b) + C2) / (aa - a * a + bb - b * b + C2)  # of contrast and pattern
    return (likeness * structure).mean((1, 2, 3))


def seen_faces(motion: MotionExtractor, frames: Tensor, frame_to_crop: Tensor) -> tuple[Tensor, Tensor]:
    """What M sees: keypoints (L, K, 2) in px of the frame, and head rotations (L, 3, 3).

    frames (L, 3, H, W), one crop (3, 3) for all of them.
    """
    size = motion.cfg.crop_size
    poses = [motion(sample_crop(chunk, frame_to_crop, size)) for chunk in frames.split(CHUNK)]
    crop_px = float(torch.linalg.det(frame_to_crop[:2, :2]).sqrt())  # crop px a px of the frame
    points = torch.cat([transform(pose)[..., :2] for pose in poses])
    # Without the crop's corner, which is the same for all.
    return points * (KEYPOINT_PX / crop_px), torch.cat([pose.rotation for pose in poses])


def keypoint_error(result: Tensor, truth: Tensor) -> Tensor:
    """Mean distance of the keypoints of each frame (L,), px; both (L, K, 2)."""
    return torch.linalg.vector_norm(result - truth, dim=-1).mean(1)


def feature_error(result: Tensor, truth: Tensor) -> Tensor:
    """keypoint_error of the points around eyes and mouth. InputError where it is not known which these are."""
    check_known(result.shape[1], "the error of the face's features")
    chosen = list(EYES_AND_MOUTH[result.shape[1]])
    return keypoint_error(result[:, chosen], truth[:, chosen])


def mouth_opening(points: Tensor) -> Tensor:
    """Distance of the lips' keypoints in each frame (L,), px; (L, K, 2)."""
    upper, lower = LIPS[points.shape[1]]
    return torch.linalg.vector_norm(points[:, lower] - points[:, upper], dim=-1)


def mouth_correlation(result: list[list[float]], truth: list[list[float]]) -> float:
    """How a mouth's opening goes with the truth's over the frames of several clips, each about its own mean: -1 to 1.

    0 for a mouth that never moves: by less than STILL, where the order of sums alone would decide.
    """
    a, b = (torch.cat([values - values.mean() for values in map(torch.tensor, clips)]).double() for clips in (result, truth))
    if min(float(values.square().mean()) for values in (a, b)) < STILL**2:
        return 0.0
    return float((a * b).sum() / (a.square().sum() * b.square().sum()).sqrt())


def outside_error(result: Tensor, truth: Tensor, face: Tensor) -> Tensor:
    """Mean absolute error of each frame (L,) outside its facial mask (L, H, W), in 1/255: hair, shoulders, background."""
    check_pair(result, truth)
    outside = (~face)[:, None]
    return 255 * ((result - truth).abs() * outside).sum((1, 2, 3)) / (3 * outside.sum((1, 2, 3))).clamp(min=1)
