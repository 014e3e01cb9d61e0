"""The filters of the paper's data: "low resolution, facial occlusion, excessive background motion, and extremely low lighting".

The paper gives no numbers. Each of ours is measured, compared with a threshold, and kept with the sample.
"""

from dataclasses import dataclass, field, fields

import numpy as np
import torch

from ...errors import InputError
from ...face.crop import face_axes, face_ellipse, face_square
from ...face.detect import Face
from ...motion_map import ellipse_mask, pixels

FACE_SHARE = 0.3  # of the frame's side: the least face_side where the user names none
MOTION_SIDE = 256  # px, side to which the sample's square is scaled before its background is tracked
MOTION_LONGEST = 960  # px, most of the scaled picture's long side
CORNERS, FEWEST = 200, 12  # corners tracked in the background, and the fewest that give a measurement
CELLS, LEAST_COVERAGE = 8, 0.4  # cells along the picture's long side, and the least share of them that must have a corner
TEXTURE = 2e-4  # least eigenvalue of a corner, of grey values in [0, 1]: below, it may be the codec's noise
RETURNED = 0.5  # px, largest error of a corner that is tracked forth and back
TOO_FAST = 40.0  # px of MOTION_SIDE, reported where the background has corners and they cannot be tracked


def limit(default: float, reason: str, least: bool, unit: str, help: str):
    return field(default=default, metadata={"reason": reason, "least": least, "unit": unit, "help": help})


@dataclass(frozen=True)
class Filters:
    """The thresholds. A segment or image of which one number is beyond its own is left out."""

    face_side: float = limit(
        77.0,
        "low resolution",
        True,
        "px",
        "least side of the face (its 68 landmarks' extent) in the source, before any resizing; the median over the frames. "
        "0.3 of the sample's side by default: a face of less has no eyes or teeth to learn from",
    )
    enlargement: float = limit(
        1.4,
        "low resolution",
        False,
        "times",
        "by how much the source's pixels may be enlarged to fill the sample's square: more teaches blur",
    )
    score: float = limit(
        0.75,
        "facial occlusion",
        True,
        "",
        "least of the detector's confidences in the face over the frames. Rendered faces have 0.84 to 0.95, with one half "
        "covered 0.69 to 0.88: it finds the worst cases, but not a hand before the mouth (0.87 to 0.91)",
    )
    missing: float = limit(
        0.1,
        "facial occlusion",
        False,
        "of the frames",
        "share of frames in which the face was not found (at most 5 in a row; more end the segment)",
    )
    misshapen: float = limit(
        0.1, "facial occlusion", False, "of the frames", "share of frames whose five points cannot be those of a face"
    )
    background: float = limit(
        1.5,
        "moving background",
        False,
        "px a frame",
        "motion of what is neither head nor body, in px of the sample, 9th decile over the frames of the median over the "
        "picture: camera motion counts, a passer-by does not. The motion maps do not contain it, so it would be learned as noise",
    )
    face_light: float = limit(
        0.1,
        "low lighting",
        True,
        "",
        "least mean luma of the face, 0 to 1. It measures skin as much as light: a higher bound leaves out dark skin first",
    )
    frame_light: float = limit(0.05, "low lighting", True, "", "least mean luma of the whole square, 0 to 1")
    repeated: float = limit(
        0.1,
        "low frame rate",
        False,
        "of the frames",
        "share of frames that only repeat the one before, because the source has fewer a second than the model is trained at",
    )

    def __post_init__(self):
        for entry in fields(self):
            if not 0 <= getattr(self, entry.name) < float("inf"):
                raise InputError(f"The threshold {entry.name} is {getattr(self, entry.name)}; it must be a number from 0 on.")

    @classmethod
    def for_size(cls, size: int, named: dict[str, float]) -> "Filters":
        """The defaults for samples of size x size px, except for the thresholds that the user has given."""
        return cls(**{"face_side": round(FACE_SHARE * size, 1)} | named)

    def refuse(self, measured: dict[str, float]) -> tuple[str, str] | None:
        """(reason, sentence with the numbers) for the first measured number beyond its threshold, or None."""
        for entry in fields(self):
            if entry.name not in measured:
                continue
            value, bound, least = measured[entry.name], getattr(self, entry.name), entry.metadata["least"]
            if value < bound if least else value > bound:
                value_text = f"{entry.name} {value:.3g} {entry.metadata['unit']}".rstrip()
                return entry.metadata["reason"], f"{value_text}; at {'least' if least else 'most'} {bound:g} passes"
        return None


# Low resolution


def face_side(points: torch.Tensor) -> float:
    """Points (T, 5, 2) px of the source -> the median side of the face, px."""
    return float(face_square(points, scale=1.0, vy=0.0).size.median())


def enlargement(square: torch.Tensor) -> float:
    """(3, 3) source px -> frame px: how many px of the frame a px of the source becomes, along a side."""
    return float(torch.linalg.det(square[:2, :2]).sqrt())


# Facial occlusion


def occlusion(faces: list[Face | None]) -> dict[str, float]:
    """score, missing and misshapen of the faces of T frames, at least one of which is there."""
    found = [face for face in faces if face is not None]
    plain = plausible(torch.stack([face.points for face in found]))
    return {
        "score": min(face.score for face in found),
        "missing": 1 - len(found) / len(faces),
        "misshapen": 1 - int(plain.sum()) / len(found),
    }


def plausible(points: torch.Tensor) -> torch.Tensor:
    """(..., 5, 2) -> (...) bool: eyes, nose and mouth corners lie as in a face seen from anywhere in front.

    In 68 frames of rendered heads up to a profile, along the face's own axes: the mouth lies 0.9 to 3.0 eye distances below
    the eyes, is 0.5 to 0.9 wide, the nose at 0.44 to 0.63 of the way and up to 1.3 beside it. The bounds leave room for more.
    """
    points = points.double()
    eyes, mouth, ux, uy = face_axes(points)

    def across(vector: torch.Tensor) -> torch.Tensor:
        return (vector * ux).sum(-1)

    height = (mouth - eyes).norm(dim=-1)
    width, lips = across(points[..., 1, :] - points[..., 0, :]), across(points[..., 4, :] - points[..., 3, :])
    nose = points[..., 2, :] - eyes
    down = (nose * uy).sum(-1)
    return (
        (width > 0)
        & (lips > 0.15 * width)
        & (lips < 1.6 * width)
        & (height > 0.5 * width)
        & (height < 4.5 * width)
        & (down > 0.15 * height)
        & (down < 0.95 * height)
        & (across(nose).abs() < 2 * width)
    )


# Moving background


class BackgroundMotion:
    """Tracks the background of a segment from frame to frame: in whole pictures, since most of it lies beside the square."""

    def __init__(self, square: torch.Tensor, size: int, height: int, width: int):
        """square (3, 3): px of a height x width picture -> px of the sample's frame of `size` px."""
        self.zoom = enlargement(square)
        self.factor = min(1.0, self.zoom * MOTION_SIDE / size, MOTION_LONGEST / max(height, width))
        self.steps: list[float] = []
        self.before = None

    def add(self, picture: np.ndarray, points: torch.Tensor, fresh: bool) -> None:
        """The next picture (H, W, 3) uint8 and the face's points (5, 2) px in it. A repeated picture is skipped."""
        import cv2

        if not fresh and self.before is not None:
            return
        grey = cv2.resize(
            cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), None, fx=self.factor, fy=self.factor, interpolation=cv2.INTER_AREA
        )
        people = person((points + 0.5) * self.factor - 0.5, *grey.shape)
        if self.before is not None:
            step = background_step(self.before[0], grey, people | self.before[1])
            if step is not None:
                self.steps.append(step / self.factor * self.zoom)
        self.before = grey, people

    def value(self) -> float:
        """px of the frame a step, the 9th decile; 0 where no step could be measured."""
        return float(np.quantile(self.steps, 0.9)) if self.steps else 0.0


def person(points: torch.Tensor, height: int, width: int) -> np.ndarray:
    """(height, width) bool: where the head, its hair and the body below may be, from five points (5, 2) px."""
    square = face_square(points, scale=1.0, vy=0.0)
    (x, y), side = square.center.tolist(), float(square.size)
    across = np.abs(np.arange(width)[None] - x)
    down = np.arange(height)[:, None] - y
    return (across < side) | (across < 2.2 * side) & (down > 0.25 * side)


def background_step(before: np.ndarray, after: np.ndarray, people: np.ndarray) -> float | None:
    """Median motion in px of what lies outside `people` (H, W) bool, between grey pictures (H, W) uint8.

    None where there is nothing to track: a wall without a corner shows no motion, and corners in less than LEAST_COVERAGE of the
    cells are those of hair that reaches out of `people`. Corners are tracked by the method of Lucas and Kanade forth and back.
    """
    import cv2

    outside = np.where(people, 0, 255).astype(np.uint8)
    strength = cv2.cornerMinEigenVal(before.astype(np.float32) / 255, 3)
    best = float(strength[~people].max(initial=0.0))
    if best < TEXTURE:
        return None
    corners = cv2.goodFeaturesToTrack(before, CORNERS, min(1.0, max(0.01, TEXTURE / best)), 6, mask=outside)
    if corners is None or len(corners) < FEWEST or coverage(corners.reshape(-1, 2), people) < LEAST_COVERAGE:
        return None
    there, forth, _ = cv2.calcOpticalFlowPyrLK(before, after, corners, None, winSize=(15, 15), maxLevel=3)
    again, back, _ = cv2.calcOpticalFlowPyrLK(after, before, there, None, winSize=(15, 15), maxLevel=3)
    miss = np.linalg.norm((again - corners).reshape(-1, 2), axis=1)
    good = (forth[:, 0] == 1) & (back[:, 0] == 1) & (miss < RETURNED)
    if good.sum() < max(FEWEST, 0.25 * len(corners)):
        return TOO_FAST
    return float(np.median(np.linalg.norm((there - corners).reshape(-1, 2)[good], axis=1)))


def coverage(corners: np.ndarray, people: np.ndarray) -> float:
    """Share of the cells that lie outside `people` (H, W) in which there is one of the corners (N, 2) px."""
    height, width = people.shape
    cell = -(-max(height, width) // CELLS)
    free = {
        (y, x) for y in range(0, height, cell) for x in range(0, width, cell) if people[y : y + cell, x : x + cell].mean() <= 0.5
    }
    held = {(int(y) // cell * cell, int(x) // cell * cell) for x, y in corners}
    return len(free & held) / max(1, len(free))


# Low lighting


def light(frames: torch.Tensor, points: torch.Tensor) -> dict[str, float]:
    """face_light and frame_light: mean luma (Rec. 601, of values as stored, 0 to 1) of frames (T, S, S, 3) uint8.

    points (T, 5, 2) px.
    """
    from kornia.color import rgb_to_grayscale

    size, face = frames.shape[1], face_ellipse(points)
    x, y = pixels(face, (0, size), (0, size))
    whole, of_face = [], []
    for frame, ellipse in zip(frames, face):
        luma = rgb_to_grayscale(frame.movedim(-1, 0).float() / 255)[0]  # (S, S)
        inside = luma[ellipse_mask(ellipse[None], x, y)[0]]
        whole.append(float(luma.mean()))
        of_face.append(float(inside.mean()) if len(inside) else 0.0)
    return {"face_light": sum(of_face) / len(of_face), "frame_light": sum(whole) / len(whole)}
