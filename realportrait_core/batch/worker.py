"""What an actor of the batch does: the networks once, then a portrait and a driving video to an mp4, for each job."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ..animation.extraction import extract_keypoints
from ..animation.framing import frame_square
from ..animation.mapping import motion_maps
from ..animation.retargeting import drive_keypoints
from ..animation.vid2vid_frames import check_generator, face_frames, portrait_frames
from ..diffusion.schedule import Schedule, linear_schedule
from ..dit.checkpoint import load_dit
from ..dit.model import RealPortraitDiT
from ..errors import InputError
from ..face.detect import FaceDetector
from ..face.track import FaceTrack, portrait_points, track
from ..generate import generate
from ..opencv import import_cv2
from ..paste import paste
from ..speed import preset
from ..vae import VAE, load_vae
from ..vid2vid import FaceVid2Vid
from ..vid2vid.checkpoint import load_stitching, load_vid2vid, stitching_beside, vid2vid_files
from ..vid2vid.stitching import Finish
from ..video.loading import Footage, load_video
from ..video.pictures import read_picture
from ..video.source import VideoFile
from ..video.timeline import Selection
from ..video.writing import write_video
from .jobs import Job
from .record import ingredients, sha256, video_path, write_record

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
        frames, footage = animate(networks, job)
        path = video_path(folder, job)
        write_video(path, frames, footage.fps, footage.audio)
        write_record(folder, job, of, {"bytes": path.stat().st_size, "frames": len(frames), "fps": footage.fps})
        return Made(len(frames), time.perf_counter() - began)

    return make


def animate(networks: Networks, job: Job) -> tuple[torch.Tensor, Footage]:
    """The animation (L, H, W, 3) in [0, 1] on the CPU, and the driving frames with their sound.

    Raises FaceError where a face is missing, InputError where a file or the networks cannot be used for the job.
    """
    check(networks, job)
    picture = read_picture(VideoFile(job.portrait.name, job.portrait))  # (H, W, 3) uint8
    selection = Selection(start=job.start, frames=job.frames, fps=job.fps, longest_side=LONGEST_SIDE)
    footage = load_video(VideoFile(job.driving.name, job.driving), selection)
    points = portrait_points(picture, networks.detector)
    followed = track(footage.images, networks.detector)
    portrait = torch.from_numpy(picture)[None].float() / 255
    make = diffused if job.method == "realportrait" else rendered
    return make(networks, job, portrait, footage.images, points, followed), footage


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


def diffused(networks: Networks, job: Job, portrait: Tensor, driving: Tensor, points: Tensor, followed: FaceTrack) -> Tensor:
    """RealPortrait's animation: the square of its transformer's size, or the portrait with it."""
    frames, _ = generate(
        networks.vid2vid,
        networks.dit,
        networks.vae,
        networks.schedule,
        portrait,
        driving,
        points,
        followed,
        None if job.speed == "exact" else preset(job.speed, networks.dit.cfg),
        seed=job.seed,
        guidance=job.guidance,
    )
    if job.paste:
        size = networks.dit.cfg.input_sq_size
        height, width = portrait.shape[1:3]
        frames, _ = paste(portrait, frames, frame_square(points, height, width, size, "auto"), size)
    return frames


@torch.inference_mode()
def rendered(networks: Networks, job: Job, portrait: Tensor, driving: Tensor, points: Tensor, followed: FaceTrack) -> Tensor:
    """LivePortrait's animation: G's pictures of the face crop, or the portrait with them."""
    keypoints = extract_keypoints(networks.vid2vid, portrait, driving, points, followed)
    keypoints = replace(keypoints, finish=networks.stitch)
    motion = motion_maps(networks.vid2vid, drive_keypoints(keypoints), networks.dit.cfg.input_sq_size)
    if job.paste:
        return torch.cat(list(portrait_frames(networks.vid2vid, motion, portrait)))
    return torch.cat([chunk.movedim(1, -1).cpu() for chunk in face_frames(networks.vid2vid, motion)])
