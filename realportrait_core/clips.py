"""A driver of any length as clips of L frames; each clip after the first starts with the last latent of the one before."""

from dataclasses import dataclass

from .errors import InputError


@dataclass(frozen=True)
class Clip:
    """Frames start .. stop - 1 of the driver; the first `conditional` of them are known from the clip before."""

    start: int
    stop: int
    conditional: int
    length: int  # L, what the network sees: beyond `stop` the last frame is repeated and its result dropped


def plan(frames: int, length: int = 16, overlap: int = 1) -> list[Clip]:
    """Clips that cover every driver frame once, but for the overlaps. With L = 16 they start at 0, 15, 30 ...

    Raises InputError for no frames, or an overlap that leaves no new frame.
    """
    if frames < 1:
        raise InputError("The motion has 0 frames; an animation needs at least 1.")
    if not 1 <= overlap < length:
        raise InputError(f"The overlap of {overlap} frames must be between 1 and {length - 1}, below the clip's {length}.")
    clips = [Clip(0, min(length, frames), 0, length)]
    while clips[-1].stop < frames:
        start = clips[-1].stop - overlap
        clips.append(Clip(start, min(start + length, frames), overlap, length))
    return clips


def frames(clip: Clip) -> list[int]:
    """The driver's frame for each of the clip's L places."""
    return [min(i, clip.stop - 1) for i in range(clip.start, clip.start + clip.length)]
