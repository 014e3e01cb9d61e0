"""The figures of every row: distance to the truth by pixels and by M, and scores of pretrained networks that judge the picture.

Frames 1 to the last are scored. Where the truth is known only in parts (`valid`), unknown pixels are replaced by the truth's in
every row before pictures are compared. PSNR and `outside` are means over the known pixels; SSIM, ST-LPIPS and `spectrum` are of
the whole picture, in which unknown pixels count as equal in every row alike. Keypoints, landmarks and identity are computed on
the result as it is.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...face.crop import face_square
from ...face.detect import FaceDetector
from ...stlpips import distances
from ...vid2vid import FaceVid2Vid
from ...vid2vid.keypoints import angle_between
from ...vid2vid.regions import EYES_AND_MOUTH, LIPS
from ..judges.identity import identity_distance
from ..judges.loading import Judges, find_points
from ..metrics.frames import feature_error, keypoint_error, keypoints_and_rotations, mouth_opening, outside_error, psnr, ssim
from ..metrics.landmarks import detect_landmarks, inner_lips_gap, landmark_errors
from ..metrics.spectrum import spectrum_db

Scores = dict[str, dict[str, list[float]]]  # row -> metric -> one figure for every frame from 1


@dataclass(frozen=True)
class Truth:
    """Ground truth of a clip, with which its rows are compared."""

    pictures: Tensor  # (L, 3, S, S) in [0, 1]
    crop: Tensor  # (3, 3) frame px -> px of the crop that M receives
    face: Tensor  # (L, S, S) bool, what `outside` leaves out
    points: Tensor  # (L, 5, 2) px, the face's
    portrait: Tensor  # (1, 3, S, S) in [0, 1], the identity that the rows should keep
    valid: Tensor | None = None  # (L, S, S) bool, where the pictures are known; None: everywhere


def fill_unknown(result: Tensor, truth: Truth) -> Tensor:
    """The row (L, 3, S, S), with the truth's pixels where the truth is unknown."""
    return result if truth.valid is None else torch.where(truth.valid[:, None], result, truth.pictures)


def score(vid2vid: FaceVid2Vid, rows: dict[str, Tensor], truth: Truth) -> Scores:
    """Distance of each row (L, 3, S, S) to the truth: PSNR, SSIM, and M's keypoints, mouth opening and head rotation."""
    pictures = truth.pictures[1:]
    true_points, true_rotation = keypoints_and_rotations(vid2vid.motion, pictures, truth.crop)
    passed_over, gain = truth.face[1:], 0
    if truth.valid is not None:
        valid = truth.valid[1:]
        passed_over, gain = passed_over | ~valid, 10 * valid.float().mean((1, 2)).log10()  # the error is 0 elsewhere
    scores = {}
    for row, result in rows.items():
        shown, result = fill_unknown(result, truth)[1:], result[1:]
        points, rotation = keypoints_and_rotations(vid2vid.motion, result, truth.crop)
        figures = {
            "psnr_db": psnr(shown, pictures) + gain,
            "ssim": ssim(shown, pictures),
            "keypoint_error_px": keypoint_error(points, true_points),
            "rotation_error_deg": angle_between(rotation, true_rotation),
            "outside_error_255": outside_error(shown, pictures, passed_over),
        }
        if points.shape[1] in EYES_AND_MOUTH:
            figures["eyes_mouth_error_px"] = feature_error(points, true_points)
        if points.shape[1] in LIPS:
            figures |= {"mouth_px": mouth_opening(points), "true_mouth_px": mouth_opening(true_points)}
        scores[row] = {name: values.tolist() for name, values in figures.items()}
    return scores


def judge(judges: Judges, detector: FaceDetector, rows: dict[str, Tensor], truth: Truth) -> Scores:
    """ST-LPIPS, identity and landmarks of each row (L, 3, S, S), each where its network was loaded."""
    found: dict[str, dict[str, Tensor]] = {row: {} for row in rows}
    if judges.stlpips is not None:
        shown = {row: fill_unknown(result, truth)[1:] for row, result in rows.items()}
        for row, values in distances(judges.stlpips, shown, truth.pictures[1:]).items():
            found[row]["st_lpips"] = values
    if judges.embedding is None and judges.landmarker is None:
        return as_lists(found)
    pictures, expected = truth.pictures[1:], truth.points[1:]
    five, _ = find_points(detector, pictures, expected)
    if judges.embedding is not None:
        own, _ = find_points(detector, truth.portrait, truth.points[:1])
        portrait = judges.embedding.embed(truth.portrait, own)  # (1, 128)
    if judges.landmarker is not None:
        true_points = detect_landmarks(judges.landmarker, pictures, five)
    for row, result in rows.items():
        result = result[1:]
        five, present = find_points(detector, result, expected)
        found[row]["face_found"] = present.float()
        if judges.embedding is not None:
            found[row]["identity"] = identity_distance(judges.embedding.embed(result, five), portrait)
        if judges.landmarker is not None:
            points = detect_landmarks(judges.landmarker, result, five)
            errors = landmark_errors(points, true_points)
            found[row] |= {"landmarks_px": errors.pop("all")} | {f"landmarks_{part}_px": error for part, error in errors.items()}
            found[row] |= {"lips_gap_px": inner_lips_gap(points), "true_lips_gap_px": inner_lips_gap(true_points)}
    return as_lists(found)


def spectrum(result: Tensor, truth: Truth, frames: slice = slice(1, None)) -> list[float]:
    """Power of a row (L, 3, S, S) relative to the truth's over all these frames: dB by octave, coarse to fine."""
    centre = face_square(truth.points, scale=1.0, vy=0.0).center.mean(0).tolist()  # of the clip's facial masks
    return spectrum_db(fill_unknown(result, truth)[frames], truth.pictures[frames], centre)


def as_lists(found: dict[str, dict[str, Tensor]]) -> Scores:
    return {row: {name: values.tolist() for name, values in figures.items()} for row, figures in found.items()}
