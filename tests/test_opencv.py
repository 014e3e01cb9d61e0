"""OpenCV is for evaluation and training: what is said where there is none, and that pip leaves the one that is there alone."""

import hashlib
import json
import os
import subprocess
import sys
import venv
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


class Place:
    """A fresh virtual environment."""

    def __init__(self, folder: Path):
        venv.create(folder, with_pip=True)
        self.folder = folder
        self.python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"

    def pip(self, *arguments: str) -> subprocess.CompletedProcess:
        command = [str(self.python), "-m", "pip", "--disable-pip-version-check", *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=600)

    def install(self, *what: str) -> None:
        done = self.pip("install", "--quiet", *what)
        if "No matching distribution" in done.stderr or "connection" in done.stderr.lower():
            pytest.skip(f"{what} cannot be had from the package index: {done.stderr.strip().splitlines()[-1]}")
        assert done.returncode == 0, done.stderr

    def opencv(self) -> dict[str, str]:
        """Packages of OpenCV, with their versions."""
        listed = json.loads(self.pip("list", "--format", "json").stdout)
        return {entry["name"]: entry["version"] for entry in listed if entry["name"].startswith("opencv")}

    def files(self) -> dict[str, str]:
        """Checksums of the module cv2."""
        files = [file for folder in self.folder.rglob("site-packages/cv2") for file in folder.rglob("*") if file.suffix != ".pyc"]
        return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("package", ["opencv-python>=5", "opencv-contrib-python>=4.12,<5"])
def test_the_one_that_is_there_stays(tmp_path, package):
    place = Place(tmp_path / "environment")
    place.install(package)
    before, files = place.opencv(), place.files()
    place.install("-r", "requirements.txt")
    assert place.opencv() == before and len(before) == 1 and place.files() == files and files


@pytest.mark.slow
def test_none_is_installed(tmp_path):
    place = Place(tmp_path / "environment")
    place.install("-r", "requirements.txt")
    assert place.opencv() == {} and place.files() == {}
