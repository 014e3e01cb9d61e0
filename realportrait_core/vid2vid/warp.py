"""W, the warping network: warps the feature volume f_r to the driving keypoints, f_{r->d}.

Keypoints, grids, the mask's softmax and the deformation stay in float32 whatever dtype the network runs in:
a float16 grid is off by 0.016 cells, a bfloat16 grid by 0.125.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from ..config import Vid2VidConfig
from ..errors import InputError
from .blocks import ConvNorm, shortcuts_pay
from .fourier import MaskAndOcclusion
from .sampling import sample_shifted, sample_volume
from .upsampled import convolve_upsampled

HEATMAP_VARIANCE = 0.01
SQUARINGS = 24  # of a 4 x 4 matrix: separates eigenvalues 1e-6 apart
HEATMAP_ZERO = 1e-30  # smaller values would be denormal numbers, with which convolutions take five times as long


@dataclass(frozen=True)
class Warped:
    """The output of W for B driving frames."""

    out: torch.Tensor  # (B, Cw, h, w) f_{r->d}, after the occlusion map
    occlusion: torch.Tensor  # (B, 1, h, w) in [0, 1]
    deformation: torch.Tensor  # (B, D, h, w, 3) where in f_r each cell comes from: x, y, z in [-1, 1]


def axis(n: int, device: torch.device, centred: bool = False) -> torch.Tensor:
    """n coordinates between -1 and 1: from end to end, or where grid_sample has the centres of n cells."""
    reach = 1 - 1 / n if centred else 1.0
    return torch.linspace(-reach, reach, n, device=device)


def coordinate_grid(depth: int, height: int, width: int, device: torch.device, centred: bool = False) -> torch.Tensor:
    """The identity (D, h, w, 3) in x, y, z order. Volumes are sampled with align_corners=False, so from end to end this
    identity is a zoom by n/(n-1), as in the networks the public weights were trained with; centred it is exact."""
    z, y, x = torch.meshgrid(*(axis(n, device, centred) for n in (depth, height, width)), indexing="ij")
    return torch.stack((x, y, z), -1)


def gaussians(points: torch.Tensor, depth: int, height: int, width: int, centred: bool = False) -> torch.Tensor:
    """exp(-|grid - x|^2 / 2 var) around (B, K, 3) points: (B, K, D, h, w), as a product of three 1-D exponentials."""

    def along(coordinate: torch.Tensor, n: int) -> torch.Tensor:
        return torch.exp(-0.5 / HEATMAP_VARIANCE * (axis(n, points.device, centred) - coordinate[..., None]) ** 2)

    x, y, z = points.unbind(-1)
    plane = along(y, height)[..., :, None] * along(x, width)[..., None, :]  # (B, K, h, w)
    return F.threshold(along(z, depth)[..., None, None] * plane[:, :, None], HEATMAP_ZERO, 0)  # (B, K, D, h, w)


def head_turn(x_d: torch.Tensor, x_s: torch.Tensor) -> torch.Tensor:
    """Rotation times scale (B, 3, 3), for row vectors, from the keypoints x_d to x_s (B, K, 3) by least squares: Umeyama 1991."""
    if x_d.device.type in ("cuda", "meta"):
        return head_turn_on_device(x_d, x_s)
    # On the CPU in double precision, which Metal, Intel's GPUs and DirectML lack; it is nine numbers per frame.
    d, s = ((x - x.mean(1, keepdim=True)).cpu().double() for x in (x_d, x_s))
    u, stretch, vt = torch.linalg.svd(d.transpose(1, 2) @ s)
    sign = torch.ones_like(stretch)
    sign[:, 2] = torch.linalg.det(u @ vt).sign()  # no reflections
    zoom = (stretch * sign).sum(1) / d.square().sum((1, 2)).clamp_min(1e-12)
    return (zoom[:, None, None] * (u * sign[:, None]) @ vt).to(x_d)


def head_turn_on_device(x_d: torch.Tensor, x_s: torch.Tensor) -> torch.Tensor:
    """The same without a decomposition, which would synchronise with the GPU: the largest eigenvalue of Horn's 4 x 4 matrix
    (1987) belongs to the best rotation's quaternion q; repeated squaring leaves q q^T. Never a reflection."""
    d, s = ((x - x.mean(1, keepdim=True)).double() for x in (x_d, x_s))
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = (row.unbind(-1) for row in (d.transpose(1, 2) @ s).unbind(1))
    rows = (
        (xx + yy + zz, yz - zy, zx - xz, xy - yx),
        (yz - zy, xx - yy - zz, xy + yx, zx + xz),
        (zx - xz, xy + yx, yy - xx - zz, yz + zy),
        (xy - yx, zx + xz, yz + zy, zz - xx - yy),
    )
    horn = torch.stack([torch.stack(row, -1) for row in rows], 1)  # (B, 4, 4)
    lift = horn.square().sum((1, 2)).sqrt()[:, None, None] + 1e-12  # the smallest eigenvalue is at least minus this
    q = horn + lift * torch.eye(4, dtype=horn.dtype, device=horn.device)
    for _ in range(SQUARINGS):
        q = q / q.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
        q = q @ q
    q = q / q.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    zoom = (horn * q).sum((1, 2)) / d.square().sum((1, 2)).clamp_min(1e-12)
    (ww, wx, wy, wz), (_, ii, ij, ik), (_, _, jj, jk), (*_, kk) = (row.unbind(-1) for row in q.unbind(1))
    rows = (
        (ww + ii - jj - kk, 2 * (ij + wz), 2 * (ik - wy)),
        (2 * (ij - wz), ww - ii + jj - kk, 2 * (jk + wx)),
        (2 * (ik + wy), 2 * (jk - wx), ww - ii - jj + kk),
    )
    return (zoom[:, None, None] * torch.stack([torch.stack(row, -1) for row in rows], 1)).to(x_d)


def halve(x: torch.Tensor) -> torch.Tensor:
    """Average pooling of h and w in (B, C, D, h, w); in two dimensions, since avg_pool3d has no bfloat16 on the CPU."""
    pooled = F.avg_pool2d(rearrange(x, "b c d h w -> b (c d) h w"), 2)
    return rearrange(pooled, "b (c d) h w -> b c d h w", d=x.shape[2])


class Hourglass(nn.Module):
    """A U-Net over (B, C, D, h, w) that halves h and w and leaves D; out comes cat(features, input)."""

    def __init__(self, cfg: Vid2VidConfig, in_channels: int):
        super().__init__()
        widths = [min(cfg.dense_max, cfg.dense_width * 2**i) for i in range(cfg.dense_blocks + 1)]
        down_in = [in_channels, *widths[1:-1]]
        up_in = [widths[-1], *(2 * width for width in widths[-2:0:-1])]
        self.out_channels = cfg.dense_width + in_channels
        self.encoder = nn.Module()
        self.encoder.down_blocks = nn.ModuleList(ConvNorm(3, a, b) for a, b in zip(down_in, widths[1:]))
        self.decoder = nn.Module()
        self.decoder.up_blocks = nn.ModuleList(ConvNorm(3, a, b) for a, b in zip(up_in, widths[-2::-1]))
        self.decoder.conv = nn.Conv3d(self.out_channels, self.out_channels, 3, padding=1)
        self.decoder.norm = nn.BatchNorm3d(self.out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for block in self.encoder.down_blocks:
            skips.append(x)
            x = halve(block(x))
        for block in self.decoder.up_blocks:
            x = block.activated(convolve_upsampled(block.conv, x))
            x = torch.cat((x, skips.pop()), 1)
        return F.relu(self.decoder.norm(self.decoder.conv(x)), inplace=True)


class DenseMotion(nn.Module):
    """From K sparse motions to one dense deformation and an occlusion map."""

    def __init__(self, cfg: Vid2VidConfig):
        super().__init__()
        self.first_order = cfg.first_order
        motions = cfg.num_kp + 1
        self.hourglass = Hourglass(cfg, motions * (1 + cfg.compress))
        kernel = dict(kernel_size=cfg.mask_kernel, padding=cfg.mask_kernel // 2)
        self.mask = nn.Conv3d(self.hourglass.out_channels, motions, **kernel)
        self.compress = nn.Conv3d(cfg.reshape_channel, cfg.compress, 1)
        self.norm = nn.BatchNorm3d(cfg.compress)
        self.occlusion = nn.Conv2d(self.hourglass.out_channels * cfg.reshape_depth, 1, **kernel)
        self.fourier = MaskAndOcclusion() if cfg.mask_kernel > 3 else None

    def heads(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, C, D, h, w) -> logits of the mask (B, K+1, D, h, w) and of the occlusion map (B, 1, h, w)."""
        if self.fourier is not None:
            if shortcuts_pay(features, self.mask.weight):
                return self.fourier(self.mask, self.occlusion, features)
            self.fourier.forget()
        return self.mask(features), self.occlusion(features.flatten(1, 2))

    def deformed(
        self, compressed: torch.Tensor, grid: torch.Tensor, turned: torch.Tensor | None, shifts: torch.Tensor
    ) -> torch.Tensor:
        """The feature warped by each sparse motion, the background's first: (B, c, D, h, w) -> (B, K+1, c, D, h, w), float32."""
        if turned is None and shortcuts_pay(compressed, compressed):
            axes = (axis(n, grid.device) for n in grid.shape[:3])
            return sample_shifted(compressed, axes, F.pad(shifts, (0, 0, 1, 0)))
        still = grid.expand(len(shifts), 1, -1, -1, -1, -1)
        moved = (still if turned is None else turned[:, None]) + shifts[:, :, None, None, None]  # (B, K, D, h, w, 3)
        # The K+1 grids stacked along the depth sample one copy of the feature.
        sampled = sample_volume(compressed.float(), torch.cat((still, moved), 1).flatten(1, 2))
        return rearrange(sampled, "b c (k d) h w -> b k c d h w", d=grid.shape[0])

    def forward(self, compressed: torch.Tensor, x_d: torch.Tensor, x_s: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, c, D, h, w), (B, K, 3), (B, K, 3) -> deformation (B, D, h, w, 3), occlusion (B, 1, h, w)."""
        depth, height, width = compressed.shape[2:]
        grid = coordinate_grid(depth, height, width, x_d.device, self.first_order)  # (D, h, w, 3)

        # Sparse motions: the background stays, and around keypoint k, p moves to x_s,k + J (p - x_d,k). J is the identity in
        # the public networks; Wang et al. 2021 have J = R_s R_d^-1, here estimated from the K keypoints.
        turn = head_turn(x_d, x_s) if self.first_order else None
        turned = None if turn is None else torch.einsum("dhwi,bij->bdhwj", grid, turn)
        shifts = x_s - (x_d if turn is None else x_d @ turn)  # (B, K, 3)
        deformed = self.deformed(compressed, grid, turned, shifts)  # (B, K+1, c, D, h, w)
        here, there = (gaussians(x, depth, height, width, self.first_order) for x in (x_d, x_s))
        heat = here - there
        heat = F.pad(heat, (0, 0, 0, 0, 0, 0, 1, 0))[:, :, None]  # (B, K+1, 1, D, h, w)
        candidates = torch.cat((heat, deformed), 2).flatten(1, 2)  # (B, (K+1)(1+c), D, h, w)

        logits, occlusion = self.heads(self.hourglass(candidates.to(compressed.dtype)))
        mask = logits.float().softmax(1)  # (B, K+1, D, h, w)
        # sum_k mask_k (turned + shift_k), and the background where it is: the mask sums to one.
        deformation = grid + torch.einsum("bkdhw,bkx->bdhwx", mask[:, 1:], shifts)
        if turn is not None:
            deformation = deformation + (1 - mask[:, 0, ..., None]) * (turned - grid)
        return deformation, torch.sigmoid(occlusion)


class WarpingNetwork(nn.Module):
    """W: f_r, x_d, x_s -> f_{r->d}. Layers and names as LivePortrait publishes them."""

    def __init__(self, cfg: Vid2VidConfig):
        super().__init__()
        self.cfg = cfg
        flat = cfg.reshape_channel * cfg.reshape_depth
        self.dense_motion_network = DenseMotion(cfg)
        self.third = ConvNorm(2, flat, cfg.warped_channels, slope=0.01)
        self.fourth = nn.Conv2d(cfg.warped_channels, cfg.warped_channels, 1)

    def compress(self, f_r: torch.Tensor) -> torch.Tensor:
        """The dense motion network's input from the portrait (B, c, D, h', w'), h' = h / 2^dense_down: the same for every frame."""
        dense = self.dense_motion_network
        compressed = F.relu(dense.norm(dense.compress(f_r)))
        for _ in range(self.cfg.dense_down):
            compressed = halve(compressed)
        return compressed

    def refined(self, deformation: torch.Tensor, size: torch.Size) -> torch.Tensor:
        """A coarse deformation (B, D, h', w', 3) at f_r's resolution (B, D, h, w, 3): motions are smooth, features are not."""
        depth, centred = deformation.shape[1], self.cfg.first_order
        coarse, fine = (coordinate_grid(depth, h, w, deformation.device, centred) for h, w in (deformation.shape[2:4], size))
        shifts = rearrange(deformation - coarse, "b d h w x -> b (d x) h w")  # so that the identity stays exact
        shifts = F.interpolate(shifts, size=size, mode="bilinear")
        return fine + rearrange(shifts, "b (d x) h w -> b d h w x", d=depth)

    def check(self, f_r: torch.Tensor, x_d: torch.Tensor, x_s: torch.Tensor) -> None:
        cfg = self.cfg
        volume = (cfg.reshape_channel, cfg.reshape_depth)
        step = 2 ** (cfg.dense_down + cfg.dense_blocks)
        if f_r.ndim != 5 or tuple(f_r.shape[1:3]) != volume or f_r.shape[3] % step or f_r.shape[4] % step:
            raise InputError(
                f"f_r has the shape {tuple(f_r.shape)}; it must be (B, {volume[0]}, {volume[1]}, h, w) "
                f"with h and w multiples of {step}."
            )
        for name, x in (("x_d", x_d), ("x_s", x_s)):
            if x.ndim != 3 or tuple(x.shape[1:]) != (cfg.num_kp, 3):
                raise InputError(f"{name} has the shape {tuple(x.shape)}; these weights need (B, {cfg.num_kp}, 3).")
        for name, batch in (("f_r", f_r.shape[0]), ("x_s", x_s.shape[0])):
            if batch not in (1, x_d.shape[0]):
                raise InputError(f"{name} holds {batch} faces for {x_d.shape[0]} driving frames; give 1 or as many.")

    def forward(self, f_r: torch.Tensor, x_d: torch.Tensor, x_s: torch.Tensor, compressed: torch.Tensor | None = None) -> Warped:
        """f_r (B or 1, C, D, h, w), x_d (B, K, 3), x_s (B or 1, K, 3); `compressed`: compress(f_r), where already computed.

        Raises InputError where the shapes are not those of the weights.
        """
        self.check(f_r, x_d, x_s)
        compressed = self.compress(f_r) if compressed is None else compressed
        frames = x_d.shape[0]
        # One portrait is shared over all driving frames without a copy.
        f_r, compressed = (x.expand(frames, -1, -1, -1, -1) for x in (f_r, compressed))
        x_d, x_s = x_d.float(), x_s.float().expand(frames, -1, -1)

        deformation, occlusion = self.dense_motion_network(compressed, x_d, x_s)
        if self.cfg.dense_down:
            deformation, occlusion = (
                self.refined(deformation, f_r.shape[3:]),
                F.interpolate(occlusion, size=f_r.shape[3:], mode="bilinear"),
            )
        warped = sample_volume(f_r.float(), deformation).to(f_r.dtype)
        out = self.fourth(self.third(rearrange(warped, "b c d h w -> b (c d) h w")))  # (B, Cw, h, w)
        return Warped(out * occlusion, occlusion, deformation)
