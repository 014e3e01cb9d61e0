"""Self- and cross-reenactment on clips whose truth is known, by the functions that the nodes call.

self    the clip's first frame is the portrait; the clip is the driver and the truth.
cross   the driver is clip 800000+i; the portrait is the first frame of clip 810000+i, another identity that performs the
        same motion, and the truth is the rest of that clip.
continued  as self, but the clip is played forth and back until CONTINUED frames, three clips of the network, are driven.
Frame 0 is the portrait, so frames 1 to the last are scored. A clip's figure is the mean of its frames, a row's that of its clips.
"""

import json
import logging
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..clips import plan
from ..diffusion.schedule import Schedule
from ..dit.model import RealPortraitDiT
from ..errors import FaceError, InputError
from ..face.crop import CROP, clip_crop, paste_back, rescale
from ..face.detect import FaceDetector
from ..face.track import portrait_points, track
from ..generate import (
    CHUNK, Motion, extract_keypoints, frame_portrait, motion_maps, render, sample_frame,
)
from ..speed import Speed
from ..vae import TinyVAE
from ..vid2vid import FaceVid2Vid
from ..vid2vid.keypoints import angle_between
from ..vid2vid.regions import EYES_AND_MOUTH, LIPS
from .metrics import (
    feature_error, keypoint_error, mouth_correlation, mouth_opening, outside_error, psnr, seen_faces, ssim,
)

log = logging.getLogger(__name__)

SEED = 0
DRIVERS, OTHERS = 800000, 810000        # clip OTHERS + i performs the motion of clip DRIVERS + i
STATIC, ROUND_TRIP, FACE_VID2VID, REALPORTRAIT = "static portrait", "VAE round trip", "Face Vid2vid", "RealPortrait"
CONTINUED = 46          # frames of three clips of 16, each of which starts with the last one of the clip before
SOFT_BORDER = 1 / 8     # of the crop's side, over which G's picture fades into the portrait
SHOWN = 4               # frames of a clip in the strip


@dataclass(frozen=True)
class Networks:
    """What is judged, frozen and in eval mode."""

    vid2vid: FaceVid2Vid
    dit: RealPortraitDiT
    vae: TinyVAE
    detector: FaceDetector
    schedule: Schedule


@dataclass(frozen=True)
class Case:
    """One driver, and the clip that its motion should make of that clip's own first frame."""

    name: str
    driver: Path
    truth: Path
    frames: int | None = None   # so many, forth and back; None: those that the clip has


@dataclass(frozen=True)
class Outcome:
    """One scored case."""

    name: str
    scores: dict[str, dict[str, list[float]]]   # row -> metric -> one figure for every frame from 1
    colours: dict[str, list[list[float]]]       # row -> mean error of red, green, blue for every frame
    pictures: dict[str, Tensor]     # "portrait" (1, S, S, 3) and "truth", rows (SHOWN, S, S, 3); uint8
    faces: str                      # what the tracker said of the driver
    sampling_seconds: float         # of RealPortrait's latents


# Data

def self_cases(folder: Path) -> list[Case]:
    """Every clip of a folder, by name. InputError where there is none."""
    clips = sorted(folder.glob("*.mp4"))
    if not clips:
        raise InputError(f"{folder} holds no .mp4 clip.")
    return [Case(clip.stem, clip, clip) for clip in clips]


def continued_cases(folder: Path) -> list[Case]:
    """As self_cases, long enough for three clips in a row."""
    return [Case(case.name, case.driver, case.truth, CONTINUED) for case in self_cases(folder)]


def cross_cases(folder: Path) -> list[Case]:
    """Every pair of clips 800000+i and 810000+i of a folder. InputError where there is none."""
    names = {int(clip.stem): clip for clip in folder.glob("*.mp4") if clip.stem.isdecimal()}
    pairs = [(names[n], names[n + OTHERS - DRIVERS]) for n in sorted(names) if n + OTHERS - DRIVERS in names and n < OTHERS]
    if not pairs:
        raise InputError(f"{folder} holds no pair of clips {DRIVERS}+i.mp4 and {OTHERS}+i.mp4.")
    return [Case(f"{driver.stem}->{truth.stem}", driver, truth) for driver, truth in pairs]


def read_clip(path: Path) -> Tensor:
    """Frames (L, H, W, 3) uint8. InputError where the file is no video."""
    import av

    try:
        with av.open(str(path)) as video:
            frames = [torch.from_numpy(frame.to_ndarray(format="rgb24")) for frame in video.decode(video=0)]
    except (av.FFmpegError, IndexError) as error:
        raise InputError(f"{path} cannot be read as a video ({error}).") from error
    if len(frames) < 2:
        raise InputError(f"{path} has {len(frames)} frames; frame 0 is the portrait, so at least 2 are needed.")
    return torch.stack(frames)


def forth_and_back(frames: Tensor, count: int | None) -> Tensor:
    """0, 1, ..., n - 1, n - 2, ..., 1, 0, 1, ...: `count` frames of it; None: as they are."""
    if count is None:
        return frames
    there = list(range(len(frames)))
    round_trip = there + there[-2:0:-1]
    return frames[[round_trip[i % len(round_trip)] for i in range(count)]]


# Rows

def soft_square(size: int) -> Tensor:
    """(1, 1, size, size): 1 inside, fading to 0 at the border."""
    place = (torch.arange(size) + 0.5) / size
    ramp = (torch.minimum(place, 1 - place) / SOFT_BORDER).clamp(max=1)
    ramp = ramp * ramp * (3 - 2 * ramp)
    return (ramp[:, None] * ramp)[None, None]


def paint(vid2vid: FaceVid2Vid, portrait: Tensor, motion: Motion) -> Tensor:
    """G's picture of every frame, pasted into the portrait's frame (1, 3, S, S) where the portrait's crop lies: (L, 3, S, S)."""
    painted = []
    for start in range(0, len(motion.maps), CHUNK):
        maps = motion.maps[slice(start, start + CHUNK)]
        face = vid2vid.generator(maps.f.float())                                        # (chunk, 3, s, s)
        to_face = rescale(face.shape[-1] / CROP) @ maps.frame_to_crop.double()
        soft = soft_square(face.shape[-1]).expand(len(maps), -1, -1, -1)
        painted.append(paste_back(portrait.expand(len(maps), -1, -1, -1), face, soft, to_face))
    return torch.cat(painted)


def decode(vae: TinyVAE, latents: Tensor) -> Tensor:
    return torch.cat([vae.decode(chunk) for chunk in latents.split(CHUNK)])


def encode(vae: TinyVAE, pictures: Tensor) -> Tensor:
    return torch.cat([vae.encode(chunk) for chunk in pictures.split(CHUNK)])


@dataclass(frozen=True)
class Prepared:
    """A case up to its latents, by the nodes' flow."""

    motion: Motion
    portrait: Tensor            # (1, 3, S, S), as the motion frames it
    truth: Tensor               # (L, 3, S, S)
    crop: Tensor                # (3, 3) the truth's own, frame px -> crop px
    faces: str                  # what the tracker said of the driver


def prepare(networks: Networks, case: Case) -> Prepared:
    """FaceError where a face is missing, InputError where the clips do not belong together."""
    driver, truth = (forth_and_back(read_clip(path), case.frames) for path in (case.driver, case.truth))
    if len(driver) != len(truth):
        raise InputError(f"{case.name}: the driver has {len(driver)} frames and the truth {len(truth)}.")
    portrait = truth[:1].float() / 255                                                  # (1, H, W, 3)
    points = portrait_points(portrait[0], networks.detector)
    followed = track(driver, networks.detector)
    true_track = followed if case.truth == case.driver else track(truth, networks.detector)

    keypoints = extract_keypoints(networks.vid2vid, portrait, driver.float() / 255, points, followed)
    size = networks.dit.cfg.input_sq_size
    motion = motion_maps(networks.vid2vid, keypoints, "relative", size=size, framing="whole", neutral=0)
    framed = frame_portrait(portrait, motion).movedim(-1, 1)                            # (1, 3, S, S)
    pictures = truth.movedim(-1, 1).float() / 255
    if pictures.shape[2:] != (size, size):
        pictures = sample_frame(pictures, motion.portrait_to_frame, size)
    crop = clip_crop(true_track.points) @ torch.linalg.inv(motion.portrait_to_frame)
    return Prepared(motion, framed, pictures, crop, followed.report)


@torch.inference_mode()
def run_case(networks: Networks, case: Case, speed: Speed, guidance: float = 1.0) -> Outcome:
    """Animate and score one case. FaceError where a face is missing, InputError where the clips do not belong together."""
    given = prepare(networks, case)
    motion, framed, pictures = given.motion, given.portrait, given.truth
    began = time.perf_counter()
    latent = encode(networks.vae, framed)
    latents = render(
        networks.dit, networks.schedule, latent, motion, speed.steps, SEED, solver=speed.solver, caching=speed.caching,
        guidance=guidance,
    )
    seconds = time.perf_counter() - began

    rows = {STATIC: framed.expand_as(pictures), ROUND_TRIP: decode(networks.vae, encode(networks.vae, pictures))}
    if networks.vid2vid.generator is not None:
        rows[FACE_VID2VID] = paint(networks.vid2vid, framed, motion)
    rows[REALPORTRAIT] = decode(networks.vae, latents)

    scores = score(networks.vid2vid, rows, pictures, given.crop, motion.maps.mask())
    colours = {row: (result - pictures).mean((2, 3)).tolist() for row, result in rows.items()}
    last = len(pictures) - 1
    shown = [max(1, round(last * (k + 1) / SHOWN)) for k in range(SHOWN)]
    kept = {"portrait": to_bytes(framed), "truth": to_bytes(pictures[shown])}
    kept |= {row: to_bytes(result[shown]) for row, result in rows.items() if row in (FACE_VID2VID, REALPORTRAIT)}
    return Outcome(case.name, scores, colours, kept, given.faces, seconds)


def score(vid2vid: FaceVid2Vid, rows: dict[str, Tensor], truth: Tensor, crop: Tensor, face: Tensor) -> dict[str, dict]:
    """Frames 1 to the last of every row (L, 3, S, S) against the truth: row -> metric -> figures.

    crop (3, 3) is the truth's own, frame px -> crop px; face (L, S, S) is what `outside` leaves out.
    """
    truth, face = truth[1:], face[1:]
    true_points, true_rotation = seen_faces(vid2vid.motion, truth, crop)
    scores = {}
    for row, result in rows.items():
        result = result[1:]
        points, rotation = seen_faces(vid2vid.motion, result, crop)
        figures = {
            "psnr_db": psnr(result, truth),
            "ssim": ssim(result, truth),
            "keypoint_error_px": keypoint_error(points, true_points),
            "rotation_error_deg": angle_between(rotation, true_rotation),
            "outside_error_255": outside_error(result, truth, face),
        }
        if points.shape[1] in EYES_AND_MOUTH:
            figures["eyes_mouth_error_px"] = feature_error(points, true_points)
        if points.shape[1] in LIPS:
            figures |= {"mouth_px": mouth_opening(points), "true_mouth_px": mouth_opening(true_points)}
        scores[row] = {name: values.tolist() for name, values in figures.items()}
    return scores


def to_bytes(pictures: Tensor) -> Tensor:
    """(N, 3, S, S) in [0, 1] -> (N, S, S, 3) uint8."""
    return (pictures.movedim(1, -1).clamp(0, 1) * 255).round().to(torch.uint8)


# The whole run

def run(networks: Networks, cases: list[Case], speed: Speed, guidance: float = 1.0) -> tuple[list[Outcome], dict[str, str]]:
    """All cases, and those left out because of a face: name -> reason."""
    outcomes, left_out = [], {}
    for done, case in enumerate(cases, 1):
        began = time.perf_counter()
        try:
            outcome = run_case(networks, case, speed, guidance)
        except FaceError as error:
            left_out[case.name] = str(error)
            log.warning("%d/%d %s left out: %s", done, len(cases), case.name, error)
            continue
        outcomes.append(outcome)
        figures = ", ".join(f"{row} {mean(score['psnr_db']):.2f}" for row, score in outcome.scores.items())
        log.info("%d/%d %s: PSNR %s; %.0f s", done, len(cases), case.name, figures, time.perf_counter() - began)
    return outcomes, left_out


def mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values)


def clips_in_a_row(outcomes: list[Outcome], clip_frames: int) -> list[dict]:
    """RealPortrait clip by clip as the network makes them: PSNR, and the mean error of red, green and blue in 1/255."""
    frames = len(outcomes[0].colours[REALPORTRAIT])
    figures = []
    for clip in plan(frames, clip_frames):
        new = range(max(1, clip.start + clip.conditional), clip.stop)                   # frame 0 is the portrait
        figures.append({
            "frames": [new.start, new.stop - 1],
            "psnr_db": mean(outcome.scores[REALPORTRAIT]["psnr_db"][i - 1] for outcome in outcomes for i in new),
            "colour_error_255": [
                255 * mean(outcome.colours[REALPORTRAIT][i][colour] for outcome in outcomes for i in new) for colour in range(3)
            ],
        })
    return figures


def summary(outcomes: list[Outcome], clip_frames: int) -> dict:
    """Every figure of a run. InputError where no case could be scored."""
    if not outcomes:
        raise InputError("No clip could be scored: see the log for the reason of each.")
    clips = [{
        "name": outcome.name, "driver": outcome.faces, "sampling_seconds": outcome.sampling_seconds,
        "rows": {row: {name: mean(values) for name, values in metrics.items()} for row, metrics in outcome.scores.items()},
        "frames_from_1": outcome.scores,
    } for outcome in outcomes]
    rows = {
        row: {name: mean(clip["rows"][row][name] for clip in clips) for name in metrics}
        for row, metrics in outcomes[0].scores.items()
    }
    for row, figures in rows.items():
        figures["over_static_db"] = figures["psnr_db"] - rows[STATIC]["psnr_db"]
        if "mouth_px" in figures:
            openings = ([outcome.scores[row][name] for outcome in outcomes] for name in ("mouth_px", "true_mouth_px"))
            figures["mouth_correlation"] = mouth_correlation(*openings)
    better = [
        ours > still
        for outcome in outcomes
        for ours, still in zip(outcome.scores[REALPORTRAIT]["psnr_db"], outcome.scores[STATIC]["psnr_db"])
    ]
    worst = min(clips, key=lambda clip: clip["rows"][REALPORTRAIT]["psnr_db"])
    return {
        "rows": rows,
        "clips_in_a_row": clips_in_a_row(outcomes, clip_frames),
        "frames_scored": len(better),
        "frames_better_than_static_percent": 100 * mean(better),
        "worst_clip": {
            "name": worst["name"],
            "psnr_db": worst["rows"][REALPORTRAIT]["psnr_db"],
            "static_psnr_db": worst["rows"][STATIC]["psnr_db"],
        },
        "sampling_seconds_per_clip": mean(outcome.sampling_seconds for outcome in outcomes),
        "clips": clips,
    }


def table(report: dict) -> str:
    """The report as lines for a terminal."""
    lines = [
        f"{report['mode']} on {report['data']}: {report['clips_used']} used / {report['clips_total']} total clips",
        f"Scored: {report['frames_scored']} frames, 1 to the last of a clip (0 is the portrait); {report['steps']} steps of {report['solver']}.",
        "",
        f"{'':16}{'PSNR dB':>9}{'over static':>13}{'SSIM':>8}{'keypoints px':>14}{'eyes, mouth':>13}{'mouth r':>9}"
        f"{'head deg':>10}{'outside':>9}",
    ]
    for row, figures in report["rows"].items():
        over = "" if row == STATIC else f"{figures['over_static_db']:+.2f}"
        features = f"{figures['eyes_mouth_error_px']:.2f}" if "eyes_mouth_error_px" in figures else ""
        mouth = f"{figures['mouth_correlation']:.2f}" if "mouth_correlation" in figures else ""
        lines.append(
            f"{row:16}{figures['psnr_db']:9.2f}{over:>13}{figures['ssim']:8.4f}{figures['keypoint_error_px']:14.2f}"
            f"{features:>13}{mouth:>9}{figures['rotation_error_deg']:10.2f}{figures['outside_error_255']:9.2f}"
        )
    if FACE_VID2VID not in report["rows"]:
        lines.append(f"{FACE_VID2VID:16}    these weights have no generator G")
    lines += ["", "Clips in a row:    PSNR dB    red   green    blue (mean error, 1/255)"]
    for clip in report["clips_in_a_row"]:
        first, last = clip["frames"]
        colours = "".join(f"{error:+8.2f}" for error in clip["colour_error_255"])
        lines.append(f"frames {first:3}-{last:<3}{clip['psnr_db']:12.2f}{colours}")
    worst = report["worst_clip"]
    lines += [
        "",
        f"RealPortrait is better than the static portrait in {report['frames_better_than_static_percent']:.1f} % of frames; "
        f"worst clip {worst['name']}: {worst['psnr_db']:.2f} dB (static {worst['static_psnr_db']:.2f}).",
        f"{report['seconds']:.0f} s in all, {report['sampling_seconds_per_clip']:.1f} s of sampling a clip.",
    ]
    lines += [f"Left out {name}: {reason}" for name, reason in report["left_out"].items()]
    return "\n".join(lines) + "\n"


# Files

def write_whole(path: Path, data: bytes) -> None:
    """The old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, report: dict) -> None:
    write_whole(path, json.dumps(report, indent=1, allow_nan=False).encode())


def write_strip(path: Path, outcomes: list[Outcome]) -> None:
    """A PNG: a row for each clip with the portrait, then SHOWN frames as truth, Face Vid2vid, RealPortrait."""
    import cv2

    columns = [name for name in ("truth", FACE_VID2VID, REALPORTRAIT) if name in outcomes[0].pictures]
    lines = []
    for outcome in outcomes:
        groups = [outcome.pictures[name][k] for k in range(SHOWN) for name in columns]
        lines.append(torch.cat([outcome.pictures["portrait"][0], *groups], 1))          # (S, W, 3)
    sheet = torch.cat(lines).numpy()
    size = lines[0].shape[0]
    head = torch.full((size // 10, sheet.shape[1], 3), 255, dtype=torch.uint8).numpy()
    for i, name in enumerate(["portrait", *columns * SHOWN]):
        place = (i * size + 4, len(head) - 7)
        cv2.putText(head, name, place, cv2.FONT_HERSHEY_SIMPLEX, size / 512, (0, 0, 0), 1, cv2.LINE_AA)
    picture = cv2.vconcat([head, sheet])[..., ::-1]
    written, data = cv2.imencode(".png", picture)
    if not written:
        raise InputError(f"The strip of {picture.shape[1]}x{picture.shape[0]} px could not be encoded.")
    write_whole(path, data.tobytes())
