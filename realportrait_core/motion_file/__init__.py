"""Motion files: the motion of a driving video in safetensors, for any portrait.

    rotation (L, 3, 3)   expression (L, K, 3)   scale (L, 1)   translation (L, 3)   float32, x = s (x_c R + delta) + t
    present (L,) bool    crop (3, 3) float64, driving frame px -> crop px of 512
    canonical (L, K, 3)  points (L, 5, 2) px    float32, both optional: the portrait's are used instead

The metadata entry "realportrait" is JSON: role "motion", version 1, and as config the fields of `MotionInfo`.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import torch

from ..animation.driving_motion import DrivingMotion
from ..checkpoint import bundle_metadata, config_from_fields, read_bundle_metadata, read_header, read_safetensors, save
from ..errors import InputError, WeightsError
from ..vid2vid.retarget import MotionParameters

ROLE = "motion"
NUMBERS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
OPTIONAL = ("canonical", "points")
FINGERPRINT = re.compile("([0-9a-f]{16})?")
ROUNDING = 1e-2  # tolerance of R R^T = 1, for rotations that were kept in fp16
MOST_FRAMES = 1_000_000  # 11 hours at 25 a second, 0.7 GB with 21 keypoints
MOST_KEYPOINTS = 1024
LARGEST_SIDE = 65536  # px of the driving frames
FASTEST = 1000.0  # frames a second
MOST_PIXELS = 1e7  # of a face point and of the crop's affine, in either direction
SMALLEST_SCALE = 1e-3  # of a head, which has about 1, and px between face points
LARGEST_NUMBER = 1e3  # of the others; keypoints lie within a few units


@dataclass(frozen=True)
class MotionInfo:
    """The config in a motion file's metadata."""

    frames: int
    keypoints: int  # K
    fps: float
    height: int  # px of the driving frames
    width: int
    encoder: str  # fingerprint of the M that predicted it; empty where it is not known


def shapes_of(frames: int, k: int) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor of a file."""
    return {
        "rotation": (frames, 3, 3),
        "expression": (frames, k, 3),
        "scale": (frames, 1),
        "translation": (frames, 3),
        "present": (frames,),
        "crop": (3, 3),
        "canonical": (frames, k, 3),
        "points": (frames, 5, 2),
    }


def tensors_of(driver: DrivingMotion) -> dict[str, torch.Tensor]:
    """The file's tensors by name, without unknown ones."""
    tensors = {
        "rotation": driver.motion.rotation.float(),
        "expression": driver.motion.expression.float(),
        "scale": driver.motion.scale.float(),
        "translation": driver.motion.translation.float(),
        "present": driver.present.bool(),
        "crop": driver.crop.double(),
        "canonical": driver.canonical if driver.canonical is None else driver.canonical.float(),
        "points": driver.points if driver.points is None else driver.points.float(),
    }
    return {name: value for name, value in tensors.items() if value is not None}


def check_shapes(about: MotionInfo, shapes: dict[str, tuple[int, ...]]) -> None:
    """Raises InputError unless these are the tensors of a motion of about.frames frames and about.keypoints keypoints."""
    sides, sizes = (about.height, about.width), (about.frames, about.keypoints, about.height, about.width)
    if min(sizes) < 1 or about.frames > MOST_FRAMES or about.keypoints > MOST_KEYPOINTS or max(sides) > LARGEST_SIDE:
        raise InputError(
            f"Its header gives {about.frames} frames, {about.keypoints} keypoints and driving frames of {about.width}x"
            f"{about.height} px; none of these can be below 1, or above {MOST_FRAMES} frames, {MOST_KEYPOINTS} keypoints and "
            f"{LARGEST_SIDE} px."
        )
    if not 0 < about.fps <= FASTEST:
        raise InputError(f"Its frame rate is {about.fps}; it must be above 0 and at most {FASTEST:g}.")
    if not FINGERPRINT.fullmatch(about.encoder):
        raise InputError("Its fingerprint of the Face Vid2vid must be 16 hexadecimal digits, or empty where it is not known.")
    wanted = shapes_of(about.frames, about.keypoints)
    missing = [name for name in wanted if name not in shapes and name not in OPTIONAL]
    unknown = sorted(set(shapes) - set(wanted))
    wrong = [f"{name} is {shapes[name]}, not {shape}" for name, shape in wanted.items() if shapes.get(name, shape) != shape]
    if missing or unknown or wrong:
        faults = [f"{', '.join(missing)} missing"] * bool(missing) + [f"{', '.join(unknown[:5])} not known"] * bool(unknown) + wrong
        raise InputError(f"Its tensors are not those of {about.frames} frames of {about.keypoints} keypoints: {'; '.join(faults)}.")


def check_values(tensors: dict[str, torch.Tensor]) -> None:
    """Raises InputError unless all numbers are finite and of a motion's size, rotations orthogonal, scales and the crop above 0."""
    for name, value in tensors.items():
        if value.dtype not in ({torch.bool} if name == "present" else NUMBERS):
            raise InputError(f"Its {name} is of the type {value.dtype}.")
        bad = value.numel() - int(torch.isfinite(value).sum())
        if bad:
            raise InputError(f"{bad} of the {value.numel()} values of its {name} are not finite numbers.")
        most = MOST_PIXELS if name in ("points", "crop") else LARGEST_NUMBER
        if value.is_floating_point() and not float(value.abs().max()) <= most:
            raise InputError(f"The largest value of its {name} is {float(value.abs().max()):g}; at most {most:g} are possible.")
    rotation = tensors["rotation"].double()
    off = (rotation @ rotation.mT - torch.eye(3, dtype=torch.float64)).abs().amax((1, 2))
    bad = (off > ROUNDING) | (torch.linalg.det(rotation) < 0)
    if bad.any():
        raise InputError(f"{int(bad.sum())} of its {len(bad)} rotations are none, that of frame {int(bad.nonzero()[0])} first.")
    if not (tensors["scale"] >= SMALLEST_SCALE).all():
        raise InputError(f"Its smallest scale is {float(tensors['scale'].min()):g}; all must be at least {SMALLEST_SCALE:g}.")
    if "points" in tensors:  # a face without extent has no facial mask: the portrait would stand still there
        points = tensors["points"].double()
        together = (points.amax(1) - points.amin(1)).amax(1) < SMALLEST_SCALE
        if together.any():
            raise InputError(
                f"The five face points of {int(together.sum())} of its {len(points)} frames lie on one spot, those of frame "
                f"{int(together.nonzero()[0])} first. A file without 'points' takes the portrait's."
            )
    if not float(torch.linalg.det(tensors["crop"][:2, :2].double())) > 0 or tensors["crop"][2].tolist() != [0.0, 0.0, 1.0]:
        raise InputError("Its 'crop' is no affine that can be turned back.")
    back = torch.linalg.inv(tensors["crop"].double()).abs().max()
    if not float(back) <= MOST_PIXELS:
        raise InputError(f"Its 'crop' is no affine that can be turned back: the inverse has the value {float(back):g}.")


def check_motion(driver: DrivingMotion) -> MotionInfo:
    """The config for this motion's file. Raises InputError for a motion that could not be loaded again."""
    k = driver.motion.expression.shape[1] if driver.motion.expression.ndim == 3 else 0
    height, width = driver.size
    about = MotionInfo(len(driver), k, float(driver.fps), int(height), int(width), driver.encoder)
    tensors = tensors_of(driver)
    check_shapes(about, {name: tuple(value.shape) for name, value in tensors.items()})
    check_values(tensors)
    return about


def save_motion(path: str | os.PathLike, driver: DrivingMotion) -> None:
    """Writes a motion file atomically. Raises InputError for an invalid motion, or where it cannot be written."""
    try:
        about = check_motion(driver)
        save(path, tensors_of(driver), bundle_metadata(ROLE, about))
    except WeightsError as error:
        raise InputError(f"The motion was not saved. {error}") from error
    except InputError as error:
        raise InputError(f"This motion cannot be saved. {error}") from error


def load_motion(path: str | os.PathLike) -> DrivingMotion:
    """Reads a motion file. Header and values are checked; raises InputError where they are wrong."""
    try:
        header = read_header(path)
        values = read_bundle_metadata(header.metadata, ROLE)
        if values is None:
            raise InputError(
                "Its header does not mark it as one. Save RealPortrait Motion writes motion files; `python -m "
                "realportrait_core.motion_file convert` makes them of LivePortrait's templates."
            )
        about = config_from_fields(MotionInfo, values)
        check_shapes(about, header.shapes)
        tensors, _ = read_safetensors(path)
        check_values(tensors)
    except (WeightsError, InputError, TypeError) as error:
        raise InputError(f"{Path(path).name} cannot be used as a motion file. {error}") from error
    return DrivingMotion(
        motion=MotionParameters(*(tensors[name].float() for name in ("rotation", "expression", "scale", "translation"))),
        canonical=tensors["canonical"].float() if "canonical" in tensors else None,
        points=tensors["points"].float() if "points" in tensors else None,
        crop=tensors["crop"].double(),
        present=tensors["present"],
        size=(about.height, about.width),
        fps=float(about.fps),
        encoder=about.encoder,
    )
