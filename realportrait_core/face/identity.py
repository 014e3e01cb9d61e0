"""Who is who among several faces, from frame to frame: by the place of a face, and by its look where the place misleads.

Place alone takes the other person where two pass each other, swap places, or one hides the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F

from .detect import Face

SAME_IOU = 0.2  # least overlap of a face with its last box
SIDE = 8  # px, side of a look
CLEAR = 0.7  # one look is clearly the nearer one where its distance is below this share of the other's
NOISE = 0.01  # distance that says nothing, so that equal looks are told apart by nothing


def iou(a: Face, b: Face) -> float:
    """Intersection over union of two boxes."""
    low = torch.maximum(a.box[:2], b.box[:2])
    high = torch.minimum(a.box[:2] + a.box[2:], b.box[:2] + b.box[2:])
    common = float((high - low).clamp(min=0).prod())
    return common / (a.area + b.area - common)


def is_same(last: Face, face: Face) -> bool:
    """Whether a face may be the last one a few frames later: overlap and a similar size."""
    return iou(last, face) >= SAME_IOU and 0.4 < face.area / last.area < 2.5


def look(picture: np.ndarray, face: Face) -> torch.Tensor:
    """The face's box in picture (H, W, 3) uint8, averaged to (3, SIDE, SIDE) in [0, 1]."""
    height, width = picture.shape[:2]
    x, y, w, h = face.box.tolist()
    left, top = min(max(int(x), 0), width - 1), min(max(int(y), 0), height - 1)
    right, bottom = max(min(int(x + w), width), left + 1), max(min(int(y + h), height), top + 1)
    part = torch.from_numpy(picture[top:bottom, left:right]).permute(2, 0, 1) / 255.0
    return F.adaptive_avg_pool2d(part, SIDE)


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().mean()) + NOISE


@dataclass(frozen=True)
class Seen:
    """A face of a frame and its look (3, SIDE, SIDE)."""

    face: Face
    look: torch.Tensor


@dataclass
class Identity:
    """The followed face as it was seen last, and the others that were seen beside it."""

    own: Seen | None = None
    others: list[Seen] = field(default_factory=list)

    def likeness(self, seen: Seen) -> float:
        """The look's distance from the followed face's, as a share of that from the nearest other's; 1 where there is no other.

        Below CLEAR it is clearly the followed face, above 1 / CLEAR clearly another.
        """
        if self.own is None or not self.others:
            return 1.0
        return distance(seen.look, self.own.look) / min(distance(seen.look, other.look) for other in self.others)

    def another(self, seen: Seen) -> bool:
        """Whether it clearly is one of the others."""
        return self.likeness(seen) > 1 / CLEAR

    def find(self, last: Face, faces: Sequence[Seen], cut: bool) -> Seen | None:
        """The followed face, `last` seen there, among those of a frame, or None.

        It is where it was, unless it looks more like somebody else; after a cut, or where nobody is there, it is whoever clearly
        looks like it, or who is left where all the others are known.
        """
        there = [seen for seen in faces if is_same(last, seen.face) and (cut or not self.another(seen))]
        placed = max(there, key=lambda seen: iou(last, seen.face), default=None)
        alike = min(faces, key=self.likeness)
        least = self.likeness(alike)
        if placed is not None and not cut:
            recognised = least < 1 < self.likeness(placed) and least < CLEAR * self.likeness(placed)
        else:
            left = len(faces) > len(self.others) and all(self.another(seen) for seen in faces if seen is not alike)
            recognised = least < CLEAR or (least < 1 and left)
        return alike if recognised else placed

    def learn(self, followed: Seen | None, faces: Sequence[Seen]) -> None:
        """Keeps the looks of a frame's faces, one of which is the followed one; None where it is missing.

        Where one hides the other, the look is a mixture of both, and is kept only if it clearly is the followed one's.
        """
        beside = [seen for seen in faces if seen is not followed]
        if followed is None:
            self.others = [next((s for s in beside if is_same(other.face, s.face)), other) for other in self.others]
            return
        apart = bool(beside) and all(iou(followed.face, seen.face) == 0 for seen in beside)
        if apart or not self.others or self.likeness(followed) < CLEAR:
            self.own = followed
        if apart:
            self.others = beside
