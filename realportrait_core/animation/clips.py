"""A video of any length as clips of L frames, sampled one after the other.

Paper, Sec. "Image-Video Mixed Training": "the final frame of the previously inferred clip can be used as the conditional frame
for the current clip".
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError


@dataclass(frozen=True)
class Clip:
    """Frames start .. stop - 1 of the video; the first `overlap` of them are known from the clip before.

    Where a clip continues another video its known frames are that one's: the start is then below 0.
    """

    number: int  # from 0
    start: int
    stop: int
    overlap: int  # conditional frames
    length: int  # L, what the network receives: beyond `stop` the last frame is repeated and its result dropped

    @property
    def frames(self) -> list[int]:
        """The video's frame at each of the clip's L positions."""
        return [min(i, self.stop - 1) for i in range(self.start, self.start + self.length)]

    @property
    def positions(self) -> list[int]:
        """The same as numbers among the clip's own frames, from 0."""
        return [frame - self.start for frame in self.frames]

    @property
    def new_frames(self) -> range:
        """The video's frames that this clip adds."""
        return range(self.start + self.overlap, self.stop)

    def noise_seed(self, seed: int) -> int:
        """Clip i draws its noise with seed + i, within 64 bits."""
        return (seed + self.number) % 2**64


# (clip, latents (n, 4, h, w) of its conditional frames, or None) -> latents (L, 4, h, w)
DenoiseClip = Callable[[Clip, Tensor | None], Tensor]


def plan(frames: int, length: int = 16, overlap: int = 1) -> list[Clip]:
    """Clips that cover every frame once, but for the overlaps. With L = 16 they start at 0, 15, 30 ...

    Raises InputError for no frames, or an overlap that leaves no new frame.
    """
    if frames < 1:
        raise InputError("The motion has 0 frames; an animation needs at least 1.")
    if not 1 <= overlap < length:
        raise InputError(f"The overlap of {overlap} frames must be between 1 and {length - 1}, below the clip's {length}.")
    clips = [Clip(0, 0, min(length, frames), 0, length)]
    while clips[-1].stop < frames:
        start = clips[-1].stop - overlap
        clips.append(Clip(len(clips), start, min(start + length, frames), overlap, length))
    return clips


def clip_at(number: int, frame: int, frames: int, length: int, overlap: int) -> Clip:
    """The clip whose first new frame is `frame`, after `overlap` known ones."""
    start = frame - overlap
    return Clip(number, start, min(start + length, frames), overlap, length)


def next_clip(previous: Clip, tail: int, frames: int, length: int, overlap: int) -> Clip | None:
    """The clip that goes on after `tail`, the last frame that is kept of the clip before; None where that ends the video.

    Frames of the clip before that come after its tail are made again. Where each tail is its clip's last frame, the clips are those
    of `plan`. overlap may be 0, for clips that need nothing of the one before. Raises InputError for a tail that is not a new
    frame of the previous clip, or has too few frames before it.
    """
    if not 0 <= overlap < length:
        raise InputError(f"The overlap of {overlap} frames must be between 0 and {length - 1}, below the clip's {length}.")
    ends = tail + 1 == frames
    first = previous.new_frames.start if ends else max(previous.new_frames.start, previous.start + overlap - 1)
    if not first <= tail < previous.stop:
        raise InputError(
            f"Clip {previous.number} (frames {previous.start} to {previous.stop - 1}) cannot end with frame {tail}: the last frame "
            f"that is kept must be {first} to {previous.stop - 1}."
        )
    return None if ends else clip_at(previous.number + 1, tail + 1, frames, length, overlap)


def denoise_clips(clips: list[Clip], denoise_clip: DenoiseClip) -> Tensor:
    """Latents (frames, 4, h, w) of the whole video, clip after clip. A frame that two clips share is the earlier clip's.

    The core and the node "RealPortrait Sampler" both run this loop; each brings its own `denoise_clip`.
    """
    latents: list[Tensor] = []  # of each frame (4, h, w)
    for clip in clips:
        known = torch.stack(latents[-clip.overlap :]) if clip.overlap else None  # (n, 4, h, w)
        z = denoise_clip(clip, known)  # (L, 4, h, w)
        latents.extend(z[clip.overlap : clip.stop - clip.start])
    return torch.stack(latents)
