"""Where tests find what the measures of eval read and the pack does not have, or a skipped test."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"


def stlpips_wheel() -> Path:
    """stlpips-pytorch's wheel, as scripts/test.py fetches it."""
    found = sorted(VENV.glob("stlpips_pytorch-0.0.2-*.whl"))
    if not found:
        pytest.skip(f"no stlpips_pytorch wheel in {VENV}: run python scripts/test.py")
    return found[0]


def face_api() -> Path:
    """The folder with the face embedding of @vladmandic/face-api, as scripts/test.py fetches it."""
    folder = VENV / "face-api"
    if not (folder / "face_recognition_model.bin").is_file():
        pytest.skip(f"no face embedding in {folder}: run python scripts/test.py")
    return folder


def landmarker() -> Path:
    """MediaPipe's face_landmarker.task beside the repository; no package carries it."""
    path = ROOT.parent / "shared" / "face" / "face_landmarker.task"
    if not path.is_file():
        pytest.skip(f"no {path}")
    return path


def canonical_face() -> Path:
    """MediaPipe's canonical_face_model.obj beside the repository; no package carries it."""
    path = ROOT.parent / "shared" / "face" / "canonical_face_model.obj"
    if not path.is_file():
        pytest.skip(f"no {path}")
    return path
