"""The figures of a clip of anybody's: its frames against the portrait, the driving video and, where it is known, the truth.

Head pose and expression are M's, each face in its own crop. Of everything that needs a face only the frames count in which one
was found; a figure that cannot be measured is None, and `clip_table.py` says so.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..animation.extraction import CHUNK, device_of, tracked_poses
from ..face.crop import clip_crop, face_ellipse, face_square, points_to_crop
from ..face.detect import FaceDetector
from ..face.landmarks import FaceLandmarker
from ..face.track import FaceTrack
from ..motion_map import ellipse_mask, pixels
from ..stlpips import AT_ONCE, STLPIPS, distances
from ..vid2vid import FaceVid2Vid
from ..vid2vid.keypoints import Pose, angle_between, transform
from ..vid2vid.regions import LIPS
from .clip import SIDE, Callback, Clip, ClipFaces, find_faces
from .drift import colour_figures
from .landmarks import detect_landmarks, inner_lips_gap
from .metrics import STILL, mouth_correlation, mouth_opening, psnr, ssim
from .recognition import Recognition, identity_similarity
from .record import Values
from .sharpness import sharpness_to_portrait
from .spectrum import spectrum_db, worst_octave
from .temporal import jitter, joins, mean, still_border, still_part, temporal_figures

KEYPOINT_PX = SIDE / 2  # of a face crop of SIDE px, per unit of M's keypoints
SAME_SIZE = 0.02  # of the face's size: so little more or less is not resized, which would blur


@dataclass(frozen=True)
class ClipJudges:
    """Networks that measure and are in no loss; None: the figures that need it are left out."""

    recognition: Recognition | None = None
    landmarker: FaceLandmarker | None = None
    stlpips: STLPIPS | None = None
    device: torch.device = torch.device("cpu")  # of the pictures that recognition receives


@dataclass(frozen=True)
class ClipReport:
    """What was measured on L frames; the metrics are those of `clip_table.FIGURES`."""

    scored: int  # L
    found: dict[str, tuple[int, int]]  # picture -> frames with a face, of how many
    frames: dict[str, Values]  # metric -> a value for every frame
    whole: dict[str, float | None]  # metric -> one value for the clip
    clip_frames: int  # of a clip of the network; 0: made at once
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
    stages = in_stages(callback, len(clip), list_stages(clip, judges))
    faces = find_faces(clip, detector, stages)
    frames: dict[str, Values] = {}
    whole: dict[str, float | None] = {}
    if faces.in_both is not None:
        ours = tracked_poses(vid2vid, clip.result, clip_crop(faces.result.points), faces.result, stages["result poses"])
        theirs = tracked_poses(vid2vid, clip.driving, clip_crop(faces.driving.points), faces.driving, stages["driving poses"])
        frames |= motion_errors(ours, theirs, faces.in_both)
        frames["driving_jitter_px"] = jitter(in_crop(theirs), faces.driving.present)
        if ours.canonical.shape[1] in LIPS:
            openings = [mouth_opening(in_crop(pose)) for pose in (ours, theirs)]
            whole["mouth_correlation"] = correlation(*openings, faces.in_both)
        if judges.landmarker is not None:
            openings = [
                lips_openings(judges.landmarker, pictures, face, faces.in_both, stages[name])
                for pictures, face, name in (
                    (clip.result, faces.result, "result landmarks"),
                    (clip.driving, faces.driving, "driving landmarks"),
                )
            ]
            whole["landmark_mouth_correlation"] = correlation(*openings, faces.in_both)
    if faces.portrait is not None and faces.result is not None:
        frames["sharpness"] = portrait_sharpness(clip, faces)
        if judges.recognition is not None:
            frames["identity"] = identities(judges, clip, faces, stages["identity"])
    if clip.truth is not None:
        frames |= truth_distances(clip, judges, stages["truth pictures"])
        whole |= truth_spectrum(clip, faces)
    found = {"portrait": (int(faces.portrait is not None), 1)}
    tracks = {"driving video": faces.driving, "result": faces.result} | ({} if clip.truth is None else {"truth": faces.truth})
    found |= {name: (0 if face is None else int(face.present.sum()), len(clip)) for name, face in tracks.items()}
    if callback is not None:
        callback(len(clip) * len(stages), len(clip) * len(stages))
    return ClipReport(len(clip), found, frames, whole, clip.notes + faces.notes)


# Progress


def list_stages(clip: Clip, judges: Judges) -> list[str]:
    """What passes over all frames, in the order in which it does."""
    stages = ["driving", "result", "result poses", "driving poses"]
    if judges.landmarker is not None:
        stages += ["result landmarks", "driving landmarks"]
    if judges.embedding is not None:
        stages.append("identity")
    return stages if clip.truth is None else [*stages[:2], "truth", *stages[2:], "truth pictures"]


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


def where(values: Tensor, known: Tensor) -> Values:
    """(L,) as a list, None where it is not known."""
    return [value if here else None for value, here in zip(values.tolist(), known.tolist())]


def lips_openings(landmarker, pictures: Tensor, face: FaceTrack, present: Tensor, stage: Callback) -> Tensor:
    """Opening of the mouth (L,) px by MediaPipe's landmarks, in units of the face's size; 0 where it is not looked for."""
    openings = torch.zeros(len(pictures))
    for i in range(len(pictures)):
        if present[i]:
            points = detect_landmarks(landmarker, pictures[i : i + 1].movedim(-1, 1), face.points[i : i + 1])
            size = points_to_crop(face.points[i], size=SIDE)[:2, :2].det().sqrt()
            openings[i] = float(inner_lips_gap(points)[0] * size)
        stage(i + 1, len(pictures))
    return openings


def correlation(result: Tensor, driving: Tensor, present: Tensor) -> float | None:
    """Pearson correlation of two openings of the mouth (L,) px; None where the driving mouth does not move."""
    result, driving = result[present], driving[present]
    if len(driving) < 2 or float(driving.std(correction=0)) < STILL:
        return None
    return mouth_correlation([result.tolist()], [driving.tolist()])


# Against the portrait


def identities(network, clip: Clip, faces: ClipFaces, stage: Callback) -> Values:
    """Distance of the face's embedding from the portrait's, where the result shows a face."""
    device = device_of(network)
    portrait = network.embed(clip.portrait.movedim(-1, 1).to(device), faces.portrait[None])  # (1, D)
    found: list[Tensor] = []
    for start in range(0, len(clip), CHUNK):
        part = slice(start, start + CHUNK)
        embedded = network.embed(clip.result[part].movedim(-1, 1).to(device), faces.result.points[part])
        found.append(identity_distance(embedded, portrait).cpu())
        stage(min(start + CHUNK, len(clip)), len(clip))
    return where(torch.cat(found), faces.result.present)


# Against the truth


def truth_distances(clip: Clip, judges: Judges, stage: Callback) -> dict[str, Values]:
    """PSNR, SSIM and, where its network is there, ST-LPIPS of every frame."""
    found: dict[str, list[Tensor]] = {}
    for start in range(0, len(clip), AT_ONCE):
        result, truth = (frames[start : start + AT_ONCE].movedim(-1, 1) for frames in (clip.result, clip.truth))
        figures = {"psnr_db": psnr(result, truth), "ssim": ssim(result, truth)}
        if judges.stlpips is not None:
            device = device_of(judges.stlpips)
            figures["st_lpips"] = distances(judges.stlpips, {"result": result.to(device)}, truth.to(device))["result"].cpu()
        for name, values in figures.items():
            found.setdefault(name, []).append(values)
        stage(min(start + AT_ONCE, len(clip)), len(clip))
    return {name: torch.cat(parts).tolist() for name, parts in found.items()}


def truth_spectrum(clip: Clip, faces: ClipFaces) -> dict[str, float | None]:
    """Power of the result relative to the truth's around the truth's face, or around the middle where it has none."""
    height, width = clip.truth.shape[1:3]
    centre = [width / 2, height / 2]
    if faces.truth is not None:
        centre = faces.truth.points.mean((0, 1)).tolist()
    octaves = spectrum_db(clip.result.movedim(-1, 1), clip.truth.movedim(-1, 1), centre)
    return {"spectrum_worst_db": worst_octave(octaves), "spectrum_finest_db": octaves[-1]}
