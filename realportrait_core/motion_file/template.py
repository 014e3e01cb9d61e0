"""LivePortrait's motion templates (.pkl): scale, R, exp and t of every frame, in an unknown crop."""

from pathlib import Path

import numpy as np
import torch

from ..animation.driving_motion import DrivingMotion
from ..errors import InputError
from ..face.crop import CROP
from ..vid2vid.retarget import MotionParameters
from . import check_motion
from .pickled import Array, read_pickle

ROTATIONS = ("R", "R_d")  # newer and older templates
USUAL_FPS = 25
MOST_NUMBERS = 2**27  # of all frames of one array: a small pickle can repeat an array very often


def numbers(frame: dict, names: tuple[str, ...], index: int) -> torch.Tensor:
    """The first of the named arrays of a frame, flat float32. InputError where it has none."""
    for name in names:
        value = frame.get(name)
        if isinstance(value, Array) and value.value is not None:
            return torch.from_numpy(np.array(value.value, dtype=np.float32).reshape(-1))
    raise InputError(f"Frame {index} has no array {' or '.join(names)}.")


def stacked(frames: list[dict], names: tuple[str, ...], shape: tuple[int, ...]) -> torch.Tensor:
    """(L, *shape) float32; -1 in the shape is inferred from the first frame. Raises InputError where sizes differ."""
    if len(frames) * len(numbers(frames[0], names, 0)) > MOST_NUMBERS:
        raise InputError(f"Its {len(frames)} frames of the array {names[0]} are more than {MOST_NUMBERS} numbers.")
    rows = [numbers(frame, names, index) for index, frame in enumerate(frames)]
    odd = [index for index, row in enumerate(rows) if row.shape != rows[0].shape]
    fixed = abs(int(np.prod(shape)))
    if odd or len(rows[0]) == 0 or len(rows[0]) % fixed or (-1 not in shape and len(rows[0]) != fixed):
        raise InputError(f"The array {names[0]} of frame {odd[0] if odd else 0} has {len(rows[odd[0] if odd else 0])} numbers.")
    return torch.stack(rows).reshape(len(rows), *shape)


def template_motion(template) -> DrivingMotion:
    """A template, as `read_pickle` returns it, as a driving motion. Raises InputError where it is none."""
    frames = template.get("motion") if isinstance(template, dict) else None
    if not isinstance(frames, list) or not frames or not all(isinstance(frame, dict) for frame in frames):
        raise InputError("It has no list 'motion' of frames, as LivePortrait's templates have.")
    count = template.get("n_frames", len(frames))
    if not isinstance(count, (int, np.integer)) or count != len(frames):
        raise InputError(f"It has {len(frames)} frames, but its n_frames is {count!r}.")
    fps = template.get("output_fps", USUAL_FPS)
    if isinstance(fps, bool) or not isinstance(fps, (int, float, np.number)):
        raise InputError("Its output_fps is no number.")
    expression = stacked(frames, ("exp",), (-1, 3))
    canonical = None
    if all(isinstance(frame.get("kp"), Array) for frame in frames):
        canonical = stacked(frames, ("kp",), (-1, 3))
    driver = DrivingMotion(
        motion=MotionParameters(
            rotation=stacked(frames, ROTATIONS, (3, 3)),
            expression=expression,
            scale=stacked(frames, ("scale",), (1,)),
            translation=stacked(frames, ("t",), (3,)),
        ),
        canonical=canonical,
        points=None,
        crop=torch.eye(3, dtype=torch.float64),  # the driving frame is its crop
        present=torch.ones(len(frames), dtype=torch.bool),
        size=(CROP, CROP),
        fps=float(fps),
        encoder="",
    )
    check_motion(driver)
    return driver


def read_template(path: str | Path) -> DrivingMotion:
    """A template file as a driving motion; nothing in it is run. Raises InputError where it is none, or names more than arrays."""
    path = Path(path)
    try:
        return template_motion(read_pickle(path.read_bytes()))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}.") from error
    except InputError as error:
        raise InputError(f"{path} is not a motion template that can be used. {error}") from error
