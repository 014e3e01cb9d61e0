"""The tail: the frame of a clip from which the next one starts.

A blink or a blurred frame is shown again by every frame that follows from it. So the last frames of a clip are judged, and the
next clip starts from the last good one; what was rendered after it is rendered again.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..animation.mapping import PortraitMotion
from ..errors import InputError
from ..vid2vid.expressions import SLIDERS
from ..vid2vid.keypoints import Pose

AROUND = 0.32  # seconds before and after a frame whose median is its eyes' usual position: a blink is shorter than half of that
# A blink: eyes that close by so many robust standard deviations of the whole video, and by so much of the way to shut: the bundled
# weights' M sees a tenth of a blink's way. On 60 rendered clips this finds 89 % of the frames with shut eyes, and 6 % of others.
CLOSING, LEAST = 1.5, 0.02
BLURRED = 0.6  # of the median of the clip's frames, in energy of the Laplacian within the facial mask


@dataclass(frozen=True)
class TailChoice:
    """The frame that was chosen, and what is wrong with it."""

    index: int  # of the clip's frames
    again: int  # frames after it, which are rendered again
    absent: bool  # no face in the driving frame
    blink: bool
    blurred: bool

    @property
    def poor(self) -> bool:
        return self.absent or self.blink or self.blurred

    @property
    def report(self) -> str:
        """A sentence on a poor frame; empty for a good one."""
        reasons = {"the driving frame shows no face": self.absent, "its eyes close": self.blink, "it is blurred": self.blurred}
        said = " and ".join(reason for reason, true in reasons.items() if true)
        return f"The next clip starts from a poor frame ({said}): a larger tail_window has more to choose from." if said else ""


def eye_closing(driver: Pose, fps: float) -> Tensor:
    """How far each of L driving frames (L,) closes its eyes against the frames around it, in robust standard deviations.

    Keypoints whose eyes are not known (vid2vid/expressions.py) give the size of the expression's change in place of it. Frames
    within LEAST of their surroundings have 0.
    """
    delta = driver.expression @ driver.rotation.mT  # (L, K, 3) in the head's axes
    frames, k = delta.shape[:2]
    reach = min(max(1, round(AROUND * fps)), frames - 1)
    mirrored = torch.cat([delta[1 : reach + 1].flip(0), delta, delta[-reach - 1 : -1].flip(0)])  # beyond both ends
    # One coordinate after the other: the windows of all frames and keypoints would take 5 KB a frame at 25 fps, 20 at 120.
    values = [one.unfold(0, 2 * reach + 1, 1).median(-1).values for one in mirrored.flatten(1).unbind(1)]  # K * 3 of (L,)
    usual = torch.stack(values, 1).view_as(delta)  # (L, K, 3)
    change = delta - usual
    if k in SLIDERS:
        shut = torch.zeros(k, 3).to(change)
        for keypoint, move in SLIDERS[k]["eyes"][0].items():
            shut[keypoint] = change.new_tensor(move)
        closing, least = (change * shut).sum((1, 2)) / shut.square().sum(), LEAST
    else:
        closing, least = change.flatten(1).norm(dim=1), 0.0
    deviation = 1.4826 * closing.abs().median()
    return torch.where(closing > least, closing / deviation.clamp(min=1e-6), torch.zeros_like(closing))


def sharpness_in_face(frames: Tensor, face: Tensor) -> Tensor:
    """Energy of the luma's Laplacian (n,) of frames (n, H, W, 3) within the masks face (n, H, W) bool; 0 for an empty one."""
    kernel = frames.new_tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None]
    luma = frames @ frames.new_tensor([0.299, 0.587, 0.114])  # (n, H, W)
    edges = F.conv2d(F.pad(luma[:, None], (1, 1, 1, 1), mode="replicate"), kernel)[:, 0]
    return (edges.square() * face).sum((1, 2)) / face.sum((1, 2)).clamp(min=1)


def choose_tail(frames: Tensor, motion: PortraitMotion, closing: Tensor, window: int, present: Tensor) -> TailChoice:
    """The last frame of `window` that shows a face with open eyes, and is sharp; where there is none, the best of them.

    frames (n, H, W, 3) in [0, 1]: the clip's, those beyond the end of the video left out. motion: the clip's, of n frames or more.
    closing (n,): `eye_closing` of these frames. present (n,) bool: whether the driving frame has a face. Raises InputError where
    these do not agree.
    """
    n = len(frames)
    if not 1 <= window <= n or len(motion.maps) < n or {len(closing), len(present)} != {n}:
        raise InputError(
            f"A tail among the last {window} of {n} frames, with maps of {len(motion.maps)}, {len(closing)} values of the eyes and "
            f"{len(present)} of the face: all must be of the same frames, and the window within them."
        )
    sharp = sharpness_in_face(frames, motion.maps[:n].mask())
    relative = (sharp / sharp.median().clamp(min=1e-12)).tolist()

    def judged(index: int) -> TailChoice:
        absent, blink, blurred = not bool(present[index]), bool(closing[index] > CLOSING), relative[index] < BLURRED
        return TailChoice(index, n - 1 - index, absent, blink, blurred)

    found = [judged(index) for index in range(n - 1, n - 1 - window, -1)]  # the last one first
    good = [one for one in found if not one.poor]
    return good[0] if good else min(found, key=lambda one: (one.absent, one.blink + one.blurred, float(closing[one.index])))
