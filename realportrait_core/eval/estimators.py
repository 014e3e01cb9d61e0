"""Expression and head pose of the faces in pictures, and the L1 distance of these parameters, as in the paper's Table 2.

The paper estimates both by SMIRK (`smirk.py` reads what it wrote). Offline: 51 blendshape coefficients (`blendshapes.py`) and
three angles by a fit of the canonical face (`head_pose.py`), both from MediaPipe's landmarks. Never part of a loss.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import InputError
from ..face.landmarks import FaceLandmarker
from .blendshapes import Blendshapes
from .head_pose import HeadPose, load_head_pose
from .record import Values


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

    def __getitem__(self, frames: slice) -> "FaceParameters":
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
        points = torch.zeros(len(pictures), 478, 3)
        for frame in found.nonzero()[:, 0].tolist():
            points[frame] = self.landmarker.points(pictures[frame].movedim(0, -1), five[frame])
        return self.parameters(points, found)

    def parameters(self, points: Tensor, found: Tensor) -> FaceParameters:
        """Of landmarks (L, 478, 3) px; zeros where no face was found."""
        raise NotImplementedError


def load_estimator(landmarker: str | Path, canonical: str | Path) -> Estimator:
    """From face_landmarker.task and canonical_face_model.obj, both MediaPipe's. WeightsError, InputError where one is missing."""
    return Estimator(FaceLandmarker(landmarker), Blendshapes(landmarker), load_head_pose(canonical))


def parameter_errors(a: FaceParameters, b: FaceParameters) -> dict[str, Values]:
    """L1 distance of each frame's parameters: "expression_l1" (mean of E) and "pose_l1" (mean of three, radians).

    Of driving and result, as in the paper: absolute, so it also counts what the two people's resting faces differ by.
    None where one of them shows no face. InputError where frames or parameters differ in number.
    """
    raise NotImplementedError


def change_errors(result: FaceParameters, portrait: FaceParameters, driving: FaceParameters) -> dict[str, Values]:
    """As parameter_errors, of the change from the portrait (1 frame) in the result, and from frame 0 in the driving video:
    "expression_change_l1" and "pose_change_l1". Relative transfer is asked for this, not for the driving person's own pose.
    """
    raise NotImplementedError
