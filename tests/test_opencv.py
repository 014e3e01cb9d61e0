"""OpenCV in environments of their own, by the real pip: the one that is there stays as it is, and YuNet runs in 4.x and 5.x."""

import hashlib
import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
import yunet

pytestmark = pytest.mark.slow

# A face is looked for in the bundled portrait. torch and Pillow are those of this environment, NumPy and OpenCV the other's own.
DETECT = """
import json, sys
import numpy, cv2
sys.path += sys.argv[2:]
import torch
from PIL import Image
from realportrait_core.face.detect import FaceDetector
(face,) = FaceDetector(sys.argv[1]).detect(numpy.array(Image.open("assets/portrait.png").convert("RGB")))
print(json.dumps({"file": cv2.__file__, "version": cv2.__version__, "points": face.points.tolist()}))
"""


class Place:
    """A fresh virtual environment."""

    def __init__(self, folder: Path):
        venv.create(folder, with_pip=True)
        self.folder = folder
        self.python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"

    def run(self, *arguments) -> subprocess.CompletedProcess:
        command = [str(self.python), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=yunet.ROOT, timeout=600)

    def install(self, *what: str) -> None:
        done = self.run("-m", "pip", "install", "--quiet", "--disable-pip-version-check", *what)
        if "No matching distribution" in done.stderr or "connection" in done.stderr.lower():
            pytest.skip(f"{what} cannot be had from the package index: {done.stderr.strip().splitlines()[-1]}")
        assert done.returncode == 0, done.stderr

    def opencv(self) -> dict[str, str]:
        """Packages of OpenCV, with their versions."""
        listed = json.loads(self.run("-m", "pip", "list", "--format", "json", "--disable-pip-version-check").stdout)
        return {entry["name"]: entry["version"] for entry in listed if entry["name"].startswith("opencv")}

    def files(self) -> dict[str, str]:
        """Checksums of the module cv2."""
        files = [file for folder in self.folder.rglob("site-packages/cv2") for file in folder.rglob("*") if file.suffix != ".pyc"]
        return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.is_file()}

    def detect(self) -> dict:
        done = self.run("-c", DETECT, yunet.onnx(), yunet.ROOT, sysconfig.get_paths()["purelib"])
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def here() -> list:
    """The points that this environment's OpenCV finds."""
    done = subprocess.run([sys.executable, "-c", DETECT, yunet.onnx(), yunet.ROOT], capture_output=True, text=True, cwd=yunet.ROOT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])["points"]


@pytest.mark.parametrize(
    "package, others",
    [
        ("opencv-python==4.8.1.78", ["numpy<2"]),
        ("opencv-python==4.12.0.88", []),
        ("opencv-python>=5", []),
        ("opencv-contrib-python>=4.12,<5", []),
        ("opencv-python-headless>=5", []),
    ],
)
def test_the_opencv_that_is_there_stays_and_detects(tmp_path, here, package, others):
    place = Place(tmp_path / "environment")
    place.install(package, *others)
    before, files = place.opencv(), place.files()
    place.install("-r", "requirements.txt")
    assert place.opencv() == before and len(before) == 1 and place.files() == files and files
    found = place.detect()
    assert str(place.folder) in found["file"]
    assert max(abs(a - b) for one, other in zip(found["points"], here) for a, b in zip(one, other)) < 0.5


def test_without_any_it_is_said_and_then_works(tmp_path, here):
    place = Place(tmp_path / "environment")
    place.install("-r", "requirements.txt")
    assert place.opencv() == {} and place.files() == {}
    (tmp_path / "models" / "realportrait").mkdir(parents=True)
    (tmp_path / "models" / "realportrait" / yunet.NAME).write_bytes(yunet.onnx().read_bytes())
    said = place.run("install.py", "--models-dir", tmp_path / "models")
    assert said.returncode == 0 and said.stderr.count("OpenCV cannot be imported") == 1
    place.install("opencv-python-headless")  # as it says
    assert "OpenCV" not in place.run("install.py", "--models-dir", tmp_path / "models").stderr
    assert max(abs(a - b) for one, other in zip(place.detect()["points"], here) for a, b in zip(one, other)) < 0.5
