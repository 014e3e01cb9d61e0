"""Expression as ARKit's blendshape coefficients, by the network `face_blendshapes.tflite` in MediaPipe's `face_landmarker.task`.

It receives 146 of the landmarker's 478 points, in px, without depth, and predicts 52 coefficients in [0, 1]: `_neutral`, which
means nothing, then ARKit's 52 in alphabetical order without the last, `tongueOut`. Never part of a loss.
"""

from pathlib import Path

import torch
from torch import Tensor

from ...face.landmarks import check_landmarks, load_network

NETWORK = "face_blendshapes.tflite"
OUTPUTS = 52  # `_neutral` before those of NAMES
NAMES = tuple(
    "browDownLeft browDownRight browInnerUp browOuterUpLeft browOuterUpRight cheekPuff cheekSquintLeft cheekSquintRight "
    "eyeBlinkLeft eyeBlinkRight eyeLookDownLeft eyeLookDownRight eyeLookInLeft eyeLookInRight eyeLookOutLeft "
    "eyeLookOutRight eyeLookUpLeft eyeLookUpRight eyeSquintLeft eyeSquintRight eyeWideLeft eyeWideRight jawForward jawLeft "
    "jawOpen jawRight mouthClose mouthDimpleLeft mouthDimpleRight mouthFrownLeft mouthFrownRight mouthFunnel mouthLeft "
    "mouthLowerDownLeft mouthLowerDownRight mouthPressLeft mouthPressRight mouthPucker mouthRight mouthRollLower "
    "mouthRollUpper mouthShrugLower mouthShrugUpper mouthSmileLeft mouthSmileRight mouthStretchLeft mouthStretchRight "
    "mouthUpperUpLeft mouthUpperUpRight noseSneerLeft noseSneerRight".split()
)  # left and right are the person's
# fmt: off
# The landmarks that the network receives, in ascending order (MediaPipe, face_blendshapes_graph.cc): face oval, brows, eyes,
# nose bridge and tip, lips, irises.
INPUT_POINTS = (
    0, 1, 4, 5, 6, 7, 8, 10, 13, 14, 17, 21, 33, 37, 39, 40, 46, 52, 53, 54, 55, 58, 61, 63, 65, 66, 67, 70, 78, 80, 81, 82, 84,
    87, 88, 91, 93, 95, 103, 105, 107, 109, 127, 132, 133, 136, 144, 145, 146, 148, 149, 150, 152, 153, 154, 155, 157, 158, 159,
    160, 161, 162, 163, 168, 172, 173, 176, 178, 181, 185, 191, 195, 197, 234, 246, 249, 251, 263, 267, 269, 270, 276, 282, 283,
    284, 285, 288, 291, 293, 295, 296, 297, 300, 308, 310, 311, 312, 314, 317, 318, 321, 323, 324, 332, 334, 336, 338, 356, 361,
    362, 365, 373, 374, 375, 377, 378, 379, 380, 381, 382, 384, 385, 386, 387, 388, 389, 390, 397, 398, 400, 402, 405, 409, 415,
    454, 466, *range(468, 478),
)
# fmt: on


class Blendshapes:
    """The network, run by OpenCV; about 1 ms a face. WeightsError where the file is not face_landmarker.task."""

    def __init__(self, path: str | Path):
        self._network = load_network(Path(path), NETWORK)

    def coefficients(self, points: Tensor) -> Tensor:
        """Landmarks (L, 478, 2 or 3) px -> (L, 51) in [0, 1], in the order of NAMES."""
        check_landmarks(points)
        chosen = points[:, list(INPUT_POINTS), :2].float().contiguous().cpu().numpy()  # (L, 146, 2)
        found = torch.empty(len(chosen), OUTPUTS)
        for frame, face in enumerate(chosen):
            self._network.setInput(face[None])
            found[frame] = torch.from_numpy(self._network.forward().reshape(OUTPUTS))
        return found[:, 1:]
