"""Lines, dots and text on a tile, with Pillow: drawn FINE times as large and averaged, so that edges are smooth.

Coordinates are pixels of the tile with integer centres; colours are RGB, 0..255.
"""

import functools
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont, ImageFont

FINE = 4
RIM = (0, 0, 0)  # around dots, axes and names: visible on any skin

Color = tuple[int, ...]


class Drawing:
    """A tile (H, W, 3) uint8 that is being drawn on; `tile()` returns it."""

    def __init__(self, tile: np.ndarray):
        from PIL import Image, ImageDraw

        height, width = tile.shape[:2]
        self.large = Image.fromarray(tile).resize((FINE * width, FINE * height), Image.Resampling.NEAREST)
        self.pen = ImageDraw.Draw(self.large)

    def tile(self) -> np.ndarray:
        return np.array(self.large.reduce(FINE))

    def line(self, points: torch.Tensor, color: Color, width: float) -> None:
        """Through points (n, 2)."""
        self.pen.line([place(at) for at in points], color, round(FINE * width), joint="curve")

    def dot(self, at: torch.Tensor, radius: float, color: Color) -> None:
        """A filled disc with a rim."""
        x, y = place(at)
        for reach, fill in ((FINE * (radius + 1), RIM), (FINE * radius, color)):
            self.pen.ellipse((x - reach, y - reach, x + reach, y + reach), fill)

    def text(self, at: tuple[float, float], words: str, color: Color, size: float, anchor: str, rim: float = 0) -> None:
        """Words at a point, which is their left or right middle (anchor lm, rm)."""
        here = place(torch.tensor(at))
        self.pen.text(here, words, color, font(FINE * size), anchor, stroke_width=round(FINE * rim), stroke_fill=RIM)


def place(at: torch.Tensor) -> tuple[float, float]:
    """(2,) px of the tile -> of the large picture."""
    x, y = ((at.double() + 0.5) * FINE - 0.5).tolist()
    return x, y


@functools.cache
def font(size: float) -> "FreeTypeFont | ImageFont":
    """Pillow's own."""
    from PIL import ImageFont

    return ImageFont.load_default(size)
