"""How steady a video is: flicker of its still part, jitter of its keypoints, and seams where two clips of the network meet.

Every figure is to be read beside the truth's own, which the same functions give: a video that is too smooth, such as the static
portrait, is below it. A list holds one value for every frame (L); None where there is nothing to measure, as in frame 0, which
has no frame before it. Never NaN.
"""

from statistics import fmean, median

import torch
import torch.nn.functional as F
from torch import Tensor

from ..animation.clips import plan
from ..errors import InputError
from .record import Values

BLUR = 1.5  # px, standard deviation: averages the noise of a video's compression
STILL = 2.5 / 255  # change of the blurred truth from frame to frame, below which a pixel is still
MARGIN = 1 / 32  # of the frame's shorter side, by which the moving part is widened: the result's edges are not exactly the truth's
LEAST = 0.01  # of the picture: a smaller still part is none
BESIDE, ABOVE = 0.35, 0.25  # of the facial masks' width and height, for hair and ears
AROUND = 5  # frames before and after a join with which it is compared
LEAST_STEP = 0.05  # 1/255 or px: what rounding alone makes; a smaller difference counts as this one


def check_video(pictures: Tensor) -> None:
    """InputError unless it is (L, 3, H, W), not empty, and finite."""
    if pictures.ndim != 4 or pictures.shape[1] != 3 or 0 in pictures.shape:
        raise InputError(f"A video must be (L, 3, H, W) with at least one frame; this one is {tuple(pictures.shape)}.")
    bad = int((~torch.isfinite(pictures)).sum())
    if bad:
        raise InputError(f"{bad} of the video's {pictures.numel()} values are NaN or infinite.")


# The still part of the picture


def still_part(truth: Tensor, valid: Tensor | None = None) -> Tensor:
    """Where the truth (L, 3, H, W) in [0, 1] stands still from each frame to the next: (L - 1, H, W) bool.

    Still: the largest change of red, green and blue, after a small blur, is below STILL, here and within MARGIN. valid (L, H, W)
    bool: where the truth is known; None: everywhere.
    """
    from kornia.filters import gaussian_blur2d

    check_video(truth)
    size = 2 * round(3 * BLUR) + 1
    blurred = gaussian_blur2d(truth, (size, size), (BLUR, BLUR))
    moves = (blurred[1:] - blurred[:-1]).abs().amax(1) >= STILL  # (L - 1, H, W)
    if valid is not None:
        moves |= ~(valid[1:] & valid[:-1])
    return ~widen(moves, round(MARGIN * min(truth.shape[2:])))


def widen(region: Tensor, by: int) -> Tensor:
    """The pixels (N, H, W) within a square of `by` px around those of the region (N, H, W) bool."""
    if not len(region):
        return region
    return F.max_pool2d(region[:, None].float(), 2 * by + 1, stride=1, padding=by)[:, 0] > 0.5


def still_border(faces: Tensor) -> Tensor:
    """Where neither head nor shoulders can be, by the facial masks (L, H, W) bool of all frames: (H, W) bool.

    For cases without truth. The box around all masks, widened by BESIDE and ABOVE for hair, and everything below its top in these
    columns belong to the head; below its middle, the whole width belongs to neck and shoulders.
    """
    still = torch.ones(faces.shape[1:], dtype=torch.bool, device=faces.device)
    covered = faces.any(0)
    rows, columns = (covered.any(axis).nonzero().flatten() for axis in (1, 0))
    if not len(rows):
        return still
    top, bottom, left, right = int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])
    above, beside = round(ABOVE * (bottom - top + 1)), round(BESIDE * (right - left + 1))
    still[max(top - above, 0) :, max(left - beside, 0) : right + beside + 1] = False
    still[(top + bottom) // 2 :] = False
    return still


def flicker(pictures: Tensor, still: Tensor) -> Values:
    """Mean absolute difference of each frame (L, 3, H, W) in [0, 1] from the one before in the still part, in 1/255: (L,) values.

    still (L - 1, H, W) bool, as still_part gives it, or (H, W), one for all frames. None where less than LEAST of the picture is
    still. InputError for shapes that differ.
    """
    check_video(pictures)
    steps = pictures.shape[0] - 1
    if still.shape not in (pictures.shape[2:], (steps, *pictures.shape[2:])):
        raise InputError(
            f"The still part is {tuple(still.shape)}; a video of {tuple(pictures.shape)} needs (H, W) or (L - 1, H, W)."
        )
    masks = still.expand(steps, *pictures.shape[2:])
    values: Values = [None]
    for here, before, mask in zip(pictures[1:], pictures[:-1], masks):
        enough = mask.float().mean() >= LEAST
        values.append(255 * float((here - before).abs()[:, mask].mean()) if enough else None)
    return values


def still_share(still: Tensor) -> float | None:
    """Share of the picture that is still, mean over the frames; still (L - 1, H, W) or (H, W). None for no pixel."""
    return float(still.float().mean()) if still.numel() else None


# Keypoints


def point_steps(points: Tensor, found: Tensor | None = None) -> Values:
    """How far the keypoints (L, K, 2) px move from each frame to the next: root mean square over them, px/frame, (L,) values."""
    return sizes(points, found, 1)


def jitter(points: Tensor, found: Tensor | None = None) -> Values:
    """Size of the keypoints' second difference x_i - 2 x_(i-1) + x_(i-2): root mean square over them, px/frame^2, (L,) values.

    points (L, K, 2) px, M's or a landmarker's; found (L,) bool: frames in which there is a face, None: all. Uniform motion has 0,
    a constant acceleration its own size, independent noise of the positions sqrt(6) times its own.
    """
    return sizes(points, found, 2)


def sizes(points: Tensor, found: Tensor | None, order: int) -> Values:
    """Size of the difference of this order, at the last of its order + 1 frames; None where one of them has no face."""
    if points.ndim != 3 or points.shape[2] != 2 or 0 in points.shape:
        raise InputError(f"Keypoints must be (L, K, 2) px with at least one frame and one point; these are {tuple(points.shape)}.")
    there = torch.ones(len(points), dtype=torch.bool) if found is None else found
    if there.shape != points.shape[:1]:
        raise InputError(f"`found` is {tuple(there.shape)}; {len(points)} frames need ({len(points)},).")
    apart = points.double().diff(order, dim=0).square().sum(-1).mean(-1).sqrt().tolist()  # (L - order,)
    return [apart[i - order] if i >= order and bool(there[i - order : i + 1].all()) else None for i in range(len(points))]


# Seams


def joins(frames: int, clip_frames: int, overlap: int = 1) -> list[int]:
    """The first frame that each clip of the network but the first one adds."""
    return [clip.new_frames.start for clip in plan(frames, clip_frames, overlap)[1:]]


def picture_steps(pictures: Tensor) -> Values:
    """Mean absolute difference of each frame (L, 3, H, W) in [0, 1] from the one before, whole picture, in 1/255: (L,) values."""
    check_video(pictures)
    return [None, *(255 * (pictures[1:] - pictures[:-1]).abs().mean((1, 2, 3))).tolist()]


def seams(steps: Values, at: list[int]) -> Values:
    """The step across each join over the median of those within AROUND frames of it, (joins,) values: 1 is no seam.

    steps (L,): picture_steps, or point_steps; at: the joins, by the frame after each. Other joins are left out of the median, and
    a step below LEAST_STEP counts as LEAST_STEP, so that a video without any motion has 1.
    """
    outside = [join for join in at if not 0 < join < len(steps)]
    if outside:
        raise InputError(f"Joins at {outside} of a video of {len(steps)} frames: each must be between 1 and {len(steps) - 1}.")
    found: Values = []
    for join in at:
        near = range(max(join - AROUND, 1), min(join + AROUND + 1, len(steps)))
        around = [step for i in near if i not in at and (step := steps[i]) is not None]
        across = steps[join]
        usable = across is not None and around
        found.append(max(across, LEAST_STEP) / max(median(around), LEAST_STEP) if usable else None)
    return found


# A row of a case


def temporal_figures(
    pictures: Tensor, points: Tensor, still: Tensor, at: list[int], found: Tensor | None = None
) -> tuple[dict[str, Values], dict[str, float | None]]:
    """Every figure of a row, or of the truth: metric -> a value for every frame (L), and metric -> one for the case.

    pictures (L, 3, H, W) in [0, 1]; points (L, K, 2) px, in all frames the same keypoints; still as in `flicker`; at: the joins;
    found as in `jitter`.
    """
    steps, moves = picture_steps(pictures), point_steps(points, found)
    frames = {
        "flicker_255": flicker(pictures, still),
        "step_255": steps,
        "keypoint_step_px": moves,
        "jitter_px": jitter(points, found),
    }
    whole = {"seam": mean(seams(steps, at)), "keypoint_seam": mean(seams(moves, at)), "still_share": still_share(still)}
    return frames, whole


def mean(values: Values) -> float | None:
    """Of those that are there; None for none."""
    there = [value for value in values if value is not None]
    return fmean(there) if there else None
