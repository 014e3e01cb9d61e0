"""Extract: face points -> crops -> poses (M) and the portrait's appearance feature f_r (F). Paper, Sec. "Preliminary"."""

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..face.crop import clip_crop, points_to_crop, sample_crop
from ..face.track import FaceTrack, Gaps
from ..vid2vid import FaceVid2Vid
from ..vid2vid.checkpoint import motion_fingerprint
from ..vid2vid.interpolation import interpolate_poses
from ..vid2vid.keypoints import Pose, cat
from .keypoints import Keypoints, Progress

CHUNK = 8  # frames that pass through a network at once, so that memory does not grow with the video


def device_of(network: nn.Module) -> torch.device:
    return next(network.parameters()).device


def dtype_of(network: nn.Module) -> torch.dtype:
    return next(network.parameters()).dtype


def crop_faces(vid2vid: FaceVid2Vid, pictures: Tensor, to_crop: Tensor) -> Tensor:
    """The input of F and M: pictures (L, H, W, 3), to_crop (3, 3) or (L, 3, 3), picture px -> crop px.

    Returns (L, 3, size, size) on the networks' device.
    """
    return sample_crop(pictures.movedim(-1, 1).to(device_of(vid2vid), torch.float32), to_crop, vid2vid.cfg.crop_size)


def appearance_of(vid2vid: FaceVid2Vid, faces: Tensor) -> Tensor:
    """f_r (n, C, D, h, w) of face crops (n, 3, S, S), on the CPU, in F's own dtype."""
    return vid2vid.appearance(faces.to(dtype_of(vid2vid.appearance))).cpu()


def extract_keypoints(
    vid2vid: FaceVid2Vid,
    portrait: Tensor,
    driver: Tensor,
    portrait_points: Tensor,
    track: FaceTrack,
    callback: Progress | None = None,
) -> Keypoints:
    """Poses of portrait (1, H, W, 3) and driving frames (L, H', W', 3), both in [0, 1], and f_r.

    portrait_points (5, 2) px; track: the face in the driving frames. callback(done, total) after each chunk of frames.
    Raises InputError where driving frames and track differ in length.
    """
    if len(driver) != len(track.points):
        raise InputError(f"The driving video has {len(driver)} frames and its face track {len(track.points)}.")
    portrait_crop, driver_crop = points_to_crop(portrait_points), clip_crop(track.points)
    face = crop_faces(vid2vid, portrait, portrait_crop)  # (1, 3, S, S)
    faces = torch.arange(len(driver)) if track.gaps is None else track.present.nonzero()[:, 0]
    poses = []
    for start in range(0, len(faces), CHUNK):
        poses.append(vid2vid.motion(crop_faces(vid2vid, driver[faces[start : start + CHUNK]], driver_crop)).to("cpu"))
        if callback is not None:
            callback(min(start + CHUNK, len(faces)) * len(driver) // len(faces), len(driver))
    return Keypoints(
        portrait=vid2vid.motion(face).to("cpu"),
        driver=cat(poses) if track.gaps is None else fill_gaps(cat(poses), track.present, track.gaps),
        feature=appearance_of(vid2vid, face),
        portrait_crop=portrait_crop,
        driver_crop=driver_crop,
        portrait_points=portrait_points,
        driver_points=track.points,
        present=track.present,
        portrait_size=(portrait.shape[1], portrait.shape[2]),
        driver_size=(driver.shape[1], driver.shape[2]),
        encoder=motion_fingerprint(vid2vid),
        cuts=track.cuts,
        motion_weight=track.motion_weight,
        picture=portrait,
    )


def fill_gaps(poses: Pose, present: Tensor, gaps: Gaps) -> Pose:
    """Poses of the present.sum() frames with a face -> poses of all L frames; present (L,) bool."""
    number = present.cumsum(0) - 1  # of a frame among those with a face
    held = poses[number[gaps.before]]
    return interpolate_poses(held, poses[number[gaps.after]], gaps.share) if gaps.share.any() else held
