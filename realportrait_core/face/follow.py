"""One face followed through a camera's frames as they come; `track.py` does it for a whole video that is there already."""

from dataclasses import dataclass, field

import torch

from .crop import CROP, Square, face_square, square_to_crop
from .detect import Face, FaceDetector
from .identity import iou, is_same
from .track import choose

SLACK = 0.08  # of the crop's side: the crop is held while the face's own square is off by less
FOLLOW = 0.3  # share of the way that the crop then moves at each detection
PATIENCE = 5  # detections without the face after which another face may replace it


@dataclass
class FaceFollower:
    """The crop of one face, from frame to frame. The face is looked for in every `every`th frame, in all of them while it is lost.

    Between, and while the face stays near its place, the crop is held: head motion is then in the keypoints alone.
    """

    detector: FaceDetector
    every: int = 4  # frames
    choice: str | int = "largest"  # of the first face, as in `track`
    _face: Face | None = field(default=None, init=False)
    _square: Square | None = field(default=None, init=False)
    _age: int = field(default=0, init=False)  # frames since the last detection
    _missed: int = field(default=0, init=False)  # detections without the face

    def reset(self) -> None:
        """Forgets the face: the next frame is the first."""
        self._face, self._square, self._age, self._missed = None, None, 0, 0

    def crop(self, picture: torch.Tensor) -> torch.Tensor | None:
        """picture (H, W, 3) in [0, 1] -> (3, 3) float64, frame px -> crop px; None where the face is not seen.

        Raises FaceError for a choice of a face that is not there.
        """
        self._age += 1
        if self._square is None or self._missed or self._age >= self.every:
            self._detect(picture)
        if self._square is None or self._missed:
            return None
        return square_to_crop(self._square, CROP, rotate=False)

    def _detect(self, picture: torch.Tensor) -> None:
        self._age = 0
        faces, face = self.detector.detect(picture), None
        if self._face is not None:
            same = [other for other in faces if is_same(self._face, other)]
            face = max(same, key=lambda other: iou(self._face, other), default=None)
        if face is None and faces and (self._face is None or self._missed >= PATIENCE):
            face, self._square = choose(faces, self.choice, "the frame"), None
        if face is None:
            self._missed += 1
            return
        self._face, self._missed = face, 0
        found = face_square(face.points, scale=2.2, vy=-0.1)  # the crop of driving videos
        self._square = found if self._square is None else followed(self._square, found)


def followed(held: Square, found: Square) -> Square:
    """The held square, moved towards the found one where that has left it."""
    off = float((found.center - held.center).norm() / held.size)
    grown = abs(float((found.size / held.size).log()))
    if max(off, grown) < SLACK:
        return held
    center, size = torch.lerp(held.center, found.center, FOLLOW), torch.lerp(held.size, found.size, FOLLOW)
    return Square(center, size, found.ux, found.uy)
