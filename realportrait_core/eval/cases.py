"""The cases of an evaluation: driving video and ground truth, one Case for every clip of a folder or for every pair of them."""

from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from ..errors import InputError
from ..head_rotation.change import Limits, smooth_path
from ..head_rotation.dataset import Photos, read_photos
from ..head_rotation.topology import Topology, read_topology
from ..head_rotation.turning import turn
from ..video.decoding import decode, upright
from ..video.pictures import is_picture, read_picture
from ..video.reading import check_picture
from ..video.source import VideoFile, probe
from .rows import to_bytes

DRIVERS, OTHERS = 800000, 810000  # clip OTHERS + i performs the motion of clip DRIVERS + i
CONTINUED = 46  # frames of three clips of 16, each of which starts with the last one of the clip before
PHOTO_FRAMES, PHOTO_FPS = 16, 12.5  # of a turned photo's clip
PHOTO_LIMITS = Limits(yaw=10.0, pitch=10.0, roll=6.0)  # beyond about 12 degrees hair tears
USUAL_FPS = 25.0
LONGEST_SIDE = 1024  # px, to which larger videos are downscaled while decoding


@dataclass(frozen=True)
class Case:
    """A driving video, and the ground truth: the clip that its motion should make of that clip's first frame.

    Without ground truth the portrait is a picture, or a clip's first frame, of its own.
    """

    name: str
    driver: Path | Tensor  # a video, or its frames (L, H, W, 3) uint8
    truth: Path | Tensor | None  # of as many frames; the same object as the driving frames in self-reenactment; None: not known
    frames: int | None = None  # length, played forwards and backwards; None: the clip's own
    valid: Tensor | None = None  # (L, H, W) bool: where the truth is known; None: everywhere
    portrait: Path | Tensor | None = None  # a picture or a video, or (H, W, 3) uint8; None: the truth's first frame
    most: int | None = None  # frames that are read of a video; None: all

    @property
    def of_itself(self) -> bool:
        """Whether driver and truth are one clip."""
        return self.driver is self.truth or isinstance(self.driver, Path) and self.driver == self.truth

    def portrait_picture(self) -> Tensor:
        """The portrait (H, W, 3) uint8, where it is not the truth's first frame. InputError where it cannot be read."""
        if isinstance(self.portrait, Tensor):
            return self.portrait
        if self.portrait is None:
            raise InputError(f"{self.name} has no portrait of its own.")
        with self.portrait.open("rb") as file:
            is_still = is_picture(file.read(12))
        if is_still:
            return torch.from_numpy(read_picture(VideoFile(self.portrait.name, self.portrait)))
        return read_clip(self.portrait, 1)[0]


def self_cases(folder: Path) -> list[Case]:
    """Every clip of a folder, by name. InputError where there is none."""
    clips = sorted(folder.glob("*.mp4"))
    if not clips:
        raise InputError(f"{folder} holds no .mp4 clip.")
    return [Case(clip.stem, clip, clip) for clip in clips]


def continued_cases(folder: Path) -> list[Case]:
    """As self_cases, long enough for three clips in a row."""
    return [replace(case, frames=CONTINUED) for case in self_cases(folder)]


def cross_cases(folder: Path) -> list[Case]:
    """Every pair of clips 800000+i and 810000+i of a folder. InputError where there is none."""
    names = {int(clip.stem): clip for clip in folder.glob("*.mp4") if clip.stem.isdecimal()}
    pairs = [(names[n], names[n + OTHERS - DRIVERS]) for n in sorted(names) if n + OTHERS - DRIVERS in names and n < OTHERS]
    if not pairs:
        raise InputError(f"{folder} holds no pair of clips {DRIVERS}+i.mp4 and {OTHERS}+i.mp4.")
    return [Case(f"{driver.stem}->{truth.stem}", driver, truth) for driver, truth in pairs]


def photo_cases(folder: Path, canonical: Path, limit: int | None = None) -> list[Case]:
    """Every photo of a folder, or the first `limit`, as photo_case. InputError as read_photos, read_topology."""
    photos, topology = read_photos(folder, limit), read_topology(canonical)
    return [photo_case(photos, topology, number) for number in range(len(photos))]


def photo_case(photos: Photos, topology: Topology, number: int) -> Case:
    """One photo, turned in 3-D along a smooth path of its own within PHOTO_LIMITS.

    The turned photo is driving video and truth; pixels that turning uncovers are unknown.
    """
    change = smooth_path((1, PHOTO_FRAMES), PHOTO_FPS, PHOTO_LIMITS, torch.Generator().manual_seed(number), from_rest=True)
    turned = turn(*photos.take(torch.tensor([number])), topology, change)
    frames = to_bytes(turned.pictures[0])  # (L, S, S, 3)
    return Case(Path(photos.names[number]).stem, frames, frames, valid=turned.unknown[0] < 0.5)


# Their frames


def frames_of(case: Case) -> tuple[Tensor, Tensor, Tensor | None]:
    """Driving video and truth (L, H, W, 3) uint8, and where the truth is known (L, H, W) bool, or None.

    InputError where a file is no video, where a clip has only one frame, where the two differ in length, or without a truth.
    """
    if case.truth is None:
        raise InputError(f"{case.name} has no ground truth.")
    driver = clip_frames(case.driver, case.name, case.most)
    truth = driver if case.of_itself else clip_frames(case.truth, case.name, case.most)
    if case.valid is not None and case.valid.shape != truth.shape[:3]:
        raise InputError(f"{case.name}: valid is {tuple(case.valid.shape)} and the truth {tuple(truth.shape)}.")
    driver, truth = (ping_pong(frames, case.frames) for frames in (driver, truth))
    if len(driver) != len(truth):
        raise InputError(f"{case.name}: the driving video has {len(driver)} frames and the truth {len(truth)}.")
    return driver, truth, None if case.valid is None else ping_pong(case.valid, case.frames)


def driving_frames(case: Case) -> Tensor:
    """Driving video (L, H, W, 3) uint8 of a case without truth, L at least 1. InputError where it is no video."""
    return ping_pong(clip_frames(case.driver, case.name, case.most, least=1), case.frames)


def clip_frames(clip: Path | Tensor, name: str, most: int | None = None, least: int = 2) -> Tensor:
    """Frames (L, H, W, 3) uint8 of a case's clip, at most `most`. InputError for fewer than `least`."""
    frames = read_clip(clip, most) if isinstance(clip, Path) else clip[:most]
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != torch.uint8:
        raise InputError(
            f"{name}: a clip must be (frames, height, width, 3) uint8; this one is {tuple(frames.shape)}, {frames.dtype}."
        )
    if len(frames) < least:
        why = "; frame 0 is the portrait, so at least 2 are needed" if least == 2 else ""
        raise InputError(f"{name} has {len(frames)} frames{why}.")
    return frames


def read_clip(path: Path, most: int | None = None) -> Tensor:
    """Frames (L, H, W, 3) uint8, upright, at most LONGEST_SIDE px, the first `most` of them. InputError for no video, or one that
    changes its size.
    """
    source = VideoFile(path.name, path)
    frames: list[Tensor] = []
    for shown in islice(decode(source), most):
        picture = upright(shown, LONGEST_SIDE)
        check_picture(frames[0].shape if frames else None, picture.shape, shown.time, source.name)
        frames.append(torch.from_numpy(picture))
    if not frames:
        raise InputError(f"{path} has no frames.")
    return torch.stack(frames)


def ping_pong(frames: Tensor, count: int | None) -> Tensor:
    """`count` frames of 0, 1, ..., n - 1, n - 2, ..., 1, 0, 1, ...; None: the frames as they are."""
    if count is None:
        return frames
    there = list(range(len(frames)))
    round_trip = there + there[-2:0:-1]
    return frames[[round_trip[i % len(round_trip)] for i in range(count)]]


def driving_rate(case: Case) -> float:
    """Frames a second of a case's driving video; USUAL_FPS where its file declares none. InputError for no video."""
    if not isinstance(case.driver, Path):
        return PHOTO_FPS
    return probe(VideoFile(case.driver.name, case.driver)).rate or USUAL_FPS
