"""LivePortrait's public weights as safetensors: their names and sizes, and the files of a folder that hold them.

The safetensors of Kijai/LivePortrait_safetensors on Hugging Face are flat, one network each; LivePortrait's own .pth have the
same names. In a folder each file is recognised by its keys; its name matters only in error messages.
"""

from dataclasses import dataclass
from pathlib import Path

from ..checkpoint import VID2VID_PARTS, read_header, sniff
from ..errors import WeightsError

REPOSITORY = "Kijai/LivePortrait_safetensors"
NEEDED_PARTS = ("appearance", "motion", "warping")  # the generator is needed for pictures without the diffusion model
ORIGINAL_FOLDERS = ("base_models", "retargeting_models")  # in which LivePortrait's own download keeps its .pth


@dataclass(frozen=True)
class PublicFile:
    """One network of LivePortrait as it is published."""

    name: str  # of the file, without .safetensors or .pth
    megabytes: float  # in fp32

    def __str__(self) -> str:
        return f"{self.name}.safetensors ({self.megabytes:g} MB)"


PUBLIC_FILES = {
    "appearance": PublicFile("appearance_feature_extractor", 3.4),
    "motion": PublicFile("motion_extractor", 112),
    "warping": PublicFile("warping_module", 182),
    "generator": PublicFile("spade_generator", 222),
    "stitching": PublicFile("stitching_retargeting_module", 0.9),
}
ROLES = {file.name: role for role, file in PUBLIC_FILES.items()}


def get_it(folder: Path, roles: list[str]) -> str:
    """The sentences that say which public files of `roles` belong into the folder, and how they come there."""
    *more, last = (str(PUBLIC_FILES[role]) for role in roles)
    text = f"Put {', '.join(more)}{' and ' if more else ''}{last} there, from {REPOSITORY} on Hugging Face (MIT)."
    places = (folder, *(folder / name for name in ORIGINAL_FOLDERS))
    if any((place / f"{PUBLIC_FILES[role].name}.pth").is_file() for place in places for role in roles):
        text += (
            f" Or, in the RealPortrait folder, convert the .pth that are there, which are never opened in ComfyUI: `python -m "
            f'realportrait_core.convert liveportrait "{folder}" "{folder}"`.'
        )
    return text


def role_of(path: Path) -> str:
    """The role of a .safetensors, by its keys. Raises WeightsError, with where a file of a published name is to be had."""
    try:
        return sniff(read_header(path).shapes)
    except WeightsError as error:
        if path.stem not in ROLES:
            raise
        raise WeightsError(f"{error} {get_it(path.parent, [ROLES[path.stem]])}") from error


def roles_in(folder: Path, chosen: Path | None = None) -> list[tuple[Path, str]]:
    """Every readable .safetensors of the folder with its role: `chosen` first, then those of published names.

    Raises WeightsError for a damaged file that is `chosen` or has a published name; another one is left out.
    """
    found = []
    files = sorted(folder.glob("*.safetensors"), key=lambda path: (path.stem not in ROLES, path))
    others = [path for path in files if path != chosen]
    for path in ([chosen] if chosen else []) + others:
        try:
            found.append((path, role_of(path)))
        except WeightsError:
            if path == chosen or path.stem in ROLES:
                raise
    return found


def find_parts(folder: Path, chosen: Path | None) -> dict[str, Path]:
    """The files of a folder that hold F, M, W and G, recognised by keys; `chosen` takes precedence over another of its kind.

    Raises WeightsError where F, M or W is missing, there twice, or damaged.
    """
    parts: dict[str, Path] = {}
    for path, role in roles_in(folder, chosen):
        if role not in VID2VID_PARTS:
            continue
        if role in parts and parts[role] != chosen:
            raise WeightsError(f"{parts[role].name} and {path.name} in {folder} both hold the {role} network. Keep one.")
        parts.setdefault(role, path)
    missing = [part for part in NEEDED_PARTS if part not in parts]
    if missing:
        wanted = [part for part in PUBLIC_FILES if part in missing or part == "generator" and part not in parts]
        raise WeightsError(f"{folder} lacks LivePortrait's {' and '.join(missing)} network. {get_it(folder, wanted)}")
    return parts


def find_stitching(path: Path) -> Path:
    """The file itself, or the one of a folder that holds the stitching and retargeting MLPs. Raises WeightsError if none does."""
    if not path.is_dir():
        return path
    for file, role in roles_in(path):
        if role == "stitching":
            return file
    raise WeightsError(f"{path} lacks LivePortrait's stitching network. {get_it(path, ['stitching'])}")
