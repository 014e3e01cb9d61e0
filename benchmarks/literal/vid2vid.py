"""F, M, W and G as the code published with the weights computes them at inference, and as well as a competent author would.

Batch norms are layers of their own. Spectral norm is fused into the weights, the portrait's feature is compressed once for all
frames of a call, its K + 1 copies are views, and heatmaps hold no denormal numbers: with those, which the published formula has,
W takes half as long again, and that is not counted as a gain.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from realportrait_core.vid2vid.appearance import AppearanceExtractor
from realportrait_core.vid2vid.generator import SLOPE, SPADE, Generator, SPADEResBlock
from realportrait_core.vid2vid.motion import ConvNeXtBlock, MotionExtractor
from realportrait_core.vid2vid.warp import (
    HEATMAP_VARIANCE,
    HEATMAP_ZERO,
    DenseMotion,
    Hourglass,
    WarpingNetwork,
    coordinate_grid,
    head_turn,
)


def appearance(f: AppearanceExtractor, image: Tensor) -> Tensor:
    """F: (B, 3, S, S) -> f_r (B, C, D, h, w)."""
    x = F.relu(f.first.norm(f.first.conv(image)))
    for block in f.down_blocks:
        x = F.avg_pool2d(F.relu(block.norm(block.conv(x))), 2)
    x = f.second(x).unflatten(1, (f.cfg.reshape_channel, f.cfg.reshape_depth))
    for block in f.resblocks_3d:
        h = block.conv1(F.relu(block.norm1(x)))
        h = block.conv2(F.relu(block.norm2(h)))
        h += x
        x = h
    return x


def motion(m: MotionExtractor, image: Tensor) -> Tensor:
    """M: (B, 3, S, S) -> all of the heads' outputs (B, N): pitch, yaw, roll, t, exp, scale, kp."""
    net = m.detector
    (patchify, norm), *halvings = net.downsample_layers
    x = norm(patchify(image).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    for i, stage in enumerate(net.stages):
        if i:
            norm, halve = halvings[i - 1]
            x = halve(norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
        for block in stage:
            x = x + convnext_branch(block, x)
    x = net.norm(x.mean((2, 3)))
    heads = (net.fc_pitch, net.fc_yaw, net.fc_roll, net.fc_t, net.fc_exp, net.fc_scale, net.fc_kp)
    return torch.cat([head(x) for head in heads], 1)


def convnext_branch(block: ConvNeXtBlock, x: Tensor) -> Tensor:
    h = F.gelu(block.pwconv1(block.norm(block.dwconv(x).permute(0, 2, 3, 1))))  # (B, H, W, 4C)
    energy = torch.linalg.vector_norm(h, dim=(1, 2), keepdim=True)
    share = energy / (energy.mean(-1, keepdim=True) + 1e-6)
    h = block.grn.gamma * (h * share) + block.grn.beta + h
    return block.pwconv2(h).permute(0, 3, 1, 2)


def warp(w: WarpingNetwork, f_r: Tensor, x_d: Tensor, x_s: Tensor) -> Tensor:
    """W: f_r (1, C, D, h, w), x_d (B, K, 3), x_s (1, K, 3), float32 -> f_{r->d} (B, Cw, h, w)."""
    deformation, occlusion = dense_motion(w.dense_motion_network, f_r, x_d, x_s, 2**w.cfg.dense_down)
    if w.cfg.dense_down:  # the deformation is predicted on a coarser grid than it is applied on
        coarse, fine = (
            coordinate_grid(*size, f_r.device, centred=w.cfg.first_order) for size in (deformation.shape[1:4], f_r.shape[2:])
        )
        shifts = (deformation - coarse).permute(0, 4, 1, 2, 3)
        deformation = fine + F.interpolate(shifts, fine.shape[:3], mode="trilinear").permute(0, 2, 3, 4, 1)
        occlusion = F.interpolate(occlusion, f_r.shape[3:], mode="bilinear")
    warped = F.grid_sample(f_r.expand(len(x_d), -1, -1, -1, -1), deformation, align_corners=False)
    x = F.leaky_relu(w.third.norm(w.third.conv(warped.flatten(1, 2))), w.third.slope)
    return w.fourth(x) * occlusion


def dense_motion(dense: DenseMotion, f_r: Tensor, x_d: Tensor, x_s: Tensor, coarser: int) -> tuple[Tensor, Tensor]:
    """Deformation (B, D, h, w, 3) and occlusion map (B, 1, h, w)."""
    frames = len(x_d)
    feature = F.relu(dense.norm(dense.compress(f_r)))  # (1, c, D, h, w)
    if coarser > 1:
        feature = F.avg_pool3d(feature, (1, coarser, coarser))
    grid = coordinate_grid(*feature.shape[2:], f_r.device, centred=dense.first_order)

    # Sparse motions: the identity for the background; around keypoint k, p -> x_s,k + J (p - x_d,k).
    around = grid - x_d[:, :, None, None, None]
    if dense.first_order:
        around = torch.einsum("bkdhwi,bij->bkdhwj", around, head_turn(x_d, x_s.expand(frames, -1, -1)))
    around = around + x_s[:, :, None, None, None]
    motions = torch.cat((grid.expand(frames, 1, -1, -1, -1, -1), around), 1)  # (B, K+1, D, h, w, 3)

    # Input of the hourglass: the feature warped by each motion, and the heatmaps of the keypoints.
    copies = feature.expand(motions[:, :, 0, 0, 0, 0].numel(), -1, -1, -1, -1)
    moved = F.grid_sample(copies, motions.flatten(0, 1), align_corners=False).unflatten(0, motions.shape[:2])
    heat = heatmap(grid, x_d) - heatmap(grid, x_s)  # (B, K, D, h, w)
    heat = torch.cat((torch.zeros_like(heat[:, :1]), heat), 1)
    features = hourglass(dense.hourglass, torch.cat((heat[:, :, None], moved), 2).flatten(1, 2))

    mask = dense.mask(features).softmax(1)  # (B, K+1, D, h, w)
    deformation = (mask[..., None] * motions).sum(1)  # (B, D, h, w, 3)
    return deformation, torch.sigmoid(dense.occlusion(features.flatten(1, 2)))


def heatmap(grid: Tensor, x: Tensor) -> Tensor:
    """exp(-|p - x|^2 / 2 variance) of every point p, (B, K, D, h, w)."""
    heat = torch.exp(-0.5 / HEATMAP_VARIANCE * (grid - x[:, :, None, None, None]).square().sum(-1))
    return F.threshold(heat, HEATMAP_ZERO, 0)


def hourglass(network: Hourglass, x: Tensor) -> Tensor:
    skips = []
    for block in network.encoder.down_blocks:
        skips.append(x)
        x = F.avg_pool3d(F.relu(block.norm(block.conv(x))), (1, 2, 2))
    for block in network.decoder.up_blocks:
        x = F.relu(block.norm(block.conv(F.interpolate(x, scale_factor=(1, 2, 2)))))
        x = torch.cat((x, skips.pop()), 1)
    return F.relu(network.decoder.norm(network.decoder.conv(x)))


def generator(g: Generator, f: Tensor) -> Tensor:
    """G: f_{r->d} (B, Cw, h, w) -> picture (B, 3, H, W)."""
    x = g.fc(f)
    for name in g.middle_names:
        x = spade_block(getattr(g, name), x, f)
    for block in (g.up_0, g.up_1):
        x = spade_block(block, F.interpolate(x, scale_factor=2), f)
    return torch.sigmoid(g.conv_img(F.leaky_relu(x, SLOPE)))


def spade_block(block: SPADEResBlock, x: Tensor, label: Tensor) -> Tensor:
    shortcut = block.conv_s(spade(block.norm_s, x, label)) if block.changes_width else x
    h = block.conv_0(F.leaky_relu(spade(block.norm_0, x, label), SLOPE))
    h = block.conv_1(F.leaky_relu(spade(block.norm_1, h, label), SLOPE))
    return shortcut + h


def spade(layer: SPADE, x: Tensor, label: Tensor) -> Tensor:
    shared: nn.Sequential = layer.mlp_shared
    h = shared(F.interpolate(label, size=x.shape[2:]))
    return F.instance_norm(x) * (1 + layer.mlp_gamma(h)) + layer.mlp_beta(h)
