"""Previews: what was found on the pictures, and what a motion position map looks like."""

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw

from ...realportrait_core.face.crop import CROP
from ...realportrait_core.motion_map import MotionMaps, dense

MOST = 32  # previews of longer clips show this many frames, evenly spaced
SIDE = 384  # px, of one preview tile
GLANCE = 6  # pictures on a node itself, in rows of three: at its usual width each is about 110 px wide
SMALL_SIDE = 192  # px, of one of those that is drawn for it; larger ones would leave its lines hardly visible
COLUMNS, GAP = 3, 4  # GAP in px
CROP_COLOR, POINT_COLOR, MISSING_COLOR = (90, 200, 255), (255, 210, 60), (255, 90, 90)


def evenly(frames: int, most: int = MOST) -> list[int]:
    """At most `most` frame numbers, the first and the last among them."""
    if frames <= most:
        return list(range(frames))
    return [round(i * (frames - 1) / (most - 1)) for i in range(most)]


def sheet(pictures: torch.Tensor) -> torch.Tensor:
    """A few pictures (n, height, width, 3) side by side in rows of COLUMNS, as one picture (1, H, W, 3)."""
    columns = min(COLUMNS, len(pictures))
    cells = F.pad(pictures, (0, 0, 0, GAP, 0, GAP, 0, -len(pictures) % columns))
    rows = cells.unflatten(0, (-1, columns)).transpose(1, 2)  # (rows, height, columns, width, 3)
    return rows.flatten(2, 3).flatten(0, 1)[None, :-GAP, :-GAP]


def small(pictures: torch.Tensor, side: int = SMALL_SIDE) -> torch.Tensor:
    """Pictures (n, H, W, 3) of any size with their longer side reduced to at most `side` px."""
    shrink = min(1.0, side / max(pictures.shape[1:3]))
    size = [max(1, round(length * shrink)) for length in pictures.shape[1:3]]
    return F.interpolate(pictures.movedim(-1, 1), size=size, mode="area").movedim(1, -1)


def tile(picture: torch.Tensor, crop: torch.Tensor, points: torch.Tensor, present: bool = True, side: int = SIDE) -> torch.Tensor:
    """A picture (H,W,3) made to fit side x side px, with its crop (3,3: picture px -> crop px) and points (n,2) px drawn."""
    height, width = picture.shape[:2]
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    thin = max(1, max(height, width) // (8 * side))  # of a huge picture every so manyth pixel is enough
    picture = picture[::thin, ::thin]
    image = Image.fromarray((picture.clamp(0, 1) * 255).round().byte().cpu().numpy()).resize(size, Image.BILINEAR)
    canvas = Image.new("RGB", (side, side))
    offset = torch.tensor([(side - size[0]) // 2, (side - size[1]) // 2], dtype=torch.float64)
    canvas.paste(image, tuple(int(n) for n in offset))

    def place(xy: torch.Tensor) -> list[tuple[float, float]]:
        return [tuple(p) for p in ((xy.cpu().double() + 0.5) * scale + offset).tolist()]

    corners = torch.tensor([[0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]], dtype=torch.float64)
    corners[:, :2] = corners[:, :2] * CROP - 0.5
    quad = place((corners @ torch.linalg.inv(crop.cpu().double()).mT)[:, :2])
    pen = ImageDraw.Draw(canvas)
    pen.line([*quad, quad[0]], fill=CROP_COLOR if present else MISSING_COLOR, width=2)
    for x, y in place(points):
        pen.ellipse((x - 2, y - 2, x + 2, y + 2), fill=POINT_COLOR if present else MISSING_COLOR)
    return torch.from_numpy(np.asarray(canvas).copy()).float() / 255  # (side, side, 3)


def motion_picture(maps: MotionMaps) -> torch.Tensor:
    """Maps of a few frames as pictures (L, height, width, 3): their three main components as colours, black outside the face."""
    f = maps.f.float()
    values = f.movedim(1, -1).flatten(0, -2)  # (L h w, C)
    values = values - values.mean(0)
    _, axes = torch.linalg.eigh(values.mT @ values)  # ascending
    axes = axes[:, -3:].flip(1)
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()  # eigh leaves the signs open
    colors = values @ axes
    colors = (0.5 + colors / (4 * colors.std(0).clamp(min=1e-6))).clamp(0, 1)
    colors = colors.reshape(len(f), *f.shape[2:], -1).movedim(-1, 1)  # (L, 3, h, w)
    return dense(replace(maps, f=colors)).movedim(1, -1).contiguous()
