"""Extract: face points -> crops -> poses (M) and the portrait's appearance feature f_r (F). Paper, Sec. "Preliminary"."""

from collections.abc import Iterator
from dataclasses import fields

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError
from ..face.crop import clip_crop, points_to_crop, sample_crop
from ..face.measured import Frames, Measured, known_length
from ..face.track import FaceTrack, Gaps
from ..memory import Ladder, halves, pieces
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


def portrait_features(vid2vid: FaceVid2Vid, keypoints: Keypoints, frames: slice) -> Tensor:
    """f_r in W's dtype on its device: (1, C, D, h, w) of a still portrait, (n, C, D, h, w) of these frames of a portrait video."""
    feature = keypoints.feature
    if keypoints.of_video:
        feature = appearance_of(vid2vid, crop_faces(vid2vid, keypoints.picture[frames], keypoints.portrait_crop[frames]))
    return feature.to(device_of(vid2vid), dtype_of(vid2vid.warping))


def poses_of(vid2vid: FaceVid2Vid, pictures: Tensor, to_crop: Tensor, ladder: Ladder) -> Pose:
    """M's poses of pictures (n, H, W, 3) in crops (3, 3) or (n, 3, 3), on the CPU: at once, or in what fits into memory."""

    def poses(part: slice) -> Pose:
        return vid2vid.motion(crop_faces(vid2vid, pictures[part], to_crop if to_crop.ndim == 2 else to_crop[part])).to("cpu")

    return cat([pose for pose, _ in pieces(len(pictures), ladder, poses)])


def tracked_poses(
    vid2vid: FaceVid2Vid, pictures: Frames | Measured, to_crop: Tensor, track: FaceTrack, callback: Progress | None = None
) -> Pose:
    """Poses of L pictures (L, H, W, 3), in crops (3, 3) or (L, 3, 3). M sees only those with a face, unless none is missing.

    Of a stream of pictures CHUNK at a time are in memory; there may be more of them than the track has.
    """
    length = len(track.points)
    wanted = torch.ones(length, dtype=torch.bool) if track.gaps is None else track.present
    total, ladder = int(wanted.sum()), Ladder("Poses (M)", halves(CHUNK))

    def parts() -> Iterator[Pose]:
        done = 0
        for frames, chunk in chunks(pictures, wanted):
            crops = to_crop if to_crop.ndim == 2 else to_crop[frames]
            yield poses_of(vid2vid, chunk, crops, ladder)
            done += len(frames)
            if callback is not None:
                callback(done * length // total, length)

    poses = gather(parts(), total)
    return poses if track.gaps is None else fill_gaps(poses, track.present, track.gaps)


def gather(parts: Iterator[Pose], total: int) -> Pose:
    """Poses that come in parts, `total` of them in all. They are copied to their place as they come: small tensors that stay
    between the large ones of a network would keep the memory of those.
    """
    whole, done = None, 0
    for part in parts:
        if whole is None:
            whole = Pose(*(values.new_empty(total, *values.shape[1:]) for values in (getattr(part, name) for name in names())))
        for name in names():
            getattr(whole, name)[done : done + len(part)] = getattr(part, name)
        done += len(part)
    return whole[:done]


def names() -> list[str]:
    return [field.name for field in fields(Pose)]


def chunks(pictures: Frames | Measured, wanted: Tensor) -> Iterator[tuple[list[int], Tensor]]:
    """The numbers of up to CHUNK wanted (L,) pictures, and those pictures (n, H, W, 3) in [0, 1]."""
    numbers, chunk = [], []
    for i, picture in enumerate(pictures):
        if i < len(wanted) and wanted[i]:
            numbers.append(i)
            chunk.append(in_unit(picture))
        if len(chunk) == CHUNK:
            yield numbers, torch.stack(chunk)
            numbers, chunk = [], []
    if chunk:
        yield numbers, torch.stack(chunk)


def in_unit(picture: Tensor | np.ndarray) -> Tensor:
    """A picture in [0, 1] or uint8 as float32 in [0, 1], as `load_video` makes it."""
    picture = torch.as_tensor(picture)
    return picture / 255 if picture.dtype == torch.uint8 else picture


def portrait_side(
    vid2vid: FaceVid2Vid, portrait: Tensor, points: Tensor | FaceTrack, callback: Progress | None = None
) -> tuple[Pose, Tensor, Tensor, Tensor]:
    """Pose, f_r, crop and face points of a portrait (1, H, W, 3) with points (5, 2) px, or of a video (L, H, W, 3) with its track.

    f_r is (1, C, D, h, w), the first frame's. Each frame of a video has a crop of its own (L, 3, 3), steadied with the track.
    Raises InputError where video and track differ in length.
    """
    if not isinstance(points, FaceTrack):
        crop = points_to_crop(points)
        face = crop_faces(vid2vid, portrait, crop)  # (1, 3, S, S)
        return vid2vid.motion(face).to("cpu"), appearance_of(vid2vid, face), crop, points
    if len(portrait) != len(points.points):
        raise InputError(f"The portrait video has {len(portrait)} frames and its face track {len(points.points)}.")
    crop = points_to_crop(points.points)  # (L, 3, 3)
    feature = appearance_of(vid2vid, crop_faces(vid2vid, portrait[:1], crop[:1]))
    return tracked_poses(vid2vid, portrait, crop, points, callback), feature, crop, points.points


def both_weights(driver: Tensor | None, portrait: Tensor | FaceTrack) -> Tensor | None:
    """The motion's weight (L,): it fades where the face is missing in either video; None: 1 everywhere."""
    own = portrait.motion_weight if isinstance(portrait, FaceTrack) else None
    if driver is None or own is None:
        return own if driver is None else driver
    return torch.minimum(driver, own)


def extract_keypoints(
    vid2vid: FaceVid2Vid,
    portrait: Tensor,
    driver: Frames,
    portrait_points: Tensor | FaceTrack,
    track: FaceTrack,
    callback: Progress | None = None,
) -> Keypoints:
    """Poses of portrait (1, H, W, 3) and driving frames (L, H', W', 3), both in [0, 1], and f_r.

    driver may be a FrameStream: it is read once, with CHUNK frames in memory at a time.
    portrait_points (5, 2) px; track: the face in the driving frames. For a portrait video (L, H, W, 3) its own track takes the
    place of the points. callback(done, total) after each chunk of frames, those of a portrait video counted too. Raises InputError
    where frames and tracks differ in length.
    """
    length = len(track.points)
    if known_length(driver) is not None:
        check_tracked(known_length(driver), length)
    check_lengths(portrait, portrait_points, length)
    driver_crop = clip_crop(track.points)
    before = len(portrait) if isinstance(portrait_points, FaceTrack) else 0  # frames in M before the driving ones

    def count(done: int, total: int) -> None:
        if callback is not None:
            callback(done, before + length)

    pose, feature, portrait_crop, points = portrait_side(vid2vid, portrait, portrait_points, count)
    pictures = Measured(driver, "driving")
    driver_pose = tracked_poses(vid2vid, pictures, driver_crop, track, lambda done, total: count(before + done, total))
    check_tracked(pictures.length, length)
    return Keypoints(
        portrait=pose,
        driver=driver_pose,
        feature=feature,
        portrait_crop=portrait_crop,
        driver_crop=driver_crop,
        portrait_points=points,
        driver_points=track.points,
        present=track.present,
        portrait_size=(portrait.shape[1], portrait.shape[2]),
        driver_size=pictures.size,
        encoder=motion_fingerprint(vid2vid),
        cuts=track.cuts,
        motion_weight=both_weights(track.motion_weight, portrait_points),
        picture=portrait,
    )


def check_tracked(frames: int, tracked: int) -> None:
    """Raises InputError where the driving video has another number of frames than its face track."""
    if frames != tracked:
        raise InputError(f"The driving video has {frames} frames and its face track {tracked}.")


def check_lengths(portrait: Tensor, points: Tensor | FaceTrack, driving_frames: int) -> None:
    """Raises InputError unless a portrait video has a frame for each driving frame."""
    if isinstance(points, FaceTrack) and len(portrait) != driving_frames:
        raise InputError(
            f"The portrait video has {len(portrait)} frames and the driving video {driving_frames}: cut the longer one to the same "
            "number."
        )


def fill_gaps(poses: Pose, present: Tensor, gaps: Gaps) -> Pose:
    """Poses of the present.sum() frames with a face -> poses of all L frames; present (L,) bool."""
    number = present.cumsum(0) - 1  # of a frame among those with a face
    held = poses[number[gaps.before]]
    return interpolate_poses(held, poses[number[gaps.after]], gaps.share) if gaps.share.any() else held
