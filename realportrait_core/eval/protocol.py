"""Self- and cross-reenactment on clips whose ground truth is known, by the functions of generate.py.

self    the clip's first frame is the portrait; the clip is both driving video and truth. Any folder of .mp4 clips: each is framed
        as the nodes frame its portrait, and one without a face in its first frame is left out.
cross   the driving video is clip 800000+i; the portrait is the first frame of clip 810000+i, another identity that performs the
        same motion, and the truth is the rest of that clip.
photos  a photo is the portrait, the same photo turned in 3-D is driving video and truth; uncovered pixels do not count.
continued  as self, but the clip is played forwards and backwards until CONTINUED frames, three clips of the network, are driven.
Frame 0 is the portrait, so frames 1 to the last are scored. A clip's figure is the mean of its frames, a row's that of its clips.

Perceptual metrics come first: ST-LPIPS, the spectrum relative to the truth's, identity and landmarks, none of which is in any
loss. PSNR, which rewards blur, SSIM, and M's keypoints and head pose follow. A metric whose file is not named shows as "-".
"""

import logging
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from ..animation.clips import plan
from ..animation.extraction import CHUNK, extract_keypoints
from ..animation.mapping import PortraitMotion, frame_portrait, motion_maps
from ..animation.rendering import render
from ..animation.retargeting import drive_keypoints
from ..diffusion.schedule import Schedule
from ..dit.model import RealPortraitDiT
from ..errors import FaceError, InputError
from ..face.crop import clip_crop
from ..face.detect import FaceDetector
from ..face.track import portrait_points, track
from ..speed import Speed
from ..vae import VAE
from ..vid2vid import FaceVid2Vid
from .cases import Case, frames_of
from .judges import Judges
from .rows import (
    FACE_VID2VID,
    MOTION_LATENTS,
    REALPORTRAIT,
    ROUND_TRIP,
    STATIC,
    decode,
    draft_latents,
    encode,
    face_vid2vid_frames,
    to_bytes,
)
from .score import Scores, Truth, judge, score, spectrum

log = logging.getLogger(__name__)

SEED = 0
SHOWN = 4  # frames of a clip in the strip


@dataclass(frozen=True)
class Networks:
    """The networks under test, frozen and in eval mode, and those that judge their results."""

    vid2vid: FaceVid2Vid
    dit: RealPortraitDiT
    vae: VAE
    detector: FaceDetector
    schedule: Schedule
    judges: Judges = Judges()


@dataclass(frozen=True)
class Outcome:
    """One scored case."""

    name: str
    scores: Scores
    spectra: dict[str, list[float]]  # row -> dB by octave, coarse to fine
    clip_spectra: list[list[float]]  # the same of RealPortrait, by clips of the network
    colours: dict[str, list[list[float]]]  # row -> mean error of red, green, blue for every frame
    pictures: dict[str, Tensor]  # "portrait" (1, S, S, 3) and "truth", rows (SHOWN, S, S, 3); uint8
    faces: str  # the tracker's report on the driving video
    sampling_seconds: float  # of RealPortrait's latents


@dataclass(frozen=True)
class Prepared:
    """A case before sampling: its motion and its truth, as the nodes prepare them."""

    motion: PortraitMotion
    truth: Truth  # with the portrait as the motion frames it
    faces: str  # the tracker's report on the driving video


def prepare(networks: Networks, case: Case, framing: str = "whole") -> Prepared:
    """A case's motion and truth on a frame of the network's size; framing as in `motion_maps`.

    FaceError where a face is missing, InputError where the clips do not belong together.
    """
    driver, truth, valid = frames_of(case)
    portrait = truth[:1].float() / 255  # (1, H, W, 3)
    points = portrait_points(portrait[0], networks.detector)
    followed = track(driver, networks.detector)
    true_track = followed if case.of_itself else track(truth, networks.detector)

    keypoints = extract_keypoints(networks.vid2vid, portrait, driver.float() / 255, points, followed)
    size = networks.dit.cfg.input_sq_size
    # The first frame is the neutral one: of the clip itself it is the portrait, and all published figures were measured so.
    motion = motion_maps(networks.vid2vid, drive_keypoints(keypoints, neutral=0), size, framing)
    to_frame = motion.portrait_to_frame
    framed = Truth(
        pictures=on_frame(truth, motion),
        crop=clip_crop(true_track.points) @ torch.linalg.inv(to_frame),
        face=motion.maps.mask(),
        points=(true_track.points.double() @ to_frame[:2, :2].T + to_frame[:2, 2]).float(),
        portrait=frame_portrait(portrait, motion).movedim(-1, 1),
        valid=None if valid is None else on_frame(255 * valid[..., None].to(torch.uint8), motion)[:, 0] > 0.999,
    )
    if framed.valid is not None and not bool(framed.valid.any(2).any(1).all()):
        raise InputError(f"{case.name}: there is a frame of whose truth nothing is known.")
    return Prepared(motion, framed, followed.report)


def on_frame(frames: Tensor, motion: PortraitMotion) -> Tensor:
    """Frames (L, H, W, C) uint8 of the portrait's size on the motion's frame: (L, C, S, S) in [0, 1]."""
    return torch.cat([frame_portrait(chunk.float() / 255, motion) for chunk in frames.split(CHUNK)]).movedim(-1, 1)


@torch.inference_mode()
def run_case(networks: Networks, case: Case, speed: Speed, framing: str = "whole", guidance: float = 1.0) -> Outcome:
    """Animate and score one case; framing as in `prepare`. FaceError where a face is missing, InputError where the clips do
    not belong together.
    """
    given = prepare(networks, case, framing)
    motion, truth, pictures = given.motion, given.truth, given.truth.pictures
    began = time.perf_counter()
    latent = encode(networks.vae, truth.portrait)
    latents = render(
        networks.dit,
        networks.schedule,
        latent,
        motion,
        speed.steps,
        SEED,
        solver=speed.solver,
        caching=speed.caching,
        guidance=guidance,
    )
    seconds = time.perf_counter() - began

    rows = {STATIC: truth.portrait.expand_as(pictures), ROUND_TRIP: decode(networks.vae, encode(networks.vae, pictures))}
    if networks.vid2vid.generator is not None:
        rows[FACE_VID2VID] = face_vid2vid_frames(networks.vid2vid, truth.portrait, motion)
    draft = draft_latents(networks.dit, latent, motion)
    if draft is not None:
        rows[MOTION_LATENTS] = decode(networks.vae, draft)
    rows[REALPORTRAIT] = decode(networks.vae, latents)

    distances, judged = score(networks.vid2vid, rows, truth), judge(networks.judges, networks.detector, rows, truth)
    colours = {row: (result - pictures).mean((2, 3)).tolist() for row, result in rows.items()}
    last = len(pictures) - 1
    shown = [max(1, round(last * (k + 1) / SHOWN)) for k in range(SHOWN)]
    shown_pictures = {"portrait": to_bytes(truth.portrait), "truth": to_bytes(pictures[shown])}
    shown_pictures |= {row: to_bytes(result[shown]) for row, result in rows.items() if row in (FACE_VID2VID, REALPORTRAIT)}
    scores = {row: distances[row] | judged[row] for row in rows}
    whole = {row: spectrum(result, truth) for row, result in rows.items()}
    clips = new_frames(len(pictures), networks.dit.cfg.clip_frames)
    parts = [spectrum(rows[REALPORTRAIT], truth, slice(new.start, new.stop)) for new in clips]
    return Outcome(case.name, scores, whole, parts, colours, shown_pictures, given.faces, seconds)


def new_frames(frames: int, clip_frames: int) -> list[range]:
    """Scored frames that each clip of the network adds; frame 0 is the portrait."""
    return [range(max(1, clip.start + clip.overlap), clip.stop) for clip in plan(frames, clip_frames)]


def run(
    networks: Networks, cases: list[Case], speed: Speed, framing: str = "whole", guidance: float = 1.0
) -> tuple[list[Outcome], dict[str, str]]:
    """All cases, and those left out because of a face: name -> reason."""
    outcomes, left_out = [], {}
    for done, case in enumerate(cases, 1):
        began = time.perf_counter()
        try:
            outcome = run_case(networks, case, speed, framing, guidance)
        except FaceError as error:
            left_out[case.name] = str(error)
            log.warning("%d/%d %s left out: %s", done, len(cases), case.name, error)
            continue
        outcomes.append(outcome)
        figures = ", ".join(f"{row} {sum(score['psnr_db']) / len(score['psnr_db']):.2f}" for row, score in outcome.scores.items())
        log.info("%d/%d %s: PSNR %s; %.0f s", done, len(cases), case.name, figures, time.perf_counter() - began)
    return outcomes, left_out
