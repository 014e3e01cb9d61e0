"""Other methods' results as rows: a folder of their videos or pictures, named by table and case.

STUB: signatures; the bodies follow.
"""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ..animation.mapping import PortraitMotion


@dataclass(frozen=True)
class Result:
    """A method's pictures of a case."""

    pictures: Tensor  # (n, 3, S, S) in [0, 1]
    numbers: tuple[int, ...]  # the case's frames that they show, ascending: 0, 1, ... L - 1, or fewer
    note: str | None  # a sentence for the reader where not simply all frames were compared


def method_folders(options: list[str], rows: tuple[str, ...]) -> dict[str, Path]:
    """NAME=DIR of the command line as row -> folder. InputError for a name given twice or of `rows`, or a missing folder."""
    raise NotImplementedError


def method_frames(row: str, folder: Path, table: str, name: str, motion: PortraitMotion, fps: float | None) -> Result:
    """The method's result for a case on the frame of the case's motion (its size, place in the portrait, number of frames).

    fps: of the driving video. InputError, a sentence for `left_out`, where there is none or it cannot be compared.
    """
    raise NotImplementedError
