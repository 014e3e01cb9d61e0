"""Decodes the training videos and detects faces once: arrays that store.py opens.

An array gets its name when it is complete; existing arrays are kept, and a stopped run continues.
"""

import logging
import os
from pathlib import Path

import numpy as np

from ...errors import InputError
from ...face.detect import FaceDetector

log = logging.getLogger(__name__)

LOG_EVERY = 50  # clips


def read_frames(path: Path) -> np.ndarray:
    """All frames of a video (T, H, W, 3) uint8."""
    import av

    try:
        with av.open(str(path)) as video:
            return np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)])
    except (av.FFmpegError, IndexError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a video ({error}).") from error


def decode_clips(data: Path, cache: Path, limit: int | None = None) -> np.ndarray:
    """frames.npy (N, T, H, W, 3) uint8 from the clips of a folder, by name; all must be of one length and size."""
    path = cache / "frames.npy"
    clips = sorted(data.glob("*.mp4"))[:limit]
    if not clips:
        raise InputError(f"{data} holds no .mp4 clip.")
    if path.is_file():
        return checked(path, len(clips))
    cache.mkdir(parents=True, exist_ok=True)
    partial = cache / "frames.partial.npy"
    shape = read_frames(clips[0]).shape
    frames = np.lib.format.open_memmap(partial, "w+", np.uint8, (len(clips), *shape))
    for i, clip in enumerate(clips):
        pictures = read_frames(clip)
        if pictures.shape != shape:
            raise InputError(f"{clip} is {pictures.shape} (frames, height, width, 3); {clips[0]} is {shape}.")
        frames[i] = pictures
        if i % LOG_EVERY == 0:
            log.info("decoded %d of %d clips", i, len(clips))
    frames.flush()
    os.replace(partial, path)
    return np.load(path, mmap_mode="r")


def find_points(cache: Path, detector: FaceDetector) -> np.ndarray:
    """points.npy (N, T, 5, 2) px of the largest face of each frame, NaN where there is none."""
    frames = np.load(cache / "frames.npy", mmap_mode="r")
    path, partial = cache / "points.npy", cache / "points.partial.npy"
    if path.is_file():
        return checked(path, len(frames))
    if partial.is_file():
        points = np.load(partial)
    else:
        points = np.full((*frames.shape[:2], 5, 2), np.inf, np.float32)  # infinite: not detected yet
    for i in np.nonzero(np.isinf(points).any((1, 2, 3)))[0].tolist():
        for t in range(frames.shape[1]):
            faces = detector.detect(np.array(frames[i, t]))
            points[i, t] = max(faces, key=lambda face: face.area).points.numpy() if faces else np.nan
        if i % LOG_EVERY == 0:
            log.info("points of %d of %d clips, %d frames without a face", i, len(frames), np.isnan(points[:i, :, 0, 0]).sum())
            np.save(partial, points)
    np.save(partial, points)
    os.replace(partial, path)
    return points


def checked(path: Path, clips: int) -> np.ndarray:
    """An array of the cache, memory-mapped. InputError unless it is of so many clips."""
    array = np.load(path, mmap_mode="r")
    if len(array) != clips:
        raise InputError(f"{path} holds {len(array)} clips and {clips} are asked for: delete it, or choose another --cache.")
    return array
