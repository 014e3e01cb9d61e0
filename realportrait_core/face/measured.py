"""A video's frames, all of them in memory or one at a time, counted and measured as they pass."""

from collections.abc import Callable, Iterable, Iterator, Sized

import numpy as np
import torch

from ..errors import InputError

Frames = torch.Tensor | np.ndarray | Iterable[np.ndarray]  # (L, H, W, 3) in [0, 1] or uint8, or such pictures one by one


def known_length(frames: "Frames | Measured") -> int | None:
    """How many there are, where that can be told without reading them."""
    return len(frames) if isinstance(frames, Sized) else None


class Measured:
    """Pictures that are counted and measured as they pass, one at a time in memory if `frames` is a stream."""

    def __init__(self, frames: Frames, video: str):
        self.frames, self.video = frames, video
        self.length, self.size = 0, (0, 0)  # so far; height, width px
        shape = tuple(getattr(frames, "shape", ()))
        if shape and (len(shape) != 4 or not shape[0]) or not isinstance(frames, Iterable):
            raise InputError(self.refusal(shape))
        # Of a stream about so many; 0 where it is not known.
        self.expected: int = known_length(frames) or getattr(frames, "total", 0)

    def refusal(self, shape: tuple[int, ...]) -> str:
        return f"A {self.video} video must be (frames, height, width, 3) with at least one frame; this one is {shape}."

    def __iter__(self) -> Iterator[torch.Tensor | np.ndarray]:
        self.length = 0
        for frame in self.frames:
            self.length, self.size = self.length + 1, (frame.shape[0], frame.shape[1])
            yield frame
        if not self.length:
            raise InputError(self.refusal((0,)))

    def measure(self, callback: Callable[[int, int], None] | None = None) -> None:
        """Counts them all; a stream is read once, with callback(done, total) after each frame."""
        if isinstance(self.frames, torch.Tensor | np.ndarray):
            self.length, self.size = len(self.frames), (self.frames.shape[1], self.frames.shape[2])
            return
        for _ in self:
            if callback is not None:
                callback(self.length, max(self.length, self.expected))
