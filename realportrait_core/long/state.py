"""The continuation state: all that the next clip needs of the clips before it."""

from dataclasses import dataclass, field

from torch import Tensor

from ..motion_map import MotionMaps


@dataclass(frozen=True)
class ContinuationState:
    """What lies behind the clips 0 .. clip - 1 of an animation.

    Paper, Sec. "Image-Video Mixed Training": the final frame of a clip is the conditional frame of the next.
    """

    clip: int  # number of the next clip
    frame: int  # the driving video's frame that is the first new one of the next clip
    frames: int  # of the driving video
    seed: int
    settings: dict[str, str]  # by name: size, steps, sampler, guidance, ... ; all must be the same to go on
    fingerprints: dict[str, str]  # "dit", "vid2vid", "vae", "portrait", "driving": hexadecimal digits of each one's content
    latents: Tensor | None = None  # (n, 4, h, w) of the conditional frames; None where Face Vid2vid renders by itself
    maps: MotionMaps | None = None  # of the conditional frames, for a driving video that does not show them
    figures: list[dict[str, float]] = field(default_factory=list)  # drift of each finished clip, by the figure's name
