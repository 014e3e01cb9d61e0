"""A portrait and a driving video of any length in, a video out, in memory that does not grow with its length."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import comfy.samplers
import torch
from comfy_api.latest import InputImpl, io, ui

from ..realportrait_core.animation.extraction import extract_keypoints
from ..realportrait_core.animation.framing import FRAMINGS
from ..realportrait_core.animation.keypoints import Keypoints as KeypointsValue
from ..realportrait_core.animation.retargeting import DrivenKeypoints, drive_keypoints, find_neutral
from ..realportrait_core.animation.vid2vid_frames import generator_ladder
from ..realportrait_core.errors import InputError
from ..realportrait_core.face.detect import MODEL_NAME, FaceDetector
from ..realportrait_core.face.track import portrait_points, track
from ..realportrait_core.long.fingerprint import driving_fingerprint
from ..realportrait_core.long.renderers import vid2vid_renderer
from ..realportrait_core.long.run import LongSettings, animate_long
from ..realportrait_core.long.segments import Sound, sound_of
from ..realportrait_core.speed import NAMES
from ..realportrait_core.video.audio import Audio
from ..realportrait_core.video.decoding import decode_near, upright
from ..realportrait_core.video.source import VideoFile
from ..realportrait_core.video.stream import VideoStream
from .animate import SQUARE, WHOLE
from .clip_renderer import host_renderer
from .host import fingerprint, folders, images
from .host.draw import GLANCE, SMALL_SIDE, evenly, sheet
from .host.kept import Kept
from .host.memory import freeing_others
from .host.newer import advanced, aliases
from .host.run import finite, loaded, on_node, one_of
from .motion import CHOOSE, check_weights, neutral_report
from .sample import BUNDLED_STEPS, DISTILLED_SCHEDULER, STRENGTH_TIP, VAE_TIP, checked_sampling
from .sockets import Keypoints, State, Vid2Vid
from .stream import stream_of

log = logging.getLogger(__name__)

MOST_OVERLAP, MOST_WINDOW = 8, 8  # of a clip's 16 frames
FILES: Kept[Path] = Kept(1)  # by VIDEO, as long as the host keeps it


class AnimateLongVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        gain = {"default": 1.0, "min": 0.0, "max": 2.0, "step": 0.05, **advanced()}
        return io.Schema(
            node_id="RealPortraitAnimateLong",
            display_name="Animate Long Video",
            category="RealPortrait",
            description="Animates a portrait by a driving video of any length, clip by clip, in memory that does not grow with "
            "it. Finished clips are kept on disk: queued again after a cancel or a crash, it goes on with the next one.",
            inputs=[
                io.Image.Input("portrait", tooltip="The picture to animate, of any size, with one face."),
                io.Video.Input(
                    "driving_video",
                    tooltip="The face whose motion is transferred. From Stream Driving Video or Load Video it is read from its "
                    "file one frame at a time, however long it is; frames of Load Driving Video are in memory already.",
                ),
                Vid2Vid.Input("vid2vid", tooltip="From Load Face Vid2vid."),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**64 - 1,
                    control_after_generate=False,  # else the browser changes any "seed" after a run, which then could not go on
                    tooltip="The noise: the same seed gives the same frames. Clip i uses seed + i. To go on with an unfinished run "
                    "the seed must be the same.",
                ),
                io.Int.Input(
                    "steps",
                    default=0,
                    min=0,
                    max=1000,
                    tooltip="Denoising steps of each clip. 0 samples as the weights were trained for, as in RealPortrait Sampler: "
                    f"{BUNDLED_STEPS} steps for the weights that come with the pack.",
                ),
                io.Combo.Input(
                    "sampler_name",
                    options=comfy.samplers.KSampler.SAMPLERS,
                    default="euler",
                    tooltip="As in RealPortrait Sampler; not used where steps is 0.",
                    **advanced(),
                ),
                io.Combo.Input(
                    "scheduler",
                    options=comfy.samplers.KSampler.SCHEDULERS,
                    default=DISTILLED_SCHEDULER,
                    tooltip="As in RealPortrait Sampler; not used where steps is 0.",
                    **advanced(),
                ),
                io.Combo.Input(
                    "speed",
                    options=list(NAMES),
                    default="exact",
                    tooltip="'exact' computes every step, with steps, sampler_name and scheduler as they are set. The others set "
                    "these themselves, as in RealPortrait Sampler.",
                    **advanced(),
                ),
                io.Float.Input("strength", default=1.0, min=0.0, max=2.0, step=0.05, tooltip=STRENGTH_TIP, **advanced()),
                io.Float.Input(
                    "guidance",
                    default=1.0,
                    min=1.0,
                    max=10.0,
                    step=0.1,
                    round=0.01,
                    tooltip="Classifier-free guidance, as in RealPortrait Sampler. 1 is off, right for the weights that come with "
                    "the pack.",
                    **advanced(),
                ),
                io.Combo.Input(
                    "result",
                    options=[WHOLE, SQUARE],
                    default=WHOLE,
                    tooltip="'whole portrait' pastes what is animated back into the portrait, 'animated square' is that square "
                    "of it alone.",
                ),
                io.Float.Input("pose_gain", **gain, tooltip="How far the head moves: 0 not at all, 1 as in the driving video."),
                io.Float.Input(
                    "expression_gain", **gain, tooltip="How strong the expression is: 0 the portrait's own, 1 the driving video's."
                ),
                io.Combo.Input(
                    "framing",
                    options=list(FRAMINGS),
                    default="auto",
                    tooltip="The square of the portrait that is animated: 'auto' comes closer where the face is small, "
                    "'half-body' shows head to waist, 'whole' is the largest square.",
                    **advanced(),
                ),
                io.Int.Input(
                    "neutral_frame",
                    default=CHOOSE,
                    min=CHOOSE,
                    max=10**6,
                    tooltip="The driving frame, counted from 0, whose motion counts as none. -1 chooses the calm frame nearest to "
                    "the portrait's pose and expression; the report names it.",
                    **advanced(),
                ),
                io.Int.Input(
                    "overlap",
                    default=1,
                    min=1,
                    max=MOST_OVERLAP,
                    tooltip="How many frames each clip takes over from the one before, unchanged. 1 is what the paper does.",
                    **advanced(),
                ),
                io.Int.Input(
                    "tail_window",
                    default=1,
                    min=1,
                    max=MOST_WINDOW,
                    tooltip="Of so many frames at the end of a clip the best one, sharp and without a blink, begins the next clip; "
                    "the frames behind it are made again. 1 always takes the last, as RealPortrait Sampler does.",
                    **advanced(),
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="From Load RealPortrait Model, with or without LoRAs and patches. Without it Face Vid2vid renders the "
                    "pictures itself, as Render Face Vid2vid does.",
                ),
                io.Vae.Input("vae", optional=True, tooltip=VAE_TIP + " Needed with a model."),
                Keypoints.Input(
                    "keypoints",
                    optional=True,
                    tooltip="From Extract Face Motion, Edit Motion or Load RealPortrait Motion: their motion and number of frames, "
                    "in place of the driving video's, which then gives frame rate and sound alone.",
                ),
                State.Input(
                    "state",
                    optional=True,
                    tooltip="From Resume Continuation State. Of the same driving video: its run goes on with its next clip. Of "
                    "another one: this animation begins with that one's last frame.",
                ),
            ],
            outputs=[
                io.Video.Output(
                    display_name="video",
                    tooltip="As many frames as the driving video, with its rate and sound. Save Video copies it without encoding "
                    "it again.",
                ),
                State.Output(display_name="state", tooltip="What the next clip would need, for Save Continuation State."),
                io.String.Output(
                    display_name="report", tooltip="Clips and frames, where the run was taken up, and the drift of each clip."
                ),
            ],
            **aliases("long video", "live portrait", "talking head", "resume", "video to video", "face animation", "streaming"),
        )

    @classmethod
    def fingerprint_inputs(cls, **widgets):
        """Changes where the file of a VIDEO that the host still keeps has been deleted: it is then made again."""
        return tuple(sorted(str(path) for path in FILES.values() if not path.is_file()))

    @classmethod
    def execute(
        cls,
        portrait,
        driving_video,
        vid2vid,
        seed,
        steps,
        sampler_name,
        scheduler,
        speed,
        strength,
        guidance,
        result,
        pose_gain,
        expression_gain,
        framing,
        neutral_frame,
        overlap,
        tail_window,
        model=None,
        vae=None,
        keypoints=None,
        state=None,
    ) -> io.NodeOutput:
        one_of((WHOLE, SQUARE), result, "result")
        finite(strength=strength, pose_gain=pose_gain, expression_gain=expression_gain)
        if model is not None and vae is None:
            raise InputError(f"The model's latents need a VAE to become pictures. Connect one to vae: {VAE_TIP}")
        portrait, driving = images.portrait(portrait), Driving.of(driving_video)
        network, report = loaded(vid2vid), []
        if keypoints is None:
            keypoints, found = extract(network, portrait, driving.frames)
            report.append(found)
        check_weights(network.cfg, keypoints)
        neutral = find_neutral(keypoints) if neutral_frame == CHOOSE else neutral_frame
        driven = drive_keypoints(keypoints, "relative", pose_gain, expression_gain, neutral)
        report.append(neutral_report(keypoints, neutral, neutral_frame == CHOOSE))
        settings, whole = LongSettings(overlap=overlap, tail_window=tail_window), result == WHOLE
        if model is None:
            ladder = freeing_others(generator_ladder(network), vid2vid)
            render = vid2vid_renderer(network, driven, portrait, whole, callback=on_node(), drawing=ladder)
        else:
            used = checked_sampling(model, speed, steps, sampler_name, scheduler, guidance)
            report.append(used.report())
            how = (used, seed, strength, guidance, framing, whole, overlap)
            render = host_renderer(model, vae, vid2vid, portrait, driven, *how)
        folder = run_folder(render, driven, driving, settings, state)
        made = animate_long(network, driven, render, folder, driving.fps, settings, driving.sound, state, callback=time_left())
        text = "\n".join([*report, made.report])
        shown = ui.PreviewImage(sheet(glance(made.path, len(driven), driving.fps)), cls=cls).as_dict()
        video = InputImpl.VideoFromFile(str(made.path))
        FILES.get(video, "", lambda: made.path)
        return io.NodeOutput(video, made.state, text, ui=shown | ui.PreviewText(text).as_dict())


@dataclass(frozen=True)
class Driving:
    """The driving video as far as it is needed: its frames, their rate, and its sound."""

    frames: VideoStream | torch.Tensor  # (L, H, W, 3) in [0, 1], where they are in memory
    fps: float
    sound: Sound | None

    @classmethod
    def of(cls, video) -> "Driving":
        stream = stream_of(video)
        if stream is not None:
            return cls(stream, stream.fps, sound_of(stream, on_node()))
        parts = video.get_components()
        sound = None if parts.audio is None else Sound(Audio(parts.audio["waveform"], parts.audio["sample_rate"]))
        return cls(images.rgb(parts.images, "driving video"), float(parts.frame_rate), sound)


def extract(network, portrait: torch.Tensor, frames: VideoStream | torch.Tensor) -> tuple[KeypointsValue, str]:
    """Keypoints of the largest face of both, and the track's report. The bar goes over the frames once for each of two passes."""
    detector = FaceDetector(folders.detector_path(MODEL_NAME))
    points = portrait_points(portrait[0], detector)
    found = track(frames, detector, callback=on_node())
    return extract_keypoints(network, portrait, frames, points, found, on_node()), found.report


def run_folder(render, driven: DrivenKeypoints, driving: Driving, settings: LongSettings, state) -> Path:
    """Named by all that the video depends on: a run that is queued again finds what is done of it.

    A state of a run of this very video leads to the folder of that run, as long as it is there.
    """
    driven_by, heard = driving_fingerprint(driven), None if driving.sound is None else driving.sound.fingerprint()
    whole = (render.fingerprints, render.settings, render.seed, driven_by, driving.fps, settings, heard)
    folder = folders.run_folder(fingerprint.digest(whole))
    if state is None or (state.fingerprints.get("driving") == driven_by and folder.is_dir()):
        return folder
    return folders.run_folder(fingerprint.digest(whole, state.fingerprints, state.clip, state.frame, state.latents))


def time_left():
    """The core's callback after each clip: the log says how long the rest will take."""
    begun = None  # when this run's first clip was done, and the frames up to then

    def tick(done: int, total: int) -> None:
        nonlocal begun
        now = time.monotonic()
        begun = begun or (now, done)
        if begun[1] < done < total:
            log.info("%d of %d frames: about %.0f s left.", done, total, (now - begun[0]) / (done - begun[1]) * (total - done))

    return tick


def glance(path: Path, frames: int, fps: float) -> torch.Tensor:
    """A few small frames of a video (n, h, w, 3) in [0, 1], evenly spaced."""
    video, pictures = VideoFile(path.name, path), []
    for frame in evenly(frames, GLANCE):
        found, _ = decode_near(video, frame / fps)
        nearest = next((one for one in found if one.time >= (frame - 0.5) / fps), None)
        if nearest is not None:
            pictures.append(torch.from_numpy(upright(nearest, SMALL_SIDE)) / 255)
    return torch.stack(pictures)
