"""Toy animations of any length, and the processes of tests/test_long.py that are killed, measured or run out of room.

python tests/long_jobs.py events FOLDER FRAMES RENDERER        `kill_events`
python tests/long_jobs.py often FOLDER FRAMES RENDERER SEED    `kill_often`
    python tests/long_jobs.py limited FOLDER FRAMES RENDERER BYTES `limited`
    python tests/long_jobs.py measured FOLDER FRAMES RENDERER SIZE CAP `measured`
"""

import importlib.util
import json
import os
import random
import resource
import signal
import sys
import time
from fractions import Fraction
from pathlib import Path

TESTS = Path(__file__).resolve().parent


def import_core() -> None:
    """`import realportrait_core` from the checkout, as tests/conftest.py makes it possible."""
    folder = TESTS.parent / "realportrait_core"
    spec = importlib.util.spec_from_file_location(
        "realportrait_core", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules["realportrait_core"] = module
    spec.loader.exec_module(module)


if "realportrait_core" not in sys.modules:
    import_core()

import av  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from forks import killed  # noqa: E402
from process_memory import allow_more, memory  # noqa: E402
from public import TINY  # noqa: E402

from realportrait_core.animation.extraction import crop_faces, extract_keypoints  # noqa: E402
from realportrait_core.animation.keypoints import Keypoints  # noqa: E402
from realportrait_core.animation.retargeting import DrivenKeypoints, drive_keypoints  # noqa: E402
from realportrait_core.config import DiTConfig  # noqa: E402
from realportrait_core.diffusion.schedule import linear_schedule  # noqa: E402
from realportrait_core.dit.model import RealPortraitDiT  # noqa: E402
from realportrait_core.errors import InputError  # noqa: E402
from realportrait_core.face.crop import clip_crop, points_to_crop  # noqa: E402
from realportrait_core.face.track import track  # noqa: E402
from realportrait_core.long.renderers import RenderedClip, core_renderer, vid2vid_renderer  # noqa: E402
from realportrait_core.long.run import LongResult, LongSettings, animate_long  # noqa: E402
from realportrait_core.long.segments import Sound, sound_of  # noqa: E402
from realportrait_core.speed import Speed  # noqa: E402
from realportrait_core.vae import TinyVAE  # noqa: E402
from realportrait_core.vid2vid import FaceVid2Vid  # noqa: E402
from realportrait_core.vid2vid.checkpoint import motion_fingerprint  # noqa: E402
from realportrait_core.vid2vid.keypoints import Pose, rotation_matrix  # noqa: E402
from realportrait_core.video.audio import Audio  # noqa: E402
from realportrait_core.video.source import VideoFile  # noqa: E402
from realportrait_core.video.stream import VideoStream  # noqa: E402
from realportrait_core.video.timeline import Selection  # noqa: E402

SIZE = 64  # px, side of the animated square
LENGTH = 4  # frames of a clip
DIT = DiTConfig(
    hidden=24,
    depth=2,
    heads=2,
    control_depth=1,
    input_sq_size=SIZE,
    motion_channels=TINY.warped_channels,
    motion_widths=(4, 4),
    clip_frames=LENGTH,
    prediction="v",
)
FACE = torch.tensor([[40.0, 45], [70, 45], [55, 60], [43, 75], [67, 75]])  # px
PORTRAIT = (121, 111)  # height, width: odd both


def networks() -> tuple[FaceVid2Vid, RealPortraitDiT, TinyVAE]:
    """In which no path is dead."""
    torch.manual_seed(0)
    made = FaceVid2Vid(TINY), RealPortraitDiT(DIT).initialize(), TinyVAE((4, 4, 4, 4))
    with torch.no_grad():
        for parameter in made[1].parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return tuple(network.eval().requires_grad_(False) for network in made)


def driven(vid2vid: FaceVid2Vid, frames: int, seed: int = 1, size: tuple[int, int] = PORTRAIT) -> DrivenKeypoints:
    """A head that turns and speaks, as M would have seen it."""
    picture = torch.rand(1, *size, 3, generator=torch.Generator().manual_seed(0))
    random = torch.Generator().manual_seed(seed)
    points = FACE * torch.tensor([size[1] / PORTRAIT[1], size[0] / PORTRAIT[0]])
    crop = points_to_crop(points)
    with torch.inference_mode():
        faces = crop_faces(vid2vid, picture, crop)
        pose, feature = vid2vid.motion(faces), vid2vid.appearance(faces)
    time = torch.arange(frames) / 10 + seed
    pitch, yaw, roll = 5 * time.sin(), 10 * (time / 2).cos(), 3 * (time / 3).sin()
    k = TINY.num_kp
    moved = 0.05 * torch.randn(1, k, 3, generator=random) * (time * 2).sin()[:, None, None]
    driver = Pose(
        pose.canonical.expand(frames, k, 3),
        rotation_matrix(pitch, yaw, roll),
        pitch,
        yaw,
        roll,
        pose.expression + moved,
        pose.scale.expand(frames, 1),
        pose.translation + 0.02 * time.cos()[:, None],
    )
    track = points + 2 * torch.stack([time.cos(), time.sin()], -1)[:, None]
    keypoints = Keypoints(
        portrait=pose,
        driver=driver,
        feature=feature,
        portrait_crop=crop,
        driver_crop=clip_crop(track),
        portrait_points=points,
        driver_points=track,
        present=torch.ones(frames, dtype=torch.bool),
        portrait_size=size,
        driver_size=size,
        encoder=motion_fingerprint(vid2vid),
        picture=picture,
    )
    return drive_keypoints(keypoints, neutral=0)


def renderer(name: str, made, motion: DrivenKeypoints, **changes):
    """'square' and 'whole' by the transformer, 'vid2vid' and 'crop' by Face Vid2vid's generator."""
    vid2vid, dit, vae = made
    if name in ("vid2vid", "crop"):
        return vid2vid_renderer(vid2vid, motion, whole=name == "vid2vid", clip_frames=LENGTH)
    given = dict(speed=Speed(2, "ddim"), seed=3, whole=name == "whole") | changes
    with torch.inference_mode():
        return core_renderer(vid2vid, dit, vae, linear_schedule(), motion.keypoints.picture, motion, **given)


def animate(
    folder: Path, frames: int, name: str, overlap: int = 1, window: int = 1, sound=None, callback=None, **given
) -> LongResult:
    """A whole run at toy size; its clips are kept."""
    made = networks()
    motion = driven(made[0], frames)
    settings = LongSettings(overlap, window, keep_clips=True)
    return animate_long(made[0], motion, renderer(name, made, motion), folder, 25.0, settings, sound, callback=callback, **given)


# Processes that are killed


def dies_at(event: int) -> None:
    """Kills this process, as `kill -9` does, when it is about to give a file its name for the event-th time."""
    count = 0

    def hook(name: str, arguments: tuple) -> None:
        nonlocal count
        if name == "os.rename":
            count += 1
            if count == event:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def killed_child(folder: Path, frames: int, name: str, event: int | None = None, after: float | None = None) -> bool:
    """Whether a child that animates was killed, at an event or after so many seconds; else it has finished."""

    def work() -> None:
        if event is not None:
            dies_at(event)
        animate(folder, frames, name, sound=tone())

    end = None if after is None else time.monotonic() + after
    return killed(work, lambda: end is not None and time.monotonic() >= end)


def tone() -> Sound:
    return Sound(Audio(0.1 * torch.sin(torch.arange(3 * 16000) / 20.0)[None, None], 16000))


def kill_events(folder: Path, frames: int, name: str) -> None:
    """A child is killed at its first renaming, the next one at the second, ... each in a folder of its own, until one finishes."""
    event = 1
    while killed_child(folder / f"{event}", frames, name, event=event):
        event += 1
    print(json.dumps({"killed": event - 1}))


def kill_often(folder: Path, frames: int, name: str, seed: int) -> None:
    """Children in one folder, each killed after a random time, until one finishes."""
    started = time.monotonic()
    killed_child(folder.with_name("timed"), frames, name)
    whole, draw, kills = time.monotonic() - started, random.Random(seed), 0
    while killed_child(folder, frames, name, after=draw.uniform(0.1, 0.5) * whole):
        kills += 1
    print(json.dumps({"killed": kills}))


# Memory


class StandIn:
    """The shapes and sizes of RealPortrait, without its networks: the portrait's square, brighter and darker as the head turns."""

    continues, framing, seed = True, "auto", 0

    def __init__(self, picture: torch.Tensor, size: int, clip_frames: int = 16):
        self.size, self.clip_frames, self.settings, self.fingerprints = size, clip_frames, {"size": f"{size}"}, {}
        self.portrait_square = torch.nn.functional.interpolate(picture.movedim(-1, 1), (size, size)).movedim(1, -1)

    def __call__(self, clip, motion, known) -> RenderedClip:
        light = 0.8 + 0.2 * (10 * motion.x_d[:, 0, :1, None, None]).sin()  # (n, 1, 1, 1)
        latents = light.expand(-1, 4, self.size // 8, self.size // 8).clone()
        if known is not None:
            assert known.shape[1:] == latents.shape[1:]
            latents[: len(known)] = known
        frames = light * self.portrait_square
        return RenderedClip(frames, frames, latents)


def measured(folder: Path, frames: int, name: str, size: int, cap: int) -> None:
    """From folder/driving.mp4 to folder/run/video.mp4 as in generate_long.py, with a face that stands still.

    name: "stand-in" in place of the diffusion transformer, or "vid2vid". size: px, of the frames. cap: MB of addresses that the
    process may have beyond those after its imports; 0 for no limit.
    """
    vid2vid = networks()[0]
    driving = VideoStream(VideoFile("driving.mp4", folder / "driving.mp4"), Selection())
    picture = torch.rand(1, size, size, 3, generator=torch.Generator().manual_seed(0))
    if cap:
        allow_more(cap * 2**20)
    with torch.inference_mode():
        found = track(driving, None, boxes=(30, 30, 40, 50))
        keypoints = extract_keypoints(vid2vid, picture, driving, size / 128 * FACE, found)
        motion = drive_keypoints(keypoints, neutral=0)
        render = vid2vid_renderer(vid2vid, motion) if name == "vid2vid" else StandIn(picture, size)
    result = animate_long(vid2vid, motion, render, folder / "run", driving.fps, sound=sound_of(driving))
    with av.open(str(result.path)) as file:
        written = file.streams.video[0].frames
    decoder = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024  # at least this process's own when it began
    print(json.dumps({"frames": written, "asked": frames, "peak": memory("VmHWM") / 2**20, "decoder": decoder}))


def driving_file(path: Path, frames: int, side: int = 128) -> None:
    """A driving video of a moving pattern, with sound, a frame at a time in memory."""
    place = np.arange(side)
    pictures = (np.uint8((place[:, None, None] * 3 + place[:, None] + 5 * n + np.arange(3) * 40) % 256) for n in range(frames))
    with av.open(str(path), "w") as video:
        picture = video.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        picture.width, picture.height, picture.pix_fmt = side, side, "yuv420p"
        sound = video.add_stream("aac", rate=16000, layout="mono")
        for n, pixels in enumerate(pictures):
            video.mux(picture.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 640), np.float32), format="fltp", layout="mono")
            samples.sample_rate, samples.pts, samples.time_base = 16000, 640 * n, Fraction(1, 16000)
            video.mux(sound.encode(samples))
        video.mux(picture.encode(None))
        video.mux(sound.encode(None))


def limited(folder: Path, frames: int, name: str, most: int) -> None:
    """A run that may not write files of more than so many bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    try:
        animate(folder, frames, name, sound=tone())
    except InputError as error:
        print(json.dumps({"error": str(error)}))


if __name__ == "__main__":
    torch.set_num_threads(1)  # of several threads a forked child would have one
    job, folder, frames, name, *rest = sys.argv[1:]
    {"events": kill_events, "often": kill_often, "limited": limited, "measured": measured}[job](
        Path(folder), int(frames), name, *map(int, rest)
    )
