"""What an actor of the batch does: the networks once, then a portrait and a driving video to an mp4, for each job."""

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..animation.extraction import extract_keypoints
from ..animation.retargeting import DrivenKeypoints, drive_keypoints
from ..animation.vid2vid_frames import check_generator
from ..diffusion.schedule import Schedule, linear_schedule
from ..dit.checkpoint import load_dit
from ..dit.model import RealPortraitDiT
from ..errors import InputError
from ..face.detect import FaceDetector
from ..face.track import portrait_points, track
from ..long.renderers import ClipRenderer, core_renderer, vid2vid_renderer
from ..long.run import animate_long
from ..long.segments import sound_of
from ..opencv import import_cv2
from ..speed import preset
from ..vae import VAE, load_vae
from ..vid2vid import FaceVid2Vid
from ..vid2vid.checkpoint import load_stitching, load_vid2vid, stitching_beside, vid2vid_files
from ..vid2vid.stitching import Finish
from ..video.pictures import read_picture
from ..video.source import VideoFile
from ..video.stream import VideoStream
from ..video.timeline import Selection
from ..video.writing import not_written
from .jobs import Job
from .record import clips_folder, ingredients, sha256, video_path, write_record

LONGEST_SIDE = 1024  # px, to which larger driving videos are downscaled while decoding: M sees the face at 256


@dataclass(frozen=True)
class Weights:
    """The files of the networks, on a path that every node knows."""

    vid2vid: Path
    dit: Path
    vae: Path
    detector: Path

    def marks(self) -> dict[str, str]:
        """The SHA-256 of each file, by its role."""
        parts = {f"vid2vid.{part}": path for part, path in vid2vid_files(self.vid2vid).items()}
        if (stitching := stitching_beside(self.vid2vid)) is not None:
            parts["vid2vid.stitching"] = stitching
        return {name: sha256(path) for name, path in {**parts, "dit": self.dit, "vae": self.vae, "detector": self.detector}.items()}


@dataclass(frozen=True)
class Networks:
    vid2vid: FaceVid2Vid
    dit: RealPortraitDiT
    vae: VAE
    detector: FaceDetector
    schedule: Schedule
    stitch: Finish | None  # holds the shoulders in LivePortrait's way; None where the weights have no networks for it


@dataclass(frozen=True)
class Made:
    """A finished video, for the log."""

    frames: int
    seconds: float  # that it took


def load_networks(weights: Weights, device: str) -> Networks:
    stitching = stitching_beside(weights.vid2vid)
    return Networks(
        load_vid2vid(weights.vid2vid).to(device),
        load_dit(weights.dit).to(device),
        load_vae(weights.vae).to(device),
        FaceDetector(weights.detector),
        linear_schedule(),
        None if stitching is None else Finish(load_stitching(stitching), shoulders=True),
    )


def make_animator(weights: Weights, marks: dict[str, str], folder: Path, device: str, threads: int) -> Callable[[Job], Made]:
    """The worker of an actor: writes a job's video and its record into the folder."""
    torch.set_num_threads(threads)
    import_cv2()  # which reads the portraits: without it every job would fail
    networks = load_networks(weights, device)

    def make(job: Job) -> Made:
        began, of = time.perf_counter(), ingredients(job, marks)
        driving = driving_video(job)
        driven, render = prepare(networks, job, driving)
        path, clips = video_path(folder, job), clips_folder(folder, job, of)
        animated = animate_long(networks.vid2vid, driven, render, clips, driving.fps, sound=sound_of(driving))
        try:
            os.replace(animated.path, path)
        except OSError as error:
            raise not_written(path, "from its clips", error) from error
        shutil.rmtree(clips, ignore_errors=True)
        write_record(folder, job, of, {"bytes": path.stat().st_size, "frames": len(driven), "fps": driving.fps})
        return Made(len(driven), time.perf_counter() - began)

    return make


def driving_video(job: Job) -> VideoStream:
    """The driving frames, one at a time."""
    selection = Selection(start=job.start, frames=job.frames, fps=job.fps, longest_side=LONGEST_SIDE)
    return VideoStream(VideoFile(job.driving.name, job.driving), selection)


@torch.inference_mode()
def prepare(networks: Networks, job: Job, driving: VideoStream) -> tuple[DrivenKeypoints, ClipRenderer]:
    """The motion of all driving frames, and what animates a clip of them.

    Raises FaceError where a face is missing, InputError where a file or the networks cannot be used for the job.
    """
    check(networks, job)
    picture = read_picture(VideoFile(job.portrait.name, job.portrait))  # (H, W, 3) uint8
    points = portrait_points(picture, networks.detector)
    followed = track(driving, networks.detector)
    portrait, vid2vid, dit = torch.from_numpy(picture)[None].float() / 255, networks.vid2vid, networks.dit
    keypoints = extract_keypoints(vid2vid, portrait, driving, points, followed)
    if job.method == "vid2vid":  # LivePortrait's animation: G's pictures of the face crop, or the portrait with them
        driven = drive_keypoints(replace(keypoints, finish=networks.stitch))
        return driven, vid2vid_renderer(vid2vid, driven, portrait, whole=job.paste)
    driven, speed = drive_keypoints(keypoints), None if job.speed == "exact" else preset(job.speed, dit.cfg)
    transformer = (vid2vid, dit, networks.vae, networks.schedule)
    return driven, core_renderer(*transformer, portrait, driven, speed, guidance=job.guidance, seed=job.seed, whole=job.paste)


def check(networks: Networks, job: Job) -> None:
    """Raises InputError where transformer and Face Vid2vid do not belong together, WeightsError where G is missing."""
    if job.method == "vid2vid":
        check_generator(networks.vid2vid)
        return
    made, wanted = networks.vid2vid.cfg.warped_channels, networks.dit.cfg.motion_channels
    if made != wanted:
        raise InputError(
            f"This Face Vid2vid makes maps of {made} channels and the transformer takes {wanted}: give --vid2vid and --dit that "
            "were trained together."
        )
