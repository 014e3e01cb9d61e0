"""Ground truth for M from rendered heads: pose, expression and keypoints of every frame, in any crop of it.

The K keypoints are points of the head's surface, and an iris and an upper lid per eye; s, R, t and delta are chosen so that
x = s (x_c R + delta) + t holds exactly for every frame.
"""

from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import torch

from ...errors import InputError
from ...face.crop import crop_roll
from ...vid2vid.keypoints import Pose, rotation_angles
from ...vid2vid.regions import EYES_AND_MOUTH

# Of the 128 surface points: nose, forehead (2), bridge, upper lip, lower lip, left and right of the lips, below the lips,
# chin, inner brows (left, right), outer brows, below the eyes, above the eyes, cheeks, before the ears, jaw.
SURFACE = (0, 117, 125, 41, 110, 32, 59, 95, 109, 46, 22, 57, 78, 45, 56, 54, 105, 102, 75, 21, 58, 10)
NUM_KP = len(SURFACE) + 4  # and iris left, iris right, lid left, lid right
MOUTH_AND_EYES = EYES_AND_MOUTH[NUM_KP]
# Points that expressions and the neck hardly move: they define the head's rotation.
RIGID = (0, 117, 66, 23, 125, 4, 74, 49, 7, 94, 93, 41, 30, 70, 15, 53, 81, 27, 85, 108, 100, 98, 92, 101, 122)

ORIGIN = (0.0, 6.95, 0.9)  # dm, the middle of the template's face: the origin of x_c
UNIT = 0.45  # crop units a decimetre, so that s is about 1
EYES = ((0.31, 7.28, 1.28), (-0.31, 7.28, 1.28))  # dm, eyeball centres of the template (subject's left, right)
EYE_NEIGHBOURS = ((105, 56, 111), (102, 54, 96))
IRIS_RADIUS = 0.13  # dm
LID_FRONT, LID_HEIGHT, LID_TRAVEL = 0.14, 0.10, 0.16  # dm, the upper lid of an open eye, and how far a blink takes it
BLINK = (8, 9)  # eyeBlinkLeft, eyeBlinkRight among the 52 coefficients
NPZ_ARRAYS = ("neutral3d", "template3d", "verts3d", "verts2d", "eyes2d", "gaze", "expr")  # of a clip's npz
FLIP = (1.0, -1.0, -1.0)  # y up, z to the camera -> y down, z inward


@dataclass(frozen=True)
class HeadTruth:
    """The ground truth of N clips of T frames."""

    canonical: torch.Tensor  # (N, K, 3) x_c
    rotation: torch.Tensor  # (N, T, 3, 3) of the head in the picture, for row vectors
    surface: torch.Tensor  # (N, T, 128, 2) px, integer pixel centres
    relative: torch.Tensor  # (N, T, 128, 3) surface points about the head's origin, crop units at s = 1
    eyes: torch.Tensor  # (N, T, 2, 2) px
    eye_offsets: torch.Tensor  # (N, T, 4, 3) iris and lid from their eyeball's centre, in the picture's axes, at s = 1
    shown: torch.Tensor = field(default_factory=lambda: torch.tensor(SURFACE))  # indices, on the device of the rest
    rigid: torch.Tensor = field(default_factory=lambda: torch.tensor(RIGID))

    def to(self, device: torch.device) -> "HeadTruth":
        return HeadTruth(*(getattr(self, entry.name).to(device) for entry in fields(self)))


def kabsch(rest: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """The rotation (T, 3, 3) for row vectors that takes rest (P, 3) closest to moved (T, P, 3)."""
    covariance = np.einsum("pi,tpj->tij", rest - rest.mean(0), moved - moved.mean(1, keepdims=True))
    u, _, vt = np.linalg.svd(covariance)
    sign = np.ones(u.shape[:2])
    sign[:, 2] = np.sign(np.linalg.det(u @ vt))
    return (u * sign[:, None]) @ vt


def read_truth(path: Path) -> tuple[np.ndarray, ...]:
    """The npz of one clip as a row of HeadTruth."""
    with np.load(path, allow_pickle=False) as file:
        return truth_row({name: file[name] for name in NPZ_ARRAYS})


def truth_row(known: dict[str, np.ndarray]) -> tuple[np.ndarray, ...]:
    """A row of HeadTruth from the arrays of a clip's npz, by name (NPZ_ARRAYS)."""
    known = {name: known[name].astype(np.float64) for name in NPZ_ARRAYS}
    rest, template, moved = known["neutral3d"], known["template3d"], known["verts3d"]  # moved (T, 128, 3)
    surface, eyes = known["verts2d"] - 0.5, known["eyes2d"] - 0.5
    gaze, blink = known["gaze"], known["expr"][:, BLINK]
    rigid = list(RIGID)
    # Identities differ in height: every head at rest is moved to the template's head.
    rest = rest - (rest[rigid].mean(0) - template[rigid].mean(0))
    turn = kabsch(rest[rigid], moved[:, rigid])  # (T, 3, 3), y up
    flip = np.diag(FLIP)

    centres = np.stack([np.add(eye, (rest - template)[list(near)].mean(0)) for eye, near in zip(EYES, EYE_NEIGHBOURS)])
    iris_rest = centres + (0.0, 0.0, IRIS_RADIUS)
    lid_rest = centres + (0.0, LID_HEIGHT, LID_FRONT)
    points_rest = (np.concatenate([rest[list(SURFACE)], iris_rest, lid_rest]) - ORIGIN) * UNIT @ flip
    yaw, pitch = gaze.T
    forward = np.stack([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)], -1)  # (T, 3)
    iris = np.repeat(IRIS_RADIUS * forward[:, None], 2, 1)  # (T, 2, 3)
    lid = np.stack([np.zeros_like(blink), LID_HEIGHT - LID_TRAVEL * blink, np.full_like(blink, LID_FRONT)], -1)
    offsets = np.concatenate([iris, lid], 1) @ turn * UNIT @ flip  # (T, 4, 3)

    # The position of the template's origin in every frame.
    middle = moved[:, rigid].mean(1, keepdims=True) - ((rest[rigid].mean(0) - ORIGIN) @ turn)[:, None]
    relative = (moved - middle) * UNIT @ flip  # (T, 128, 3)
    return points_rest, flip @ turn @ flip, surface, relative, eyes, offsets


def load_truth(folder: str | Path, limit: int | None = None) -> tuple[HeadTruth, list[str]]:
    """All npz files of a folder of rendered clips, sorted by name; and the names. InputError where there is none."""
    paths = sorted(Path(folder).glob("*.npz"))[:limit]
    if not paths:
        raise InputError(f"{folder} holds no *.npz file of a rendered clip.")
    columns = zip(*(read_truth(path) for path in paths))
    return HeadTruth(*(torch.from_numpy(np.stack(column)).float() for column in columns)), [path.stem for path in paths]


def truth_in_crops(
    heads: HeadTruth, clips: torch.Tensor, frames: torch.Tensor, frame_to_unit: torch.Tensor
) -> tuple[Pose, torch.Tensor]:
    """The true poses of B frames in B crops, all on one device. frame_to_unit (B, 2, 3): picture px -> the crop's [-1, 1].

    Returns the Pose and all 128 surface points (B, 128, 3) in crop units.
    """
    linear, shift = frame_to_unit[:, :, :2], frame_to_unit[:, :, 2]
    spin = crop_roll(linear)
    rotation = heads.rotation[clips, frames] @ spin

    def to_unit(pixels):  # (B, P, 2)
        return pixels @ linear.transpose(1, 2) + shift[:, None]

    surface = to_unit(heads.surface[clips, frames])  # (B, 128, 2)
    relative = heads.relative[clips, frames] @ spin  # (B, 128, 3)
    # The weak perspective that fits the rigid points best: surface = s relative + t.
    model, seen = relative[:, heads.rigid, :2], surface[:, heads.rigid]
    model_mean, seen_mean = model.mean(1, keepdim=True), seen.mean(1, keepdim=True)
    s = ((model - model_mean) * (seen - seen_mean)).sum((1, 2)) / (model - model_mean).square().sum((1, 2))
    t = (seen_mean - s[:, None, None] * model_mean)[:, 0]  # (B, 2)

    offsets = heads.eye_offsets[clips, frames] @ spin
    eyes = to_unit(heads.eyes[clips, frames]).repeat(1, 2, 1) + s[:, None, None] * offsets[..., :2]  # (B, 4, 2)
    x_c = heads.canonical[clips]
    at_rest = x_c @ rotation
    flat = (torch.cat([surface[:, heads.shown], eyes], 1) - t[:, None]) / s[:, None, None]
    # Irises and lids keep their canonical depth: their delta has no z.
    depth = torch.cat([relative[:, heads.shown, 2:], at_rest[:, -4:, 2:]], 1)
    delta = torch.cat([flat, depth], -1) - at_rest
    pitch, yaw, roll = rotation_angles(rotation)
    pose = Pose(x_c, rotation, pitch, yaw, roll, delta, s[:, None], torch.cat([t, torch.zeros_like(t[:, :1])], 1))
    everywhere = torch.cat([surface, s[:, None, None] * relative[..., 2:]], -1)
    return pose, everywhere
