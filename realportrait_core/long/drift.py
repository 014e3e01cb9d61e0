"""How far a long animation drifts: figures of each clip as it is finished, and what they say together."""

from collections.abc import Callable, Sequence

from torch import Tensor

from ..animation.mapping import PortraitMotion
from ..vid2vid import FaceVid2Vid

Figures = dict[str, float]  # name -> figure of one clip


def clip_figures(
    vid2vid: FaceVid2Vid,
    frames: Tensor,
    motion: PortraitMotion,
    square: Tensor,
    identity: Callable[[Tensor], Tensor] | None = None,
    overlap: int = 0,
) -> Figures:
    """Of a clip's n frames (n, H, W, 3) in [0, 1], the first `overlap` of which the clip before has shown; motion: of these n.

    square (1, H, W, 3): the portrait as the frames show it. identity: frames (m, H, W, 3) -> likeness with the portrait (m,).
    """
    raise NotImplementedError


def drift_report(clips: Sequence[Figures]) -> str:
    """In words, with a table of first, middle and last clip, and each figure's slope per clip."""
    raise NotImplementedError
