"""Drive: the portrait's keypoints under the driving motion, x_d. The formulas of the modes are in vid2vid/retarget.py."""

from dataclasses import dataclass, replace

from torch import Tensor

from ..errors import InputError
from ..face.crop import crop_roll
from ..vid2vid.keypoints import Pose, transform
from ..vid2vid.neutral import neutral_frame
from ..vid2vid.retarget import FULL, Gains, Mode, retarget
from ..vid2vid.stitching import finish
from .keypoints import Keypoints, without_cuts


@dataclass(frozen=True)
class DrivenKeypoints:
    """The portrait's keypoints in L driving frames."""

    x_d: Tensor  # (L, K, 3) in the portrait's crop
    keypoints: Keypoints  # what they were computed from, of the same L frames
    first: int  # the driving video's frame that is the first of the L

    def __len__(self) -> int:
        return len(self.x_d)

    def __getitem__(self, frames: slice) -> "DrivenKeypoints":
        """Some of the L frames, a slice with a step of 1."""
        return DrivenKeypoints(self.x_d[frames], self.keypoints[frames], self.first + frames.indices(len(self))[0])


def upright_in_crop(pose: Pose, portrait_crop: Tensor) -> Pose:
    """The driving poses as the portrait's crop shows them: the crop is rotated with the portrait's face, the driving crop is not.

    With the crop's rotation Q: x Q = s (x_c R Q + delta Q) + t Q. portrait_crop (3, 3), or (L, 3, 3) of a portrait video.
    """
    if portrait_crop.ndim == 3:
        rolls = crop_roll(portrait_crop[:, :2, :2]).to(pose.rotation)  # (L, 3, 3)
        translation = (pose.translation[:, None] @ rolls)[:, 0]
        return replace(pose, rotation=pose.rotation @ rolls, expression=pose.expression @ rolls, translation=translation)
    roll = crop_roll(portrait_crop[None, :2, :2])[0].to(pose.rotation)
    return replace(pose, rotation=pose.rotation @ roll, expression=pose.expression @ roll, translation=pose.translation @ roll)


def in_portrait_crop(driver: Pose, neutral: Pose, portrait: Pose, portrait_crop: Tensor) -> tuple[Pose, Pose]:
    """The driving poses and the neutral one as the portrait's crop shows them.

    Besides the crop's rotation, translations are measured in heads: t is multiplied by the ratio of the two scales.
    """
    heads = portrait.scale / neutral.scale  # (1 or L, 1)

    def converted(pose: Pose) -> Pose:
        pose = upright_in_crop(pose, portrait_crop)
        return replace(pose, translation=heads * pose.translation)

    return converted(driver), converted(neutral)


def find_neutral(keypoints: Keypoints) -> int:
    """The driving frame, from 0, that is calm and nearest to the portrait in pose and expression."""
    driver, still = without_cuts(keypoints).driver, keypoints.at_rest()
    return neutral_frame(still.portrait, upright_in_crop(driver, still.portrait_crop), keypoints.present)


def frame_range(keypoints: Keypoints, first: int, count: int) -> slice:
    """The driving frames from `first` on, at most `count` of them, 0 for all. Raises InputError where none is left."""
    total = len(keypoints)
    if not 0 <= first < total or count < 0:
        raise InputError(
            f"The range of {count} frames from frame {first} is not within the {total} driving frames (0 to {total - 1}). "
            "Choose an earlier first frame; a count of 0 takes all that follow."
        )
    return slice(first, min(first + count, total) if count else total)


def driven_keypoints(
    keypoints: Keypoints,
    mode: Mode,
    pose_gain: float,
    expression_gain: float,
    neutral: int,
    gains: Gains = FULL,
    frames: slice = slice(None),
) -> Tensor:
    """x_d (L, K, 3) in the portrait's crop for the chosen driving frames; `neutral` counts from the driving video's frame 0.

    Raises InputError where there is no such frame.
    """
    if not 0 <= neutral < len(keypoints):
        raise InputError(f"The neutral frame {neutral} is not among the {len(keypoints)} driving frames.")
    driver, at_rest = keypoints.driver[frames], keypoints.driver[neutral : neutral + 1]
    if keypoints.of_video:
        keypoints = keypoints[frames]
    if mode == "relative":
        driver, at_rest = in_portrait_crop(driver, at_rest, keypoints.portrait, keypoints.portrait_crop)
    x_d = retarget(keypoints.portrait, driver, at_rest, mode, pose_gain, expression_gain, gains)
    return x_d if keypoints.finish is None else finish(transform(keypoints.portrait), x_d, keypoints.finish)


def drive_keypoints(
    keypoints: Keypoints,
    mode: Mode = "relative",
    pose_gain: float = 1.0,
    expression_gain: float = 1.0,
    neutral: int | None = None,
    gains: Gains = FULL,
    frames: slice = slice(None),
) -> DrivenKeypoints:
    """x_d of the chosen driving frames, with what the motion maps need of the keypoints. `relative` continues across cuts.

    neutral: the neutral frame, counted from the driving video's frame 0; None: `find_neutral` chooses it. Raises InputError as
    `driven_keypoints` and `vid2vid.retarget.retarget` do.
    """
    if neutral is None:
        neutral = find_neutral(keypoints)
    if mode == "relative":
        keypoints = without_cuts(keypoints)
    x_d = driven_keypoints(keypoints, mode, pose_gain, expression_gain, neutral, gains, frames)
    return DrivenKeypoints(x_d, keypoints[frames], frames.indices(len(keypoints))[0])
