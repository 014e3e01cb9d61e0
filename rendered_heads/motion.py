"""Head motion, independent of the identity: functions of time, so that any frame rate samples the same motion."""

from dataclasses import dataclass, fields

import numpy as np
import torch

ARKIT = (
    "browDownLeft browDownRight browInnerUp browOuterUpLeft browOuterUpRight cheekPuff cheekSquintLeft cheekSquintRight "
    "eyeBlinkLeft eyeBlinkRight eyeLookDownLeft eyeLookDownRight eyeLookInLeft eyeLookInRight eyeLookOutLeft "
    "eyeLookOutRight eyeLookUpLeft eyeLookUpRight eyeSquintLeft eyeSquintRight eyeWideLeft eyeWideRight jawForward jawLeft "
    "jawOpen jawRight mouthClose mouthDimpleLeft mouthDimpleRight mouthFrownLeft mouthFrownRight mouthFunnel mouthLeft "
    "mouthLowerDownLeft mouthLowerDownRight mouthPressLeft mouthPressRight mouthPucker mouthRight mouthRollLower "
    "mouthRollUpper mouthShrugLower mouthShrugUpper mouthSmileLeft mouthSmileRight mouthStretchLeft mouthStretchRight "
    "mouthUpperUpLeft mouthUpperUpRight noseSneerLeft noseSneerRight tongueOut"
).split()
INDEX = {name: i for i, name in enumerate(ARKIT)}
MAX_YAW, MAX_PITCH, MAX_ROLL = 48.0, 24.0, 20.0  # degrees
MAX_GAZE = (28.0, 16.0)  # degrees sideways, up and down
# Mouth shapes of speech: coefficients at full strength.
VISEMES = (
    {"jawOpen": 1.0},
    {"jawOpen": 0.75, "mouthUpperUp": 0.3},
    {"jawOpen": 0.6, "mouthStretch": 0.4, "mouthSmile": 0.2, "mouthLowerDown": 0.4},
    {"jawOpen": 0.6, "mouthFunnel": 0.8},
    {"jawOpen": 0.15, "mouthPucker": 0.9},
    {"mouthPress": 0.6, "mouthRollLower": 0.4, "mouthRollUpper": 0.3},
    {"jawOpen": 0.15, "mouthRollLower": 0.7, "mouthUpperUp": 0.3},
    {"jawOpen": 0.25, "mouthUpperUp": 0.3, "mouthLowerDown": 0.5},
    {"jawOpen": 0.1, "mouthUpperUp": 0.5, "mouthLowerDown": 0.6, "mouthStretch": 0.3},
    {},
)
# Expressions that a face takes on and holds for a while.
EMOTIONS = (
    {"mouthSmile": 0.8, "cheekSquint": 0.5, "eyeSquint": 0.2},
    {"mouthSmile": 1.0, "cheekSquint": 0.7, "jawOpen": 0.3, "mouthUpperUp": 0.4},
    {"mouthFrown": 0.8, "browInnerUp": 0.8, "mouthShrugLower": 0.4},
    {"browDown": 0.9, "mouthPress": 0.5, "noseSneer": 0.4, "eyeSquint": 0.3},
    {"browInnerUp": 0.9, "browOuterUp": 0.9, "eyeWide": 0.9, "jawOpen": 0.5},
    {"noseSneer": 0.9, "mouthUpperUp": 0.6, "browDown": 0.4, "eyeSquint": 0.4},
    {"mouthPucker": 0.7, "browOuterUp": 0.5},
    {"cheekPuff": 0.9, "mouthPress": 0.3},
    {"eyeSquint": 0.8, "browDown": 0.3, "mouthSmile": 0.2},
    {"mouthLeft": 0.7, "mouthDimple": 0.5},
    {"mouthRight": 0.7, "browOuterUp": 0.4},
    {"tongueOut": 0.9, "jawOpen": 0.55},
    {"mouthSmile": 0.9, "cheekSquint": 0.4, "browOuterUp": 0.3},
    {},
    {},
)
# Small independent movements around the mouth.
TWITCHES = (
    "mouthLeft mouthRight jawLeft jawRight jawForward mouthLowerDownLeft mouthLowerDownRight mouthUpperUpLeft mouthUpperUpRight "
    "noseSneer mouthStretch mouthDimple mouthRollLower mouthRollUpper mouthShrugUpper cheekPuff mouthSmileLeft mouthSmileRight"
).split()


@dataclass(frozen=True)
class HeadMotion:
    """T frames of a head's motion."""

    expression: torch.Tensor  # (T, 52) ARKit coefficients in 0..1, in the order of ARKIT
    pose: torch.Tensor  # (T, 3) pitch, yaw, roll in radians; the rotation is Ry Rx Rz
    gaze: torch.Tensor  # (T, 2) yaw, pitch of the eyes in the head, radians
    translation: torch.Tensor  # (T, 3) dm

    def __len__(self) -> int:
        return len(self.pose)

    def __getitem__(self, frames: slice) -> "HeadMotion":
        return HeadMotion(*(getattr(self, field.name)[frames] for field in fields(self)))

    def to(self, device: torch.device | str) -> "HeadMotion":
        return HeadMotion(*(getattr(self, field.name).to(device) for field in fields(self)))


def sample_motion(seed: int, frames: int, fps: float) -> HeadMotion:
    """The motion of a seed, from its start: so many frames at `fps` frames/s. A shorter clip is the beginning of a longer one."""
    rng = np.random.default_rng((seed, 0x307104))
    time = np.arange(frames) / fps  # (T,) s
    value = np.zeros((frames, len(ARKIT)))
    pose = sample_pose(rng, time)  # (T, 3) degrees
    add_emotions(value, rng, time)
    add_speech(value, rng, time)
    add_brows_and_twitches(value, rng, time)
    gaze = sample_gaze(rng, time, pose[:, 1])  # (T, 2) degrees
    add_eyes(value, rng, time, gaze)
    resolve_conflicts(value)
    translation = np.stack([drift(rng, time, 0.10), drift(rng, time, 0.05), drift(rng, time, 0.09)], 1)
    parts = (np.clip(value, 0, 1), np.radians(pose), np.radians(gaze), translation)
    return HeadMotion(*(torch.from_numpy(array).float() for array in parts))


def add(value: np.ndarray, name: str, amount: np.ndarray, left: float = 1.0, right: float = 1.0) -> None:
    """Adds amount (T,) to a coefficient of value (T, 52), or, of a name without a side, to both sides."""
    if name in INDEX:
        value[:, INDEX[name]] += amount
    else:
        value[:, INDEX[name + "Left"]] += amount * left
        value[:, INDEX[name + "Right"]] += amount * right


def sample_pose(rng: np.random.Generator, time: np.ndarray) -> np.ndarray:
    """Pitch, yaw, roll (T, 3) in degrees: a mean pose and slow drift about it."""
    liveliness = rng.uniform(0.4, 1.25)
    yaw = soft_limit(rng.normal(0, 11) + drift(rng, time, 15 * liveliness, 0.12, 0.6), MAX_YAW)
    pitch = soft_limit(rng.normal(0, 4) + drift(rng, time, 7 * liveliness, 0.15, 0.8), MAX_PITCH)
    roll = soft_limit(drift(rng, time, 6 * liveliness, 0.12, 0.6), MAX_ROLL)
    return np.stack([pitch, yaw, roll], 1)


def add_emotions(value: np.ndarray, rng: np.random.Generator, time: np.ndarray) -> None:
    for shape, weight in shape_sequence(rng, time, EMOTIONS, 0.8, 0.3):
        lopsided = rng.uniform(0.85, 1.15)
        for name, amount in shape.items():
            add(value, name, weight * amount, lopsided, 2 - lopsided)


def add_speech(value: np.ndarray, rng: np.random.Generator, time: np.ndarray) -> None:
    """In phrases with pauses; 15 % of the heads are silent."""
    talks = rng.random() < 0.85
    phrase = np.clip(0.9 + drift(rng, time, 0.6, 0.15, 0.5), 0, 1) * rng.uniform(0.75, 1.15) * talks
    for shape, weight in shape_sequence(rng, time, VISEMES, 0.16, 0.10):
        for name, amount in shape.items():
            add(value, name, weight * amount * phrase)


def add_brows_and_twitches(value: np.ndarray, rng: np.random.Generator, time: np.ndarray) -> None:
    brows = np.clip(drift(rng, time, 0.5, 0.1, 0.7), -1, 1)
    add(value, "browInnerUp", np.clip(brows, 0, 1))
    add(value, "browOuterUp", np.clip(brows, 0, 1), 1.0, rng.uniform(0.3, 1.0))
    add(value, "browDown", np.clip(-brows, 0, 1))
    for name in TWITCHES:
        add(value, name, np.clip(drift(rng, time, 0.13, 0.2, 0.9) - 0.1, 0, 1))


def sample_gaze(rng: np.random.Generator, time: np.ndarray, yaw: np.ndarray) -> np.ndarray:
    """Yaw, pitch (T, 2) in degrees: jumps from point to point (saccades), which often compensate the head's yaw (T,)."""
    steady = rng.uniform(0, 0.6) * (rng.random() < 0.6)
    sideways = soft_limit(jumps(rng, time, 11) - steady * yaw, MAX_GAZE[0])
    return np.stack([sideways, soft_limit(jumps(rng, time, 6), MAX_GAZE[1])], 1)


def add_eyes(value: np.ndarray, rng: np.random.Generator, time: np.ndarray, gaze: np.ndarray) -> None:
    """Blinks of both eyes, winks of one, sleepy phases that half close both; and the coefficients that follow gaze (T, 2)."""
    lids = np.zeros((2, len(time)))
    for start in np.cumsum(rng.exponential(2.4, 40)) - 1.6:
        closing = np.clip(1.3 - np.abs(time - start) / rng.uniform(0.10, 0.16), 0, 1)
        winks = rng.random() < 0.08
        side = int(rng.integers(2))
        lids = np.maximum(lids, closing[None] * (np.arange(2)[:, None] == side if winks else 1.0))
    sleepy = np.clip(drift(rng, time, 0.25, 0.1, 0.4) - 0.1, 0, 0.5)
    lids = np.maximum(lids, sleepy)
    for side, name in enumerate(("Left", "Right")):
        value[:, INDEX["eyeBlink" + name]] = lids[side]
        value[:, INDEX["eyeWide" + name]] *= 1 - lids[side]
        outward = gaze[:, 0] * (1, -1)[side]
        value[:, INDEX["eyeLookOut" + name]] = np.clip(outward / 35, 0, 1)
        value[:, INDEX["eyeLookIn" + name]] = np.clip(-outward / 35, 0, 1)
        value[:, INDEX["eyeLookUp" + name]] = np.clip(gaze[:, 1] / 25, 0, 1)
        value[:, INDEX["eyeLookDown" + name]] = np.clip(-gaze[:, 1] / 25, 0, 1)


def resolve_conflicts(value: np.ndarray) -> None:
    """Fades out what cannot be done together: pressed or rolled lips with an open jaw, a smile with a pucker."""
    jaw = np.clip(value[:, INDEX["jawOpen"]], 0, 1)
    for name in ("mouthPressLeft", "mouthPressRight", "mouthRollLower", "mouthRollUpper", "cheekPuff", "mouthShrugLower"):
        value[:, INDEX[name]] *= 1 - jaw
    value[:, INDEX["tongueOut"]] *= np.clip(jaw / 0.4, 0, 1)
    for name in ("mouthSmileLeft", "mouthSmileRight"):
        value[:, INDEX[name]] *= 1 - 0.7 * np.clip(value[:, INDEX["mouthPucker"]], 0, 1)


def drift(rng: np.random.Generator, time: np.ndarray, size: float, low: float = 0.12, high: float = 0.6) -> np.ndarray:
    """A smooth random value (T,) of about this standard deviation: four sines between the frequencies low and high, Hz."""
    waves = sum(rng.normal() * np.sin(2 * np.pi * (rng.uniform(low, high) * time + rng.random())) for _ in range(4))
    return size * waves / np.sqrt(2.0)


def soft_limit(x: np.ndarray, limit: float) -> np.ndarray:
    """x where it is small, never beyond +- limit."""
    return limit * np.tanh(x / limit)


def jumps(rng: np.random.Generator, time: np.ndarray, size: float) -> np.ndarray:
    """A piecewise constant value (T,) that changes within 40 ms, as gaze does."""
    moments = np.cumsum(rng.exponential(0.7, 200) + 0.15)
    moments = moments[moments < 60]
    targets = rng.normal(0, size, len(moments) + 1)
    arrived = np.clip((time[:, None] - moments) / 0.04, 0, 1)  # (T, J)
    return targets[0] + arrived @ np.diff(targets)


def shape_sequence(rng: np.random.Generator, time: np.ndarray, shapes: tuple, hold: float, change: float):
    """A random sequence of shapes, cross-faded: yields each shape with its weight (T,). hold and change in seconds."""
    moments = np.concatenate([[-9.0], np.cumsum(rng.exponential(hold, 400) + change) - hold])
    moments = moments[moments < 60]
    chosen = rng.integers(len(shapes), size=len(moments))
    arrived = np.clip((time[:, None] - moments) / change, 0, 1)
    arrived = arrived * arrived * (3 - 2 * arrived)
    weights = arrived - np.concatenate([arrived[:, 1:], np.zeros((len(time), 1))], 1)  # (T, J)
    for index in np.unique(chosen):
        yield shapes[index], weights[:, chosen == index].sum(1)


def rotations(pose: torch.Tensor) -> torch.Tensor:
    """Ry Rx Rz (T, 3, 3), for column vectors, of pitch, yaw, roll (T, 3) in radians."""
    (cx, cy, cz), (sx, sy, sz) = pose.cos().unbind(-1), pose.sin().unbind(-1)
    rows = [
        cy * cz + sy * sx * sz,
        sy * sx * cz - cy * sz,
        sy * cx,
        cx * sz,
        cx * cz,
        -sx,
        cy * sx * sz - sy * cz,
        sy * sz + cy * sx * cz,
        cy * cx,
    ]
    return torch.stack(rows, -1).reshape(*pose.shape[:-1], 3, 3)
