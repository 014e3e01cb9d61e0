"""Where weights are looked up, and which file names are accepted; where a new file goes.

`models/realportrait/` is the pack's own folder; the weights that come with the pack are listed before everything else.
A name from a widget is used only when it is one of the names offered: nothing outside these folders can be opened.
"""

from pathlib import Path

import folder_paths

from ...realportrait_core.errors import InputError, RealPortraitError, WeightsError

FOLDER = "realportrait"
WEIGHTS = Path(__file__).resolve().parents[2] / "realportrait_core" / "weights"

SUFFIX = ".safetensors"
BUNDLED_MODEL = "realportrait_mini.safetensors"
BUNDLED_VID2VID = "realportrait_mini_vid2vid.safetensors"
BUNDLED_VAE = "realportrait_mini_vae.safetensors"


def register() -> None:
    """Makes the host know `models/realportrait/` and the bundled weights (its own VAELoader lists the bundled VAE)."""
    own = str(Path(folder_paths.models_dir) / FOLDER)
    folder_paths.add_model_folder_path(FOLDER, own, is_default=True)
    folder_paths.add_model_folder_path(FOLDER, str(WEIGHTS / "realportrait"))
    paths, _ = folder_paths.folder_names_and_paths[FOLDER]
    folder_paths.folder_names_and_paths[FOLDER] = (paths, {".safetensors", ".onnx"})
    folder_paths.add_model_folder_path("vae", str(WEIGHTS / "vae"))


def model_names() -> list[str]:
    """Names that Load RealPortrait Model offers, the bundled one first."""
    return _names((FOLDER, "diffusion_models"), BUNDLED_MODEL, but=(BUNDLED_VID2VID,))


def vid2vid_names() -> list[str]:
    """Names that Load Face Vid2vid offers, the bundled one first."""
    return _names((FOLDER,), BUNDLED_VID2VID, but=(BUNDLED_MODEL,))


def stitching_names() -> list[str]:
    """Names that Load Stitching offers; none of them comes with the pack."""
    return [name for name in vid2vid_names() if name != BUNDLED_VID2VID]


def model_path(name: str) -> Path:
    """The file of a name from `model_names`."""
    return _path(name, model_names(), (FOLDER, "diffusion_models"), "RealPortrait weights")


def vid2vid_path(name: str) -> Path:
    """The file of a name from `vid2vid_names`."""
    return _path(name, vid2vid_names(), (FOLDER,), "Face Vid2vid weights")


def stitching_path(name: str) -> Path:
    """The file of a name from `stitching_names`."""
    return _path(name, stitching_names(), (FOLDER,), "stitching weights")


def detector_path(name: str) -> Path:
    """Where the face detector is, or, where it is missing, where it should be."""
    found = folder_paths.get_full_path(FOLDER, name)
    return Path(found) if found else Path(folder_paths.get_folder_paths(FOLDER)[0]) / name


def new_output(prefix: str) -> tuple[Path, str]:
    """A new file below the output folder and its name there, by the host's rules. InputError for a prefix that leads out."""
    try:
        folder, name, number, subfolder, _ = folder_paths.get_save_image_path(prefix, folder_paths.get_output_directory())
    except Exception as error:  # the host raises nothing more special
        raise InputError(f"{prefix!r} cannot begin the name of a file below the output folder: {error}") from error
    file = f"{name}_{number:05}_{SUFFIX}"
    return Path(folder) / file, (Path(subfolder) / file).as_posix()


def problem(check, name: str) -> bool | str:
    """For validate_inputs: True, or the sentence of the RealPortraitError that `check(name)` raises."""
    try:
        check(name)
    except RealPortraitError as error:
        return str(error)
    return True


def stamp(path: Path) -> tuple[str, int, int]:
    """Changes when the file does."""
    stat = path.stat()
    return (str(path), stat.st_mtime_ns, stat.st_size)


def _names(folders: tuple[str, ...], first: str, but: tuple[str, ...]) -> list[str]:
    found = {name: None for folder in folders for name in folder_paths.get_filename_list(folder)}  # an ordered set
    names = [name for name in found if name.lower().endswith(SUFFIX) and name not in (first, *but)]
    return [first, *names] if first in found else names


def _path(name: str, names: list[str], folders: tuple[str, ...], what: str) -> Path:
    where = ", ".join(path for folder in folders for path in folder_paths.get_folder_paths(folder))
    if not names:
        raise WeightsError(f"No {what} found. Put a .safetensors file in one of: {where}")
    if name not in names:
        raise WeightsError(
            f"{name!r} is not one of the {len(names)} files that can be chosen here ({', '.join(names[:5])}"
            f"{', ...' if len(names) > 5 else ''}). Looked in: {where}. Press R in the browser after adding a file."
        )
    for folder in folders:
        if path := folder_paths.get_full_path(folder, name):
            return Path(path)
    raise WeightsError(f"{name!r} was there a moment ago and is gone. Looked in: {where}")
