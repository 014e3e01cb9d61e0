"""How far an animation drifts from clip to clip: colours, sharpness, and distance from the driven keypoints."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from ..animation import clips
from ..animation.extraction import CHUNK, crop_faces
from ..animation.keypoints import PUBLIC_KEYPOINT_PX
from ..animation.mapping import PortraitMotion
from ..face.crop import rescale
from ..vid2vid import FaceVid2Vid
from ..vid2vid.keypoints import transform


@dataclass(frozen=True)
class FrameStatistics:
    """Statistics of a range of frames; colours 0..255."""

    first: int  # frame number
    last: int
    mean: torch.Tensor  # (3,) R, G, B
    deviation: torch.Tensor  # (3,) standard deviation over the pixels of a frame, mean over the frames
    sharpness: float  # variance of the luma's Laplacian, mean over the frames
    keypoints: float | None = None  # px, mean distance from the driven keypoints x_d; None: not measured


def seen_keypoints(vid2vid: FaceVid2Vid, frames: torch.Tensor, frame_to_crop: torch.Tensor, size: int) -> torch.Tensor:
    """The keypoints (n, K, 3) that M predicts from animated frames (n, H, W, 3), in the portrait's crop as x_d.

    frame_to_crop (n, 3, 3): px of a frame of `size` px -> px of the crop; the frames may have been resized since.
    """
    to_crop, seen = frame_to_crop.double() @ rescale(size / frames.shape[1]), []
    for start in range(0, len(frames), CHUNK):
        part = slice(start, start + CHUNK)
        seen.append(transform(vid2vid.motion(crop_faces(vid2vid, frames[part], to_crop[part]))).cpu())
    return torch.cat(seen)


def distances_px(seen: torch.Tensor, x_d: torch.Tensor, frame_to_crop: torch.Tensor) -> torch.Tensor:
    """Mean distance (n,) of keypoints from the wanted ones, both (n, K, 3) in the portrait's crop, in px of the frame."""
    crop_px = torch.linalg.det(frame_to_crop[:, :2, :2].double()).abs().sqrt()  # of a frame's px
    errors = (seen - x_d)[..., :2].norm(dim=-1).mean(1)
    return errors * PUBLIC_KEYPOINT_PX / crop_px.to(errors)


def keypoint_errors(vid2vid: FaceVid2Vid, frames: torch.Tensor, motion: PortraitMotion) -> torch.Tensor:
    """Mean distance (n,) of the keypoints that M predicts from animated frames (n, H, W, 3) from the driven ones, x_d.

    In px of the animated square, whatever size the frames were resized to since.
    """
    to_crop = motion.maps.frame_to_crop[: len(frames)]
    return distances_px(seen_keypoints(vid2vid, frames, to_crop, motion.maps.height), motion.x_d[: len(frames)], to_crop)


def colours_and_sharpness(frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of each of frames (n, H, W, 3) in [0, 1]: mean and standard deviation of red, green and blue in 1/255, (n, 3) both, and
    sharpness (n,), the variance of the luma's Laplacian."""
    from kornia.color import rgb_to_grayscale

    # The Laplacian of the four neighbours, as cv2's of size 1; kornia's has eight and another scale.
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None]
    means, deviations, edges = [], [], []
    for start in range(0, len(frames), CHUNK):
        part = 255 * frames[start : start + CHUNK].float()
        means.append(part.mean((1, 2)))
        deviations.append(part.flatten(1, 2).std(1, correction=0))
        luma = rgb_to_grayscale(part.movedim(-1, 1))  # (chunk, 1, H, W)
        edges.append(F.conv2d(luma, kernel.to(luma)).flatten(1).var(1, correction=0))
    return torch.cat(means), torch.cat(deviations), torch.cat(edges)


def frame_statistics(frames: torch.Tensor, first: int = 0, errors: torch.Tensor | None = None) -> FrameStatistics:
    """Of frames (n, H, W, 3) in [0, 1] from number `first` on, and of their keypoint errors (n,) px."""
    mean, deviation, sharpness = (values.mean(0) for values in colours_and_sharpness(frames))
    keypoints = None if errors is None else float(errors.mean())
    return FrameStatistics(first, first + len(frames) - 1, mean, deviation, float(sharpness), keypoints)


def drift(frames: torch.Tensor, clip_frames: int, errors: torch.Tensor | None = None) -> list[FrameStatistics]:
    """Statistics of each clip, of frames (n, H, W, 3) in clips of clip_frames, and of their keypoint_errors (n,).

    Frames that two clips share count for the earlier.
    """
    own = [clip.new_frames for clip in clips.plan(len(frames), clip_frames)]
    return [frame_statistics(frames[part], part.start, None if errors is None else errors[part]) for part in own]


def drift_table(found: list[FrameStatistics], reference: FrameStatistics | None = None) -> str:
    """A line per clip, one for the portrait's square (`reference`), and the change from the first clip to the last."""

    def line(name: str, frames: str, one: FrameStatistics) -> str:
        numbers = [f"{value:6.1f}" for value in (*one.mean.tolist(), *one.deviation.tolist())]
        error = "" if one.keypoints is None else f"   {one.keypoints:12.2f}"
        return f"{name:<9}{frames:<11}{' '.join(numbers[:3])}   {' '.join(numbers[3:])}   {one.sharpness:9.1f}{error}"

    measured = found[0].keypoints is not None
    lines = [
        f"{'clip':<9}{'frames':<11}{'mean R':>6} {'G':>6} {'B':>6}   {'dev. R':>6} {'G':>6} {'B':>6}   {'sharpness':>9}"
        + "   keypoints px" * measured
    ]
    if reference is not None:
        lines.append(line("portrait", "", reference))
    lines += [line(str(n), f"{one.first}-{one.last}", one) for n, one in enumerate(found)]
    a, b = found[0], found[-1]
    if len(found) > 1:
        shift = ", ".join(f"{value:+.1f}" for value in (b.mean - a.mean).tolist())
        contrast = float((b.deviation / a.deviation.clamp(min=1e-6)).mean())
        further = f"; keypoints {b.keypoints - a.keypoints:+.2f} px off" if measured else ""
        lines.append(
            f"Clip {len(found) - 1} against clip 0: mean {shift} of 255; deviation x {contrast:.2f}; sharpness x "
            f"{b.sharpness / max(a.sharpness, 1e-6):.2f}{further}."
        )
    else:
        lines.append("One clip: nothing to drift from.")
    return "\n".join(lines)


@dataclass(frozen=True)
class Trend:
    """The line of least squares through the figures of clips."""

    slope: float  # change of the figure from one clip to the next, with its sign
    error: float | None  # standard error of the slope; None for two clips, on which every line fits
    first: float  # the figure of the first clip
    last: float
    used: int  # clips with a figure


def trend(clips: Sequence[float | None]) -> Trend | None:
    """Of a figure by clips; None in it: not measured there. None for fewer than two clips with a figure."""
    there = [(number, value) for number, value in enumerate(clips) if value is not None]
    if len(there) < 2:
        return None
    numbers, values = np.array(there).T
    if len(there) == 2:
        slope, error = float(np.diff(values)[0] / np.diff(numbers)[0]), None
    else:
        (slope, _), covariance = np.polyfit(numbers, values, 1, cov=True)
        error = float(covariance[0, 0] ** 0.5)
    return Trend(float(slope), error, there[0][1], there[-1][1], len(there))
