"""The row "LivePortrait": its own chain by its public weights, on the evaluation's frame.

Relative motion from the driving video's first frame, as in LivePortrait; stitching where the weights have it; G's face crop
pasted into the portrait at the portrait's own size; then the part of it that the evaluation's frame shows. It makes its own
keypoints, because M of other weights made the evaluation's motion.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ...animation.extraction import extract_keypoints
from ...animation.framing import sample_frame
from ...animation.mapping import PortraitMotion, motion_maps
from ...animation.retargeting import drive_keypoints
from ...animation.vid2vid_frames import check_generator, portrait_frames
from ...face.crop import rescale
from ...vid2vid import FaceVid2Vid
from ...vid2vid.checkpoint import load_stitching, load_vid2vid, stitching_beside
from ...vid2vid.stitching import Finish, check_keypoints
from ..source import Source

LIVEPORTRAIT = "LivePortrait"


@dataclass(frozen=True)
class LivePortrait:
    """Face Vid2vid with its generator, and stitching."""

    vid2vid: FaceVid2Vid
    stitching: Finish | None  # None: the weights have none, and the shoulders follow the head


def load_liveportrait(path: Path) -> LivePortrait:
    """The networks of a folder in the public layout, of one of its files with its neighbours, or of a converted bundle.

    WeightsError where F, M, W or G is missing or a file is damaged, InputError where stitching is of another number of keypoints.
    """
    vid2vid, beside = load_vid2vid(path), stitching_beside(path)
    check_generator(vid2vid)
    if beside is None:
        return LivePortrait(vid2vid, None)
    networks = load_stitching(beside)
    check_keypoints(networks, vid2vid.cfg.num_kp)
    return LivePortrait(vid2vid, Finish(networks, shoulders=True))


@torch.inference_mode()
def liveportrait_frames(networks: LivePortrait, source: Source, motion: PortraitMotion, size: int) -> Tensor:
    """LivePortrait's animation of the source (L, 3, size, size) in [0, 1] on the CPU, on a frame that shows of the portrait what
    the evaluation's own `motion` shows."""
    driving = source.driving.float() / 255
    keypoints = extract_keypoints(networks.vid2vid, source.portrait, driving, source.points, source.track)
    driven = drive_keypoints(replace(keypoints, finish=networks.stitching), neutral=0)
    own = motion_maps(networks.vid2vid, driven, motion.maps.height)
    frames = portrait_frames(networks.vid2vid, own, source.portrait)  # (n, H, W, 3), chunk by chunk
    to_frame = rescale(size / motion.maps.height) @ motion.portrait_to_frame
    return torch.cat([sample_frame(chunk.movedim(-1, 1), to_frame, size) for chunk in frames])
