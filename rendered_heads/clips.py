"""Clips from seeds: as a folder of NNNNNN.mp4 and NNNNNN.npz, or as an endless iterator."""

import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from realportrait_core.errors import InputError

from .identity_sampling import sample_identity
from .looks import LOOKS
from .motion import sample_motion
from .renderer import RenderedHead, choose_camera, render
from .rig import Rig

log = logging.getLogger(__name__)

FRAMES, FPS, SIZE = 24, 12.5, 256
ALPHA = 64  # px of the stored foreground
CRF = 20  # H.264 quality
DRAWN, DRAWN_LOOKS = "drawn", tuple(name for name in LOOKS if name != "photo")
# Validation pairs: identity CROSS + i performs the motion of DRIVING + i.
DRIVING, CROSS = 800000, 810000


@dataclass(frozen=True)
class RenderedClip:
    seed: int  # of the identity
    motion_seed: int
    head: RenderedHead


def motion_seed_of(seed: int) -> int:
    """The seed of a clip's motion: the clip's own, except for the cross seeds, which perform another clip's motion."""
    return seed - CROSS + DRIVING if CROSS <= seed < CROSS + 10000 else seed


def render_clip(
    rig: Rig,
    seed: int,
    motion_seed: int,
    frames: int = FRAMES,
    fps: float = FPS,
    size: int = SIZE,
    device: torch.device | str = "cpu",
    look: str | None = None,
) -> RenderedClip:
    """The identity of one seed in the motion of another. look: replaces the identity's own."""
    identity = sample_identity(rig, seed)
    if look is not None:
        identity = replace(identity, look=look)
    motion = sample_motion(motion_seed, frames, fps)
    return RenderedClip(seed, motion_seed, render(rig, identity, motion, choose_camera(rig, identity, motion), size, device))


def fresh_clips(
    rig: Rig,
    first_seed: int,
    frames: int = FRAMES,
    fps: float = FPS,
    size: int = SIZE,
    device: torch.device | str = "cpu",
    cross: float = 0.0,
) -> Iterator[RenderedClip]:
    """Endless clips of the seeds from first_seed on. cross: probability that a second identity follows in the same motion."""
    seed = first_seed
    while True:
        yield render_clip(rig, seed, seed, frames, fps, size, device)
        if np.random.default_rng((seed, 0xC805)).random() < cross:
            yield render_clip(rig, seed + 1, seed, frames, fps, size, device)
            seed += 1
        seed += 1


def write_folder(
    rig: Rig,
    folder: str | Path,
    seeds: Iterable[int],
    frames: int = FRAMES,
    fps: float = FPS,
    size: int = SIZE,
    device: torch.device | str = "cpu",
    look: str | None = None,
) -> int:
    """NNNNNN.mp4 and NNNNNN.npz of each seed; clips that exist are kept. Returns how many were written. look: as `look_of`."""
    folder, written = Path(folder), 0
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        truth = folder / f"{seed:06d}.npz"
        if truth.is_file():
            continue
        head = render_clip(rig, seed, motion_seed_of(seed), frames, fps, size, device, look_of(look, seed)).head
        write_video(folder / f"{seed:06d}.mp4", head.pixels, fps)
        partial = folder / f"{seed:06d}.partial.npz"
        np.savez_compressed(partial, **arrays(head))
        os.replace(partial, truth)
        written += 1
        log.info("wrote %s", truth)
    return written


def write_stills(rig: Rig, folder: Path, seeds: Iterable[int], size: int, device: torch.device | str, look: str | None) -> None:
    """NNNNNN.png, the first frame of each seed's clip: portraits without their motion. look: as `look_of`."""
    import cv2

    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        head = render_clip(rig, seed, motion_seed_of(seed), 1, FPS, size, device, look_of(look, seed)).head
        picture = (head.pixels[0].permute(1, 2, 0) * 255).round().byte().cpu().numpy()
        if not cv2.imwrite(str(folder / f"{seed:06d}.png"), picture[..., ::-1]):
            raise InputError(f"{folder / f'{seed:06d}.png'} cannot be written as a picture.")


def look_of(look: str | None, seed: int) -> str | None:
    """A look for every identity, or with DRAWN all but "photo" in turn; None: the identity's own."""
    return DRAWN_LOOKS[seed % len(DRAWN_LOOKS)] if look == DRAWN else look


def arrays(head: RenderedHead) -> dict[str, np.ndarray]:
    """The arrays of a clip's .npz."""
    half, whole = np.float16, np.float32
    camera = head.camera
    coverage = F.adaptive_avg_pool2d(head.alpha[:, None], ALPHA)[:, 0]

    def array(values: torch.Tensor, kind: type) -> np.ndarray:
        return values.cpu().numpy().astype(kind)

    return {
        "verts2d": array(head.points2d, half),
        "verts3d": array(head.points3d, half),
        "neutral3d": array(head.neutral3d, whole),
        "template3d": array(head.template3d, whole),
        "R": array(head.rotation, whole),
        "pose": array(head.pose, whole),
        "expr": array(head.expression, half),
        "gaze": array(head.gaze, whole),
        "trans": array(head.translation, whole),
        "fov": whole(camera.fov),
        "frame": whole(camera.frame),
        "center": np.array(camera.center, whole),
        "camyaw": whole(camera.yaw),
        "bodyyaw": whole(camera.body_yaw),
        "eyes2d": array(head.eyes2d, whole),
        "alpha": (coverage > 0.5).cpu().numpy(),
    }


def write_video(path: Path, pixels: torch.Tensor, fps: float) -> None:
    """pixels (T, 3, H, W) in 0..1 as H.264. InputError where PyAV cannot."""
    import av

    partial = path.with_suffix(".partial.mp4")
    try:
        with av.open(str(partial), "w") as file:
            stream = file.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000), options={"crf": str(CRF)})
            stream.height, stream.width = pixels.shape[-2:]
            stream.pix_fmt = "yuv420p"
            for picture in (pixels.permute(0, 2, 3, 1) * 255).round().byte().cpu().numpy():
                for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                    file.mux(packet)
            for packet in stream.encode():
                file.mux(packet)
    except (av.FFmpegError, ValueError) as error:
        raise InputError(f"{path} cannot be written as H.264 ({error}).") from error
    os.replace(partial, path)
