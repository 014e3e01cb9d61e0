"""The files that the loaders of pictures, videos, motions and states offer: those of the input folder, what was saved, and the
pack's own examples.

A name from a widget is used only where it is one of these: nothing else can be opened.
"""

import os
from collections.abc import Callable
from pathlib import Path

import folder_paths

import nodes

from ...realportrait_core.checkpoint import METADATA_KEY, read_bundle_metadata, read_header
from ...realportrait_core.errors import InputError, RealPortraitError
from ...realportrait_core.long.folder import STATE_FILE, VIDEO_FILE
from ...realportrait_core.long.state import ROLE as STATE_ROLE
from ...realportrait_core.motion_file import ROLE
from .folders import RUNS, SUFFIX, inside

EXAMPLES = Path(__file__).resolve().parents[2] / "assets"
SERVED = "realportrait_examples"  # web/js/examples.js shows them from /extensions/realportrait_examples/
SAVED = " [output]"  # after the name of a motion or state that was saved


def examples(*names: str) -> dict[str, Path]:
    """Entries of a menu, and their files."""
    return {f"example: {name}": EXAMPLES / name for name in names}


PICTURES = examples("portrait.png", "two_faces.jpg")
VIDEOS = examples("driving.mp4")
MOTIONS = examples("motion.safetensors")


def register() -> None:
    """Lets the host serve the examples, for the pictures on the nodes."""
    nodes.EXTENSION_WEB_DIRS[SERVED] = str(EXAMPLES)


def input_folder() -> Path:
    return Path(folder_paths.get_input_directory())


def output_folder() -> Path:
    return Path(folder_paths.get_output_directory())


def input_pictures() -> list[str]:
    return sorted(folder_paths.filter_files_content_types(_input_files(), ["image"]))


def input_videos() -> list[str]:
    files = _input_files()
    gifs = [name for name in files if name.lower().endswith(".gif")]
    return sorted({*folder_paths.filter_files_content_types(files, ["video"]), *gifs})


def motions() -> dict[str, Path]:
    """Names that Load RealPortrait Motion offers, and their files: of the input folder, then what was saved, as "NAME [output]"."""
    given = {name: input_folder() / name for name in sorted(_input_files()) if name.lower().endswith(SUFFIX)}
    return MOTIONS | given | _by_name(_saved(_is_motion))


def picture_path(name: str) -> Path:
    """The file of a picture: an example, or one in the input folder or below, where "x.png [input]" is x.png as for the host.

    Raises InputError for any other name.
    """
    path = None
    if isinstance(name, str):
        path = PICTURES.get(name) or _below(input_folder(), name.removesuffix(" [input]"))
    if path is None:
        raise InputError(
            f"There is no picture {name!r:.200} in {input_folder()}. Upload it by the node's button, or put it there and press R."
        )
    return path


def video_path(name: str) -> Path:
    """The file of a video, an example or one in the input folder. Raises InputError for any other name."""
    names, path = input_videos(), None
    if isinstance(name, str):
        path = VIDEOS.get(name) or (_below(input_folder(), name) if name in names else None)
    if path is None:
        some = f" ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})" if names else ""
        raise InputError(
            f"{name!r:.200} is not one of the {len(names)} videos in {input_folder()}{some}. Upload it by the node's button, or "
            "put it there and press R in the browser."
        )
    return path


def motion_path(name: str) -> Path:
    """The file of a name from `motions`, of which not all are looked through. Raises InputError for any other."""
    output = output_folder()
    path = None
    if isinstance(name, str):
        path = MOTIONS.get(name)
        if path is None and name.lower().endswith(SUFFIX) and name in _input_files():
            path = _below(input_folder(), name)
        if path is None and name.endswith(SAVED):
            saved = _below(output, name.removesuffix(SAVED))
            path = saved if saved is not None and _is_motion(saved) else None
    if path is None:
        raise InputError(
            f"{name!r:.200} is not one of the motions in {input_folder()}, or among what Save RealPortrait Motion left in "
            f"{output}. Press R in the browser after a file was added."
        )
    return path


def states() -> dict[str, Path]:
    """Names that Resume Continuation State offers, "NAME [output]", and their files: states that were saved, unfinished runs."""
    output = output_folder()
    runs = sorted((output / RUNS).glob(f"*/{STATE_FILE}"))
    unfinished = [path for path in runs if inside(output, path) and not path.with_name(VIDEO_FILE).exists()]
    return _by_name([*_saved(_is_state), *unfinished])


def state_path(name: str) -> Path:
    """The file of a name from `states`. Raises InputError for any other."""
    output = output_folder()
    saved = _below(output, name.removesuffix(SAVED)) if isinstance(name, str) and name.endswith(SAVED) else None
    if saved is None or not _is_state(saved):
        raise InputError(
            f"{name!r:.200} is not one of the continuation states in {output}. Press R in the browser after a run was broken off "
            "or a state was saved."
        )
    return saved


def _saved(is_one: Callable[[Path], bool]) -> list[Path]:
    """Files of the output folder, without the thousands that an unfinished run may have."""
    output = output_folder()
    files = [path for path in sorted(output.rglob(f"*{SUFFIX}")) if output / RUNS not in path.parents]
    return [path for path in files if inside(output, path) and is_one(path)]


def _by_name(paths: list[Path]) -> dict[str, Path]:
    return {f"{path.relative_to(output_folder()).as_posix()}{SAVED}": path for path in paths}


def _below(folder: Path, name: str) -> Path | None:
    """The file of that name in a folder or below it; None where there is none, and for a name or a link that leads out."""
    folder = Path(os.path.abspath(folder))
    if "\0" in name:
        return None
    path = Path(os.path.abspath(folder / name))
    try:
        return path if path.is_relative_to(folder) and path.is_file() and inside(folder, path) else None
    except OSError:  # longer than a name can be
        return None


def _input_files() -> list[str]:
    folder = input_folder()
    return [path.name for path in folder.iterdir() if path.is_file() and inside(folder, path)] if folder.is_dir() else []


def _is_motion(path: Path) -> bool:
    """Models are saved in the output folder too."""
    try:
        return read_bundle_metadata(read_header(path).metadata, ROLE) is not None
    except (RealPortraitError, OSError):
        return False


def _is_state(path: Path) -> bool:
    try:
        return f'"role": "{STATE_ROLE}"' in read_header(path).metadata.get(METADATA_KEY, "")
    except (RealPortraitError, OSError):
        return False
