"""A look at each rendered clip: which of its frames the next clip begins with, and how far it has drifted."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import isfinite

import torch
from torch import Tensor

from ..animation.clips import Clip
from ..animation.mapping import PortraitMotion
from ..animation.retargeting import DrivenKeypoints
from ..errors import InputError
from ..vid2vid import FaceVid2Vid
from .renderers import ClipRenderer, RenderedClip

Identity = Callable[[Tensor], Tensor]  # frames (n, S, S, 3) -> likeness with the portrait (n,)


def check_rendered(rendered: RenderedClip, clip: Clip) -> None:
    """Raises InputError where a renderer gave fewer frames than the clip has, or values that are not finite."""
    n = clip.stop - clip.start
    if len(rendered.frames) < n or (rendered.latents is not None and len(rendered.latents) < n):
        raise InputError(f"Clip {clip.number} has {n} frames and {len(rendered.frames)} were rendered.")
    bad = [frame for frame in range(clip.overlap, n) if not torch.isfinite(rendered.frames[frame]).all()]
    if bad:
        first, last = clip.start + bad[0], clip.start + bad[-1]
        raise InputError(
            f"The driving frames {first} to {last} became NaN (clip {clip.number}). The clips before are kept. Load the model with "
            "weight_dtype bf16 or fp32, or choose another sampler."
        )


@dataclass(frozen=True)
class Judge:
    """Looks at each rendered clip: which frame the next clip begins with, and how far it has drifted."""

    vid2vid: FaceVid2Vid
    driven: DrivenKeypoints
    render: ClipRenderer
    fps: float
    tail_window: int
    corrects: bool  # whether the conditional frames differ from what the video shows
    identity: Identity | None

    @cached_property
    def closing(self) -> Tensor:
        """How far the driving face's eyes close in each frame (L,)."""
        from .tail import eye_closing

        return eye_closing(self.driven.keypoints.driver, self.fps)

    def tail(self, clip: Clip, part: PortraitMotion, rendered: RenderedClip) -> tuple[int, str]:
        """The last frame that is kept of the clip, and what is wrong with it."""
        n = clip.stop - clip.start
        if clip.stop == len(self.driven) or rendered.square is None:
            return clip.stop - 1, ""
        from .tail import choose_tail

        frames = [max(frame, 0) for frame in range(clip.start, clip.stop)]
        present = self.driven.keypoints.present[frames]
        choice = choose_tail(rendered.square[:n], part, self.closing[frames], self.tail_window, present)
        return clip.start + choice.index, choice.report

    def figures(
        self, clip: Clip, part: PortraitMotion, rendered: RenderedClip, tail: int, shown: Tensor | None = None
    ) -> dict[str, float]:
        """The drift of the clip up to its tail, without figures that are not finite; empty without the animated square.

        shown (S, S, 3): the frame before it, where the conditional frames are corrected; without it the join is not known.
        """
        if rendered.square is None or self.render.portrait_square is None:
            return {}
        from .drift import clip_figures

        square = rendered.square[: tail + 1 - clip.start]
        if shown is not None:
            square = torch.cat([square[: clip.overlap - 1], shown[None], square[clip.overlap :]])
        figures = clip_figures(self.vid2vid, square, part, self.render.portrait_square, self.identity, clip.overlap)
        if self.corrects and shown is None:
            figures.pop("join", None)
        return {name: float(value) for name, value in figures.items() if isfinite(value)}
