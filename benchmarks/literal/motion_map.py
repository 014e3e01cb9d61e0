"""The motion position map of the whole frame, masked, and the motion mapper on it."""

import torch
import torch.nn.functional as F
from torch import Tensor

from realportrait_core.dit.motion_mapper import MotionMapper
from realportrait_core.motion_map import MotionMaps


def motion_map(maps: MotionMaps) -> Tensor:
    """(L, C, H, W): f_{r->d} at each pixel's position in the crop, 0 outside the face."""
    y, x = torch.meshgrid(torch.arange(maps.height), torch.arange(maps.width), indexing="ij")
    pixel = torch.stack([x, y, torch.ones_like(x)], -1).to(maps.face)  # (H, W, 3)
    position = torch.einsum("lij,hwj->lhwi", maps.frame_to_crop, pixel)[..., :2]  # (L, H, W, 2) crop px
    grid = ((2 * position + 1) / maps.crop - 1).to(maps.f)
    warped = F.grid_sample(maps.f, grid, padding_mode="zeros", align_corners=False)  # (L, C, H, W)
    mask = torch.einsum("lij,hwj->lhwi", maps.face, pixel).norm(dim=-1) <= 1  # (L, H, W)
    return warped * mask[:, None]


def motion_latent(mapper: MotionMapper, maps: MotionMaps) -> Tensor:
    """The map through the motion mapper's three convolutions: (L, c, H / 8, W / 8)."""
    first, second, third = (mapper[i] for i in (0, 2, 4))
    return third(F.silu(second(F.silu(first(motion_map(maps))))))
