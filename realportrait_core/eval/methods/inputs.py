"""python -m realportrait_core.eval inputs --out DIR: the cases of the report as files, for other methods to run on.

DIR/TABLE/NAME/portrait.png and driving.mp4, and square.png where the portrait is not square: the part of it that is compared.
Another method's videos, named TABLE/NAME.mp4 in a folder of their own, become a row of the report by --method NAME=DIR.
"""

import argparse
import csv
import io
import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ...animation.framing import frame_square, sample_frame
from ...errors import FaceError, InputError
from ...face.detect import MODEL_NAME, FaceDetector
from ...face.find import find_detector
from ...face.track import portrait_points
from ...opencv import import_cv2
from ...video.writing import write_video
from ...whole_file import write_whole
from ..cases import Case, driving_frames, driving_rate, frames_of
from ..rows import to_bytes
from ..run.case_options import add_case_options, chosen_jobs
from ..run.tables import Job

CRF = 4  # of H.264 in 4:2:0, which every reader opens: 44 dB from the frames of the report's own rows, most of it rounding to YUV
LISTED = "cases.csv"

log = logging.getLogger(__name__)

README = f"""# Cases for other methods

Each folder TABLE/NAME is a case: animate `portrait.png` by `driving.mp4`, and save the result as TABLE/NAME.mp4 (or .webm, .mov,
.mkv, or a folder TABLE/NAME of numbered PNG or JPEG files) in a folder of your own. `{LISTED}` lists the names. Then

    python -m realportrait_core.eval report --out OUT ... --method NAME=FOLDER

with the same options as here makes it a row NAME of every table.

- Frame i of the result belongs to frame i of `driving.mp4`. A result with another number of frames over the same time is compared
  by time, any other as far as both go; the report says so.
- The result shows the whole portrait, in any size. Where a method takes squares alone, give it `square.png`, which is there if the
  portrait is not square; its result is then a square.
- The result alone: no driving video or portrait beside it. Near-lossless files, as H.264 with CRF 10 or less, judge the method and
  not its encoder.
- Cases that you leave out are listed as such; they cost the other cases nothing.
"""


@dataclass(frozen=True)
class Written:
    """A line of LISTED."""

    table: str
    name: str
    frames: int
    fps: float
    portrait: str  # WxH px
    square: str  # left, top, side px of the portrait; empty where all of it is compared
    result: str  # of another method, in its own folder


def write_inputs(out: Path, jobs: list[Job], detector: FaceDetector) -> list[Written]:
    """Every case's files, LISTED and README.md. A portrait without a face is left out, as it is in the report.

    InputError where a case's files cannot be read, or the folder cannot be written to.
    """
    written = []
    for done, job in enumerate(jobs, 1):
        try:
            written.append(write_case(out / job.table / job.name, job, detector))
            log.info("%d/%d %s", done, len(jobs), job)
        except FaceError as error:
            log.warning("%d/%d %s left out: %s", done, len(jobs), job, error)
    table = io.StringIO(newline="")
    lines = csv.DictWriter(table, [*Written.__dataclass_fields__])
    lines.writeheader()
    lines.writerows(vars(line) for line in written)
    write_whole(out / LISTED, table.getvalue().encode())
    write_whole(out / "README.md", README.encode())
    return written


def write_case(folder: Path, job: Job, detector: FaceDetector) -> Written:
    """FaceError where the square around the portrait's face is needed, and there is no face."""
    case = job.load()
    portrait, driving = pictures_of(case)
    height, width = portrait.shape[:2]
    square = None if height == width else square_of(portrait, detector)
    fps = driving_rate(case)
    write_png(folder / "portrait.png", portrait)
    if square is not None:
        write_png(folder / "square.png", cut(portrait, square))
    write_video(folder / "driving.mp4", driving, fps, crf=CRF)
    left_top = "" if square is None else " ".join(f"{-shift:g}" for shift in square[:2, 2].tolist()) + f" {min(height, width)}"
    return Written(job.table, job.name, len(driving), fps, f"{width}x{height}", left_top, f"{job.table}/{job.name}.mp4")


def pictures_of(case: Case) -> tuple[Tensor, Tensor]:
    """Portrait (H, W, 3) and driving frames (L, H', W', 3), uint8."""
    if case.truth is None:
        return case.portrait_picture(), driving_frames(case)
    driving, truth, _ = frames_of(case)
    return truth[0], driving


def square_of(portrait: Tensor, detector: FaceDetector) -> Tensor:
    """(3, 3): px of the portrait -> px of the square of its shorter side that the report compares."""
    height, width = portrait.shape[:2]
    return frame_square(portrait_points(portrait, detector), height, width, min(height, width), "whole")


def cut(portrait: Tensor, square: Tensor) -> Tensor:
    """The square of a portrait, (side, side, 3) uint8."""
    pictures = portrait[None].movedim(-1, 1).float() / 255
    return to_bytes(sample_frame(pictures, square, min(portrait.shape[:2])))[0]


def write_png(path: Path, picture: Tensor) -> None:
    """(H, W, 3) uint8."""
    made, data = import_cv2().imencode(".png", picture.flip(-1).contiguous().numpy())
    if not made:
        raise InputError(f"{path} of {tuple(picture.shape)} could not be encoded as PNG.")
    try:
        write_whole(path, data.tobytes())
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error}).") from error


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m realportrait_core.eval inputs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="The cases are those of `report` with the same options.",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    add_case_options(parser)
    parser.add_argument("--detector", type=Path, help=f"{MODEL_NAME}; by default where install.py puts it")
    return parser.parse_args(argv)


@torch.inference_mode()
def command(argv: list[str]) -> int:
    """Writes the folder; the exit code."""
    options = parse(argv)
    jobs, _ = chosen_jobs(options)
    written = write_inputs(options.out, jobs, FaceDetector(options.detector or find_detector()))
    log.info("%d of %d cases are in %s; its README.md says how their results are named.", len(written), len(jobs), options.out)
    return 0
