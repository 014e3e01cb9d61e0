"""Where weights are looked up, and which file names are accepted; where a new file goes.

`models/realportrait/` is the pack's own folder; the weights that come with the pack are listed before everything else.
LivePortrait's public files are also found in `models/liveportrait/`, where another pack keeps them; a folder with some of them
is one entry of the menus, by the folder's name. A name from a widget is used only when it is one of the names offered, or of the
single public files: nothing outside these folders can be opened.
"""

import os
from pathlib import Path, PurePath

import folder_paths

from ...realportrait_core.errors import InputError, RealPortraitError, WeightsError
from ...realportrait_core.vid2vid.public import ORIGINAL_FOLDERS, PUBLIC_FILES, REPOSITORY, ROLES

FOLDER = "realportrait"
LIVEPORTRAIT = "liveportrait"
WEIGHTS = Path(__file__).resolve().parents[2] / "realportrait_core" / "weights"

RUNS, RUN_DIGITS = "realportrait_long", 12  # folder of the runs of long videos, and hexadecimal digits that name each run's

SUFFIX = ".safetensors"
# Names that Windows keeps for devices, with any ending; a folder with such a file could not be copied there.
RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{port}{number}" for port in ("COM", "LPT") for number in "123456789")}
LONGEST_PART = 200  # bytes of the 255 that file systems allow
BUNDLED_MODEL = "realportrait_mini.safetensors"
BUNDLED_VID2VID = "realportrait_mini_vid2vid.safetensors"
BUNDLED_VAE = "realportrait_mini_vae.safetensors"

# Where to get what is missing, with its size and licence.
GET_MODEL = f"{BUNDLED_MODEL} (24 MB, Apache-2.0) comes with the pack: install the pack again if it is gone."
GET_VID2VID = (
    f"{BUNDLED_VID2VID} (10 MB, Apache-2.0) comes with the pack: install the pack again if it is gone. LivePortrait's files "
    f"(521 MB, MIT) are in {REPOSITORY} on Hugging Face."
)
GET_STITCHING = f"{PUBLIC_FILES['stitching']}, under the MIT licence, is in {REPOSITORY} on Hugging Face."


def register() -> None:
    """Makes the host know the two folders and the bundled weights (its own VAELoader lists the bundled VAE)."""
    own = str(Path(folder_paths.models_dir) / FOLDER)
    folder_paths.add_model_folder_path(FOLDER, own, is_default=True)
    folder_paths.add_model_folder_path(FOLDER, str(WEIGHTS / "realportrait"))
    paths, _ = folder_paths.folder_names_and_paths[FOLDER]
    folder_paths.folder_names_and_paths[FOLDER] = (paths, {".safetensors", ".onnx", ".pth"})
    folder_paths.add_model_folder_path(LIVEPORTRAIT, str(Path(folder_paths.models_dir) / LIVEPORTRAIT))
    folder_paths.add_model_folder_path("vae", str(WEIGHTS / "vae"))


def model_names() -> list[str]:
    """Names that Load RealPortrait Model offers, the bundled one first."""
    return _names((FOLDER, "diffusion_models"), BUNDLED_MODEL, but=(BUNDLED_VID2VID,))


def vid2vid_names() -> list[str]:
    """Names that Load Face Vid2vid offers: the bundled one, folders with LivePortrait's networks, other files."""
    names = _names((FOLDER, LIVEPORTRAIT), BUNDLED_VID2VID, but=(BUNDLED_MODEL,))
    bundled = [name for name in names if name == BUNDLED_VID2VID]
    return [*bundled, *public_folders("appearance", "motion", "warping", "generator"), *names[len(bundled) :]]


def stitching_names() -> list[str]:
    """Names that Load Stitching offers; none of them comes with the pack."""
    return [*public_folders("stitching"), *_names((FOLDER, LIVEPORTRAIT), "", but=(BUNDLED_MODEL, BUNDLED_VID2VID))]


def public_folders(*roles: str) -> dict[str, Path]:
    """Folders with a file by the published name of one of the roles: {"liveportrait": ..., "liveportrait/animal": ...}.

    One with .pth, or with some of the files only, is offered too: the error of choosing it says what is missing.
    """
    found: dict[str, Path] = {}
    for key in (LIVEPORTRAIT, FOLDER):
        for name in map(PurePath, folder_paths.get_filename_list(key)):
            if ROLES.get(name.stem) not in roles or name.suffix.lower() not in (SUFFIX, ".pth"):
                continue
            path = Path(folder_paths.get_full_path(key, str(name)) or "")
            inside, folder = name.parent, path.parent
            if folder.name in ORIGINAL_FOLDERS and name.suffix.lower() == ".pth":
                inside, folder = inside.parent, folder.parent
            if path.is_file():
                found.setdefault((PurePath(key) / inside).as_posix(), folder)
    return found


def model_path(name: str) -> Path:
    """The file of a name from `model_names`."""
    return _path(name, model_names(), (FOLDER, "diffusion_models"), "RealPortrait weights", GET_MODEL)


def vid2vid_path(name: str) -> Path:
    """The file or folder of a name from `vid2vid_names`; any single one of LivePortrait's files is accepted too."""
    folder = public_folders("appearance", "motion", "warping", "generator").get(name) if isinstance(name, str) else None
    return folder or _path(name, vid2vid_names(), (FOLDER, LIVEPORTRAIT), "Face Vid2vid weights", GET_VID2VID)


def stitching_path(name: str) -> Path:
    """The file or folder of a name from `stitching_names`; LivePortrait's single file is accepted too."""
    folder = public_folders("stitching").get(name) if isinstance(name, str) else None
    return folder or _path(name, stitching_names(), (FOLDER, LIVEPORTRAIT), "stitching weights", GET_STITCHING)


def detector_path(name: str) -> Path:
    """Where the face detector is, or, where it is missing, where it should be."""
    found = folder_paths.get_full_path(FOLDER, name)
    return Path(found) if found else Path(folder_paths.get_folder_paths(FOLDER)[0]) / name


def new_output(prefix: str) -> tuple[Path, str]:
    """A new file below the output folder and its name there, by the host's rules.

    InputError for a prefix that leads out, through a link too, or that not every system takes as a name.
    """
    check_portable(prefix)
    output = Path(folder_paths.get_output_directory())
    if not inside(output, Path(os.path.normpath(output / prefix)).parent):
        raise InputError(f"{prefix!r:.200} cannot begin the name of a file below the output folder {output}: it leads out of that.")
    try:
        folder, name, number, subfolder, _ = folder_paths.get_save_image_path(prefix, folder_paths.get_output_directory())
    except Exception as error:  # the host raises nothing more special
        raise InputError(f"{prefix!r:.200} cannot begin the name of a file below the output folder: {error!s:.300}") from error
    file = f"{name}_{number:05}_{SUFFIX}"
    return Path(folder) / file, (Path(subfolder) / file).as_posix()


def check_portable(prefix: str) -> None:
    """InputError for a name that is no text, has control characters, a part that Windows keeps for itself, or one too long."""
    if not isinstance(prefix, str) or not prefix.isprintable():
        raise InputError(
            f"{prefix!r:.200} cannot begin the name of a file: it is no text, or has characters that cannot be printed."
        )
    for part in PurePath(prefix.replace("\\", "/")).parts:
        if part.split(".")[0].strip().upper() in RESERVED:
            raise InputError(f"{prefix!r:.200} cannot begin the name of a file: Windows keeps {part:.80} for a device.")
        if len(part.encode()) > LONGEST_PART:
            raise InputError(
                f"{prefix!r:.200} cannot begin the name of a file: a part of it has {len(part.encode())} bytes, and a file's name "
                f"has room for {LONGEST_PART} beside its number and ending."
            )
    for part in PurePath(prefix.replace("\\", "/")).parent.parts:
        if part not in (".", "..") and part[-1] in ". ":
            raise InputError(
                f"{prefix!r:.200} cannot begin the name of a file: no folder on Windows can end with a dot or a space."
            )


def inside(folder: Path, path: Path) -> bool:
    """Whether a path leads into the folder once links are followed. The folder itself may be a link."""
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):  # too long, a circle of links, no text of a file system
        return False


def run_folder(digest: str) -> Path:
    """The folder below the output folder that keeps the clips of the long video with this digest of all that it is made from."""
    return Path(folder_paths.get_output_directory()) / RUNS / digest[:RUN_DIGITS]


def problem(check, name: str) -> bool | str:
    """For validate_inputs: True, or the sentence of the RealPortraitError that `check(name)` raises."""
    try:
        check(name)
    except RealPortraitError as error:
        return str(error)
    return True


def stamp(path: Path) -> tuple:
    """Changes when the file does, or one of the folder's .safetensors."""
    if path.is_dir():
        return tuple(stamp(file) for file in sorted(path.glob(f"*{SUFFIX}")))
    stat = path.stat()
    return (str(path), stat.st_mtime_ns, stat.st_size)


def _files(folders: tuple[str, ...]) -> list[str]:
    found = {name: None for folder in folders for name in folder_paths.get_filename_list(folder)}  # an ordered set
    return [name for name in found if name.lower().endswith(SUFFIX)]


def _names(folders: tuple[str, ...], first: str, but: tuple[str, ...]) -> list[str]:
    """The files, without the public ones, whose folders are offered."""
    found = _files(folders)
    names = [name for name in found if name not in (first, *but) and PurePath(name).stem not in ROLES]
    return [first, *names] if first in found else names


def _path(name: str, names: list[str], folders: tuple[str, ...], what: str, get: str) -> Path:
    where = ", ".join(path for folder in folders for path in folder_paths.get_folder_paths(folder))
    if not names:
        raise WeightsError(f"No {what} found. Put a .safetensors file in one of: {where}. {get}")
    if not isinstance(name, str) or name not in names and not (PurePath(name).stem in ROLES and name in _files(folders)):
        raise WeightsError(
            f"{name!r:.200} is not one of the {len(names)} files that can be chosen here ({', '.join(names[:5])}"
            f"{', ...' if len(names) > 5 else ''}). Looked in: {where}. Press R in the browser after adding a file. {get}"
        )
    for folder in folders:
        if path := folder_paths.get_full_path(folder, name):
            return Path(path)
    raise WeightsError(f"{name!r} was there a moment ago and is gone. Looked in: {where}. {get}")
