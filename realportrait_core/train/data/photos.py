"""A user's photographs for the trainings on photographs: squares around the face, and its mesh by MediaPipe's landmarker.

The folder's layout is that of `head_rotation/dataset.py`: NNNNNN.jpg and points.npz with `names`, `mesh`, `five`. The number comes
from the photograph's content; report.json lists which is which. Of several people the one with the largest face is taken, unless
another as large would be in the square too.
"""

import hashlib
import re
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from ...errors import InputError
from ...face.crop import upright_square
from ...face.detect import Face, FaceDetector
from ...face.landmarks import FaceLandmarker
from ...head_rotation.topology import FIVE
from ...whole_file import whole_file, write_whole
from .filters import Filters, face_side
from .images import transform_points
from .journal import JOURNAL, Dropped, Kept, PreparationReport
from .prepare import NOT_HELD, read_faces, take_square
from .sources import Source
from .work import Progress, files_of, go_through, not_written

FORMAT = 1  # of the files; raised when they change, so that old ones are not mixed with new ones
POINTS = "points.npz"
NUMBERS = 1_000_000  # of six digits
SHARE = 1.84  # side of the square / longer side of the mesh's box: the median of official portraits, to the shoulders
RISE = 0.022  # the square's centre lies so much of its side above the face's, the same
APART = 0.15  # of the mesh's box, by which mesh and detector may disagree: 0.03 is usual, 0.08 the most on 719 portraits
RIVAL = 0.5  # of the face's side: a smaller one beside it is background
QUALITY = 95  # of the JPEGs
WRITE_EVERY = 50  # photographs: a killed run loses so many at most


def prepare_photos(
    places: Iterable[str | Path],
    out: str | Path,
    detector: FaceDetector,
    landmarker: FaceLandmarker,
    size: int,
    filters: Filters,
    rebuild: bool = False,
    callback: Progress | None = None,
) -> PreparationReport:
    """Squares of size x size px of every image of `places` in the folder `out`, with points.npz and report.json.

    rebuild: delete those that earlier runs into `out` made, and start anew. callback(bytes done, bytes in all, name) after each
    source. What cannot be used is in the report. Raises InputError where a place does not exist, `out` lies in one or holds
    other pictures, or the disk is full: finished photographs stay, and the same call goes on.
    """
    places = [Path(place) for place in places]
    for source in places:
        if Path(out).resolve().is_relative_to(source.resolve()):
            raise InputError(f"{out} lies in {source}, where the next run would take it for photographs: choose another --out.")
    squares = Squares(Path(out), detector, landmarker, size, filters)
    if rebuild:
        squares.points.clear()
    try:
        return go_through(squares, places, 1.0, rebuild, callback)
    finally:
        squares.write_points()


class Squares:
    """How a photograph becomes a square and its points."""

    made = re.compile(rf"^\d{{6}}\.jpg$|^{re.escape(POINTS)}$")

    def __init__(self, out: Path, detector: FaceDetector, landmarker: FaceLandmarker, size: int, filters: Filters):
        self.out, self.detector, self.landmarker, self.size, self.filters = out, detector, landmarker, size, filters
        settings = {"photos": FORMAT, "image_size": size, **asdict(filters)}
        self.header = {"weights": hashlib.sha256(landmarker.path.read_bytes()).hexdigest(), "settings": settings}
        foreign = files_of(self) if out.is_dir() and not (out / JOURNAL).is_file() else []
        if foreign:
            raise InputError(
                f"{out} holds {len(foreign)} files, such as {foreign[0].name}, that this command did not write and "
                "might overwrite: choose another --out."
            )
        known = read_points(out / POINTS)
        # By number: mesh (478, 3) and five points (5, 2), px of the square. A square that somebody has deleted has none.
        self.points = {number: points for number, points in known.items() if (out / f"{number:06d}.jpg").is_file()}
        self.unwritten = len(known) - len(self.points)

    def is_there(self, kept: Kept) -> bool:
        return int(Path(kept.file).stem) in self.points

    def pieces(self, source: Source) -> Iterator[Kept | Dropped]:
        if source.kind != "image":
            yield Dropped("no photograph", "videos become samples alone, by this command without --landmarker")
            return
        found = read_faces(source, self.detector)
        if isinstance(found, Dropped):
            yield found
            return
        picture, (face, *others) = found
        mesh = self.landmarker.points(picture, face.points)
        refused = misplaced(mesh, face.points)
        if refused:
            yield Dropped(*refused)
            return
        square = portrait_square(mesh, *picture.shape[:2], self.size)
        portrait, five, measured = take_square(picture, face, square, self.size)
        mesh = torch.cat([transform_points(mesh[:, :2], square), mesh[:, 2:] * float(square[0, 0])], 1)
        refused = self.filters.refuse(measured) or self.crowded(face, others, square)
        if not refused and not (-0.5 <= float(mesh[:, :2].min()) and float(mesh[:, :2].max()) <= self.size - 0.5):
            refused = NOT_HELD
        if refused:
            yield Dropped(*refused, measured=measured)
            return
        number = self.number_of(source)
        path = self.out / f"{number:06d}.jpg"
        write_jpeg(path, portrait[0])
        self.points[number] = mesh.numpy(), five.numpy()
        self.unwritten += 1
        if self.unwritten >= WRITE_EVERY:
            self.write_points()
        yield Kept(path.name, 1, 0.0, measured)

    def crowded(self, face: Face, others: list[Face], square: torch.Tensor) -> tuple[str, str] | None:
        """Why another face of the picture is in the way, or None."""
        for other in others:
            share = face_side(other.points[None]) / face_side(face.points[None])
            middle = transform_points(other.points.mean(0, keepdim=True), square)
            if share >= RIVAL and 0 <= float(middle.min()) and float(middle.max()) <= self.size - 1:
                return "several faces", f"the square shows another face, {share:.2f} times as large; below {RIVAL:g} passes"
        return None

    def number_of(self, source: Source) -> int:
        """A number that is free, and the same again for the same photograph."""
        number = int(source.fingerprint[:12], 16) % NUMBERS
        while number in self.points:
            number = (number + 1) % NUMBERS
        return number

    def write_points(self) -> None:
        """points.npz, whole or not at all. InputError where it cannot be written."""
        if not self.unwritten or not self.points:
            return
        numbers = sorted(self.points)
        mesh, five = (np.stack([self.points[number][part] for number in numbers]) for part in (0, 1))
        try:
            with whole_file(self.out / POINTS) as partial:
                np.savez(partial, names=np.array(numbers), mesh=mesh, five=five)
        except OSError as error:
            raise not_written(self.out, error) from error
        self.unwritten = 0


def portrait_square(mesh: torch.Tensor, height: int, width: int, size: int) -> torch.Tensor:
    """(3, 3) float64: picture px -> px of a size x size square, from hair to shoulders where the picture has room for them.

    mesh (478, 3) px; the square is upright and inside the picture.
    """
    low, high = mesh[:, :2].double().amin(0), mesh[:, :2].double().amax(0)
    side = min(SHARE * float((high - low).max()), float(min(height, width)))
    centre = (low + high) / 2 - torch.tensor([0.0, RISE * side], dtype=torch.float64)
    return upright_square(centre, side, height, width, size)


def misplaced(mesh: torch.Tensor, five: torch.Tensor) -> tuple[str, str] | None:
    """Why a mesh (478, 3) px is not that of the face of five points (5, 2) px, or None."""
    box = (mesh[:, :2].amax(0) - mesh[:, :2].amin(0)).max()
    apart = float((mesh[FIVE, :2] - five).norm(dim=1).mean() / box)
    if apart <= APART:
        return None
    return "mesh beside the face", f"landmarker and detector disagree by {apart:.2f} of the face; at most {APART:g} passes"


def write_jpeg(path: Path, picture: torch.Tensor) -> None:
    """(3, S, S) in [0, 1] as a file, whole or not at all."""
    import cv2

    pixels = (picture.movedim(0, -1).clamp(0, 1) * 255).round().byte().numpy()
    coded = cv2.imencode(".jpg", np.ascontiguousarray(pixels[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
    write_whole(path, coded.tobytes())


def read_points(path: Path) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Mesh and five points by number; none where there is no file. InputError where it is damaged."""
    if not path.is_file():
        return {}
    try:
        with np.load(path, allow_pickle=False) as file:
            return {int(name): (mesh, five) for name, mesh, five in zip(file["names"], file["mesh"], file["five"], strict=True)}
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is damaged ({error}): delete it, and the photographs are made anew.") from error
