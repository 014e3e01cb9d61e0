"""A strip: the portrait, and beside it some frames of several videos, one video below the other."""

import numpy as np
import torch

from .sheets import BORDER, MISSING, PAPER, fitted, pixels, titled


def strip(portrait: torch.Tensor, videos: dict[str, torch.Tensor], columns: list[tuple[int, str]]) -> torch.Tensor:
    """A picture (1, H, W, 3) in [0, 1] with a column for each (frame, what is to be said of it, or "").

    portrait (1, H, W, 3) and videos, name -> (L, h, w, 3), in [0, 1], each of a size of its own. What something is said of has a
    border, in the last video.
    """
    first = titled(fitted(pixels(portrait[0]))[0], "portrait")
    below = np.full(((len(videos) - 1) * len(first), *first.shape[1:]), PAPER, np.uint8)
    stacks = [np.concatenate([first, below])]
    last = list(videos)[-1]
    for frame, said in columns:
        tiles = []
        for name, video in videos.items():
            tile, title = fitted(pixels(video[frame]))[0], f"{name}, frame {frame}"
            if name == last and said:
                title += f": {said}"
                for side in (tile[:BORDER], tile[-BORDER:], tile[:, :BORDER], tile[:, -BORDER:]):
                    side[:] = MISSING
            tiles.append(titled(tile, title))
        stacks.append(np.concatenate(tiles))
    return torch.from_numpy(np.concatenate(stacks, 1)).float()[None] / 255
