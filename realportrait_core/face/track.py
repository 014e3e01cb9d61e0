"""One face through a clip: chosen once, tracked by overlap of its boxes, with smoothed points and filled gaps."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from ..errors import FaceError, InputError
from .detect import Face, FaceDetector, checked_image
from .identity import Identity, Seen, iou, look
from .measured import Frames, Measured, known_length

Box = torch.Tensor | Sequence[float]  # (4,) x, y, width, height px

MIN_FACE = 32  # px, shorter side of the box: below, five points are not worth a crop
SMALL_FACE = 64  # px: worth a warning
MOST_RANGES = 20  # of frames in a sentence: a long video may lose its face thousands of times
MAX_GAP = 5  # frames without the face after which another face may replace it
CUT = 0.15  # mean absolute change of the picture that counts as a cut
JUMP_IOU = 0.6  # overlap of the face's boxes across a cut; below, it is another shot, not a flash of light
FADE = 4  # frames of the motion's fade where the face disappears and reappears
REACH = 9  # standard deviations, beyond which the window's weights, below 3e-18, do not count
SMOOTHING = 1.0  # frames, standard deviation of the window. On 10 rendered clips of 12.5 fps against their 3-D
#                         truth it brings the points' error from 1.89 to 1.60 px of 256 and its change from frame to frame
#                         from 1.82 to 0.85 px; 1.5 gives 1.74 and 0.85, a Gaussian mean 1.72 and 0.99.

# YuNet's points in its box, as fractions of width and height: mean of 81 near-frontal rendered faces, symmetric.
NOMINAL = torch.tensor([[0.27, 0.41], [0.73, 0.41], [0.50, 0.61], [0.31, 0.75], [0.69, 0.75]])

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Gaps:
    """The two frames with the face between which each of L frames is interpolated; a frame with the face uses itself."""

    before: torch.Tensor  # (L,) frame number
    after: torch.Tensor  # (L,) frame number
    share: torch.Tensor  # (L,) float32, weight of `after`, 0 .. 1


@dataclass(frozen=True)
class FaceTrack:
    """The tracked face of a clip of L frames."""

    points: torch.Tensor  # (L, 5, 2) float32 px; filled in where the face is missing
    present: torch.Tensor  # (L,) bool
    report: str  # sentences for the user; frames are counted from 0
    cuts: tuple[int, ...] = ()  # frames before which the video is cut to another shot of the face
    motion_weight: torch.Tensor | None = None  # (L,) 0 .. 1, falling where the face is missing; None: 1 everywhere
    gaps: Gaps | None = None  # where poses of frames without the face come from; None: M runs on every frame


def portrait_points(
    image: torch.Tensor | np.ndarray,
    detector: FaceDetector | None,
    choice: str | int = "largest",
    box: Box | None = None,
    given: Sequence[Face] | None = None,
) -> torch.Tensor:
    """The five points (5, 2) of the portrait's face, px.

    image (H, W, 3) in [0, 1] or uint8; choice as in `track`; box (x, y, width, height) px replaces the detector, and so do
    the faces `given`, from left to right.
    Raises FaceError where there is no face, too small a face, or not the face that `choice` asks for.
    """
    picture = checked_image(image)
    height, width = picture.shape[:2]
    if box is not None:
        return nominal_points(box, height, width)
    faces = detector.detect(picture) if given is None else given
    if not faces:
        raise FaceError(
            f"No face was found in the portrait ({width}x{height} px). Use a picture in which the face is seen from the "
            f"front and is at least {MIN_FACE} px wide, or give the face's box by hand."
        )
    face = choose(faces, choice, "the portrait")
    refuse_small(face, "The portrait's face")
    if shorter_side(face) < SMALL_FACE:
        w, h = face.box[2:].tolist()
        logger.warning("The portrait's face is only %.0fx%.0f px, below %d px: expect a coarse result.", w, h, SMALL_FACE)
    if len(faces) > 1:
        logger.warning("The portrait has %d faces; used the one at %s.", len(faces), spot(face))
    return face.points


def track(
    frames: Frames,
    detector: FaceDetector | None,
    choice: str | int = "largest",
    missing_face: str = "hold",
    boxes: torch.Tensor | Sequence | None = None,
    callback: Callable[[int, int], None] | None = None,
    given: Sequence[Sequence[Face]] | None = None,
    video: str = "driving",
) -> FaceTrack:
    """Tracks one face through frames (L, H, W, 3) in [0, 1] or uint8; the track has L frames, too.

    frames may be a FrameStream: it is read once, with one frame in memory at a time.
    choice: "largest", "only" (refuses several), or the number of the face from left to right, from 0. It applies at the
    first frame with a face, after a cut, and where the face was missing for more than MAX_GAP frames; but never to one who stood
    beside the face in the same shot, nor where the face is recognised among several.
    missing_face: "hold" repeats the last pose and points, "interpolate" interpolates between the neighbours, "fade" holds
    them and fades the motion out, "stop" raises FaceError.
    boxes: (4,) or (L, 4) x, y, width, height px of the face replace detector and tracking. given: the faces of each of the L
    frames, from left to right, replace the detector alone. callback(done, total) after each frame; of a stream the total may grow.
    video: "driving" or "portrait", which one it is in the errors' texts.
    Raises FaceError where no face is found or it is too small, InputError for other values.
    """
    if missing_face not in ("hold", "interpolate", "fade", "stop"):
        raise InputError(f"missing_face is {missing_face!r}; it must be 'hold', 'interpolate', 'fade' or 'stop'.")
    pictures = Measured(frames, video)
    if boxes is not None:
        pictures.measure(callback)
        length, (height, width) = pictures.length, pictures.size
        boxes = torch.as_tensor(boxes, dtype=torch.float32)
        if boxes.shape not in ((4,), (length, 4)):
            raise InputError(f"Face boxes must be (4,) or ({length}, 4), one a frame; these are {tuple(boxes.shape)}.")
        points = torch.stack([nominal_points(box, height, width) for box in boxes.expand(length, 4)])
        return FaceTrack(points, torch.ones(length, dtype=torch.bool), f"The face's box was given for all {length} frames.")

    if given is not None and known_length(frames) is not None:
        check_given(given, known_length(frames), video)
    followed, crowd, cuts, jumps = follow(pictures, detector, choice, callback, given, video)
    length, (height, width) = pictures.length, pictures.size
    if given is not None:
        check_given(given, length, video)
    seen = [i for i, face in enumerate(followed) if face is not None]
    missing = [i for i, face in enumerate(followed) if face is None]
    if not seen:
        raise FaceError(
            f"No face was found in any of the {length} {video} frames ({width}x{height} px). Use a video of a face, at "
            f"least {MIN_FACE} px wide, or give the face's box by hand."
        )
    refuse_small(max((followed[i] for i in seen), key=shorter_side), f"The {video} video's face, at its largest,")
    if missing and missing_face == "stop":
        raise FaceError(
            f"The face is missing in {len(missing)} of the {length} {video} frames: {ranges(missing)} (counted from 0). "
            f"Cut them out, or set missing_face to 'hold', 'interpolate' or 'fade'."
        )
    small = [i for i in seen if shorter_side(followed[i]) < SMALL_FACE]
    report = [f"Face found in {len(seen)} of {length} frames."]
    if missing:
        filled = {"hold": "the last pose is held", "interpolate": "the pose is interpolated", "fade": "the motion fades out"}[
            missing_face
        ]
        report.append(f"Missing in {ranges(missing)}: {filled}.")
    if crowd:
        report.append(f"Several faces in {ranges(crowd)}: followed the one at {spot(followed[seen[0]])} of frame {seen[0]}.")
    if cuts:
        report.append(f"A cut or a jump at {ranges(cuts)}: a new track starts there.")
    if small:
        report.append(f"The face is smaller than {SMALL_FACE} px in {ranges(small)}: expect coarse motion.")

    present = torch.tensor([face is not None for face in followed])
    points = torch.full((length, 5, 2), torch.nan)
    points[present] = torch.stack([followed[i].points for i in seen])
    for start, stop in zip([0, *cuts], [*cuts, length]):
        points[start:stop] = smooth(fill(points[start:stop], present[start:stop], missing_face))
    weight = fading(present) if missing_face == "fade" else None
    return FaceTrack(points, present, " ".join(report), tuple(jumps), weight, gaps(present, missing_face, cuts))


def check_given(given: Sequence[Sequence[Face]], length: int, video: str) -> None:
    if len(given) != length:
        raise InputError(f"Faces were given for {len(given)} frames, and the {video} video has {length}.")


def fading(present: torch.Tensor) -> torch.Tensor:
    """1 where the face is present (L,) bool, falling to 0 within FADE + 1 frames: (L,) float32."""
    weight = present.float()[None]
    for _ in range(FADE):
        weight = torch.maximum(weight, F.max_pool1d(weight, 3, stride=1, padding=1) - 1 / (FADE + 1))
    return weight[0]


def follow(
    frames: Frames | Measured,
    detector: FaceDetector | None,
    choice: str | int,
    callback: Callable[[int, int], None] | None,
    given: Sequence[Sequence[Face]] | None = None,
    video: str = "driving",
) -> tuple[list[Face | None], list[int], list[int], list[int]]:
    """The tracked face of each frame or None, the frames with several faces, those at which a new track starts, and those
    of them at which the face is another shot.
    """
    followed, crowd, cuts, jumps = [], [], [], []
    last, unseen, identity = None, 0, Identity()
    thumbnail, cut = None, False
    expected = frames.expected if isinstance(frames, Measured) else known_length(frames) or 0
    for i, frame in enumerate(frames):
        try:
            picture = checked_image(frame)
        except InputError as error:
            raise InputError(f"{video.capitalize()} frame {i}: {error}") from error
        before, thumbnail = thumbnail, F.adaptive_avg_pool2d(torch.from_numpy(picture).permute(2, 0, 1) / 255.0, 16)
        cut = cut or before is not None and float((thumbnail - before).abs().mean()) > CUT  # stays set until a face is found
        faces = detector.detect(picture) if given is None else given[i] if i < len(given) else []
        if len(faces) > 1:
            crowd.append(i)
        seen = [Seen(other, look(picture, other)) for other in faces]
        found = None
        if faces and last is None:
            found = chosen(seen, choice, f"{video} frame {i}")
        elif faces:
            found = identity.find(last, seen, cut)
            if found is None and (cut or unseen > MAX_GAP):
                new = chosen(seen, choice, f"{video} frame {i}")
                if cut or not identity.another(new):  # within a shot, never one who stood beside the face
                    found, identity, cut = new, Identity(), True
            if found is not None:
                cut = cut or iou(last, found.face) == 0  # recognised elsewhere in the picture
                if cut:
                    cuts.append(i)
                    if iou(last, found.face) < JUMP_IOU:
                        jumps.append(i)
        identity.learn(found, seen)
        face = None if found is None else found.face
        if face is not None:
            last, unseen, cut = face, 0, False
        else:
            unseen += 1
        followed.append(face)
        if callback is not None:
            callback(i + 1, max(i + 1, expected))
    return followed, crowd, cuts, jumps


def chosen(seen: Sequence[Seen], choice: str | int, where: str) -> Seen:
    face = choose([other.face for other in seen], choice, where)
    return next(other for other in seen if other.face is face)


def choose(faces: Sequence[Face], choice: str | int, where: str) -> Face:
    """The face that `choice` names; faces are sorted from left to right. Raises FaceError where there is none."""
    if choice == "largest":
        return max(faces, key=lambda face: face.area)
    if choice == "only":
        if len(faces) > 1:
            raise FaceError(f"{where.capitalize()} has {len(faces)} faces, where only one is allowed: choose one of them.")
        return faces[0]
    if isinstance(choice, bool) or not isinstance(choice, int) or choice < 0:
        raise InputError(f"The choice of face is {choice!r}; it must be 'largest', 'only' or a number from 0.")
    if choice >= len(faces):
        raise FaceError(f"Face number {choice} was asked for (counted from 0, left to right); {where} has {len(faces)}.")
    return faces[choice]


def gaps(present: torch.Tensor, missing_face: str, cuts: Sequence[int] = ()) -> Gaps:
    """How frames without the face are filled, present (L,) bool; before the first and after the last face it is held.

    No interpolation across tracks: `cuts` are the frames, all with the face, at which a new track starts.
    """
    seen = present.nonzero()[:, 0]
    frame = torch.arange(len(present))
    before = seen[(torch.searchsorted(seen, frame, right=True) - 1).clamp(min=0)]
    after = before
    if missing_face == "interpolate":
        after = seen[torch.searchsorted(seen, frame).clamp(max=len(seen) - 1)]
        shot = torch.searchsorted(torch.tensor(cuts, dtype=torch.long), frame, right=True)
        after = torch.where(shot[after] == shot, after, before)
    share = (frame - before) / (after - before).clamp(min=1) * (after > before)
    return Gaps(before, after, share)


def fill(points: torch.Tensor, present: torch.Tensor, missing_face: str) -> torch.Tensor:
    """Points (L, 5, 2) of one track with every gap filled."""
    gap = gaps(present, missing_face)
    return torch.lerp(points[gap.before], points[gap.after], gap.share[:, None, None])


def smooth(points: torch.Tensor) -> torch.Tensor:
    """Local linear fits with a Gaussian window over (L, 5, 2): uniform motion is unchanged, at the ends too."""
    if len(points) < 3:
        return points
    reach = round(REACH * SMOOTHING)
    ahead = torch.arange(-reach, reach + 1)
    frame = torch.arange(len(points))[:, None] + ahead  # (L, window), those beyond the ends too
    inside = (frame >= 0) & (frame < len(points))
    ahead = ahead.double()
    weight = torch.exp(-0.5 * (ahead / SMOOTHING) ** 2) * inside
    s0, s1, s2 = (torch.sum(weight * ahead**power, 1, keepdim=True) for power in (0, 1, 2))
    line = weight * (s2 - s1 * ahead) / (s0 * s2 - s1**2)  # value at 0 of the fitted line
    near = points.double()[frame.clamp(0, len(points) - 1)]  # (L, window, 5, 2)
    return torch.einsum("ts,tspd->tpd", line, near).float()


def nominal_points(box: Box, height: int, width: int) -> torch.Tensor:
    """Five points (5, 2) px of an upright frontal face in a box (x, y, width, height) px of a height x width picture."""
    box = torch.as_tensor(box, dtype=torch.float32)
    if box.shape != (4,) or not torch.isfinite(box).all():
        raise InputError(f"A face's box must be four finite numbers x, y, width, height; this one is {box.tolist()}.")
    x, y, w, h = box.tolist()
    text = f"x {x:g}, y {y:g}, {w:g}x{h:g} px"
    if min(w, h) < MIN_FACE:
        raise FaceError(f"The face's box ({text}) is smaller than {MIN_FACE} px. Enlarge the picture, or use a closer one.")
    if x < 0 or y < 0 or x + w > width or y + h > height:
        raise FaceError(
            f"The face's box ({text}) is not inside the picture of {width}x{height} px. All of it "
            "must be: x, y is its upper left corner."
        )
    return box[:2] + NOMINAL * box[2:]


def shorter_side(face: Face) -> float:
    return float(face.box[2:].min())


def refuse_small(face: Face, whose: str) -> None:
    if shorter_side(face) < MIN_FACE:
        w, h = face.box[2:].tolist()
        raise FaceError(
            f"{whose} is {w:.0f}x{h:.0f} px; at least {MIN_FACE} px are needed. Crop or enlarge the picture around the face."
        )


def spot(face: Face) -> str:
    x, y = (face.box[:2] + face.box[2:] / 2).tolist()
    return f"({x:.0f}, {y:.0f}) px"


def ranges(frames: list[int]) -> str:
    """[3, 4, 5, 9] -> 'frames 3-5, 9'; of more than MOST_RANGES the first."""
    runs: list[list[int]] = []
    for frame in frames:
        if runs and frame == runs[-1][1] + 1:
            runs[-1][1] = frame
        else:
            runs.append([frame, frame])
    text = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs[:MOST_RANGES])
    left = sum(b - a + 1 for a, b in runs[MOST_RANGES:])
    return f"frame{'s' if len(frames) > 1 else ''} {text}{f' and {left} more' if left else ''}"
