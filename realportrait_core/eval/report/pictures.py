"""Pictures of a case: all rows as the tiles of one video, which therefore play in step, and a strip of some of their frames."""

import io
import json
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ...errors import InputError
from ...inspect.drawing import Drawing
from ...video.writing import write_video
from ...whole_file import write_whole
from ..rows import to_bytes

TILE = 256  # px, as the paper compares all methods
ACROSS = 4  # tiles
CRF = 23  # of H.264; a report holds a video for every case
QUALITY = 85  # of JPEG
HEAD = 28  # px above a strip, for names
LONGEST = 22  # characters of a name there
PAPER, INK = (32, 33, 36), (232, 234, 237)  # of a strip's head, RGB: it lies on light pages and on dark ones


@dataclass(frozen=True)
class Layout:
    """How the rows lie in a video of tiles: row k in column k % across, from the top left."""

    rows: tuple[str, ...]
    across: int
    tile: int  # px
    frames: int
    fps: float
    first_scored: int  # of the frames: a record's values begin here

    def corner(self, row: str) -> tuple[int, int]:
        """(x, y) of a row's tile, px."""
        k = self.rows.index(row)
        return k % self.across * self.tile, k // self.across * self.tile


def sized(pictures: Tensor, size: int) -> Tensor:
    """(L, 3, S, S), uint8 or in [0, 1] -> (L, size, size, 3) uint8."""
    if pictures.dtype == torch.uint8 and pictures.shape[-1] == size:
        return pictures.movedim(1, -1)
    values = pictures.float() / 255 if pictures.dtype == torch.uint8 else pictures.float()
    return to_bytes(values if values.shape[-1] == size else interpolate(values, (size, size), mode="bilinear", antialias=True))


def as_long(rows: dict[str, Tensor]) -> tuple[dict[str, Tensor], int]:
    """Rows (L, 3, S, S), those of one frame repeated, and L. InputError where they are not of one length, or no square pictures."""
    if not rows:
        raise InputError("There are 0 rows to show: a report needs at least 1.")
    for name, pictures in rows.items():
        if pictures.ndim != 4 or pictures.shape[1] != 3 or pictures.shape[2] != pictures.shape[3] or 0 in pictures.shape:
            raise InputError(f"{name} is {tuple(pictures.shape)}; pictures must be (L, 3, S, S).")
    frames = max(len(pictures) for pictures in rows.values())
    wrong = {name: len(pictures) for name, pictures in rows.items() if len(pictures) not in (1, frames)}
    if wrong:
        raise InputError(f"Rows of one case must have equally many frames: of {frames}, there are {wrong}.")
    return {name: pictures.detach().cpu().expand(frames, -1, -1, -1) for name, pictures in rows.items()}, frames


def write_tiles(path: Path, rows: dict[str, Tensor], fps: float, first_scored: int = 0) -> None:
    """Rows (L, 3, S, S), uint8 or in [0, 1], as the tiles of one H.264 video; a row of one frame, as the portrait, stands still.

    first_scored: of the frames, where a record's values begin. The layout is in the file's metadata: `read_layout`.
    InputError where lengths differ, or the file cannot be written.
    """
    rows, frames = as_long(rows)
    across = min(ACROSS, len(rows))
    layout = Layout(tuple(rows), across, TILE, frames, fps, first_scored)
    sheet = torch.full((frames, ceil(len(rows) / across) * TILE, across * TILE, 3), 128, dtype=torch.uint8)
    for name, pictures in rows.items():  # one after the other: ten clips of eight rows take 1 GB as numbers in [0, 1]
        x, y = layout.corner(name)
        sheet[:, y : y + TILE, x : x + TILE] = sized(pictures, TILE)
    write_video(path, sheet, fps, crf=CRF, comment=json.dumps(asdict(layout)))


def read_layout(path: Path) -> Layout:
    """Of a video by `write_tiles`. InputError where it is none."""
    import av

    try:
        with av.open(str(path)) as file:
            values = json.loads(file.metadata["comment"])
        return Layout(**values | {"rows": tuple(values["rows"])})
    except (OSError, av.FFmpegError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is no video of tiles ({error!r}).") from error


def strip(rows: dict[str, Tensor], shown: int = 3, size: int = 192) -> Tensor:
    """A column for each row (L, 3, S, S), uint8 or in [0, 1], named above it, and `shown` of its frames below one another:
    (H, W, 3) uint8.

    The frames are equally far apart, the last is the video's last.
    """
    rows, frames = as_long(rows)
    at = sorted({round((frames - 1) * (k + 1) / shown) for k in range(shown)})
    columns = [sized(pictures[at], size).flatten(0, 1) for pictures in rows.values()]  # (shown S, S, 3)
    head = Drawing(torch.tensor(PAPER, dtype=torch.uint8).expand(HEAD, len(rows) * size, 3).numpy())
    for k, name in enumerate(rows):
        short = name if len(name) <= LONGEST else f"{name[: LONGEST - 3]}..."
        head.text((k * size + 8, HEAD / 2), short, INK, 16, "lm")
    return torch.cat([torch.from_numpy(head.tile()), torch.cat(columns, 1)])


def write_strip(path: Path, rows: dict[str, Tensor], shown: int = 3, size: int = 192) -> None:
    """`strip` as a JPEG."""
    from PIL import Image

    data = io.BytesIO()
    Image.fromarray(strip(rows, shown, size).numpy()).save(data, "JPEG", quality=QUALITY, optimize=True)
    write_whole(path, data.getvalue())
