"""How much the faces of an animation look like its portrait, for the drift of long videos (`long.drift`). Never part of a loss."""

from collections.abc import Callable

import torch
from torch import Tensor

from ...errors import FaceError
from ...face.detect import FaceDetector
from .loading import find_points
from .recognition import Recognition, identity_similarity


@torch.inference_mode()
def likeness(recognition: Recognition, detector: FaceDetector, square: Tensor) -> Callable[[Tensor], Tensor]:
    """frames (m, S, S, 3) in [0, 1] -> the cosine of each found face's embedding and the portrait's (at most m,); NaN for none.

    square (1, S, S, 3): the portrait as the frames show it; of several faces in a frame the one at the place of its face counts.
    Raises FaceError where the square shows none.
    """
    middle = torch.full((1, 5, 2), square.shape[1] / 2)  # px
    own, found = find_points(detector, square.movedim(-1, 1), middle)
    if not bool(found):
        raise FaceError(f"No face is found in the animated square of the portrait ({square.shape[1]} px): identity needs one.")
    portrait = recognition.embed(square.movedim(-1, 1), own)

    def compare(frames: Tensor) -> Tensor:
        pictures = frames.movedim(-1, 1)
        five, found = find_points(detector, pictures, own.expand(len(frames), 5, 2))
        values = [value for value in identity_similarity(recognition.embed(pictures, five), portrait, found) if value is not None]
        return torch.tensor(values or [float("nan")])

    return compare
