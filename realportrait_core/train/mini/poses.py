"""The poses that M extracts from clips, and their blend with the true ones."""

from dataclasses import replace

import torch

from ...errors import InputError
from ...vid2vid.interpolation import interpolate_poses
from ...vid2vid.keypoints import Pose, cat
from ...vid2vid.motion import MotionExtractor
from .clip_sets import RenderedSet
from .crops import crop_batch

EXTRACTED_AT_ONCE = 256  # faces that go through M together


@torch.no_grad()
def with_blended_poses(data: RenderedSet, motion: MotionExtractor, share: float) -> RenderedSet:
    """The clips with poses between M's estimates (share 0) and the true ones (share 1).

    A DiT trained on inaccurate motion maps learns not to rely on them, and blurs; with accurate maps it learns to follow them.
    """
    if not 0 <= share <= 1:
        raise InputError(f"The poses' share of the truth is {share}; it must be 0 (M's estimates) to 1 (the rendered poses).")
    if share == 1:
        return data
    estimated = extract_poses(motion, data.frames, data.portrait_crops, data.clip_crops)
    share = torch.full((len(estimated[0]),), share, device=data.device)
    portrait, driver = (interpolate_poses(*poses, share) for poses in zip(estimated, (data.portrait_poses, data.driver_poses)))
    return replace(data, portrait_poses=portrait, driver_poses=driver)


@torch.no_grad()
def extract_poses(motion: MotionExtractor, frames: torch.Tensor, portrait: torch.Tensor, clip: torch.Tensor) -> tuple[Pose, Pose]:
    """M's estimates for frames (N, T, 3, S, S): N T poses in portrait crops (N, T, 3, 3), N T in the clips' crops (N, 3, 3)."""
    return poses_in_crops(motion, frames, portrait), poses_in_crops(motion, frames, clip[:, None].expand_as(portrait))


def poses_in_crops(motion: MotionExtractor, frames: torch.Tensor, crops: torch.Tensor) -> Pose:
    """Of frames (N, T, 3, S, S) in crops (N, T, 3, 3): N T poses."""
    pictures, crops, found = frames.flatten(0, 1), crops.flatten(0, 1), []
    for some in torch.arange(len(crops), device=frames.device).split(EXTRACTED_AT_ONCE):
        found.append(motion(crop_batch(pictures[some].float() / 255, crops[some], motion.cfg.crop_size)))
    return cat(found)
