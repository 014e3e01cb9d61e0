"""Every figure of a row of a case: against the truth, or where there is none against the driving frames and the portrait.

Values are of the frames from Prepared.first to the last. None: it could not be measured there, as where no face was found, where
another method has no picture, or where a slow judge, who sees every n-th frame, did not look.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..face.crop import face_square
from ..vid2vid.keypoints import angle_between
from ..vid2vid.regions import EYES_AND_MOUTH, LIPS
from .drift import colour_figures
from .estimators import change_errors, parameter_errors
from .landmarks import inner_lips_gap, landmark_errors
from .metrics import STILL, feature_error, keypoint_error, mouth_correlation, mouth_opening, outside_error, psnr, ssim
from .observe import Observed, where
from .prepare import Prepared
from .recognition import identity_similarity
from .record import Values
from .sharpness import sharpness, sharpness_to_portrait
from .spectrum import spectrum_db, worst_octave
from .temporal import jitter, over_truth, temporal_figures

Frames = dict[str, Values]  # metric -> a value for every frame
Whole = dict[str, float | None]  # metric -> one for the case


@dataclass(frozen=True)
class Row:
    """The pictures of a method on a case, as they are compared."""

    pictures: Tensor  # (L, 3, S, S) uint8; where it has none, another of its own
    present: Tensor  # (L,) bool, the frames that it has


@dataclass(frozen=True)
class Compared:
    """What every row of a case is compared with."""

    case: Prepared
    target: Observed  # of case.target
    portrait: Observed  # of the portrait, 1 frame
    still: Tensor  # (S, S) or (L - 1, S, S) bool, where flicker is measured
    joins: list[int]  # where clips of the network meet


def row_figures(row: Row, seen: Observed, compared: Compared) -> tuple[Frames, Whole]:
    """All but the distances of picture_judges.py."""
    case, pictures, present = compared.case, row.pictures.float() / 255, row.present
    frames, whole = steadiness(pictures, seen.keypoints, present, compared)
    counted = present.clone()
    counted[: case.first] = False
    parts = [face_figures(seen, counted, compared), motion_figures(seen, counted, compared)]
    for figures, of_case in [picture_figures(pictures, counted, case), *parts]:
        frames, whole = frames | figures, whole | of_case
    return {name: masked(values, present)[case.first :] for name, values in frames.items()}, whole


def target_figures(compared: Compared) -> tuple[Frames, Whole]:
    """The target's own figures that need no comparison, beside which a row's are read."""
    case, target = compared.case, compared.target
    everywhere = torch.ones(len(case), dtype=torch.bool)
    frames, whole = steadiness(case.target.pictures, target.keypoints, everywhere, compared)
    if case.exact:
        frames |= identity_figures(target, compared)
    return {name: values[case.first :] for name, values in frames.items()}, whole


def masked(values: Values, present: Tensor) -> Values:
    return [value if ok else None for value, ok in zip(values, present.tolist())]


def steadiness(pictures: Tensor, keypoints: Tensor, present: Tensor, compared: Compared) -> tuple[Frames, Whole]:
    """Flicker, jitter and seams of the frames from 0 on that are there without a gap, colours of all."""
    length, run = len(pictures), int(present.long().cumprod(0).sum())
    frames = colour_figures(pictures)
    if run < 2 or run < int(present.sum()):
        return frames, {}
    still = compared.still if compared.still.ndim == 2 else compared.still[: run - 1]
    joins = [join for join in compared.joins if join < run]
    steady, whole = temporal_figures(pictures[:run], keypoints[:run], still, joins)
    gone: Values = [None] * (length - run)
    return frames | {name: values + gone for name, values in steady.items()}, whole


# Pictures


def filled(pictures: Tensor, case: Prepared, frames: Tensor | slice) -> Tensor:
    """These frames of a row (n, 3, S, S), uint8 or in [0, 1], with the truth's pixels where the truth is unknown: in [0, 1]."""
    pictures = pictures if pictures.is_floating_point() else pictures.float() / 255
    return pictures if case.valid is None else torch.where(case.valid[frames, None], pictures, case.target.pictures[frames])


def picture_figures(pictures: Tensor, counted: Tensor, case: Prepared) -> tuple[Frames, Whole]:
    """Against a truth PSNR (over the known pixels), SSIM, sharpness, the error outside the face, and the spectrum of the frames
    that are counted (L,) bool; else sharpness relative to the portrait.
    """
    if not case.exact:
        portrait = case.portrait_compared
        return {"sharp": sharpness_to_portrait(pictures, case.face, portrait, case.portrait_face)}, {}
    shown, true, face = filled(pictures, case, slice(None)), case.target.pictures, case.face
    outside, gain = face, torch.zeros(len(shown))
    if case.valid is not None:
        outside, gain = face | ~case.valid, 10 * case.valid.float().mean((1, 2)).log10()  # the error is 0 elsewhere
    frames = {
        "psnr_db": (psnr(shown, true) + gain).tolist(),
        "ssim": ssim(shown, true).tolist(),
        "sharp": sharpness(shown, true, face),
        "outside_error_255": outside_error(shown, true, outside).tolist(),
    }
    if not counted.any():
        return frames, {}
    centre = face_square(case.points, scale=1.0, vy=0.0).center.mean(0).tolist()
    octaves = spectrum_db(shown[counted], true[counted], centre)
    return frames, {"spectrum_worst_db": worst_octave(octaves), "spectrum_finest_db": octaves[-1]}


# Faces


def identity_figures(seen: Observed, compared: Compared) -> Frames:
    """Whether there is a face, and whether it is the portrait's; where a judge of faces was loaded."""
    if seen.landmarks is None and compared.portrait.embeddings is None:
        return {}
    frames: Frames = {"face_found": where(seen.found.float(), seen.judged)}
    if compared.portrait.embeddings is not None:
        nowhere: Values = [None] * len(seen.found)
        known = seen.embeddings is not None
        similar = identity_similarity(seen.embeddings, compared.portrait.embeddings, seen.found) if known else nowhere
        frames["identity_similarity"] = similar
    return frames


def face_figures(seen: Observed, counted: Tensor, compared: Compared) -> tuple[Frames, Whole]:
    """Identity against the portrait; expression, pose, landmarks and mouth against the target."""
    case, target, portrait = compared.case, compared.target, compared.portrait
    frames = identity_figures(seen, compared)
    if seen.parameters is None or target.parameters is None or portrait.parameters is None:
        return frames, {}
    frames |= parameter_errors(seen.parameters, target.parameters)
    frames |= change_errors(seen.parameters, portrait.parameters, target.parameters)
    both = seen.found & target.found
    if case.exact:
        errors = landmark_errors(seen.landmarks, target.landmarks)
        frames["landmarks_px"] = where(errors.pop("all"), both)
        frames |= {f"landmarks_{part}_px": where(error, both) for part, error in errors.items()}
    gaps = (inner_lips_gap(points)[both & counted] for points in (seen.landmarks, target.landmarks))
    return frames, {"mouth_correlation": correlation(*gaps)}


def motion_figures(seen: Observed, counted: Tensor, compared: Compared) -> tuple[Frames, Whole]:
    """By M: head rotation and mouth against the target; keypoints too, where the target is of the same face."""
    case, target = compared.case, compared.target
    frames: Frames = {"rotation_error_deg": angle_between(seen.rotation, target.rotation).tolist()}
    whole: Whole = {}
    keypoints = seen.keypoints.shape[1]
    if case.exact:
        frames["keypoint_error_px"] = keypoint_error(seen.keypoints, target.keypoints).tolist()
        whole["jitter_over_truth_px"] = over_truth(jitter(seen.keypoints, counted), jitter(target.keypoints))
        if keypoints in EYES_AND_MOUTH:
            frames["eyes_mouth_error_px"] = feature_error(seen.keypoints, target.keypoints).tolist()
    if keypoints not in LIPS:
        return frames, whole
    openings = (mouth_opening(points)[counted] for points in (seen.keypoints, target.keypoints))
    return frames, whole | {"keypoint_mouth_correlation": correlation(*openings)}


def correlation(result: Tensor, target: Tensor) -> float | None:
    """Of the mouth's opening (n,) px. None for fewer than 3 frames, or a target's mouth that stands still: nothing to follow."""
    if len(target) < 3 or float(target.double().std(correction=0)) < STILL:
        return None
    return mouth_correlation([result.tolist()], [target.tolist()])
