"""An animation of any length, one clip after the other, that goes on where it was broken off."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..animation.clips import clip_at, next_clip
from ..animation.keypoints import Progress
from ..animation.retargeting import DrivenKeypoints
from ..errors import InputError
from ..vid2vid import FaceVid2Vid
from ..video.writing import CRF, is_full, room
from .correction import colours_of, correct
from .fingerprint import driving_fingerprint, fingerprint
from .folder import RunFolder
from .judge import Identity, Judge, check_rendered
from .lock import alone_in
from .maps import ClipMotion
from .renderers import ClipRenderer
from .segments import Sound
from .state import ContinuationState, check_state

log = logging.getLogger(__name__)

SAID = 3  # poor tails that the report names one by one
# Of a frame, in its segment and in the video, both of which there are while they are joined: on filmed faces each at most 0.036.
BYTES_PER_PIXEL = 0.08


@dataclass(frozen=True)
class LongSettings:
    """How clips follow one another."""

    overlap: int = 1  # conditional frames
    tail_window: int = 1  # of so many last frames of a clip the best one begins the next; 1: always the last
    crf: int = CRF
    keep_clips: bool = False  # the segments and states of all clips, after the video is whole
    correction: float = 0.0  # of the way by which conditional frames get back the first clip's colours; 0: they stay as shown


@dataclass(frozen=True)
class LongResult:
    """A finished animation."""

    path: Path  # of the mp4
    state: ContinuationState  # after its last clip
    figures: list[dict[str, float]]  # drift of each clip
    report: str


@torch.inference_mode()
def animate_long(
    vid2vid: FaceVid2Vid,
    driven: DrivenKeypoints,
    render: ClipRenderer,
    folder: Path,
    fps: float,
    settings: LongSettings = LongSettings(),
    sound: Sound | None = None,
    state: ContinuationState | None = None,
    identity: Identity | None = None,
    callback: Progress | None = None,
) -> LongResult:
    """The frames of `driven` as folder/video.mp4, in memory that does not grow with their number.

    Each finished clip is on the disk, as its frames and the state after it: where the folder holds the beginning of the same
    run, it goes on from there, and where it holds the whole run nothing is rendered. folder/state.safetensors is always the last
    state. state: of another run that this one continues, from its frame on where that run was of the same driving video, else
    from this driving video's first frame. callback(frames done, frames) after each clip; what it raises ends the run, which can
    be taken up again.

    Raises InputError where the folder holds another run, is in use, cannot be written to or has no room, and where the state does
    not fit.
    """
    check_settings(settings, render)
    begin = beginning(driven, render, settings, fps, sound, folder, state)
    run = RunFolder(folder, begin, fps, settings.crf)
    with alone_in(folder):
        return clip_by_clip(vid2vid, driven, render, run, settings, sound, identity, callback)


def clip_by_clip(
    vid2vid: FaceVid2Vid,
    driven: DrivenKeypoints,
    render: ClipRenderer,
    run: RunFolder,
    settings: LongSettings,
    sound: Sound | None,
    identity: Identity | None,
    callback: Progress | None,
) -> LongResult:
    """The run that the folder holds, from its last whole clip to its end."""
    frames, overlap, fps, begin = len(driven), settings.overlap if render.continues else 0, run.fps, run.begin
    done = run.open()
    resumed, said = done.frame, []
    motion = ClipMotion(vid2vid, driven, render.size, render.framing, begin.maps)
    if not run.video.exists():
        if done.latents is not None and done.maps is None:
            done = replace(done, maps=motion(done.frame - len(done.latents), done.frame).maps)
        with saying_what_is_kept(run, done):
            run.keep(done)
    judge = Judge(vid2vid, driven, render, fps, settings.tail_window, settings.correction > 0, identity)
    shown = None  # the last frame as the video has it, where the conditional one is corrected
    warn_of_room(run, (frames - done.frame) * BYTES_PER_PIXEL * pixels(driven, render))
    clip = None
    if done.frame < frames:
        clip = clip_at(done.clip, done.frame, frames, render.clip_frames, 0 if done.latents is None else len(done.latents))
    while clip is not None:
        part = motion(clip.start, clip.stop)
        rendered = render(clip, part, done.latents)
        check_rendered(rendered, clip)
        tail, poor = judge.tail(clip, part, rendered)
        figures = [*done.figures, judge.figures(clip, part, rendered, tail, shown)]
        state = replace(done, clip=clip.number + 1, frame=tail + 1, figures=figures)
        if overlap:
            known = slice(max(0, tail + 1 - overlap - clip.start), tail + 1 - clip.start)  # of the clip's frames
            state = replace(state, latents=rendered.latents[known], maps=part.maps[known])
        if overlap and settings.correction:
            state = correct(state, colours_of(rendered.latents[clip.overlap : tail + 1 - clip.start]), settings.correction)
            shown = None if rendered.square is None else rendered.square[tail - clip.start]
        with saying_what_is_kept(run, done):
            done = run.add(rendered.frames[clip.overlap : tail + 1 - clip.start], state)
        with saying_what_is_kept(run, done):
            run.keep(done)
        if poor:
            said.append(f"Clip {clip.number}, frame {tail}: {poor}")
        if callback is not None:
            callback(done.frame - begin.frame, frames - begin.frame)
        clip = next_clip(clip, tail, frames, render.clip_frames, overlap)
    if not run.video.exists():
        with saying_what_is_kept(run, done):
            run.join(done, sound, (driven.first + begin.frame) / fps)
    if not settings.keep_clips:
        run.clear(done)
    return LongResult(run.video, done, done.figures, report(run, done, resumed, said))


# The state before the first clip


def beginning(
    driven: DrivenKeypoints,
    render: ClipRenderer,
    settings: LongSettings,
    fps: float,
    sound: Sound | None,
    folder: Path,
    state: ContinuationState | None,
) -> ContinuationState:
    """Where a run begins: before the first frame, or after `state`.

    A state of the very run that the folder holds is not needed. Raises InputError where the state does not fit.
    """
    fingerprints = dict(render.fingerprints)
    own = {
        **render.settings,
        "overlap": str(settings.overlap if render.continues else 0),
        "tail_window": str(settings.tail_window),
        "correction": f"{settings.correction if render.continues else 0:g}",
    }
    driving = driving_fingerprint(driven)
    whole = {"driving": driving, "sound": "none" if sound is None else sound.fingerprint()}
    encoding = {"fps": f"{fps:.6g}", "crf": str(settings.crf), "continues": "nothing"}
    begin = ContinuationState(0, 0, len(driven), render.seed, own | encoding, fingerprints | whole)
    if state is None:
        return begin
    check_state(state, fingerprints, own, render.seed)
    same = state.fingerprints.get("driving") == driving
    if same and state.settings.get("continues") == "nothing" and RunFolder(folder, begin, fps, settings.crf).is_of_run():
        return begin
    if render.continues and (state.latents is None or state.maps is None):
        raise InputError(
            f"The continuation state of clip {state.clip} holds no latents with motion maps, so no clip can start from it. "
            "Start the animation without the state."
        )
    if same and state.frame >= len(driven):
        raise InputError(f"The continuation state is after the last of {len(driven)} driving frames: nothing is left to animate.")
    digits = fingerprint([("latents", state.latents), ("frame", torch.tensor([state.clip, state.frame]))])
    return replace(
        begin,
        clip=state.clip,
        frame=state.frame if same else 0,
        settings=begin.settings | {"continues": digits},
        latents=state.latents,
        maps=state.maps,
        colours=state.colours,
    )


def check_settings(settings: LongSettings, render: ClipRenderer) -> None:
    """Raises InputError for values that leave no new frame, or no frame to choose, and for a correction that is no share."""
    length = render.clip_frames
    if not 0 <= settings.correction <= 1:
        raise InputError(f"The correction of drift is {settings.correction:g}; it must be between 0 (off) and 1.")
    if render.continues and not 1 <= settings.overlap < length:
        raise InputError(f"The overlap of {settings.overlap} frames must be between 1 and {length - 1}, below the clip's {length}.")
    most = length - settings.overlap
    if render.continues and not 1 <= settings.tail_window <= most:
        raise InputError(
            f"The tail window of {settings.tail_window} frames must be between 1 and {most}, the new frames of a clip of {length} "
            f"frames with an overlap of {settings.overlap}."
        )


# Room on the disk, and what is said


def pixels(driven: DrivenKeypoints, render: ClipRenderer) -> int:
    """Of a frame, at most."""
    height, width = driven.keypoints.portrait_size
    return max(height * width, render.size**2)


def warn_of_room(run: RunFolder, needed: float) -> None:
    """Warns where the disk has less room than an estimate of what the rest of the run needs."""
    free = room(run.path)
    if free is not None and free < needed:
        log.warning(
            "%s has %.0f MB of room, and the video may need about %.0f MB while it is made. If the disk fills up, finished "
            "clips are kept, and with more room the run goes on.",
            run.path,
            free / 2**20,
            needed / 2**20,
        )


@contextmanager
def saying_what_is_kept(run: RunFolder, done: ContinuationState) -> Iterator[None]:
    """To the error of a full disk adds how far the run has come."""
    try:
        yield
    except InputError as error:
        if not is_full(error):
            raise
        kept, frames = done.frame - run.begin.frame, done.frames - run.begin.frame
        made = sum(run.segment(clip).stat().st_size for clip in range(run.begin.clip, done.clip))
        # The rest at the size of the clips so far, and all of them once more in the video.
        rest = f" About {max(1, made / kept * (2 * frames - kept) / 2**20):.0f} MB are needed." if kept else ""
        raise InputError(
            f"{error}{rest} {kept} of {frames} frames are finished and kept in {run.clips}: run again, and it goes on from there."
        ) from error


def report(run: RunFolder, done: ContinuationState, resumed: int, said: list[str]) -> str:
    """What was made, in words."""
    frames, clips = done.frame - run.begin.frame, done.clip - run.begin.clip
    lines = [f"{frames} frames in {clips} clips: {run.video}."]
    if resumed > run.begin.frame:
        lines.append(f"Taken up again at frame {resumed}, after what an earlier run had finished.")
    if run.begin.clip:
        lines.append(f"Continues another run after its clip {run.begin.clip - 1}, from driving frame {run.begin.frame} on.")
    if any(done.figures):
        from .drift import drift_report

        lines.append(drift_report(done.figures))
    more = [f"{len(said) - SAID} more clips end with a poor frame."] if len(said) > SAID else []
    return "\n".join([*lines, *said[:SAID], *more])
