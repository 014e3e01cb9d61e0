"""The figures of a clip of anybody's: its frames against the portrait, the driving video and, where it is known, the truth.

Head pose and expression are M's, each face in its own crop. Of everything that needs a face only the frames count in which one
was found; a figure that cannot be measured is None, and `table.py` says so.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...animation.extraction import CHUNK, device_of, tracked_poses
from ...face.crop import clip_crop, face_ellipse, points_to_crop, sample_crop
from ...face.detect import FaceDetector
from ...face.landmarks import POINTS, FaceLandmarker
from ...face.track import FaceTrack
from ...motion_map import ellipse_mask, pixels
from ...stlpips import AT_ONCE, STLPIPS, distances
from ...vid2vid import FaceVid2Vid
from ...vid2vid.keypoints import Pose, angle_between, transform
from ...vid2vid.regions import LIPS
from ..judges.estimators import Estimator, change_errors, parameter_errors
from ..judges.recognition import Recognition, identity_similarity
from ..metrics.drift import colour_figures
from ..metrics.frames import mouth_opening, opening_correlation, psnr, ssim
from ..metrics.landmarks import inner_lips_gap
from ..metrics.sharpness import sharpness_to_portrait
from ..metrics.spectrum import spectrum_db, worst_octave
from ..metrics.temporal import flicker, jitter, joins, picture_steps, point_steps, seams, still_border, still_part
from ..values import Values, mean, where
from .frames import SIDE, Callback, Clip, ClipFaces, find_faces

KEYPOINT_PX = SIDE / 2  # of a face crop of SIDE px, per unit of M's keypoints
FACE_SIDE = 128  # px, of the face crops whose sharpness is compared: sampled alike, whatever the size of the pictures


@dataclass(frozen=True)
class ClipJudges:
    """Networks that measure and are in no loss; None: the figures that need it are left out."""

    recognition: Recognition | None = None
    estimator: Estimator | None = None
    stlpips: STLPIPS | None = None
    device: torch.device = torch.device("cpu")  # of the pictures that recognition receives


@dataclass(frozen=True)
class ClipFigure:
    """A figure of a whole clip."""

    value: float | None
    used: int  # frames, or joins
    of: int


@dataclass(frozen=True)
class ClipReport:
    """What was measured on L frames; the metrics are those of `table.FIGURES`."""

    scored: int  # L
    found: dict[str, tuple[int, int]]  # picture -> frames with a face, of how many
    frames: dict[str, Values]  # metric -> a value for every frame
    whole: dict[str, ClipFigure]  # metric -> one value for the clip
    clip_frames: int  # of a clip of the network; 0: made at once
    recognition: str | None = None  # the network of `identity_similarity`
    notes: tuple[str, ...] = ()


def judge_clip(
    clip: Clip,
    vid2vid: FaceVid2Vid,
    detector: FaceDetector,
    judges: ClipJudges = ClipJudges(),
    clip_frames: int = 0,
    callback: Callback | None = None,
) -> ClipReport:
    """Measures a clip on the networks' devices. callback(done, total) after every few frames.

    clip_frames: length of the network's clips, each of which starts with the last frame of the one before; 0: made at once.
    InputError for a length of 1.
    """
    at = joins(len(clip), clip_frames) if clip_frames else []
    stages = in_stages(callback, len(clip), list_stages(clip, judges))
    faces = find_faces(clip, detector, stages)
    frames = picture_figures(clip, faces, stages["pictures"])
    whole = {"seam": seam(frames["step_255"], at)} if at else {}
    if faces.result is not None:
        ours = tracked_poses(vid2vid, clip.result, clip_crop(faces.result.points), faces.result, stages["result poses"])
        frames["jitter_px"] = jitter(in_crop(ours), faces.result.present)
        if at:
            whole["keypoint_seam"] = seam(point_steps(in_crop(ours), faces.result.present), at)
        if faces.driving is not None:
            theirs = tracked_poses(vid2vid, clip.driving, clip_crop(faces.driving.points), faces.driving, stages["driving poses"])
            frames["driving_jitter_px"] = jitter(in_crop(theirs), faces.driving.present)
            both = faces.result.present & faces.driving.present
            frames |= motion_errors(ours, theirs, both)
            if ours.canonical.shape[1] in LIPS:
                result, driving = (mouth_opening(in_crop(poses)) for poses in (ours, theirs))
                whole["mouth_correlation"] = correlation(result, driving, both)
            if judges.estimator is not None:
                errors, mouth = estimated(judges.estimator, clip, faces.portrait, faces.result, faces.driving, stages)
                frames |= errors
                whole["landmark_mouth_correlation"] = mouth
        if faces.portrait is not None and judges.recognition is not None:
            stage, device = stages["identity"], judges.device
            frames["identity_similarity"] = identities(judges.recognition, device, clip, faces.portrait, faces.result, stage)
    if clip.truth is not None:
        frames |= truth_distances(clip, clip.truth, judges.stlpips, stages["truth pictures"])
        whole |= truth_spectrum(clip, clip.truth, faces.truth)
    if callback is not None:
        callback(len(stages) * len(clip), len(stages) * len(clip))
    kind = None if judges.recognition is None else judges.recognition.kind
    notes = clip.notes + faces.notes + unmeasured(clip, faces, frames, whole)
    return ClipReport(len(clip), faces_found(clip, faces), frames, whole, clip_frames, kind, notes)


def unmeasured(clip: Clip, faces: ClipFaces, frames: dict[str, Values], whole: dict[str, ClipFigure]) -> tuple[str, ...]:
    """Why figures are missing, besides a missing face."""
    notes = []
    if len(clip) == 1:
        notes.append("One frame: flicker, jitter, seams, the mouth's correlation and relative errors need several.")
        return tuple(notes)
    if faces.result is not None and mean(frames.get("flicker_255", [])) is None:
        notes.append("No part of the picture is known to stand still, so flicker is left out.")
    if "head_deg" in frames and "mouth_correlation" not in whole:
        notes.append("Which keypoints of this M are the lips is not known: the mouth's correlation by M is left out.")
    if any(whole[name].value is None for name in ("mouth_correlation", "landmark_mouth_correlation") if name in whole):
        notes.append("The driving mouth does not move in the frames with a face: there is nothing to correlate with.")
    return tuple(notes)


def faces_found(clip: Clip, faces: ClipFaces) -> dict[str, tuple[int, int]]:
    tracks = {"driving video": faces.driving, "result": faces.result} | ({} if clip.truth is None else {"truth": faces.truth})
    found = {name: (0 if face is None else int(face.present.sum()), len(clip)) for name, face in tracks.items()}
    return {"portrait": (int(faces.portrait is not None), 1)} | found


# Progress


def list_stages(clip: Clip, judges: ClipJudges) -> list[str]:
    """What passes over all frames, in the order in which it does."""
    truth, landmarks = clip.truth is not None, judges.estimator is not None
    return [
        *("driving", "result", *["truth"] * truth, "pictures", "result poses", "driving poses"),
        *["result landmarks", "driving landmarks"] * landmarks,
        *["identity"] * (judges.recognition is not None),
        *["truth pictures"] * truth,
    ]


def in_stages(callback: Callback | None, frames: int, names: list[str]) -> dict[str, Callback]:
    """A callback (done, total) for each stage; all of them count alike."""

    def of_stage(number: int) -> Callback:
        def tick(done: int, total: int) -> None:
            if callback is not None:
                callback(number * frames + done * frames // total, len(names) * frames)

        return tick

    return {name: of_stage(number) for number, name in enumerate(names)}


# Against the driving video


def motion_errors(result: Pose, driving: Pose, present: Tensor) -> dict[str, Values]:
    """Head pose and expression of L frames, as they are and as changes since the first frame; present (L,) bool.

    Angles in degrees; expressions are mean distances of M's delta in the head's axes, px of a face crop of SIDE px.
    """
    first = int(present.nonzero()[0, 0]) if bool(present.any()) else 0
    turned = [pose.rotation @ pose.rotation[first].mT for pose in (result, driving)]  # as in `relative`
    deltas = [pose.expression @ pose.rotation.mT for pose in (result, driving)]  # (L, K, 3)
    changed = [delta - delta[first] for delta in deltas]
    after = present.clone()
    after[first] = False  # nothing has changed there yet
    return {
        "head_deg": where(angle_between(result.rotation, driving.rotation), present),
        "head_change_deg": where(angle_between(*turned), after),
        "expression_px": where(KEYPOINT_PX * (deltas[0] - deltas[1]).norm(dim=-1).mean(1), present),
        "expression_change_px": where(KEYPOINT_PX * (changed[0] - changed[1]).norm(dim=-1).mean(1), after),
    }


def estimated(
    estimator: Estimator, clip: Clip, portrait: Tensor | None, result: FaceTrack, driving: FaceTrack, stages: dict[str, Callback]
) -> tuple[dict[str, Values], ClipFigure]:
    """Independent of M: L1 distances of blendshapes and head pose, and the correlation of the mouth's opening by landmarks."""
    ours = landmarks_of(estimator.landmarker, clip.result, result, stages["result landmarks"])
    theirs = landmarks_of(estimator.landmarker, clip.driving, driving, stages["driving landmarks"])
    own = torch.zeros(1, POINTS, 3)
    if portrait is not None:
        own[0] = estimator.landmarker.points(clip.portrait[0], portrait)
    moved, wanted = estimator.parameters(ours, result.present), estimator.parameters(theirs, driving.present)
    still = estimator.parameters(own, torch.tensor([portrait is not None]))
    errors = parameter_errors(moved, wanted) | change_errors(moved, still, wanted)
    openings = [
        inner_lips_gap(points) * torch.linalg.det(points_to_crop(face.points, SIDE)[:, :2, :2]).sqrt()  # px of a face crop
        for points, face in ((ours, result), (theirs, driving))
    ]
    return errors, correlation(openings[0], openings[1], result.present & driving.present)


def landmarks_of(landmarker: FaceLandmarker, pictures: Tensor, face: FaceTrack, stage: Callback) -> Tensor:
    """MediaPipe's landmarks (L, 478, 3) px of pictures (L, H, W, 3); 0 in frames without a face."""
    points = torch.zeros(len(pictures), POINTS, 3)
    for i, picture in enumerate(pictures):
        if face.present[i]:
            points[i] = landmarker.points(picture, face.points[i])
        stage(i + 1, len(pictures))
    return points


def correlation(result: Tensor, driving: Tensor, present: Tensor) -> ClipFigure:
    """Pearson correlation of two openings of the mouth (L,) px; None where the driving mouth does not move."""
    return ClipFigure(opening_correlation(result[present], driving[present]), int(present.sum()), len(present))


# Against the portrait


def identities(
    recognition: Recognition, device: torch.device, clip: Clip, portrait: Tensor, result: FaceTrack, stage: Callback
) -> Values:
    """Similarity of the result's face to the portrait's (L,), the cosine of their embeddings. portrait (5, 2) px."""

    def embed(pictures: Tensor, five: Tensor) -> Tensor:
        return recognition.embed(pictures.movedim(-1, 1).to(device), five).cpu()

    found: list[Tensor] = []
    for start in range(0, len(clip), CHUNK):
        part = slice(start, start + CHUNK)
        found.append(embed(clip.result[part], result.points[part]))
        stage(min(start + CHUNK, len(clip)), len(clip))
    return identity_similarity(torch.cat(found), embed(clip.portrait, portrait[None]), result.present)


def face_crops(pictures: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Crops (L, 3, FACE_SIDE, FACE_SIDE) of the faces of pictures (L, H, W, 3) with points (L, 5, 2) px, and their facial masks."""
    to_crop = points_to_crop(points, FACE_SIDE)  # (L, 3, 3)
    crops = sample_crop(pictures.movedim(-1, 1), to_crop, FACE_SIDE, units=FACE_SIDE)
    inside = points.double() @ to_crop[:, :2, :2].mT + to_crop[:, None, :2, 2]
    return crops, facial_masks(inside, FACE_SIDE, FACE_SIDE)


def facial_masks(points: Tensor, height: int, width: int) -> Tensor:
    """(L, 5, 2) px -> (L, height, width) bool."""
    faces = face_ellipse(points)
    window = pixels(faces, (0, height), (0, width))
    return torch.cat([ellipse_mask(part, *window) for part in faces.split(CHUNK)])


# From frame to frame


def in_crop(poses: Pose) -> Tensor:
    """M's keypoints (L, K, 2), px of a face crop of SIDE px."""
    return KEYPOINT_PX * transform(poses)[..., :2]


def seam(steps: Values, at: list[int]) -> ClipFigure:
    """Mean over the joins of the network's clips."""
    found = seams(steps, at)
    return ClipFigure(mean(found), sum(value is not None for value in found), len(found))


def picture_figures(clip: Clip, faces: ClipFaces, stage: Callback) -> dict[str, Values]:
    """Flicker, the step from each frame to the next, colours, and sharpness against the portrait.

    Still is what the truth shows to be still; without a truth, the picture's border, where neither head nor shoulders are. Where
    neither is known, flicker is left out.
    """
    border = portrait = still = None
    if clip.truth is not None:
        still = still_part(clip.truth.movedim(-1, 1))  # (L - 1, H, W), of the whole clip: it counts how often a pixel moves
    if faces.result is not None:
        border = still_border(facial_masks(faces.result.points, *clip.result.shape[1:3]))
        portrait = None if faces.portrait is None else face_crops(clip.portrait, faces.portrait[None])
    found: dict[str, Values] = {}
    for start in range(0, len(clip), CHUNK):
        chunk = slice(max(start - 1, 0), start + CHUNK)  # with the frame before
        result = clip.result[chunk].movedim(-1, 1)
        figures = {"step_255": picture_steps(result)} | colour_figures(result)
        if clip.truth is not None and still is not None:
            truth, part = clip.truth[chunk].movedim(-1, 1), still[chunk.start : chunk.start + len(result) - 1]
            figures |= {"flicker_255": flicker(result, part), "truth_flicker_255": flicker(truth, part)}
        elif border is not None:
            figures["flicker_255"] = flicker(result, border)
        if faces.result is not None and portrait is not None:
            figures["sharp"] = sharpness_to_portrait(*face_crops(clip.result[chunk], faces.result.points[chunk]), *portrait)
        new = min(CHUNK, len(clip) - start)
        for name, values in figures.items():
            found.setdefault(name, []).extend(values[-new:])
        stage(start + new, len(clip))
    if "sharp" in found and faces.result is not None:
        found["sharp"] = where(found["sharp"], faces.result.present)
    return found


# Against the truth


def truth_distances(clip: Clip, true: Tensor, stlpips: STLPIPS | None, stage: Callback) -> dict[str, Values]:
    """PSNR, SSIM and, where its network is there, ST-LPIPS of every frame."""
    found: dict[str, list[Tensor]] = {}
    for start in range(0, len(clip), AT_ONCE):
        result, truth = (frames[start : start + AT_ONCE].movedim(-1, 1) for frames in (clip.result, true))
        figures = {"psnr_db": psnr(result, truth), "ssim": ssim(result, truth)}
        if stlpips is not None:
            device = device_of(stlpips)
            figures["st_lpips"] = distances(stlpips, {"result": result.to(device)}, truth.to(device))["result"].cpu()
        for name, values in figures.items():
            found.setdefault(name, []).append(values)
        stage(min(start + AT_ONCE, len(clip)), len(clip))
    return {name: torch.cat(parts).tolist() for name, parts in found.items()}


def truth_spectrum(clip: Clip, true: Tensor, face: FaceTrack | None) -> dict[str, ClipFigure]:
    """Power of the result relative to the truth's around the truth's face, or around the middle where it has none."""
    height, width = true.shape[1:3]
    centre = [width / 2, height / 2] if face is None else face.points.mean((0, 1)).tolist()
    octaves = spectrum_db(clip.result.movedim(-1, 1), true.movedim(-1, 1), centre)
    figures = {"spectrum_worst_db": worst_octave(octaves), "spectrum_finest_db": octaves[-1]}
    return {name: ClipFigure(value, len(clip), len(clip)) for name, value in figures.items()}
