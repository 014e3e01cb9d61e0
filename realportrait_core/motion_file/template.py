"""LivePortrait's motion templates (.pkl): scale, R, exp and t of every frame, in an unknown crop."""

import math
from pathlib import Path

import numpy as np
import torch

from ..animation.driving_motion import DrivingMotion
from ..errors import InputError
from ..face.crop import CROP
from ..vid2vid.retarget import MotionParameters
from . import FASTEST, check_motion
from .pickled import LARGEST, Array, read_pickle

ROTATIONS = ("R", "R_d")  # newer and older templates
USUAL_FPS = 25
MOST_NUMBERS = 2**24  # of all frames of one array, which a small pickle can repeat very often: 3 hours of 21 keypoints


def numbers(frame: dict, names: tuple[str, ...], index: int) -> np.ndarray:
    """The first of the named arrays of a frame, as it lies in the file. InputError where it has none."""
    for name in names:
        value = frame.get(name)
        if isinstance(value, Array) and value.value is not None:
            return value.value
    raise InputError(f"Frame {index} has no array {' or '.join(names)}.")


def stacked(frames: list[dict], names: tuple[str, ...], shape: tuple[int, ...]) -> torch.Tensor:
    """(L, *shape) float32; -1 in the shape is inferred from the first frame. Raises InputError where sizes differ."""
    arrays = [numbers(frame, names, index) for index, frame in enumerate(frames)]
    size, fixed = arrays[0].size, abs(math.prod(shape))
    if len(frames) * size > MOST_NUMBERS:
        raise InputError(f"Its {len(frames)} frames of the array {names[0]} are more than {MOST_NUMBERS} numbers.")
    odd = [index for index, array in enumerate(arrays) if array.size != size]
    if odd or size == 0 or size % fixed or (-1 not in shape and size != fixed):
        raise InputError(f"The array {names[0]} of frame {odd[0] if odd else 0} has {arrays[odd[0] if odd else 0].size} numbers.")
    with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite, which is refused
        rows = np.stack([array.astype(np.float32).reshape(-1) for array in arrays])
    return torch.from_numpy(rows).reshape(len(rows), *shape)


def template_motion(template) -> DrivingMotion:
    """A template, as `read_pickle` returns it, as a driving motion. Raises InputError where it is none."""
    frames = template.get("motion") if isinstance(template, dict) else None
    if not isinstance(frames, list) or not frames or not all(isinstance(frame, dict) for frame in frames):
        raise InputError("It has no list 'motion' of frames, as LivePortrait's templates have.")
    count = template.get("n_frames", len(frames))
    if not isinstance(count, (int, np.integer)) or count != len(frames):
        given = int(count) if isinstance(count, (int, np.integer)) and abs(int(count)) < 2**62 else "no such number"
        raise InputError(f"It has {len(frames)} frames, but its n_frames is {given}.")
    fps = template.get("output_fps", USUAL_FPS)
    if isinstance(fps, bool) or not isinstance(fps, (int, float, np.integer, np.floating)) or not 0 <= fps <= FASTEST:
        raise InputError(f"Its output_fps is no number of 0 to {FASTEST:g}.")
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
        with path.open("rb") as file:
            return template_motion(read_pickle(file.read(LARGEST + 1)))  # read_pickle refuses what has more bytes
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}.") from error
    except InputError as error:
        raise InputError(f"{path} is not a motion template that can be used. {error}") from error
