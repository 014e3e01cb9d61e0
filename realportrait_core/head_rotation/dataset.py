"""Photographs of people with their face meshes, and their augmentation.

A folder holds pictures and `points.npz`: `names` (N,), numbers of NNNNNN.jpg or file names, and `mesh` (N, 468 or 478, 3) px of
the picture, z in px and smaller nearer, as MediaPipe's landmarker gives it. `five` (N, 5, 2), YuNet's points, may be there.
"""

import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from .sampling import pixels, sample
from .topology import POINTS, WITH_IRISES, Topology, checked_mesh


@dataclass(frozen=True)
class Photos:
    """N photos of S px."""

    names: tuple[str, ...]
    pixels: Tensor  # (N, 3, S, S) uint8
    mesh: Tensor  # (N, P, 3) px
    five: Tensor | None  # (N, 5, 2) px

    def __len__(self) -> int:
        return len(self.names)

    def to(self, device: torch.device | str) -> "Photos":
        five = None if self.five is None else self.five.to(device)
        return Photos(self.names, self.pixels.to(device), self.mesh.to(device), five)

    def take(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Photos (B, 3, S, S) in 0..1 and their mesh (B, P, 3), of numbers (B,)."""
        return self.pixels[chosen].float() / 255, self.mesh[chosen]


def file_of(folder: Path, name: np.generic) -> Path:
    return folder / (f"{int(name):06d}.jpg" if np.issubdtype(type(name), np.integer) else str(name))


def read_photos(folder: str | Path, limit: int | None = None) -> Photos:
    """The photos of a folder, or the first `limit`. InputError where they, or `points.npz`, are missing or do not fit."""
    folder = Path(folder)
    path = folder / "points.npz"
    if not path.is_file():
        raise InputError(
            f"{path} is missing: a folder of photos needs the face mesh of each. "
            "`python -m realportrait_core.train.data` with --landmarker makes one of any photographs."
        )
    try:
        with np.load(path, allow_pickle=False) as file:
            names, mesh = file["names"][:limit], file["mesh"][:limit].astype(np.float32)
            five = file["five"][:limit].astype(np.float32) if "five" in file else None
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read ({error}): it must hold `names` (N,) and `mesh` (N, 478, 3).") from error
    shaped = mesh.ndim == 3 and mesh.shape[1] in (POINTS, WITH_IRISES) and mesh.shape[2] == 3
    if not shaped or len(names) != len(mesh) or not len(names):
        raise InputError(f"{path} has {len(names)} names and a mesh {mesh.shape}; it must be (N, 468 or 478, 3), N above 0.")
    broken = int((~np.isfinite(mesh)).any((1, 2)).sum())
    if broken:
        raise InputError(f"{path}: the mesh of {broken} of {len(mesh)} photos is not finite.")
    files = [file_of(folder, name) for name in names]
    stack = np.ascontiguousarray(read_squares((str(file), bytes_of(file)) for file in files).transpose(0, 3, 1, 2))
    return Photos(
        tuple(file.name for file in files),
        torch.from_numpy(stack),
        torch.from_numpy(mesh),
        None if five is None else torch.from_numpy(five),
    )


def bytes_of(file: Path) -> bytes:
    """The content of a file, empty if it cannot be read."""
    try:
        return file.read_bytes()
    except OSError:
        return b""


def read_squares(files: Iterable[tuple[str, bytes]], side: int | None = None) -> np.ndarray:
    """(N, S, S, 3) uint8 RGB of pictures by name and bytes; S is `side`, or that of the first. InputError names one that does
    not fit."""
    import cv2

    pictures = []
    for name, data in files:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
        if picture is None:
            raise InputError(f"{name} cannot be read as a picture.")
        height, width = picture.shape[:2]
        side = side or width
        if (height, width) != (side, side):
            raise InputError(
                f"{name} is {width}x{height} px; all must be square and of one size ({width} x {height} is not {side} x {side})."
            )
        pictures.append(picture[..., ::-1])
    return np.stack(pictures)


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the augmentation of a photo."""

    mirror: float = 0.5  # probability
    crop: tuple[float, float] = (0.72, 1.0)  # side of the crop as a fraction of the photo's
    exposure: float = 0.15  # factor 1 +- this, of all channels
    tint: float = 0.05  # factor 1 +- this, of each channel
    contrast: float = 0.10  # factor 1 +- this, about middle grey


def mirrored(photos: Tensor, mesh: Tensor, topology: Topology) -> tuple[Tensor, Tensor]:
    """photos (B, 3, S, S) and mesh (B, P, 3) px flipped left to right; each point of the mesh is where its counterpart was."""
    points = mesh[:, topology.mirror[: mesh.shape[1]]]
    side = photos.shape[-1] - 1
    return photos.flip(-1), torch.cat([side - points[..., :1], points[..., 1:]], -1)


def augmented(
    photos: Tensor,
    mesh: Tensor,
    topology: Topology,
    generator: torch.Generator,
    options: Augmentation = Augmentation(),
    size: int | None = None,
) -> tuple[Tensor, Tensor]:
    """photos (B, 3, S, S) and mesh (B, P, 3) randomly mirrored, cropped and coloured: photos (B, 3, size, size), size S by
    default, and their mesh.

    The whole mesh stays inside the crop if the crop is large enough. Random numbers come from the generator's device.
    """
    checked_mesh(mesh, len(photos))
    batch, side = len(photos), photos.shape[-1]
    size = side if size is None else size
    chance = torch.rand(batch, 9, generator=generator, device=generator.device).to(photos.device)
    flip = (chance[:, 0] < options.mirror)[:, None, None]
    turned, points = mirrored(photos, mesh, topology)
    photos, mesh = torch.where(flip[..., None], turned, photos), torch.where(flip, points, mesh)

    part = side * (options.crop[0] + (options.crop[1] - options.crop[0]) * chance[:, 1:2])  # (B, 1) px
    low, high = mesh[..., :2].amin(1), mesh[..., :2].amax(1)
    first, last = (high + 0.5 - part).clamp_min(-0.5), (low - 0.5).minimum(side - 0.5 - part)  # of the crop's edge
    middle = ((low + high - part) / 2).clamp_min(-0.5).minimum(side - 0.5 - part)
    edge = torch.where(first < last, torch.lerp(first, last, chance[:, 2:4]), middle)  # (B, 2) px
    zoom = part / size  # px of the photo a px
    places = (pixels(size, size, photos.device) + 0.5) * zoom[:, :, None, None] + edge[:, :, None, None]
    photos = sample(photos, places, side, "bicubic", "reflection")
    moved = (mesh[..., :2] - edge[:, None]) / zoom[:, None] - 0.5
    mesh = torch.cat([moved, mesh[..., 2:] / zoom[:, None]], -1)

    amount = chance[:, 4:] * 2 - 1
    gain = (1 + options.exposure * amount[:, :1]) * (1 + options.tint * amount[:, 1:4])
    photos = (photos - 0.5) * (1 + options.contrast * amount[:, 4:5])[..., None, None] + 0.5
    return (photos * gain[..., None, None]).clamp(0, 1), mesh
