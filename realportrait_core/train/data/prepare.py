"""From the user's videos and images to samples: measure, filter, run the frozen networks, write, record.

Samples are named by their source's name and content, so that two sources of one name do not overwrite each other. Finished
sources are skipped: a run that was stopped goes on, and one with more files adds them. That holds for the same weights and
settings only; with others, preparing into the same folder is refused unless `rebuild` is set.
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
from ...face.crop import rescale
from ...face.detect import Face, FaceDetector
from ...vae import VAE, AutoencoderKL
from ...vid2vid import FaceVid2Vid
from ...video.pictures import read_picture
from .filters import BackgroundMotion, Filters, enlargement, face_side, light, occlusion
from .frozen import freeze_photo, freeze_segment, to_bytes
from .images import LARGEST, photo_side, random_crop, smallest_crop, transform_points
from .journal import Dropped, Kept, PreparationReport
from .sample import Sample, save_sample
from .segments import Scrap, Segment, find_segments, holds, read_frames, read_segment, segment_square
from .sources import Source
from .work import Process, Progress, go_through, not_written

log = logging.getLogger(__name__)

FORMAT = 2  # of the samples; raised when they change, so that old ones are not mixed with new ones
NOT_HELD = "face leaves the frame", "no square of the picture holds the face in every frame"
SLUG = 60  # characters of the source's name in that of its samples


@dataclass(frozen=True)
class Preparation:
    """How a source becomes samples."""

    out: Path
    header: dict  # weights and settings
    vid2vid: FaceVid2Vid
    vae: VAE
    detector: FaceDetector
    cfg: Config
    filters: Filters
    marks: dict[str, str]  # fingerprints of weights and settings, for the samples' metadata
    from_posterior: bool  # keep the posterior's deviations, with which a step samples latents
    pictures: bool  # keep the frames in the samples too

    made = re.compile(r"-[0-9a-f]{16}-\d{4}\.safetensors$")

    def pieces(self, source: Source) -> Iterator[Kept | Dropped]:
        return video_pieces(self, source) if source.kind == "video" else image_pieces(self, source)

    def is_there(self, kept: Kept) -> bool:
        return frames_of(self.out / kept.file, self.marks) is not None

    def write(
        self, source: Source, number: int, make: Callable[[], Sample], time: float, measured: dict[str, float]
    ) -> Kept | Dropped:
        """One sample file, unless it exists already; dropped where the networks give numbers that are not finite.

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
        described = {"time": f"{time:.3f}", "fps": f"{self.cfg.fps:g}", "measured": json.dumps(measured)}
        try:
            save_sample(path, sample, note | described)
        except WeightsError as error:
            raise not_written(self.out, error) from error
        return Kept(path.name, len(sample), time, measured)


def prepare_samples(
    places: Iterable[str | Path],
    out: str | Path,
    vid2vid: FaceVid2Vid,
    vae: VAE,
    detector: FaceDetector,
    cfg: Config,
    filters: Filters,
    rebuild: bool = False,
    callback: Progress | None = None,
    pictures: bool = False,
    from_posterior: bool | None = None,
    process: Process | None = None,
) -> PreparationReport:
    """Samples of every video and image of `places` (files, folders, tar shards) in the folder `out`, with report.json.

    pictures: keep the frames in the samples, for the training of a student (0.2 MB a frame of 256 px).
    from_posterior: whether each step samples the latents of driving frames from the VAE's posterior, as Stable Diffusion
    trains; None: where the VAE has one. The portrait's latent is always the mean: "we do not add noise to z_r" (Reference
    Attention), and it is what the sampler node encodes.
    rebuild: delete the samples that earlier runs into `out` made, and start anew. callback(bytes done, bytes in all, name)
    after each source. process: as in `go_through`. What cannot be used is in the report. Raises InputError where a place does
    not exist, `out` holds samples of other weights or settings, or the disk is full: finished samples stay, and the same call goes
    on.
    """
    work = preparation(Path(out), vid2vid, vae, detector, cfg, filters, pictures, from_posterior)
    return go_through(work, places, cfg.fps, rebuild, callback, process)


def preparation(
    out: Path,
    vid2vid: FaceVid2Vid,
    vae: VAE,
    detector: FaceDetector,
    cfg: Config,
    filters: Filters,
    pictures: bool = False,
    from_posterior: bool | None = None,
) -> Preparation:
    """The arguments of `prepare_samples`, checked. Raises InputError where they do not fit together."""
    has_posterior = isinstance(vae, AutoencoderKL)
    from_posterior = has_posterior if from_posterior is None else from_posterior
    check(vid2vid, cfg)
    if from_posterior and not has_posterior:
        raise InputError("A TinyVAE has no posterior to draw latents from: leave out --posterior, or give the SD1.5 VAE.")
    settings = {
        "format": FORMAT,
        "image_size": cfg.image_size,
        "fps": cfg.fps,
        "shortest": cfg.clip_frames,
        "draws": from_posterior,
        **asdict(filters),
    } | ({"pictures": True} if pictures else {})
    header = {"weights": weights_fingerprint(vid2vid, vae), "settings": settings}
    digest = hashlib.sha256(json.dumps(settings).encode()).hexdigest()
    marks = {"weights": header["weights"], "vid2vid": weights_fingerprint(vid2vid), "vae": weights_fingerprint(vae)}
    marks["settings"] = digest
    return Preparation(out, header, vid2vid, vae, detector, cfg, filters, marks, from_posterior, pictures)


def check(vid2vid: FaceVid2Vid, cfg: Config) -> None:
    if vid2vid.cfg.warped_channels != cfg.dit.motion_channels:
        raise InputError(
            f"This Face Vid2vid makes maps of {vid2vid.cfg.warped_channels} channels and the preset's transformer takes "
            f"{cfg.dit.motion_channels}: they do not belong together."
        )
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise InputError(f"PyAV, for videos, cannot be imported ({error}): `{sys.executable} -m pip install av`.") from error


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
    """How many frames the sample has; None where it is missing, incomplete, or of other weights, settings or source."""
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
                pictures, points, more = take_segment(read_segment(frames, position, piece), piece, square, cfg.image_size)
            except InputError as error:
                yield Dropped("damaged file", str(error), piece.time, len(piece), measured)
                return
            position = piece.start + len(piece)
            measured |= more
            refused = preparation.filters.refuse(measured)
        if refused:
            yield Dropped(*refused, piece.time, len(piece), measured)
            continue

        def make() -> Sample:
            frozen = preparation.vid2vid, preparation.vae
            return freeze_segment(*frozen, pictures, points, piece.present, from_posterior=preparation.from_posterior)

        yield preparation.write(source, number, make, piece.time, measured)


def take_segment(
    frames: Iterator, segment: Segment, square: torch.Tensor, size: int
) -> tuple[torch.Tensor, torch.Tensor, dict[str, float]]:
    """A segment's frames (T, S, S, 3) uint8 and points (T, 5, 2) px in them, and the measures of its pictures.

    Raises InputError where the file gives fewer frames than at its first reading.
    """
    motion = BackgroundMotion(square, size, *segment.size)
    pictures = []
    for frame, points in zip(frames, segment.points):
        motion.add(frame.picture, points, frame.fresh)
        pictures.append(to_bytes(sample_frame(to_batch(frame.picture), square, size))[0].movedim(0, -1))
    if len(pictures) != len(segment):
        raise InputError(f"the second reading gave {len(pictures)} frames of {len(segment)}: the file has changed meanwhile")
    pictures, points = torch.stack(pictures), transform_points(segment.points, square)
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
    native, limit = cfg.image_size / enlargement(square), preparation.filters.enlargement  # px, side in the photograph
    smallest = smallest_crop(native, cfg.image_size, limit)
    if random_crop(points, cfg.image_size, smallest, torch.Generator()) is None:
        detail = f"a crop of at most {LARGEST:g} of the picture would cut the face or be enlarged by more than {limit:g}"
        yield Dropped("no room for a crop", detail, measured=measured)
        return

    def make() -> Sample:
        side = photo_side(native, cfg.image_size)
        photo = sample_frame(to_batch(picture), rescale(side / cfg.image_size) @ square, side)
        frames = to_bytes(portrait), points, to_bytes(photo)
        return freeze_photo(preparation.vid2vid, preparation.vae, *frames, smallest, preparation.from_posterior)

    yield preparation.write(source, 0, make, 0.0, measured)


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
    """The square of a picture (H, W, 3): its pixels (1, 3, S, S) in [0, 1], the face's points (5, 2) px in it, and its
    measures."""
    portrait, points = sample_frame(to_batch(picture), square, size), transform_points(face.points, square)
    measured = {
        "face_side": face_side(face.points[None]),
        **occlusion([face]),
        "enlargement": enlargement(square),
        **light(to_bytes(portrait).movedim(1, -1), points[None]),
    }
    return portrait, points, measured


def to_batch(picture) -> torch.Tensor:
    """(H, W, 3) uint8 -> (1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
