"""What networks see in a video: M its keypoints and head rotations, the judges its face, landmarks, parameters and embedding.

Every network sees each picture once; frames that are equal, as those of a static portrait, count as one picture.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...face.detect import FaceDetector
from ...vid2vid.motion import MotionExtractor
from ..judges.estimators import Estimator, FaceParameters
from ..judges.loading import find_points
from ..judges.recognition import Recognition
from ..metrics.frames import keypoints_and_rotations
from ..repeats import unique


@dataclass(frozen=True)
class Observed:
    """A video of L frames, of which the judges saw those that are `judged`."""

    keypoints: Tensor  # (L, K, 2) px, M's
    rotation: Tensor  # (L, 3, 3), M's
    judged: Tensor  # (L,) bool
    found: Tensor  # (L,) bool: judged, and the detector found a face
    landmarks: Tensor | None = None  # (L, 478, 3) px, 0 where no face was found; None: no landmarker
    parameters: FaceParameters | None = None  # of these
    embeddings: Tensor | None = None  # (L, D), 0 where no face was found; None: no recognition network


def observe(
    motion: MotionExtractor,
    detector: FaceDetector,
    estimator: Estimator | None,
    recognition: Recognition | None,
    pictures: Tensor,
    expected: Tensor,
    to_crop: Tensor,
    judged: Tensor,
) -> Observed:
    """pictures (L, 3, H, W) in [0, 1]; expected (L, 5, 2) px: where the face should be, of several the nearest counts; to_crop
    (3, 3) px -> M's crop; judged (L,) bool: the frames that detector, estimator and recognition see.
    """
    first, number = unique(pictures)
    pictures, expected = pictures[first], expected[first]  # (U, ...), each picture once
    keypoints, rotation = keypoints_and_rotations(motion, pictures, to_crop)
    wanted = torch.zeros(len(first), dtype=torch.bool)
    if estimator is not None or recognition is not None:
        wanted[number[judged]] = True
    present = torch.zeros_like(wanted)
    points, present[wanted] = find_points(detector, pictures[wanted], expected[wanted])
    five = expected.clone()
    five[wanted] = points

    found = judged & present[number]
    landmarks = parameters = embeddings = None
    if estimator is not None:
        landmarks = estimator.landmarks(pictures, five, present)[number]
        parameters = estimator.parameters(landmarks, found)
    if recognition is not None and bool(present.any()):
        there = recognition.embed(pictures[present], five[present])  # (F, D)
        embeddings = there.new_zeros(len(first), there.shape[1])
        embeddings[present] = there
        embeddings = embeddings[number]
    return Observed(keypoints[number], rotation[number], judged, found, landmarks, parameters, embeddings)
