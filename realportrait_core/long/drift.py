"""How far a long animation drifts: figures of each clip as it is finished, and what they say together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import fmean, median

import torch
from torch import Tensor

from ..animation.mapping import PortraitMotion
from ..inspect.drift import Trend, colours_and_sharpness, distances_px, seen_keypoints, trend
from ..vid2vid import FaceVid2Vid
from ..vid2vid.edit import nearest_rotation
from ..vid2vid.keypoints import angle_between

EVERY = 3  # frames of which one is measured
SURE = 3.0  # standard errors of a slope from which on it counts as a trend
STILL = 0.1 / 255  # of the brightness: a smaller step between two frames counts as this one
SHOWN = 10  # lines of the report's table


@dataclass(frozen=True)
class Figure:
    """A figure of a clip as the report shows it."""

    title: str
    digits: int
    noticed: float  # a change over the whole video that one sees


FIGURES = {
    "red_255": Figure("red", 1, 6.0),  # mean of the picture minus the portrait's, of 255
    "green_255": Figure("green", 1, 6.0),
    "blue_255": Figure("blue", 1, 6.0),
    "contrast": Figure("contrast", 2, 0.1),  # standard deviation of the colours over the portrait's
    "sharpness": Figure("sharpness", 2, 0.15),  # variance of the luma's Laplacian over the portrait's
    "keypoints_px": Figure("keypoints px", 1, 2.0),  # distance of M's keypoints from the wanted ones, px of the animated square
    "head_deg": Figure("head deg", 1, 2.0),  # the head's rotation from the wanted one, degrees
    "identity": Figure("identity", 2, 0.1),
    "join": Figure("join", 2, 0.5),  # the step into the clip over the median step within it; 1: no seam
}


@torch.inference_mode()
def clip_figures(
    vid2vid: FaceVid2Vid,
    frames: Tensor,
    motion: PortraitMotion,
    square: Tensor,
    identity: Callable[[Tensor], Tensor] | None = None,
    overlap: int = 0,
) -> dict[str, float]:
    """The FIGURES of a clip: of every EVERY-th frame that it adds, the join of all.

    frames (n, H, W, 3) in [0, 1]: the clip's, those beyond the end of the video left out. motion: the clip's, of n frames or more,
    with x_d. square (1, H', W', 3): the portrait as the frames show it. identity: frames (m, H, W, 3) -> likeness to the portrait
    (m,); None: not measured. overlap: frames at the start that the clip before has shown; without any there is no join.
    """
    chosen = list(range(overlap, len(frames), EVERY))
    shown, to_crop, x_d = frames[chosen], motion.maps.frame_to_crop[chosen], motion.x_d[chosen]
    colour, deviation, sharp = (values.mean(0) for values in colours_and_sharpness(shown))
    own_colour, own_deviation, own_sharp = (values.mean(0) for values in colours_and_sharpness(square))
    seen = seen_keypoints(vid2vid, shown, to_crop, motion.maps.height)
    found = {f"{name}_255": value for name, value in zip(("red", "green", "blue"), (colour - own_colour).tolist())}
    found |= {
        "contrast": float(deviation.mean() / own_deviation.mean().clamp(min=1e-6)),
        "sharpness": float(sharp / own_sharp.clamp(min=1e-6)),
        "keypoints_px": float(distances_px(seen, x_d, to_crop).mean()),
        "head_deg": float(turned_by(seen, x_d).mean()),
    }
    if identity is not None:
        found["identity"] = float(identity(shown).mean())
    if overlap and len(frames) > overlap + 1:
        steps = frames[overlap - 1 :].diff(dim=0).abs().mean((1, 2, 3)).clamp(min=STILL).tolist()
        found["join"] = steps[0] / median(steps[1:])
    return found


def turned_by(seen: Tensor, wanted: Tensor) -> Tensor:
    """Angle (n,) in degrees of the rotation that brings keypoints nearest to the wanted ones, both (n, K, 3)."""
    here, there = (points.double() - points.double().mean(1, keepdim=True) for points in (seen, wanted))
    rotation = nearest_rotation(here.mT @ there)  # orthogonal Procrustes: the least |here R - there|
    return angle_between(rotation, torch.eye(3, dtype=rotation.dtype).expand_as(rotation)).float()


def trends(clips: Sequence[dict[str, float]]) -> dict[str, Trend]:
    """The trend of each of the FIGURES that at least two clips have."""
    found = {name: trend([clip.get(name) for clip in clips]) for name in FIGURES}
    return {name: one for name, one in found.items() if one is not None}


def drift_report(clips: Sequence[dict[str, float]]) -> str:
    """A table of the figures (`clip_figures`), means of groups of clips in at most SHOWN lines, with their change per clip, and
    what drifts in a sentence.
    """
    names = [name for name in FIGURES if any(name in clip for clip in clips)]
    if not names:
        return "No drift was measured."
    width = {name: max(len(FIGURES[name].title), 7) for name in names}

    def line(first: str, values: list[str]) -> str:
        return f"{first:<9}" + " ".join(f"{value:>{width[name]}}" for name, value in zip(names, values))

    def cell(name: str, value: float | None, more_digits: int = 0, sign: str = "") -> str:
        return "-" if value is None else f"{value:{sign}.{FIGURES[name].digits + more_digits}f}"

    lines, together = [line("clips", [FIGURES[name].title for name in names])], ceil(len(clips) / SHOWN)
    for first in range(0, len(clips), together):
        group = clips[first : first + together]
        measured = [[clip[name] for clip in group if name in clip] for name in names]
        means = [cell(name, fmean(values) if values else None) for name, values in zip(names, measured)]
        lines.append(line(f"{first}-{first + len(group) - 1}" if len(group) > 1 else f"{first}", means))
    found = trends(clips)
    if not found:
        return "\n".join([*lines, "One clip: nothing to drift from."])
    slopes = [found[name] if name in found else None for name in names]
    lines.append(line("per clip", [cell(name, one.slope if one else None, 1, "+") for name, one in zip(names, slopes)]))
    errors = [cell(name, one.error if one else None, 1) for name, one in zip(names, slopes)]
    lines.append(line("+-", errors))
    changes = [
        f"{FIGURES[name].title} {cell(name, one.slope * (len(clips) - 1), sign='+')}"
        for name, one in found.items()
        if drifts(name, one)
    ]
    ending = (
        f"A trend over these {len(clips)} clips: {', '.join(changes)}." if changes else f"No drift over these {len(clips)} clips."
    )
    return "\n".join([*lines, ending])


def drifts(name: str, one: Trend) -> bool:
    """Whether a trend is certain, and large enough over its clips that one would see it."""
    certain = one.error is not None and abs(one.slope) > SURE * one.error
    return certain and abs(one.slope) * (one.used - 1) > FIGURES[name].noticed
