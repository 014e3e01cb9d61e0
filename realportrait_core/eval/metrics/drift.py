"""Drift: how a row's figures change from clip to clip of the network, each of which starts with the last frame of the one before.

Any figure of frames has a drift: identity, ST-LPIPS, PSNR, the errors of keypoints and pose, and colours and sharpness, which are
here. A driving video that is played forwards and backwards shows another part of itself in each clip, so that the truth's own
figures change too: read a trend beside the truth's.
"""

from torch import Tensor

from ...animation.clips import plan
from ...inspect.drift import colours_and_sharpness, trend
from ..values import Values, mean
from .temporal import check_video


def colour_figures(pictures: Tensor) -> dict[str, Values]:
    """Of each of pictures (L, 3, H, W) in [0, 1]: mean of red, green and blue, the mean of their standard deviations over the
    pixels, and sharpness, the variance of the luma's Laplacian; all with pictures in 1/255."""
    check_video(pictures)
    means, deviations, sharpness = colours_and_sharpness(pictures.movedim(1, -1))
    colours = {f"{name}_255": means[:, i].tolist() for i, name in enumerate(("red", "green", "blue"))}
    return colours | {"contrast_255": deviations.mean(1).tolist(), "laplacian_variance": sharpness.tolist()}


def clip_ranges(frames: int, clip_frames: int, first: int = 1) -> list[range]:
    """Frames that each clip of the network adds to a video, from frame `first` on: 1 where frame 0 is the portrait itself."""
    added = (clip.new_frames for clip in plan(frames, clip_frames))
    return [range(max(new.start, first), new.stop) for new in added if new.stop > first]


def by_clip(values: Values, clip_frames: int, first: int = 1) -> Values:
    """Mean of each clip of the network; values: of frames `first` to the last. None for a clip without any value."""
    ranges = clip_ranges(first + len(values), clip_frames, first)
    return [mean(values[new.start - first : new.stop - first]) for new in ranges]


DRIFT_OF = "_drift"  # ends the name of a figure's drift


def drift_figures(frames: dict[str, Values], clip_frames: int, first: int = 1) -> dict[str, float | None]:
    """Of a row's figures by frames: "METRIC_drift", the slope per clip of each; None where there are fewer than two clips."""
    trends = {metric: trend(by_clip(values, clip_frames, first)) for metric, values in frames.items()}
    return {f"{metric}{DRIFT_OF}": found.slope if found else None for metric, found in trends.items()}
