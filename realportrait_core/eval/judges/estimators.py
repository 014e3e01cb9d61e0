"""Expression and head pose of the faces in pictures, and the L1 distance of these parameters, as in the paper's Table 2.

The paper estimates both by SMIRK (`smirk.py` reads what it wrote). Offline: 51 blendshape coefficients (`blendshapes.py`) and
three angles by a fit of the canonical face (`head_pose.py`), both from MediaPipe's landmarks. Never part of a loss.
"""

from dataclasses import dataclass
from math import pi
from pathlib import Path

import torch
from torch import Tensor

from ...errors import InputError
from ...face.landmarks import POINTS, FaceLandmarker
from ..values import Values, where
from .blendshapes import NAMES, Blendshapes
from .head_pose import HeadPose, load_head_pose


@dataclass(frozen=True)
class FaceParameters:
    """Of one estimator, for the frames of one clip."""

    expression: Tensor  # (L, E)
    pose: Tensor  # (L, 3) radians
    found: Tensor  # (L,) bool: whether the frame shows a face that could be estimated

    def __post_init__(self) -> None:
        frames = len(self.found)
        if self.expression.ndim != 2 or self.pose.shape != (frames, 3) or len(self.expression) != frames or self.found.ndim != 1:
            shapes = ", ".join(str(tuple(x.shape)) for x in (self.expression, self.pose, self.found))
            raise InputError(f"Face parameters are expression (L, E), pose (L, 3) and found (L,); these are {shapes}.")

    def __len__(self) -> int:
        return len(self.found)

    def __getitem__(self, frames: slice | Tensor) -> "FaceParameters":
        return FaceParameters(self.expression[frames], self.pose[frames], self.found[frames])


@dataclass(frozen=True)
class Estimator:
    """The offline estimator: MediaPipe's landmarks, its blendshapes, and the fit of its canonical face."""

    landmarker: FaceLandmarker
    blendshapes: Blendshapes
    head_pose: HeadPose

    def estimate(self, pictures: Tensor, five: Tensor, found: Tensor) -> FaceParameters:
        """Of pictures (L, 3, H, W) in [0, 1] with five points (L, 5, 2) px, where a face was found (L,) bool: `find_points`."""
        if five.shape != (len(pictures), 5, 2) or found.shape != (len(pictures),):
            raise InputError(
                f"{len(pictures)} pictures need points ({len(pictures)}, 5, 2) and a mask of as many; "
                f"these are {tuple(five.shape)} and {tuple(found.shape)}."
            )
        return self.parameters(self.landmarks(pictures, five, found), found)

    def landmarks(self, pictures: Tensor, five: Tensor, found: Tensor) -> Tensor:
        """MediaPipe's landmarks (L, 478, 3) px, 0 where no face was found; arguments as of `estimate`."""
        points = torch.zeros(len(pictures), POINTS, 3)
        for frame in found.nonzero()[:, 0].tolist():
            points[frame] = self.landmarker.points(pictures[frame].movedim(0, -1), five[frame])
        return points

    def parameters(self, points: Tensor, found: Tensor) -> FaceParameters:
        """Of landmarks (L, 478, 3) px, which are read where found (L,) bool says so; elsewhere the parameters are 0."""
        expression, pose = torch.zeros(len(points), len(NAMES)), torch.zeros(len(points), 3)
        if bool(found.any()):
            expression[found] = self.blendshapes.coefficients(points[found])
            pose[found] = self.head_pose.angles(points[found])
        return FaceParameters(expression, pose, found)


def load_estimator(landmarker: str | Path) -> Estimator:
    """From MediaPipe's face_landmarker.task, which holds the canonical face too. WeightsError where it is missing or another."""
    return Estimator(FaceLandmarker(landmarker), Blendshapes(landmarker), load_head_pose(landmarker))


def parameter_errors(a: FaceParameters, b: FaceParameters) -> dict[str, Values]:
    """L1 distance of each frame's parameters: "expression_l1" (mean of E) and "pose_l1" (mean of three, radians).

    Of driving and result, as in the paper: absolute, so it also counts by what the two people's resting faces differ.
    None where one of them shows no face. InputError where frames or parameters differ in number.
    """
    check_alike(a, b)
    return distances(a, b, "")


def change_errors(result: FaceParameters, portrait: FaceParameters, driving: FaceParameters) -> dict[str, Values]:
    """As parameter_errors, of the result's change from the portrait (1 frame) and the driving video's from its frame 0:
    "expression_change_l1" and "pose_change_l1". Relative motion is asked for this change, not for the driving person's own pose.

    result must be on the driving video's frames from 0. All None where the portrait or frame 0 shows no face.
    """
    check_alike(result, driving)
    if len(portrait) != 1:
        raise InputError(f"The portrait's parameters are of 1 frame, not {len(portrait)}.")
    return distances(change(result, portrait), change(driving, driving[:1]), "change_")


def change(parameters: FaceParameters, start: FaceParameters) -> FaceParameters:
    """Parameters less those of `start` (1 frame)."""
    return FaceParameters(
        parameters.expression - start.expression, parameters.pose - start.pose, parameters.found & bool(start.found[0])
    )


def distances(a: FaceParameters, b: FaceParameters, kind: str) -> dict[str, Values]:
    seen = a.found & b.found
    both = {"expression": (a.expression - b.expression).abs().mean(1), "pose": wrapped(a.pose - b.pose).abs().mean(1)}
    return {f"{name}_{kind}l1": where(values, seen & values.isfinite()) for name, values in both.items()}


def wrapped(angles: Tensor) -> Tensor:
    """Angles in radians between -pi and pi."""
    return torch.remainder(angles + pi, 2 * pi) - pi


def check_alike(a: FaceParameters, b: FaceParameters) -> None:
    if a.expression.shape != b.expression.shape:
        raise InputError(
            f"Parameters of {len(a)} and {len(b)} frames, with {a.expression.shape[1]} and {b.expression.shape[1]} of "
            "expression, cannot be compared: both must come from one estimator, and of the same frames."
        )
