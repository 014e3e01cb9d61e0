"""W as the equations have it: K + 1 copies of the feature, each warped by its own motion, and the motions' weighted sum."""

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor

from realportrait_core.vid2vid.warp import HEATMAP_VARIANCE, Warped, WarpingNetwork, coordinate_grid, head_turn


def warp(w: WarpingNetwork, f_r: Tensor, x_d: Tensor, x_s: Tensor) -> Warped:
    """f_r (1, C, D, h, w), x_d (B, K, 3), x_s (1, K, 3), float32."""
    dense = w.dense_motion_network
    frames, (depth, height, width) = len(x_d), (f_r.shape[2], *(side // 2**w.cfg.dense_down for side in f_r.shape[3:]))
    f_r, x_s = f_r.repeat(frames, 1, 1, 1, 1), x_s.repeat(frames, 1, 1)

    # Sparse motions: the identity for the background; around keypoint k, p -> x_s,k + J (p - x_d,k).
    grid = coordinate_grid(depth, height, width, f_r.device, centred=w.cfg.first_order)
    turn = head_turn(x_d, x_s) if w.cfg.first_order else torch.eye(3, device=f_r.device).expand(frames, 3, 3)
    around = torch.einsum("bkdhwi,bij->bkdhwj", grid - x_d[:, :, None, None, None], turn) + x_s[:, :, None, None, None]
    motions = torch.cat([grid.expand(frames, 1, -1, -1, -1, -1), around], 1)  # (B, K+1, D, h, w, 3)

    # Input of the dense motion network: the feature warped by each motion, and the heatmaps of the keypoints.
    feature = F.relu(dense.norm(dense.compress(f_r)))  # (B, c, D, h, w)
    feature = F.adaptive_avg_pool3d(feature, (depth, height, width))
    copies = repeat(feature, "b c d h w -> (b k) c d h w", k=motions.shape[1])
    moved = F.grid_sample(copies, motions.flatten(0, 1), align_corners=False)
    heat = heatmap(grid, x_d) - heatmap(grid, x_s)  # (B, K, D, h, w)
    heat = torch.cat([torch.zeros_like(heat[:, :1]), heat], 1)
    inputs = torch.cat([heat[:, :, None], rearrange(moved, "(b k) c d h w -> b k c d h w", b=frames)], 2)

    features = dense.hourglass(inputs.flatten(1, 2))
    mask = dense.mask(features).softmax(1)  # (B, K+1, D, h, w)
    deformation = (mask[..., None] * motions).sum(1)  # (B, D, h, w, 3)
    occlusion = torch.sigmoid(dense.occlusion(features.flatten(1, 2)))  # (B, 1, h, w)
    if w.cfg.dense_down:  # the deformation is predicted on a coarser grid than it is applied on
        fine = coordinate_grid(*f_r.shape[2:], f_r.device, centred=w.cfg.first_order)
        shifts = (deformation - grid).permute(0, 4, 1, 2, 3)
        deformation = fine + F.interpolate(shifts, fine.shape[:3], mode="trilinear").permute(0, 2, 3, 4, 1)
        occlusion = F.interpolate(occlusion, f_r.shape[3:], mode="bilinear")
    warped = F.grid_sample(f_r, deformation, align_corners=False)
    return Warped(w.fourth(w.third(warped.flatten(1, 2))) * occlusion, occlusion, deformation)


def heatmap(grid: Tensor, x: Tensor) -> Tensor:
    """exp(-|p - x|^2 / 2 variance) of every point p, (B, K, D, h, w)."""
    return torch.exp(-0.5 / HEATMAP_VARIANCE * (grid - x[:, :, None, None, None]).square().sum(-1))
