"""SMIRK's parameters of expression and pose (Retsinas et al. 2024), with which the paper's Table 2 was measured, from files.

SMIRK is not part of this pack and its demo writes none of them: `docs/evaluation.md` has the lines that do. FOLDER/ROW/CASE.npz
for the rows and FOLDER/driving/CASE.npz for the driving videos hold one line a frame of what its encoder returns:

    expression_params  (L, 50)  FLAME's expression coefficients
    pose_params        (L, 3)   rotation vector of the head, radians

Frames without a face are NaN. Others of its outputs (jaw_params, eyelid_params, shape_params, cam) may stand beside them and
are not read. Never part of a loss.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...errors import InputError
from .estimators import FaceParameters

DRIVING = "driving"  # the folder of the driving videos, beside one for each row
PORTRAIT = "portrait"  # and of the portraits, of one frame each; optional
WIDTHS = {"expression_params": 50, "pose_params": 3}


@dataclass(frozen=True)
class SmirkFolder:
    """The folder that the user made."""

    path: Path

    def rows(self) -> list[str]:
        """The rows that have parameters, by name. InputError where there is no such folder."""
        if not self.path.is_dir():
            raise InputError(f"{self.path} is no folder: name one with a folder of .npz for each row, and {DRIVING}/ beside them.")
        folders = sorted(entry.parent.name for entry in self.path.glob("*/*.npz"))
        return [name for name in dict.fromkeys(folders) if name not in (DRIVING, PORTRAIT)]

    def parameters(self, row: str, case: str, frames: int) -> tuple[FaceParameters, str | None]:
        """Of `frames` frames of ROW/CASE.npz, and a note where the file holds another number: what is missing counts as not found.

        InputError where the file is missing, damaged or of other shapes.
        """
        read = read_parameters(self.path / row / f"{case}.npz")
        note = None
        if len(read) != frames:
            compared = min(len(read), frames)
            note = (
                f"SMIRK's parameters {row}/{case}.npz are of {len(read)} frames, not {frames}: the first {compared} are compared."
            )
        return padded(read[:frames], frames), note


def read_parameters(path: Path) -> FaceParameters:
    """Of every frame in a file. InputError where it is missing, damaged or of other shapes."""
    if not path.is_file():
        raise InputError(f"{path} is missing: SMIRK's parameters of that video.")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: torch.from_numpy(arrays[name].astype(np.float32)) for name in WIDTHS if name in arrays}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is no .npz of plain arrays ({error}).") from error
    check_shapes(path, found)
    expression, pose = (found[name] for name in WIDTHS)
    seen = torch.isfinite(expression).all(1) & torch.isfinite(pose).all(1)
    return FaceParameters(expression, pose, seen)


def check_shapes(path: Path, arrays: dict[str, Tensor]) -> None:
    missing = [name for name in WIDTHS if name not in arrays]
    if missing:
        raise InputError(f"{path} holds no {' and no '.join(missing)}.")
    wrong = {name: tuple(arrays[name].shape) for name, width in WIDTHS.items() if arrays[name].shape[1:] != (width,)}
    if wrong:
        expected = ", ".join(f"{name} (frames, {width})" for name, width in WIDTHS.items())
        raise InputError(f"{path} must hold {expected}; it holds {', '.join(f'{name} {shape}' for name, shape in wrong.items())}.")
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1 or not all(lengths.values()):
        raise InputError(f"{path} must hold as many frames of each, at least 1: {lengths}.")


def padded(parameters: FaceParameters, frames: int) -> FaceParameters:
    """To a length of `frames`, with frames that are not found."""
    more = frames - len(parameters)
    expression, pose = (
        torch.cat([values, values.new_zeros(more, values.shape[1])]) for values in (parameters.expression, parameters.pose)
    )
    return FaceParameters(expression, pose, torch.cat([parameters.found, parameters.found.new_zeros(more)]))
