"""How steady a video is: flicker of its still part, jitter of its keypoints, and seams where two clips of the network meet.

Every figure is to be read beside the truth's own, which the same functions give: a video that is too smooth, such as the static
portrait, is below it. A list holds one value for every frame (L); None where there is nothing to measure, as in frame 0, which
has no frame before it. Never NaN.
"""

from math import copysign
from statistics import fmean, median

import torch
import torch.nn.functional as F
from torch import Tensor

from ...animation.clips import plan
from ...errors import InputError
from ..values import Values, mean

BLUR = 2.0  # px, standard deviation: averages the noise of a video's compression
STILL = 4 / 255  # change of the blurred truth from frame to frame, below which a pixel is still
MARGIN = 1 / 32  # of the frame's shorter side, by which the moving part is widened: the result's edges are not exactly the truth's
OFTEN = 0.2  # of the frames: a pixel that moves in more of them is never still, as the flat middle of a cheek between moving edges
LEAST = 0.01  # of the picture: a smaller still part is none
BESIDE = 0.4  # of the facial mask's width, on either side of it, for ears and hair
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

    A pixel moves where the largest change of red, green and blue, after a small blur, reaches STILL within MARGIN of it. It is
    still where it does not move, and moves in no more than OFTEN of the other frames. valid (L, H, W) bool: where the truth is
    known; None: everywhere.
    """
    from kornia.filters import gaussian_blur2d

    check_video(truth)
    size, (frames, _, height, width) = 2 * round(3 * BLUR) + 1, truth.shape
    moves = torch.zeros(frames - 1, height, width, dtype=torch.bool, device=truth.device)
    before = None
    for i, picture in enumerate(truth.split(1)):  # one by one, because a long video's floats are large
        blurred = gaussian_blur2d(picture, (size, size), (BLUR, BLUR))
        if before is not None:
            moves[i - 1] = (blurred - before).abs().amax(1)[0] >= STILL
        before = blurred
    moves = widen(moves, round(MARGIN * min(height, width)))
    if len(moves):
        moves |= moves.float().mean(0) > OFTEN
    return ~moves if valid is None else ~moves & valid[1:] & valid[:-1]


def widen(region: Tensor, by: int) -> Tensor:
    """The pixels (N, H, W) within a square of `by` px around those of the region (N, H, W) bool."""
    if not len(region):
        return region
    return F.max_pool2d(region[:, None].float(), 2 * by + 1, stride=1, padding=by)[:, 0] > 0.5


def still_border(faces: Tensor) -> Tensor:
    """Where neither head nor shoulders are in any frame, by the facial masks (L, H, W) bool: (H, W) bool, for cases without truth.

    Left and right of the head, above the chin: everything within BESIDE of the columns of a mask belongs to head, hair and neck,
    and everything below a mask to the shoulders. Without any mask the whole picture is still.
    """
    still = torch.ones(faces.shape[1:], dtype=torch.bool, device=faces.device)
    for covered in faces:
        rows, columns = (covered.any(axis).nonzero().flatten().tolist() for axis in (1, 0))
        if rows:
            beside = round(BESIDE * (columns[-1] - columns[0] + 1))
            still[:, max(columns[0] - beside, 0) : columns[-1] + 1 + beside] = False
            still[rows[-1] + 1 :] = False
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
    bad = int((~torch.isfinite(points[there])).sum())
    if bad:
        raise InputError(f"{bad} of the coordinates of keypoints {tuple(points.shape)} are NaN or infinite.")
    apart = points.double().diff(order, dim=0).square().sum(-1).mean(-1).sqrt().tolist()  # (L - order,)
    return [apart[i - order] if i >= order and bool(there[i - order : i + 1].all()) else None for i in range(len(points))]


def over_truth(values: Values, truth: Values) -> float | None:
    """How much rougher a row is than the truth: root of the difference of their mean squares, with its sign, in the values' unit.

    Over the frames that both have. Motion that row and truth share cancels; noise in addition to it has its own size; below 0 the
    row is smoother than the truth. None for no common frame.
    """
    pairs = [(a, b) for a, b in zip(values, truth, strict=True) if a is not None and b is not None]
    if not pairs:
        return None
    excess = fmean(a * a - b * b for a, b in pairs)
    return copysign(abs(excess) ** 0.5, excess)


# Seams


def joins(frames: int, clip_frames: int, overlap: int = 1) -> list[int]:
    """The first frame that each clip of the network but the first one adds."""
    return [clip.new_frames.start for clip in plan(frames, clip_frames, overlap)[1:]]


def picture_steps(pictures: Tensor) -> Values:
    """Mean absolute difference of each frame (L, 3, H, W) in [0, 1] from the one before, whole picture, in 1/255: (L,) values."""
    check_video(pictures)
    return [None, *(255 * float((here - before).abs().mean()) for here, before in zip(pictures[1:], pictures[:-1]))]


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
