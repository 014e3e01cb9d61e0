"""The path of the detector's file outside ComfyUI, for training and evaluation."""

import os
from pathlib import Path

from ..errors import WeightsError
from .detect import MODEL_NAME

ROOT = Path(__file__).resolve().parents[2]


def detector_places() -> list[Path]:
    """YuNet among the models of $COMFYUI_PATH, of the repository's own .venv, of the ComfyUI that holds this pack."""
    models = [ROOT / ".venv" / "base" / "models", ROOT / ".venv" / "comfyui" / "models"]
    if os.environ.get("COMFYUI_PATH"):
        models.insert(0, Path(os.environ["COMFYUI_PATH"]) / "models")
    if ROOT.parent.name == "custom_nodes":
        models.append(ROOT.parent.parent / "models")
    return [folder / "realportrait" / MODEL_NAME for folder in models]


def find_detector() -> Path:
    """The first of `detector_places` that exists. Raises WeightsError where none does."""
    for path in detector_places():
        if path.is_file():
            return path
    looked = "; ".join(str(path) for path in detector_places())
    raise WeightsError(
        f"The face detector is missing; looked for {looked}. Run `python install.py --models-dir DIR` and give its file "
        f"with --detector, or set COMFYUI_PATH to a ComfyUI for which install.py has run."
    )
