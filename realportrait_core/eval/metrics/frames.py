"""Distance of a result from the truth: PSNR, SSIM, and keypoints and head pose as the motion extractor M predicts them."""

from math import prod

import torch
from torch import Tensor

from ...animation.extraction import CHUNK, device_of
from ...errors import InputError
from ...face.crop import CROP, sample_crop
from ...vid2vid.keypoints import transform
from ...vid2vid.motion import MotionExtractor
from ...vid2vid.regions import EYES_AND_MOUTH, LIPS, check_known

MOST_DB = 100.0  # PSNR of frames whose mean squared error is 1e-10 or less
STILL = 1e-3  # px, standard deviation of a mouth's opening
WINDOW = 11  # px, the side of SSIM's window
CENTRED_KEYPOINT_PX = CROP / 2  # crop px per unit of MINI's keypoints: -1 and 1 are the crop's outer edges


def check_pair(result: Tensor, truth: Tensor) -> None:
    """InputError unless both are (L, 3, H, W) of one shape and the result is finite."""
    if result.shape != truth.shape or result.ndim != 4 or 0 in result.shape:
        raise InputError(f"The result is {tuple(result.shape)} and the truth {tuple(truth.shape)}; both must be (L, 3, H, W).")
    bad = int((~torch.isfinite(result)).sum())
    if bad:
        raise InputError(f"{bad} of the result's {prod(result.shape)} values are NaN or infinite.")


def psnr(result: Tensor, truth: Tensor) -> Tensor:
    """dB of each frame (L,); both (L, 3, H, W) in [0, 1]. At most MOST_DB, which equal frames have. InputError as check_pair."""
    from kornia.metrics import psnr as pooled_psnr  # one figure for everything it is given: called once a frame

    check_pair(result, truth)
    return torch.stack([pooled_psnr(a, b, 1.0) for a, b in zip(result, truth)]).clamp(max=MOST_DB)


def ssim(result: Tensor, truth: Tensor) -> Tensor:
    """SSIM of each frame (L,), mean over channels and over all positions of the window inside the picture (Wang, Bovik, Sheikh,
    Simoncelli 2004: Gaussian of 11x11 px, sigma 1.5); both (L, 3, H, W) in [0, 1]. InputError below WINDOW px a side."""
    from kornia.metrics import ssim as ssim_map

    check_pair(result, truth)
    if min(result.shape[2:]) < WINDOW:
        raise InputError(f"SSIM needs pictures of at least {WINDOW}x{WINDOW} px; these are {tuple(result.shape[2:])}.")
    return ssim_map(result, truth, WINDOW, eps=0.0, padding="valid").mean((1, 2, 3))


def keypoints_and_rotations(motion: MotionExtractor, frames: Tensor, frame_to_crop: Tensor) -> tuple[Tensor, Tensor]:
    """M's keypoints (L, K, 2) in px of the frame, and its head rotations (L, 3, 3).

    frames (L, 3, H, W) in [0, 1]; frame_to_crop (3, 3), one for all of them.
    """
    size = motion.cfg.crop_size
    device = device_of(motion)
    poses = [motion(sample_crop(chunk.to(device), frame_to_crop, size)).to("cpu") for chunk in frames.split(CHUNK)]
    crop_px = float(torch.linalg.det(frame_to_crop[:2, :2]).sqrt())  # crop px per px of the frame
    points = torch.cat([transform(pose)[..., :2] for pose in poses])
    # Relative to the crop's centre, which all frames share.
    return points * (CENTRED_KEYPOINT_PX / crop_px), torch.cat([pose.rotation for pose in poses])


def keypoint_error(result: Tensor, truth: Tensor) -> Tensor:
    """Mean distance of the keypoints of each frame (L,), px; both (L, K, 2)."""
    return torch.linalg.vector_norm(result - truth, dim=-1).mean(1)


def feature_error(result: Tensor, truth: Tensor) -> Tensor:
    """keypoint_error of the points around eyes and mouth. InputError for a number of keypoints whose meaning is not known."""
    check_known(result.shape[1], "the error of the face's features")
    chosen = list(EYES_AND_MOUTH[result.shape[1]])
    return keypoint_error(result[:, chosen], truth[:, chosen])


def mouth_opening(points: Tensor) -> Tensor:
    """Distance of the lips' keypoints in each frame (L,), px; (L, K, 2)."""
    upper, lower = LIPS[points.shape[1]]
    return torch.linalg.vector_norm(points[:, lower] - points[:, upper], dim=-1)


def mouth_correlation(result: list[list[float]], truth: list[list[float]]) -> float:
    """Pearson correlation of the mouth's opening with the truth's over the frames of several clips, each centred on its own mean.

    0 for a mouth that moves by less than STILL, where rounding alone would decide.
    """
    a, b = (torch.cat([values - values.mean() for values in map(torch.tensor, clips)]).double() for clips in (result, truth))
    if min(float(values.square().mean()) for values in (a, b)) < STILL**2:
        return 0.0
    return float((a * b).sum() / (a.square().sum() * b.square().sum()).sqrt())


def opening_correlation(result: Tensor, target: Tensor) -> float | None:
    """mouth_correlation of one clip's openings (n,) px. None below 3 frames, or where the target's mouth stands still."""
    if len(target) < 3 or float(target.double().std(correction=0)) < STILL:
        return None
    return mouth_correlation([result.tolist()], [target.tolist()])


def outside_error(result: Tensor, truth: Tensor, face: Tensor) -> Tensor:
    """Mean absolute error of each frame (L,) outside its facial mask (L, H, W), in 1/255: hair, shoulders, background."""
    check_pair(result, truth)
    outside = (~face)[:, None]
    return 255 * ((result - truth).abs() * outside).sum((1, 2, 3)) / (3 * outside.sum((1, 2, 3))).clamp(min=1)
