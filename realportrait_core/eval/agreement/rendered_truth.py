"""Exact expression and head pose of rendered clips, in the conventions of the offline estimator."""

import zipfile
from pathlib import Path

import numpy as np
import torch

from ...errors import InputError
from ..judges.blendshapes import NAMES
from ..judges.estimators import FaceParameters
from ..judges.head_pose import angles_of

READ = ("expr", "R", "camyaw", "bodyyaw")


def rendered_parameters(path: str | Path) -> FaceParameters:
    """Of every frame of a clip of rendered_heads, from the .npz beside it: the 51 coefficients of `blendshapes.NAMES`, and pitch,
    yaw, roll of the head as the camera sees it. InputError where the file is missing or holds something else."""
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            expression, head, camera, body = (torch.from_numpy(np.asarray(arrays[name], np.float64)) for name in READ)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is not the ground truth of a rendered clip, an .npz with {', '.join(READ)} ({error}).") from error
    if expression.ndim != 2 or expression.shape[1] <= len(NAMES) or head.shape != (len(expression), 3, 3):
        shapes = f"{tuple(expression.shape)} and {tuple(head.shape)}"
        raise InputError(f"{path}: expr must be (frames, 52) and R (frames, 3, 3); they are {shapes}.")
    about = camera + body / 2  # of the vertical: half of the body's own turn is in the camera's
    cos, sin, zero, one = about.cos(), about.sin(), about.new_zeros(()), about.new_ones(())
    view = torch.stack([cos, zero, sin, zero, one, zero, -sin, zero, cos]).reshape(3, 3)
    found = torch.ones(len(expression), dtype=torch.bool)
    return FaceParameters(expression[:, : len(NAMES)].float(), angles_of(view @ head).float(), found)
