"""The motion of a driving video on its own, as a motion file keeps it, and its combination with a new portrait."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import InputError
from ..face.track import FaceTrack
from ..vid2vid import FaceVid2Vid
from ..vid2vid.checkpoint import motion_fingerprint
from ..vid2vid.keypoints import Pose, rotation_angles, transform
from ..vid2vid.retarget import MotionParameters
from .extraction import both_weights, check_lengths, portrait_side
from .keypoints import Keypoints, crop_to_keypoints, keypoints_to_crop, without_cuts


@dataclass(frozen=True)
class DrivingMotion:
    """The motion of L driving frames, without a portrait."""

    motion: MotionParameters  # L frames, all in one crop of the driving video
    canonical: Tensor | None  # (L, K, 3); None where only the motion is known, as in LivePortrait's templates
    points: Tensor | None  # (L, 5, 2) px, or None
    crop: Tensor  # (3, 3) float64, driving frame px -> crop px
    present: Tensor  # (L,) bool, whether the face was found in the driving frame
    size: tuple[int, int]  # height, width in px
    fps: float  # frames a second
    encoder: str  # motion_fingerprint of the M that predicted it; empty where it is not known

    def __len__(self) -> int:
        return len(self.motion.rotation)

    def __getitem__(self, frames: slice) -> "DrivingMotion":
        motion = self.motion
        return replace(
            self,
            motion=MotionParameters(
                motion.rotation[frames], motion.expression[frames], motion.scale[frames], motion.translation[frames]
            ),
            canonical=None if self.canonical is None else self.canonical[frames],
            points=None if self.points is None else self.points[frames],
            present=self.present[frames],
        )


def driving_motion(keypoints: Keypoints, fps: float) -> DrivingMotion:
    """The driving side of the keypoints, continued across cuts."""
    keypoints = without_cuts(keypoints)
    pose = keypoints.driver
    return DrivingMotion(
        motion=MotionParameters(pose.rotation, pose.expression, pose.scale, pose.translation),
        canonical=pose.canonical,
        points=keypoints.driver_points,
        crop=keypoints.driver_crop,
        present=keypoints.present,
        size=keypoints.driver_size,
        fps=fps,
        encoder=keypoints.encoder,
    )


def apply_to_portrait(
    vid2vid: FaceVid2Vid, portrait: Tensor, portrait_points: Tensor | FaceTrack, driver: DrivingMotion
) -> Keypoints:
    """Keypoints as of `extract_keypoints`, from a portrait (1, H, W, 3) in [0, 1], its face points (5, 2) px and a saved motion;
    or from a portrait video (L, H, W, 3), its track and a motion of L frames.

    Where the motion has no canonical keypoints or face points, the portrait's are used. Raises InputError for a motion with
    another number of keypoints, or from another M: its expressions would have another meaning.
    """
    own, k = motion_fingerprint(vid2vid), driver.motion.expression.shape[1]
    if k != vid2vid.cfg.num_kp:
        raise InputError(
            f"The motion has {k} keypoints and this Face Vid2vid {vid2vid.cfg.num_kp}: other weights extracted it. "
            "Load those, or extract the keypoints again from the driving frames."
        )
    if driver.encoder and driver.encoder != own:
        raise InputError(
            f"Other Face Vid2vid weights extracted the motion (fingerprint {driver.encoder}, these are {own}): its expressions "
            "have another meaning here. Load those weights, or extract the keypoints again from the driving frames."
        )
    check_lengths(portrait, portrait_points, len(driver))
    pose, feature, portrait_crop, own_points = portrait_side(vid2vid, portrait, portrait_points)
    motion = driver.motion
    canonical = pose.canonical.expand(len(driver), k, 3) if driver.canonical is None else driver.canonical
    poses = Pose(canonical, motion.rotation, *rotation_angles(motion.rotation), motion.expression, motion.scale, motion.translation)
    points = driver.points
    if points is None:
        points = points_from_poses(pose, poses, own_points, portrait_crop, driver.crop)
    return Keypoints(
        portrait=pose,
        driver=poses,
        feature=feature,
        portrait_crop=portrait_crop,
        driver_crop=driver.crop,
        portrait_points=own_points,
        driver_points=points,
        present=driver.present,
        portrait_size=(portrait.shape[1], portrait.shape[2]),
        driver_size=driver.size,
        encoder=own,
        motion_weight=both_weights(None, portrait_points),
        picture=portrait,
    )


def points_from_poses(portrait: Pose, driver: Pose, portrait_points: Tensor, portrait_crop: Tensor, driver_crop: Tensor) -> Tensor:
    """Estimated face points (L, 5, 2) px of driving frames whose poses alone are known.

    portrait: 1 pose with points (5, 2) px and a crop (3, 3), or L poses of a portrait video with L of each.

    The portrait's points under the 2-D similarity transform (rotation, scale, translation) that brings the portrait's
    keypoints closest to the driving frame's, by least squares.
    """

    def plane(x: Tensor) -> Tensor:  # (..., 2) as complex numbers
        return torch.view_as_complex(x[..., :2].double().contiguous())

    source, target = plane(transform(portrait)), plane(transform(driver))  # (1 or L, K), (L, K)
    mean, target_mean = source.mean(1, keepdim=True), target.mean(1, keepdim=True)
    spread = (source - mean).abs().square().sum(1, keepdim=True)
    similarity = ((source - mean).conj() * (target - target_mean)).sum(1, keepdim=True) / spread
    points = torch.cat([portrait_points.double(), portrait_points.new_ones(*portrait_points.shape[:-1], 1).double()], -1)
    points = plane(crop_to_keypoints(points @ portrait_crop[..., :2, :].mT))  # (5,) or (L, 5)
    points = keypoints_to_crop(torch.view_as_real(target_mean + similarity * (points - mean)))  # (L, 5, 2)
    back = torch.linalg.inv(driver_crop)
    return (points @ back[:2, :2].T + back[:2, 2]).float()
