"""OpenCV is for evaluation and training: what is said where there is none, and that the pack's requirements bring none."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from realportrait_core.errors import RealPortraitError
from realportrait_core.opencv import import_cv2

ROOT = Path(__file__).resolve().parent.parent


def test_without_it_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(
        RealPortraitError, match="OpenCV cannot be imported.*opencv-python-headless by .*-m pip.*never install both"
    ):
        import_cv2()


@pytest.mark.slow  # asks the package index
def test_what_the_pack_requires_brings_none():
    """What pip would install into an empty environment: it touches no package beside these, whichever OpenCV is there."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--dry-run", "--ignore-installed"]
    done = subprocess.run(
        [*command, "--quiet", "--report", "-", "-r", "requirements.txt"], capture_output=True, text=True, cwd=ROOT
    )
    if "No matching distribution" in done.stderr or "connection" in done.stderr.lower():
        pytest.skip(f"the package index is out of reach: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    assert {entry["metadata"]["name"] for entry in json.loads(done.stdout)["install"]} == {"einops", "safetensors"}
