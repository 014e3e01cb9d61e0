"""How far the offline estimators can be trusted: their figures on rendered clips, whose truth is exact, as tables.

pose        the fit of the canonical face, and M's rotation, against the true rotation
expression  blendshape coefficients against the true ones
distance    L1 of two frames' estimated parameters against the L1 of their true ones
scale       what the errors of the paper's Table 2 would be for a perfect result, for a portrait that does not move, and for
            one that performs another motion: between identities the estimates differ even where the truth is the same
identity    cosine of a clip's frames with its own first frame, and with those of other identities
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ...errors import InputError
from ...face.crop import clip_crop
from ...face.detect import FaceDetector
from ...vid2vid.motion import MotionExtractor
from ..cases import DRIVERS, OTHERS, read_clip
from ..judges.blendshapes import NAMES
from ..judges.estimators import Estimator, FaceParameters, change_errors, parameter_errors
from ..judges.head_pose import angles_of
from ..judges.loading import find_points
from ..judges.recognition import Recognition, identity_similarity
from ..metrics.frames import keypoints_and_rotations
from ..values import Values, mean
from .rendered_truth import rendered_parameters

Row = dict[str, str | int | float | None]
ANGLES = ("pitch", "yaw", "roll")
# Parts of an expression: coefficients that are added, and those that are subtracted.
PARTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "jaw open": (("jawOpen",), ()),
    "blink": (("eyeBlinkLeft", "eyeBlinkRight"), ()),
    "eyes wide": (("eyeWideLeft", "eyeWideRight"), ()),
    "smile": (("mouthSmileLeft", "mouthSmileRight"), ()),
    "pucker": (("mouthPucker",), ()),
    "funnel": (("mouthFunnel",), ()),
    "lips pressed": (("mouthPressLeft", "mouthPressRight"), ()),
    "brows up": (("browInnerUp", "browOuterUpLeft", "browOuterUpRight"), ()),
    "brows down": (("browDownLeft", "browDownRight"), ()),
    "gaze sideways": (("eyeLookOutLeft", "eyeLookInRight"), ("eyeLookInLeft", "eyeLookOutRight")),
    "gaze up": (("eyeLookUpLeft", "eyeLookUpRight"), ("eyeLookDownLeft", "eyeLookDownRight")),
}
STILL = 1e-6  # standard deviation below which rounding alone would decide a correlation
FLIP = torch.tensor([1.0, -1.0, -1.0])  # M's axes, y down and z inward, to y up and z towards the camera


@dataclass(frozen=True)
class Seen:
    """A rendered clip's frames as the estimators see them, and their truth."""

    name: str
    estimated: FaceParameters
    exact: FaceParameters
    m_pose: Tensor | None  # (L, 3) radians, M's rotation as angles
    embeddings: Tensor | None  # (L, D)


def read_rendered(clip: Path, every: int) -> tuple[Tensor, FaceParameters]:
    """Every so many frames (L, 3, H, W) in [0, 1] of a rendered clip, and their truth. InputError where its .npz is of another."""
    pictures, exact = read_clip(clip).movedim(-1, 1), rendered_parameters(clip.with_suffix(".npz"))
    if len(exact) != len(pictures):
        raise InputError(f"{clip} has {len(pictures)} frames, and its .npz the truth of {len(exact)}.")
    return pictures[::every].float() / 255, exact[::every]


@torch.inference_mode()
def look(
    name: str,
    pictures: Tensor,
    exact: FaceParameters,
    detector: FaceDetector,
    estimator: Estimator,
    recognition: Recognition | None,
    motion: MotionExtractor | None,
) -> Seen:
    """The estimates for a clip's pictures (L, 3, H, W) in [0, 1]; zeros where no face is found."""
    middle = torch.tensor([pictures.shape[3] / 2, pictures.shape[2] / 2])
    five, found = find_points(detector, pictures, middle.expand(len(pictures), 5, 2))
    m_pose = embeddings = None
    if motion is not None:
        m_pose = torch.zeros(len(pictures), 3)
        if bool(found.any()):
            _, rotation = keypoints_and_rotations(motion, pictures[found], clip_crop(five[found]))
            m_pose[found] = angles_of(FLIP[:, None] * rotation.mT * FLIP)
    if recognition is not None and bool(found.any()):
        of_found = recognition.embed(pictures[found], five[found])
        embeddings = of_found.new_zeros(len(pictures), of_found.shape[1])
        embeddings[found] = of_found
    return Seen(name, estimator.estimate(pictures, five, found), exact, m_pose, embeddings)


def agreement(seen: list[Seen]) -> dict[str, list[Row]]:
    """The tables, of those that can be made of these clips: name -> rows. InputError for no clip."""
    if not seen:
        raise InputError("There is no rendered clip to compare the estimators on. Give a folder with .mp4 and .npz by --data.")
    tables = {"pose": pose_table(seen), "expression": expression_table(seen), "distance": distance_table(seen)}
    tables |= {"scale": scale_table(seen), "identity": identity_table(seen)}
    return {name: rows for name, rows in tables.items() if rows}


def pose_table(seen: list[Seen]) -> list[Row]:
    """By axis, degrees: the constant offset from the truth's convention, the mean error after it is removed, and the mean error of
    the change from the clip's first frame."""
    rows: list[Row] = []
    for name in ("canonical face", "M"):
        poses = [(clip, clip.estimated.pose if name == "canonical face" else clip.m_pose) for clip in seen]
        seen_poses = [
            (pose[clip.estimated.found], clip.exact.pose[clip.estimated.found]) for clip, pose in poses if pose is not None
        ]
        for axis, angle in enumerate(ANGLES if seen_poses else ()):
            found = [(torch.rad2deg(estimate[:, axis]), torch.rad2deg(truth[:, axis])) for estimate, truth in seen_poses]
            estimates, truths = joined(found)
            errors = (estimates - truths).tolist()
            offset = mean(errors)
            changes = [(estimate - estimate[:1]) - (truth - truth[:1]) for estimate, truth in found]
            rows.append(
                {
                    "estimator": name,
                    "angle": angle,
                    "n": len(errors),
                    "r": correlation(estimates, truths),
                    "r in clips": correlation(*joined(found, centred=True)),
                    "offset deg": offset,
                    "error deg": mean([abs(error - offset) for error in errors]),
                    "error of change deg": mean([abs(error) for change in changes for error in change[1:].tolist()]),
                }
            )
    return rows


def expression_table(seen: list[Seen]) -> list[Row]:
    """By part of the expression: correlation with the truth over all frames, and with each clip centred on its own mean."""
    rows: list[Row] = []
    for name, (added, subtracted) in PARTS.items():
        weights = torch.tensor([float(coefficient in added) - float(coefficient in subtracted) for coefficient in NAMES])
        found = [
            (clip.estimated.expression[clip.estimated.found] @ weights, clip.exact.expression[clip.estimated.found] @ weights)
            for clip in seen
        ]
        n = sum(len(truth) for _, truth in found)
        rows.append(
            {"part": name, "n": n, "r": correlation(*joined(found)), "r in clips": correlation(*joined(found, centred=True))}
        )
    return rows


def distance_table(seen: list[Seen]) -> list[Row]:
    """Correlation of the estimated L1 of two frames with the true one: frames of one clip, and of two identities."""
    rows: list[Row] = []
    for name, pairs in (("of one clip", [(clip, clip) for clip in seen]), ("of two identities", identity_pairs(seen))):
        estimated: dict[str, Values] = {"expression_l1": [], "pose_l1": []}
        exact: dict[str, Values] = {"expression_l1": [], "pose_l1": []}
        for a, b in pairs:
            first, second = torch.cartesian_prod(torch.arange(len(a.exact)), torch.arange(len(b.exact))).T
            if a is b:
                first, second = torch.combinations(torch.arange(len(a.exact))).T
            for errors, one, other in ((estimated, a.estimated, b.estimated), (exact, a.exact, b.exact)):
                for metric, values in parameter_errors(one[first], other[second]).items():
                    errors[metric] += values
        n = sum(value is not None for value in estimated["expression_l1"])
        if n:
            rs = {f"r of {metric}": correlation(*known_pairs(estimated[metric], exact[metric])) for metric in estimated}
            rows.append({"frames": name, "n": n, **rs})
    return rows


def scale_table(seen: list[Seen]) -> list[Row]:
    """Table 2's errors of cross-reenactment for results that are rendered clips themselves: by the estimator and by their truth."""
    pairs = identity_pairs(seen)
    first = [(driving, other, torch.zeros(len(other.exact), dtype=torch.long)) for driving, other in pairs]
    whole = [(driving, other, torch.arange(len(other.exact))) for driving, other in pairs]
    shifted = [(driving, *result[1:]) for driving, result in zip([driving for driving, _ in pairs[1:] + pairs[:1]], whole)]
    results = {
        "the same motion": whole,
        "no motion": first,
        "another motion": [case for case in shifted if len(pairs) > 1 and len(case[0].exact) == len(case[1].exact)],
    }
    estimated: dict[str, dict[str, Values]] = {}  # metric -> result -> a value for every frame
    exact: dict[str, dict[str, Values]] = {}
    for name, cases in results.items():
        for driving, other, frames in cases:
            for found, source, target in ((estimated, other.estimated, driving.estimated), (exact, other.exact, driving.exact)):
                result = source[frames]
                errors = parameter_errors(result, target) | change_errors(result, source[:1], target)
                for metric, values in errors.items():
                    # Frame 0 is the portrait.
                    found.setdefault(metric, {}).setdefault(name, []).extend(values[1:])
    rows: list[Row] = []
    for metric, of in estimated.items():
        together = "together"
        everything = [{**values, together: sum(values.values(), [])} for values in (of, exact[metric])]
        rows += [{"error": metric, "result": name, **row} for name, row in error_agreement(*everything).items()]
    return rows


def identity_table(seen: list[Seen]) -> list[Row]:
    """Cosine with a clip's first frame: of its other frames, and of those of other clips. AUC: the share of such pairs in which the
    same identity has the higher cosine."""
    same: list[float] = []
    different: list[float] = []
    for clip, other in ((clip, other) for clip in seen for other in seen):
        if clip.embeddings is None or other.embeddings is None or not bool(clip.estimated.found[0]):
            continue
        values = identity_similarity(other.embeddings[1:], clip.embeddings[:1], other.estimated.found[1:])
        (same if clip is other else different).extend(value for value in values if value is not None)
    if not same or not different:
        return []
    a, b = torch.tensor(same)[:, None], torch.tensor(different)
    auc = float((a > b).double().mean() + (a == b).double().mean() / 2)
    n = f"{len(same)} / {len(different)}"
    return [{"n same / different": n, "same": mean(same), "different": mean(different), "AUC": auc}]


def error_agreement(estimated: dict[str, Values], exact: dict[str, Values]) -> dict[str, Row]:
    """Errors of the same frames by two ways, as against the driving video's estimates and against the exact truth: row -> n, both
    means, and their correlation over the frames. Frames where one of them is None do not count."""
    found: dict[str, Row] = {}
    for name in [name for name in estimated if name in exact]:
        a, b = known_pairs(estimated[name], exact[name])
        found[name] = {"n": len(a), "estimated": mean(a.tolist()), "exact": mean(b.tolist()), "r": correlation(a, b)}
    return found


# Their parts


def identity_pairs(seen: list[Seen]) -> list[tuple[Seen, Seen]]:
    """The clips 800000+i, and 810000+i with the same motion, of as many frames."""
    named = {clip.name: clip for clip in seen}
    pairs = [(clip, named.get(str(int(clip.name) + OTHERS - DRIVERS))) for clip in seen if clip.name.isdecimal()]
    return [(clip, other) for clip, other in pairs if other is not None and len(clip.exact) == len(other.exact)]


def joined(clips: list[tuple[Tensor, Tensor]], centred: bool = False) -> tuple[Tensor, Tensor]:
    """Estimates and truth (L,) of several clips, one after the other; centred: each on its own mean."""
    if centred:
        clips = [(estimate - estimate.mean(), truth - truth.mean()) for estimate, truth in clips]
    return torch.cat([estimate for estimate, _ in clips]), torch.cat([truth for _, truth in clips])


def known_pairs(a: Values, b: Values) -> tuple[Tensor, Tensor]:
    """Both without the places where one of them is None; InputError where they differ in length."""
    if len(a) != len(b):
        raise InputError(f"{len(a)} and {len(b)} values are not of the same frames.")
    both = [(x, y) for x, y in zip(a, b) if x is not None and y is not None]
    first, second = torch.tensor(both, dtype=torch.float64).reshape(-1, 2).T
    return first, second


def correlation(a: Tensor, b: Tensor) -> float | None:
    """Pearson's, of two (N,); None for fewer than 3 values, or where one of them does not vary."""
    if len(a) < 3:
        return None
    a, b = (values.double() - values.double().mean() for values in (a, b))
    if min(float(values.square().mean().sqrt()) for values in (a, b)) < STILL:
        return None
    return float((a * b).sum() / (a.square().sum() * b.square().sum()).sqrt())
