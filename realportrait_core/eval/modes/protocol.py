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

from ...animation.clips import plan
from ...animation.extraction import CHUNK
from ...animation.mapping import PortraitMotion, frame_portrait
from ...errors import FaceError, InputError
from ...face.crop import clip_crop
from ...face.track import track
from ...speed import Speed
from ..cases import Case, frames_of
from ..networks import Networks
from ..rows import FACE_VID2VID, REALPORTRAIT, rows_of, to_bytes
from ..source import Source, find_faces, motion_of
from .score import Scores, Truth, judge, score, spectrum

log = logging.getLogger(__name__)

SHOWN = 4  # frames of a clip in the strip


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
    source: Source


def prepare(networks: Networks, case: Case, framing: str = "whole") -> Prepared:
    """A case's motion and truth on a frame of the network's size; framing as in `motion_maps`.

    FaceError where a face is missing, InputError where the clips do not belong together.
    """
    driver, truth, valid = frames_of(case)
    source = find_faces(truth[0], driver, networks.detector)
    true_track = source.track if case.of_itself else track(truth, networks.detector)
    motion = motion_of(networks, source, framing)
    to_frame = motion.portrait_to_frame
    framed = Truth(
        pictures=on_frame(truth, motion),
        crop=clip_crop(true_track.points) @ torch.linalg.inv(to_frame),
        face=motion.maps.mask(),
        points=(true_track.points.double() @ to_frame[:2, :2].T + to_frame[:2, 2]).float(),
        portrait=frame_portrait(source.portrait, motion).movedim(-1, 1),
        valid=None if valid is None else on_frame(255 * valid[..., None].to(torch.uint8), motion)[:, 0] > 0.999,
    )
    if framed.valid is not None and not bool(framed.valid.any(2).any(1).all()):
        raise InputError(f"{case.name}: there is a frame of whose truth nothing is known.")
    return Prepared(motion, framed, source)


def on_frame(frames: Tensor, motion: PortraitMotion) -> Tensor:
    """Frames (L, H, W, C) uint8 of the portrait's size on the motion's frame: (L, C, S, S) in [0, 1]."""
    return torch.cat([frame_portrait(chunk.float() / 255, motion) for chunk in frames.split(CHUNK)]).movedim(-1, 1)


@torch.inference_mode()
def run_case(networks: Networks, case: Case, speed: Speed, framing: str = "whole", guidance: float = 1.0) -> Outcome:
    """Animate and score one case; framing as in `prepare`. FaceError where a face is missing, InputError where the clips do
    not belong together.
    """
    given = prepare(networks, case, framing)
    truth, pictures = given.truth, given.truth.pictures
    drawn = rows_of(networks, given.motion, truth.portrait, pictures, speed, guidance)
    rows = drawn.pictures

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
    return Outcome(case.name, scores, whole, parts, colours, shown_pictures, given.source.track.report, drawn.sampling_seconds)


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
