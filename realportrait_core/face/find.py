"""The path of the detector's file outside ComfyUI, for training and evaluation."""

from pathlib import Path

from ..errors import WeightsError
from .detect import MODEL_NAME

ROOT = Path(__file__).resolve().parents[2]


def detector_places() -> list[Path]:
    """YuNet beside the bundled weights, among the models of the repository's own .venv, of the ComfyUI that holds this pack."""
    models = [ROOT / ".venv" / "base" / "models", ROOT / ".venv" / "comfyui" / "models"]
    if ROOT.parent.name == "custom_nodes":
        models.append(ROOT.parent.parent / "models")
    return [folder / "realportrait" / MODEL_NAME for folder in (ROOT / "realportrait_core" / "weights", *models)]


def find_detector() -> Path:
    """The first of `detector_places` that exists. Raises WeightsError where none does."""
    for path in detector_places():
        if path.is_file():
            return path
    looked = "; ".join(str(path) for path in detector_places())
    raise WeightsError(
        f"The face detector is missing; looked for {looked}. Run `python install.py` in the RealPortrait folder, or give its "
        f"file with --detector."
    )
