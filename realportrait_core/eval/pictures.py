"""Pictures of a case: all rows side by side as one video, which therefore play in step, and as a strip of some frames."""

from pathlib import Path

from torch import Tensor


def write_tiles(path: Path, rows: dict[str, Tensor], fps: float, first_scored: int = 0) -> None:
    """Rows (L, 3, S, S) in [0, 1] as the tiles of one H.264 video; (1, 3, S, S), as the portrait, stands still.

    The layout is in the file's own metadata: `read_layout`. first_scored: of the frames, where the record's values begin.
    InputError where lengths or sizes differ.
    """
    raise NotImplementedError


def write_strip(path: Path, rows: dict[str, Tensor], shown: int = 3, size: int = 192) -> None:
    """A JPEG: a column for each row (L, 3, S, S), named above it, and `shown` of its frames below one another."""
    raise NotImplementedError
