"""Every figure of a row of a case: against the truth, or where there is none against the driving frames and the portrait.

Values are of the frames from Prepared.first to the last. None: it could not be measured there, as where no face was found, or was
not, as where a slow judge sees every n-th frame only.
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
from .spectrum import spectrum_db, worst_octave
from .temporal import temporal_figures

Frames = dict[str, Values]  # metric -> a value for every frame
Whole = dict[str, float | None]  # metric -> one for the case


@dataclass(frozen=True)
class Compared:
    """What every row of a case is compared with."""

    case: Prepared
    target: Observed  # of case.target
    portrait: Observed  # of the portrait, 1 frame
    still: Tensor  # (S, S) or (L - 1, S, S) bool, where flicker is measured
    joins: list[int]  # where clips of the network meet


def row_figures(pictures: Tensor, seen: Observed, compared: Compared) -> tuple[Frames, Whole]:
    """Of a row (L, 3, S, S) in [0, 1], all but ST-LPIPS and LPIPS, which `picture_distances` gives for all rows at once."""
    case = compared.case
    frames, whole = steadiness(pictures, seen.keypoints, compared)
    if case.exact:
        found, of_case = picture_figures(pictures, case)
        frames, whole = found | frames, of_case | whole
    for figures, of_case in (face_figures(seen, compared), motion_figures(seen, compared)):
        frames, whole = frames | figures, whole | of_case
    return {name: values[case.first :] for name, values in frames.items()}, whole


def target_figures(compared: Compared) -> tuple[Frames, Whole]:
    """The target's own figures that need no comparison, beside which a row's are read."""
    case = compared.case
    frames, whole = steadiness(case.target.pictures, compared.target.keypoints, compared)
    if case.exact:
        frames |= face_figures(compared.target, compared)[0]
    return {name: values[case.first :] for name, values in frames.items()}, whole


def steadiness(pictures: Tensor, keypoints: Tensor, compared: Compared) -> tuple[Frames, Whole]:
    frames, whole = temporal_figures(pictures, keypoints, compared.still, compared.joins)
    return frames | colour_figures(pictures), whole


# Pictures


def filled(pictures: Tensor, case: Prepared) -> Tensor:
    """The row (L, 3, S, S), with the truth's pixels where the truth is unknown."""
    return pictures if case.valid is None else torch.where(case.valid[:, None], pictures, case.target.pictures)


def picture_figures(pictures: Tensor, case: Prepared) -> tuple[Frames, Whole]:
    """PSNR, SSIM and the error outside the face by frames; the spectrum of the scored frames. PSNR is over the known pixels."""
    shown, true, face = filled(pictures, case), case.target.pictures, case.face
    gain = torch.zeros(len(shown))
    if case.valid is not None:
        face, gain = face | ~case.valid, 10 * case.valid.float().mean((1, 2)).log10()  # the error is 0 elsewhere
    frames = {
        "psnr_db": (psnr(shown, true) + gain).tolist(),
        "ssim": ssim(shown, true).tolist(),
        "outside_error_255": outside_error(shown, true, face).tolist(),
    }
    centre = face_square(case.points, scale=1.0, vy=0.0).center.mean(0).tolist()
    octaves = spectrum_db(shown[case.first :], true[case.first :], centre)
    return frames, {"spectrum_worst_db": worst_octave(octaves), "spectrum_finest_db": octaves[-1]}


# Faces


def face_figures(seen: Observed, compared: Compared) -> tuple[Frames, Whole]:
    """Identity against the portrait; expression, pose, landmarks and mouth against the target. Each where its judge was loaded."""
    case, target, portrait = compared.case, compared.target, compared.portrait
    frames: Frames = {}
    whole: Whole = {}
    if portrait.embeddings is not None or seen.landmarks is not None:
        frames["face_found"] = where(seen.found.float(), seen.judged)
    if portrait.embeddings is not None:
        nowhere: Values = [None] * len(seen.found)
        known = seen.embeddings is not None
        frames["identity_similarity"] = identity_similarity(seen.embeddings, portrait.embeddings, seen.found) if known else nowhere
    if seen.parameters is None or target.parameters is None or portrait.parameters is None:
        return frames, whole
    frames |= parameter_errors(seen.parameters, target.parameters)
    frames |= change_errors(seen.parameters, portrait.parameters, target.parameters)
    both = seen.found & target.found
    if case.exact:
        errors = landmark_errors(seen.landmarks, target.landmarks)
        frames["landmarks_px"] = where(errors.pop("all"), both)
        frames |= {f"landmarks_{part}_px": where(error, both) for part, error in errors.items()}
    gaps = (inner_lips_gap(points)[case.first :][both[case.first :]] for points in (seen.landmarks, target.landmarks))
    whole["mouth_correlation"] = correlation(*gaps)
    return frames, whole


def motion_figures(seen: Observed, compared: Compared) -> tuple[Frames, Whole]:
    """By M: head rotation and mouth against the target; keypoints too, where the target is of the same face."""
    case, target = compared.case, compared.target
    frames: Frames = {"rotation_error_deg": angle_between(seen.rotation, target.rotation).tolist()}
    whole: Whole = {}
    keypoints = seen.keypoints.shape[1]
    if case.exact:
        frames["keypoint_error_px"] = keypoint_error(seen.keypoints, target.keypoints).tolist()
        if keypoints in EYES_AND_MOUTH:
            frames["eyes_mouth_error_px"] = feature_error(seen.keypoints, target.keypoints).tolist()
    if keypoints in LIPS:
        openings = (mouth_opening(points)[case.first :] for points in (seen.keypoints, target.keypoints))
        whole["keypoint_mouth_correlation"] = correlation(*openings)
    return frames, whole


def correlation(result: Tensor, target: Tensor) -> float | None:
    """Of the mouth's opening (n,) px. None for fewer than 3 frames, or a target's mouth that stands still: nothing to follow."""
    if len(target) < 3 or float(target.double().std(correction=0)) < STILL:
        return None
    return mouth_correlation([result.tolist()], [target.tolist()])
