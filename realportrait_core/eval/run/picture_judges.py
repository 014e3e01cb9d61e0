"""Pretrained networks that compare the pictures of rows with the truth: ST-LPIPS, LPIPS, and features for Fréchet distances."""

import torch
from torch import Tensor

from ...animation.extraction import device_of
from ...stlpips import distances
from ..judges.frechet import stlpips_features
from ..repeats import unique
from ..rows import TRUTH
from ..values import Values, where
from .figures import FrameFigures, Row, filled
from .panel import Panel
from .prepare import Prepared

FEATURES = 3  # frames of each case whose features enter the Fréchet distances


def picture_distances(panel: Panel, rows: dict[str, Row], case: Prepared, judged: Tensor) -> dict[str, FrameFigures]:
    """ST-LPIPS and LPIPS of every row to the truth, in the frames that are judged (L,) bool; {} without truth.

    The truth's features of ST-LPIPS are computed once for all rows.
    """
    found: dict[str, FrameFigures] = {row: {} for row in rows}
    if not case.exact or not judged.any():
        return found
    chosen = judged.nonzero()[:, 0]
    shown = {name: filled(row.pictures[chosen], case, chosen) for name, row in rows.items()}
    true = case.target.pictures[chosen]
    if panel.stlpips is not None:
        device = device_of(panel.stlpips)
        on_device = {name: pictures.to(device) for name, pictures in shown.items()}
        for name, values in distances(panel.stlpips, on_device, true.to(device)).items():
            found[name]["st_lpips"] = on_frames(values, judged, rows[name].present)[case.first :]
    if panel.lpips is not None:
        device = device_of(panel.lpips.model)
        for name, pictures in shown.items():
            values = panel.lpips.distances(pictures.to(device), true.to(device))
            found[name]["lpips"] = on_frames(values, judged, rows[name].present)[case.first :]
    return found


def features(panel: Panel, rows: dict[str, Row], case: Prepared) -> dict[str, Tensor]:
    """ "ROW/KIND" -> (n, D) fp16 of every row and of the truth; a row's frames are those of FEATURES that it has.

    {} without truth, or without a network.
    """
    if not case.exact:
        return {}
    found: dict[str, Tensor] = {}
    chosen = torch.tensor(some(len(case), case.first))
    shown = {TRUTH: case.target.pictures[chosen]}
    for name, row in rows.items():
        there = chosen[row.present[chosen]]
        if len(there):
            shown[name] = filled(row.pictures[there], case, there)
    for name, pictures in shown.items():
        first, number = unique(pictures)
        pictures = pictures[first]
        if panel.stlpips_vgg is not None:
            own = stlpips_features(panel.stlpips_vgg, pictures.to(device_of(panel.stlpips_vgg)))
            found[f"{name}/stlpips_vgg"] = own.cpu()[number].half()
        if panel.inception is not None:
            own = panel.inception.features(pictures.to(device_of(panel.inception.model)))
            found[f"{name}/inception"] = own.cpu()[number].half()
    return found


def some(frames: int, first: int) -> list[int]:
    """FEATURES of the frames from `first` on, or all, equally far apart, the last included."""
    count = frames - first
    return sorted({first + round((count - 1) * (k + 1) / FEATURES) for k in range(FEATURES)})


def on_frames(values: Tensor, judged: Tensor, there: Tensor) -> Values:
    """Values of the judged frames as those of all frames (L); None elsewhere, and where `there` (L,) bool says no."""
    left = iter(values.tolist())
    found = [next(left) if looked else None for looked in judged.tolist()]
    return where(found, there)
