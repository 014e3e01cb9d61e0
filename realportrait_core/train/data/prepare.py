"""From the user's videos and images to samples: measure, filter, compute what is frozen, write, remember.

Samples are named by their source's name and content, so that two sources of one name do not overwrite each other. What is
done is not done again: a run that was stopped goes on, one into which the user has put more files adds them. That holds for
the same weights and settings only; with others, preparing into the same folder is refused unless `rebuild` is asked for.
"""

import hashlib
import json
import logging
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import nn

from ...animation.framing import frame_square, sample_frame
from ...checkpoint import read_header
from ...config import Config
from ...errors import InputError, WeightsError
from ...face.detect import Face, FaceDetector
from ...vae import TinyVAE
from ...vid2vid import FaceVid2Vid
from .filters import BackgroundMotion, Filters, enlargement, face_side, light, occlusion
from .frozen import freeze_crop, freeze_segment
from .images import random_crop, read_picture
from .report import Dropped, Kept, Report
from .sample import Sample, save_sample
from .segments import Scrap, Segment, find_segments, holds, read_frames, read_segment, segment_square
from .sources import Source
from .work import Progress, go_through, not_written

log = logging.getLogger(__name__)

FORMAT = 1  # of what is measured and frozen here: another number, and old samples are not mixed with new ones
NOT_HELD = "face leaves the frame", "no square of the picture holds the face in every frame"
SLUG = 60  # characters of the source's name in that of its samples


@dataclass(frozen=True)
class Preparation:
    """What turns a source into samples."""

    out: Path
    header: dict  # weights and settings
    vid2vid: FaceVid2Vid
    vae: TinyVAE
    detector: FaceDetector
    cfg: Config
    filters: Filters
    portraits: int  # portrait frames of a clip
    crops: int  # crops of an image
    marks: dict[str, str]  # fingerprints of weights and settings, for the samples' metadata
    pictures: bool = False  # keep the frames in the samples too

    made, partial = re.compile(r"-[0-9a-f]{16}-\d{4}\.safetensors$"), ".*.safetensors.*.part"

    def pieces(self, source: Source) -> Iterator[Kept | Dropped]:
        return video_pieces(self, source) if source.kind == "video" else image_pieces(self, source)

    def is_there(self, kept: Kept) -> bool:
        return frames_of(self.out / kept.file, self.marks) is not None

    def write(
        self, source: Source, number: int, make: Callable[[], Sample], time: float, measured: dict[str, float]
    ) -> Kept | Dropped:
        """One sample file, unless it is there already; dropped where the networks give no finite numbers.

        Raises InputError where the file cannot be written, and leaves nothing of it.
        """
        path = self.out / f"{slug(source.name)}-{source.fingerprint[:16]}-{number:04d}.safetensors"
        note = self.marks | {"source": source.name, "fingerprint": source.fingerprint}
        frames = frames_of(path, note)
        if frames is not None:
            return Kept(path.name, frames, time, measured)
        try:
            sample = make() if self.pictures else replace(make(), pictures=None)
        except InputError as error:
            return Dropped("not computable", str(error), time, 0, measured)
        said = {"time": f"{time:.3f}", "fps": f"{self.cfg.fps:g}", "measured": json.dumps(measured)}
        try:
            save_sample(path, sample, note | said)
        except WeightsError as error:
            raise not_written(self.out, error) from error
        return Kept(path.name, len(sample), time, measured)


def prepare_samples(
    places: Iterable[str | Path],
    out: str | Path,
    vid2vid: FaceVid2Vid,
    vae: TinyVAE,
    detector: FaceDetector,
    cfg: Config,
    filters: Filters,
    portraits: int = 3,
    crops: int = 1,
    rebuild: bool = False,
    callback: Progress | None = None,
    pictures: bool = False,
) -> Report:
    """Samples of every video and image of `places` (files, folders, tar shards) in the folder `out`, with report.json.

    portraits: frames of a clip that can be the portrait; crops: random crops of an image, each a sample of its own.
    pictures: keep the frames in the samples, for the training of a student (0.2 MB a frame of 256 px).
    rebuild: delete the samples that earlier runs into `out` made, and start anew. callback(bytes done, bytes in all, name)
    after each source. What cannot be used is in the report. Raises InputError where a place does not exist, `out` holds
    samples of other weights or settings, or the disk is full: what was made by then stays, and the same call goes on.
    """
    out = Path(out)
    check(vid2vid, cfg, portraits, crops)
    settings = {
        "format": FORMAT,
        "image_size": cfg.image_size,
        "fps": cfg.fps,
        "shortest": cfg.clip_frames,
        "portraits": portraits,
        "crops": crops,
        **asdict(filters),
    } | ({"pictures": True} if pictures else {})
    header = {"weights": weights_fingerprint(vid2vid, vae), "settings": settings}
    digest = hashlib.sha256(json.dumps(settings).encode()).hexdigest()
    marks = {"weights": header["weights"], "vid2vid": weights_fingerprint(vid2vid), "settings": digest}
    preparation = Preparation(out, header, vid2vid, vae, detector, cfg, filters, portraits, crops, marks, pictures)
    return go_through(preparation, places, cfg.fps, rebuild, callback)


def check(vid2vid: FaceVid2Vid, cfg: Config, portraits: int, crops: int) -> None:
    if vid2vid.cfg.warped_channels != cfg.dit.motion_channels:
        raise InputError(
            f"This Face Vid2vid makes maps of {vid2vid.cfg.warped_channels} channels and the preset's transformer reads "
            f"{cfg.dit.motion_channels}: they do not belong together."
        )
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise InputError(f"PyAV, for videos, cannot be imported ({error}): `{sys.executable} -m pip install av`.") from error
    if portraits < 1 or crops < 0:
        raise InputError(f"A clip needs at least 1 portrait and an image at least 0 crops; these are {portraits} and {crops}.")


def weights_fingerprint(*networks: nn.Module) -> str:
    """SHA-256 over names and values of all weights, in hex."""
    digest = hashlib.sha256()
    for network in networks:
        for name, value in sorted(network.state_dict().items()):
            value = value.detach().cpu().contiguous()
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def frames_of(path: Path, note: dict[str, str]) -> int | None:
    """How many frames the sample has; None where it is not there, not whole, or not of these weights, settings and source."""
    try:
        header = read_header(path)
    except WeightsError:
        return None
    same = all(header.metadata.get(name) == value for name, value in note.items())
    return header.shapes["latents"][0] if same and "latents" in header.shapes else None


def slug(name: str) -> str:
    """A source's name as the start of a file's: letters, digits, - and _ of it."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", str(PurePosixPath(name).with_suffix("")))[-SLUG:].strip("_") or "sample"


# One source


def video_pieces(preparation: Preparation, source: Source) -> Iterator[Kept | Dropped]:
    cfg, position = preparation.cfg, 0
    frames = read_frames(source, cfg.fps)
    for number, piece in enumerate(find_segments(source, preparation.detector, cfg.fps, cfg.clip_frames)):
        if isinstance(piece, Scrap):
            yield Dropped(piece.reason, piece.detail, piece.time, piece.frames)
            continue
        measured = {"face_side": face_side(piece.points), **occlusion(piece.faces), "repeated": 1 - sum(piece.fresh) / len(piece)}
        refused = preparation.filters.refuse(measured)
        square = None if refused else segment_square(piece, cfg.image_size)
        if square is not None:
            measured["enlargement"] = enlargement(square)
            refused = preparation.filters.refuse(measured)
        elif not refused:
            refused = NOT_HELD
        if not refused:
            try:
                pictures, points, seen = look_at(read_segment(frames, position, piece), piece, square, cfg.image_size)
            except InputError as error:
                yield Dropped("damaged file", str(error), piece.time, len(piece), measured)
                return
            position = piece.start + len(piece)
            measured |= seen
            refused = preparation.filters.refuse(measured)
        if refused:
            yield Dropped(*refused, piece.time, len(piece), measured)
            continue

        def make() -> Sample:
            return freeze_segment(preparation.vid2vid, preparation.vae, pictures, points, piece.present, preparation.portraits)

        yield preparation.write(source, number, make, piece.time, measured)


def look_at(
    frames: Iterator, segment: Segment, square: torch.Tensor, size: int
) -> tuple[torch.Tensor, torch.Tensor, dict[str, float]]:
    """A segment's frames (T, S, S, 3) in [0, 1] and points (T, 5, 2) px in them, and what its pictures measure.

    Raises InputError where the file gives fewer frames than at its first reading.
    """
    motion = BackgroundMotion(square, size, *segment.size)
    pictures = []
    for frame, points in zip(frames, segment.points):
        motion.look(frame.picture, points, frame.fresh)
        pictures.append(sample_frame(to_batch(frame.picture), square, size)[0].movedim(0, -1))
    if len(pictures) != len(segment):
        raise InputError(f"the second reading gave {len(pictures)} frames of {len(segment)}: the file has changed meanwhile")
    pictures, points = torch.stack(pictures), place(segment.points, square)
    return pictures, points, {"background": motion.value(), **light(pictures, points)}


def image_pieces(preparation: Preparation, source: Source) -> Iterator[Kept | Dropped]:
    cfg = preparation.cfg
    found = read_faces(source, preparation.detector)
    if isinstance(found, Dropped):
        yield found
        return
    picture, (face, *_) = found
    square = frame_square(face.points, *picture.shape[:2], cfg.image_size, "auto")
    portrait, points, measured = take_square(picture, face, square, cfg.image_size)
    refused = preparation.filters.refuse(measured)
    if not refused and not holds(square, face.points[None], cfg.image_size):
        refused = NOT_HELD
    if refused:
        yield Dropped(*refused, measured=measured)
        return
    for number in range(preparation.crops):
        forward = random_crop(square, face.points, cfg.image_size, preparation.filters.enlargement, f"{source.name}:{number}")
        if forward is None:
            yield Dropped(
                "no room for a crop",
                "a crop of at most 0.95 of the picture would cut the face or be enlarged by more "
                f"than {preparation.filters.enlargement:g}",
                measured=measured,
            )
            return

        def make() -> Sample:
            crop = sample_frame(to_batch(picture), forward, cfg.image_size)
            frames = torch.cat([portrait, crop]).movedim(1, -1)
            both = torch.stack([points, place(face.points, forward)])
            return freeze_crop(preparation.vid2vid, preparation.vae, frames, both, forward @ torch.linalg.inv(square))

        zoom = {"zoom": enlargement(forward) / enlargement(square)}
        yield preparation.write(source, number, make, 0.0, measured | zoom)


def read_faces(source: Source, detector: FaceDetector) -> tuple[np.ndarray, list[Face]] | Dropped:
    """An image (H, W, 3) uint8 and its faces, the largest first; dropped where there is none."""
    try:
        picture = read_picture(source)
    except InputError as error:
        return Dropped("unreadable file", str(error))
    faces = sorted(detector.detect(picture), key=lambda face: face.area, reverse=True)
    return (picture, faces) if faces else Dropped("no face", f"no face in {picture.shape[1]}x{picture.shape[0]} px")


def take_square(
    picture: np.ndarray, face: Face, square: torch.Tensor, size: int
) -> tuple[torch.Tensor, torch.Tensor, dict[str, float]]:
    """The square of a picture (H, W, 3): its pixels (1, 3, S, S) in [0, 1], the face's points (5, 2) px in it, and what is
    measured of it."""
    portrait, points = sample_frame(to_batch(picture), square, size), place(face.points, square)
    measured = {
        "face_side": face_side(face.points[None]),
        **occlusion([face]),
        "enlargement": enlargement(square),
        **light(portrait.movedim(1, -1), points[None]),
    }
    return portrait, points, measured


def to_batch(picture) -> torch.Tensor:
    """(H, W, 3) uint8 -> (1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255


def place(points: torch.Tensor, square: torch.Tensor) -> torch.Tensor:
    """Points (..., 2) px of the picture -> px of the frame, float32."""
    return (points.double() @ square[:2, :2].T + square[:2, 2]).float()
