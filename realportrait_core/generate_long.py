"""From a portrait and a driving video's file to an animation as a file, in memory that does not grow with the video.

The same steps as in generate.py, and the same frames bit for bit; the driving video is decoded a frame at a time, and the result is
encoded a clip at a time.
"""

from pathlib import Path

import torch
from torch import Tensor

from .animation.extraction import extract_keypoints
from .animation.keypoints import Progress
from .animation.retargeting import drive_keypoints
from .diffusion.schedule import Schedule
from .dit.model import RealPortraitDiT
from .face.track import FaceTrack
from .long.renderers import core_renderer, vid2vid_renderer
from .long.run import LongResult, LongSettings, animate_long
from .long.segments import Sound, sound_of
from .long.state import ContinuationState
from .speed import Speed
from .vae import VAE
from .vid2vid import FaceVid2Vid
from .video.stream import VideoStream


@torch.inference_mode()
def generate_long(
    vid2vid: FaceVid2Vid,
    dit: RealPortraitDiT | None,
    vae: VAE | None,
    schedule: Schedule | None,
    portrait: Tensor,
    driving: VideoStream,
    portrait_points: Tensor,
    track: FaceTrack,
    folder: Path,
    speed: Speed | None = None,
    *,
    seed: int = 0,
    guidance: float | None = None,
    neutral: int | None = None,
    whole: bool = True,
    settings: LongSettings = LongSettings(),
    sound: Sound | None = None,
    state: ContinuationState | None = None,
    callback: Progress | None = None,
) -> LongResult:
    """folder/video.mp4, with as many frames as the driving video selects, and its sound.

        driving = VideoStream(VideoFile("driving.mp4", Path("driving.mp4")), Selection())
        found = track(driving, detector)
        result = generate_long(vid2vid, dit, vae, schedule, portrait, driving, points, found, Path("runs/long"))

    portrait (1, H, W, 3) in [0, 1], portrait_points (5, 2) px, the face track of the driving frames; speed, guidance and neutral as
    in `generate`. Without dit, vae and schedule Face Vid2vid's own generator renders. whole: the whole portrait, else the animated
    square. sound: by default the driving video's. state: of a run that this one continues. callback(frames done, frames) after each
    clip. What is broken off, by a cancel, a crash or a full disk, goes on when it is called again with the same folder. Raises
    InputError as `animate_long` does.
    """
    keypoints = extract_keypoints(vid2vid, portrait, driving, portrait_points, track)  # poses of both, f_r
    driven = drive_keypoints(keypoints, neutral=neutral)  # x_d (L, K, 3)
    if dit is None:
        render = vid2vid_renderer(vid2vid, driven, whole=whole)
    else:
        render = core_renderer(vid2vid, dit, vae, schedule, portrait, driven, speed, guidance=guidance, seed=seed, whole=whole)
    return animate_long(
        vid2vid, driven, render, folder, driving.fps, settings, sound or sound_of(driving), state, callback=callback
    )
