"""The continuation state: all that the next clip needs of the clips before it, in memory and as a safetensors file."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ..checkpoint import METADATA_KEY, VERSION, save
from ..errors import InputError, RealPortraitError, WeightsError
from ..motion_map import MotionMaps
from ..video.writing import not_written

ROLE = "continuation_state"
LONGEST_HEADER = 16 * 2**20  # bytes; the figures of 10,000 clips take about 2 MB
LARGEST = 256 * 2**20  # bytes of a file; a conditional frame of the paper's size takes 2 MB
MOST_CLIPS, MOST_FRAMES = 10**7, 10**8
LARGEST_FIGURE = 1e300  # by size; an int of JSON may be too large for a float
LARGEST_COLOUR = 1e6  # of latents, which are around 1
# tensor -> its dtype and shape, None for any length
SCHEMA = {
    "latents": ("F32", (None, 4, None, None)),
    "maps.f": ("F16", (None, None, None, None)),
    "maps.frame_to_crop": ("F64", (None, 3, 3)),
    "maps.face": ("F64", (None, 2, 3)),
}
MAPS = ("maps.f", "maps.frame_to_crop", "maps.face")
AGAIN = "Use the state of another run, or start the animation without one"


def is_count(most: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and 0 <= value <= most


def is_texts(value: Any) -> bool:
    return (
        isinstance(value, dict) and len(value) <= 64 and all(isinstance(text, str) and len(text) <= 512 for text in value.values())
    )


def is_figures(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(clip, dict) and all(type(number) in (int, float) and abs(number) <= LARGEST_FIGURE for number in clip.values())
        for clip in value
    )


def is_colours(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) in (0, 8)
        and all(type(number) in (int, float) and abs(number) <= LARGEST_COLOUR for number in value)
    )


# What a state's description holds, and whether a value can be it.
DESCRIBED = {
    "clip": is_count(MOST_CLIPS),
    "frame": is_count(MOST_FRAMES),
    "frames": is_count(MOST_FRAMES),
    "seed": is_count(2**64 - 1),
    "settings": is_texts,
    "fingerprints": is_texts,
    "figures": is_figures,
    "colours": is_colours,
    "segment": lambda value: isinstance(value, str) and len(value) <= 64,
    "maps": lambda value: (
        value is None
        or isinstance(value, list)
        and len(value) == 3
        and all(type(side) is int and 0 < side <= 2**16 for side in value)
    ),
}


@dataclass(frozen=True)
class ContinuationState:
    """What lies behind the clips 0 .. clip - 1 of an animation.

    Paper, Sec. "Image-Video Mixed Training": the final frame of a clip is the conditional frame of the next.
    """

    clip: int  # number of the next clip
    frame: int  # the driving video's frame that is the first new one of the next clip
    frames: int  # of the driving video
    seed: int
    settings: dict[str, str]  # by name: size, steps, sampler, guidance, ... ; all must be the same to go on
    fingerprints: dict[str, str]  # "transformer", "vid2vid", "vae", "portrait", "driving": hexadecimal digits of each one's content
    latents: Tensor | None = None  # (n, 4, h, w) of the conditional frames; None where Face Vid2vid renders by itself
    maps: MotionMaps | None = None  # of the conditional frames, for a driving video that does not show them
    figures: list[dict[str, float]] = field(default_factory=list)  # drift of each finished clip, by the figure's name
    colours: list[float] = field(default_factory=list)  # of the first clip (`correction.colours_of`), where drift is corrected
    segment: str = ""  # hexadecimal digits of the video file of the last clip; empty in a state for another run


# Files


def save_state(path: Path, state: ContinuationState) -> None:
    """Writes a state, whole or not at all. Raises InputError where it cannot."""
    tensors = {} if state.latents is None else {"latents": state.latents.float()}
    described = {name: getattr(state, name) for name in DESCRIBED if name != "maps"}
    if state.maps is not None:
        tensors |= {
            "maps.f": state.maps.f.half(),
            "maps.frame_to_crop": state.maps.frame_to_crop.double(),
            "maps.face": state.maps.face.double(),
        }
        described["maps"] = [state.maps.height, state.maps.width, state.maps.crop]
    try:
        save(path, tensors, {METADATA_KEY: json.dumps({"role": ROLE, "version": VERSION, "state": described})})
    except WeightsError as error:
        raise not_written(path, "as a continuation state", error) from error


def load_state(path: Path) -> ContinuationState:
    """Reads a state. The file's size, and then all that its header says, is checked before a tensor is read.

    Raises InputError where the file is missing, cut short, damaged, no continuation state, larger than one can be, or holds
    values that are not finite.
    """
    from safetensors import SafetensorError, safe_open

    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise InputError(f"{path} is no continuation state: it has {size} bytes, and a state at most {LARGEST}. {AGAIN}.")
        with path.open("rb") as file:
            header = int.from_bytes(file.read(8), "little")
        if header > LONGEST_HEADER:
            raise InputError(f"{path} is no continuation state: its header would take {header} bytes. {AGAIN}.")
        with safe_open(path, "pt") as file:
            shapes = {key: (file.get_slice(key).get_dtype(), tuple(file.get_slice(key).get_shape())) for key in file.keys()}
            described = read_description(path, (file.metadata() or {}).get(METADATA_KEY))
            check_tensors(path, shapes, described)
            # Copied: else they stay parts of the file, which the next clip's state replaces.
            tensors = {key: file.get_tensor(key).clone() for key in shapes}
    except (SafetensorError, OSError, ValueError) as error:
        if isinstance(error, RealPortraitError):
            raise
        raise InputError(f"{path} cannot be read as a continuation state ({error}). {AGAIN}.") from error
    bad = [key for key, value in tensors.items() if not value.isfinite().all()]
    if bad:
        raise InputError(f"{path} is damaged: {', '.join(bad)} hold values that are not finite numbers. {AGAIN}.")
    maps, places = None, described.pop("maps", None)
    if places is not None:
        maps = MotionMaps(*(tensors[key] for key in MAPS), *places)
    return ContinuationState(**described, latents=tensors.get("latents"), maps=maps)


def read_description(path: Path, text: str | None) -> dict[str, Any]:
    """The values of a state that are no tensors, and as "maps" the frame's and the crop's sides. Raises InputError."""
    try:
        info = json.loads(text or "null")
        found, version, state = info["role"], info["version"], info["state"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(f"{path} is a safetensors file, but no continuation state of RealPortrait. {AGAIN}.") from error
    if found != ROLE or not isinstance(state, dict):
        raise InputError(f"{path} is of the role {found!r:.80}, and no continuation state of RealPortrait. {AGAIN}.")
    if type(version) is not int or version > VERSION:
        raise InputError(f"{path} is of format {version!r} and this RealPortrait reads up to {VERSION}. Update the pack.")
    wrong = [name for name, right in DESCRIBED.items() if not right(state.get(name))]
    wrong += sorted(set(state) - set(DESCRIBED))
    if wrong:
        raise InputError(f"{path} is damaged: its {', '.join(wrong)[:200]} cannot be. {AGAIN}.")
    return state


def check_tensors(path: Path, shapes: dict[str, tuple[str, tuple[int, ...]]], described: dict[str, Any]) -> None:
    """Raises InputError unless these (dtype, shape) are a state's and fit together."""

    def fits(key: str, dtype: str, shape: tuple[int, ...]) -> bool:
        wanted, sides = SCHEMA.get(key, ("", ()))
        return dtype == wanted and len(shape) == len(sides) and all(side in (None, n) for side, n in zip(sides, shape))

    wrong = [f"{key} {dtype} {shape}" for key, (dtype, shape) in shapes.items() if not fits(key, dtype, shape)]
    if wrong:
        raise InputError(f"{path} is no continuation state: it holds {', '.join(sorted(wrong)[:5])}. {AGAIN}.")
    n = len({shape[0] for _, shape in shapes.values()})
    given = [key for key in MAPS if key in shapes]
    whole = len(given) == (len(MAPS) if described.get("maps") else 0)
    if n > 1 or not whole or any(0 in shape for _, shape in shapes.values()):
        held = ", ".join(f"{key} {shape}" for key, (_, shape) in sorted(shapes.items()))
        raise InputError(f"{path} is damaged: its tensors do not belong together ({held or 'none'}). {AGAIN}.")


# What a state fits to


def check_state(state: ContinuationState, fingerprints: dict[str, str], settings: dict[str, str], seed: int) -> None:
    """Raises InputError, with both values of all that differs, unless a run of these can go on from the state.

    Names that are not given are not compared: without "driving" the state may be of another driving video.
    """
    pairs = [(name, state.fingerprints.get(name), value) for name, value in fingerprints.items()]
    pairs += [(name, state.settings.get(name), value) for name, value in settings.items()]
    pairs += [("seed", str(state.seed), str(seed))]
    different = [f"{name} {before or 'none'} there and {now or 'none'} here" for name, before, now in pairs if before != now]
    if different:
        raise InputError(
            f"This continuation state belongs to another animation: {'; '.join(different)}. Load the same weights and portrait "
            "and set the same values, or start the animation without the state."
        )
