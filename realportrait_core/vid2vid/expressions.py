"""A portrait's pose and expression changed by hand: the sliders of an expression, as changes of the implicit keypoints.

The keypoints that move, and how far, depend on the weights:

26 (the bundled weights): the keypoints are points of the head's surface. The moves are a linear regression of the true delta of 400
rendered clips (9,600 frames, train/mini/head_truth.py) on their blendshapes and gaze, made left-right symmetric, without what is
below 0.004. Lids and irises move as that truth defines them.
21 (LivePortrait's): the keypoints were learnt without labels. Which of them carry gaze, lids, smile and lower lip is what
LivePortrait's own image editor moves (Guo et al. 2024); the amounts are for a face of scale 1.
"""

from dataclasses import dataclass

import torch

from .keypoints import Pose, rotation_matrix, transform_keypoints
from .regions import check_known

MOST_DEGREES = 45.0  # of each angle; beyond about 30 the networks invent a side that the portrait does not show

Moves = dict[int, tuple[float, float, float]]  # keypoint -> x right, y down, z inward, in the head's own axes at scale 1


@dataclass(frozen=True)
class Expression:
    """The sliders. 0 keeps what the portrait shows; the others are from -1 to 1."""

    yaw: float = 0.0  # degrees, to the right of the picture
    pitch: float = 0.0  # degrees, downwards
    roll: float = 0.0  # degrees, clockwise on the screen
    smile: float = 0.0  # below 0 the corners of the mouth go down
    mouth: float = 0.0  # 1 wide open; below 0 an open mouth closes
    eyes: float = 0.0  # -1 closed, 1 wide open
    gaze_x: float = 0.0  # to the right of the picture
    gaze_y: float = 0.0  # upwards

    @property
    def moves_face(self) -> bool:
        """Whether keypoints move against each other, for which it must be known where they lie."""
        return any((self.smile, self.mouth, self.eyes, self.gaze_x, self.gaze_y))


def times(moves: Moves, factor: float) -> Moves:
    return {keypoint: (factor * x, factor * y, factor * z) for keypoint, (x, y, z) in moves.items()}


JAW_26: Moves = {
    4: (0.0, 0.008, -0.006),
    5: (0.0, 0.118, 0.089),
    6: (0.002, 0.045, 0.032),
    7: (-0.002, 0.045, 0.032),
    8: (0.0, 0.120, 0.110),
    9: (0.0, 0.086, 0.138),
    18: (-0.006, 0.020, 0.014),
    19: (0.006, 0.020, 0.014),
    20: (-0.003, 0.044, 0.101),
    21: (0.003, 0.044, 0.101),
}
FROWN_26: Moves = {
    5: (0.0, 0.012, 0.0),
    6: (0.009, 0.027, 0.002),
    7: (-0.009, 0.027, 0.002),
    18: (0.0, 0.011, 0.0),
    19: (0.0, 0.011, 0.0),
}
SMILE_26: Moves = {
    5: (0.0, -0.039, 0.007),
    6: (0.018, -0.045, 0.017),
    7: (-0.018, -0.045, 0.017),
    8: (0.0, -0.018, 0.0),
    14: (0.003, -0.012, 0.0),
    15: (-0.003, -0.012, 0.0),
    18: (0.011, -0.039, -0.005),
    19: (-0.011, -0.039, -0.005),
}
SHUT_26: Moves = {16: (0.0, 0.030, 0.0), 17: (0.0, 0.030, 0.0), 24: (0.0, 0.072, 0.0), 25: (0.0, 0.072, 0.0)}
WIDE_26: Moves = {16: (0.0, -0.011, 0.0), 17: (0.0, -0.011, 0.0), 24: (0.0, -0.020, 0.0), 25: (0.0, -0.020, 0.0)}
GAZE_X_26: Moves = {22: (0.030, 0.0, 0.0), 23: (0.030, 0.0, 0.0)}
GAZE_Y_26: Moves = {22: (0.0, -0.025, 0.0), 23: (0.0, -0.025, 0.0), 24: (0.0, -0.012, 0.0), 25: (0.0, -0.012, 0.0)}

SMILE_21: Moves = {
    3: (0.0, -0.0035, 0.0),
    7: (0.0, -0.0035, 0.0),
    13: (0.0, -0.003, 0.0),
    14: (0.0, -0.02, 0.0),
    16: (0.0, -0.003, 0.0),
    17: (0.0, 0.0065, 0.003),
    20: (0.0, -0.01, 0.0),
}
JAW_21: Moves = {17: (0.0, -0.01, 0.0), 19: (0.0, 0.1, 0.01)}
SHUT_21: Moves = {11: (0.0, 0.03, 0.0), 13: (0.0, -0.01, 0.0), 15: (0.0, 0.03, 0.0), 16: (0.0, -0.01, 0.0)}
GAZE_X_21: Moves = {11: (0.025, 0.0, 0.0), 15: (0.025, 0.0, 0.0)}
GAZE_Y_21: Moves = {11: (0.0, -0.015, 0.0), 13: (0.0, -0.0045, 0.0), 15: (0.0, -0.015, 0.0), 16: (0.0, -0.0045, 0.0)}

# Number of keypoints -> slider -> its moves at -1 and at 1
SLIDERS: dict[int, dict[str, tuple[Moves, Moves]]] = {
    26: {
        "smile": (times(FROWN_26, 1.5), times(SMILE_26, 1.5)),
        "mouth": (times(JAW_26, -0.3), times(JAW_26, 0.8)),
        "eyes": (SHUT_26, WIDE_26),
        "gaze_x": (times(GAZE_X_26, -1), GAZE_X_26),
        "gaze_y": (times(GAZE_Y_26, -1), GAZE_Y_26),
    },
    21: {
        "smile": (times(SMILE_21, -1), SMILE_21),
        "mouth": (times(JAW_21, -0.3), JAW_21),
        "eyes": (SHUT_21, times(SHUT_21, -0.3)),
        "gaze_x": (times(GAZE_X_21, -1), GAZE_X_21),
        "gaze_y": (times(GAZE_Y_21, -1), GAZE_Y_21),
    },
}


def expression_change(k: int, expression: Expression) -> torch.Tensor:
    """The change of delta (K, 3) in the head's own axes. Raises InputError where it is not known which keypoints lie where."""
    change = torch.zeros(k, 3)
    if not expression.moves_face:
        return change
    check_known(k, "a slider of eyes, gaze or mouth")
    for slider, (below, above) in SLIDERS[k].items():
        value = getattr(expression, slider)
        for keypoint, move in (above if value > 0 else below).items():
            change[keypoint] += abs(value) * torch.tensor(move)
    return change


def edited_keypoints(portrait: Pose, expression: Expression) -> torch.Tensor:
    """x_d (1, K, 3): the keypoints of the portrait (one pose) with another pose and expression.

    x_d = s (x_c Q R + delta + d Q R) + t, where the head turns by Q in its own axes and d is the change of its expression.
    Without any change exactly the portrait's own keypoints.
    """
    angles = torch.tensor([[expression.pitch], [-expression.yaw], [expression.roll]], dtype=torch.float32)
    rotation = rotation_matrix(*angles).to(portrait.rotation) @ portrait.rotation  # (1, 3, 3)
    change = expression_change(portrait.canonical.shape[1], expression).to(rotation)  # (K, 3)
    delta = portrait.expression + change @ rotation
    return transform_keypoints(portrait.canonical, rotation, delta, portrait.scale, portrait.translation)
