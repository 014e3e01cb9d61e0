"""M, the motion extractor: a ConvNeXt V2 (Woo et al. 2023) with seven heads predicts a Pose from a face crop."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from ..config import Vid2VidConfig
from .blocks import check_crop
from .keypoints import Pose, headpose_from_bins, rotation_matrix

EPSILON = 1e-6


def channels_last(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """`layer` over the channels of (B, C, H, W)."""
    return rearrange(layer(rearrange(x, "b c h w -> b h w c")), "b h w c -> b c h w")


class GlobalResponseNorm(nn.Module):
    """GRN: each channel scaled by its share of the energy of all channels; (B, H, W, C)."""

    def __init__(self, channels: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, 1, channels))
        self.beta = nn.Parameter(torch.zeros(1, 1, 1, channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        energy = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)  # (B, 1, 1, C)
        share = energy / (energy.mean(-1, keepdim=True) + EPSILON)
        return torch.addcmul(self.beta, x, 1 + self.gamma * share)  # gamma (x share) + beta + x


class ConvNeXtBlock(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=EPSILON)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.grn = GlobalResponseNorm(4 * channels)
        self.pwconv2 = nn.Linear(4 * channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = rearrange(self.dwconv(x), "b c h w -> b h w c")
        h = self.pwconv1(self.norm(h))  # (B, H, W, 4C)
        h = self.pwconv2(self.grn(F.gelu(h)))  # (B, H, W, C)
        return x + rearrange(h, "b h w c -> b c h w")


class Detector(nn.Module):
    """The trunk and its seven heads; (B, 3, S, S) -> raw outputs by name. Channel numbers in comments are PAPER's."""

    def __init__(self, cfg: Vid2VidConfig):
        super().__init__()
        dims, points = cfg.motion_dims, 3 * cfg.num_kp
        stem = nn.Sequential(nn.Conv2d(3, dims[0], 4, stride=4), nn.LayerNorm(dims[0], eps=EPSILON))
        halvings = [nn.Sequential(nn.LayerNorm(a, eps=EPSILON), nn.Conv2d(a, b, 2, stride=2)) for a, b in zip(dims, dims[1:])]
        self.downsample_layers = nn.ModuleList([stem, *halvings])
        self.stages = nn.ModuleList(
            nn.Sequential(*(ConvNeXtBlock(dim) for _ in range(depth))) for dim, depth in zip(dims, cfg.motion_depths)
        )
        self.norm = nn.LayerNorm(dims[-1], eps=EPSILON)
        self.fc_pitch = nn.Linear(dims[-1], cfg.num_bins)
        self.fc_yaw = nn.Linear(dims[-1], cfg.num_bins)
        self.fc_roll = nn.Linear(dims[-1], cfg.num_bins)
        self.fc_t = nn.Linear(dims[-1], 3)
        self.fc_exp = nn.Linear(dims[-1], points)
        self.fc_scale = nn.Linear(dims[-1], 1)
        self.fc_kp = nn.Linear(dims[-1], points)
        self.initialise()

    def initialise(self) -> None:
        # Small weights and zero biases, as in ConvNeXt V2.
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        # The keypoints start near their biases: a face that fills its crop, distinct points, no motion.
        for head in (self.fc_t, self.fc_exp, self.fc_scale, self.fc_kp):
            nn.init.trunc_normal_(head.weight, std=0.002)
        nn.init.ones_(self.fc_scale.bias)
        nn.init.uniform_(self.fc_kp.bias, -0.7, 0.7)

    def trunk(self, image: torch.Tensor) -> torch.Tensor:
        (patchify, norm), *halvings = self.downsample_layers
        x = channels_last(norm, patchify(image))  # (B, 96, S/4, S/4)
        x = self.stages[0](x)
        for (norm, halve), stage in zip(halvings, self.stages[1:]):
            x = stage(halve(channels_last(norm, x)))
        return self.norm(x.mean((2, 3)))  # (B, 768)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        return self.heads(self.trunk(image))

    def heads(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {
            "pitch": self.fc_pitch(x),  # (B, 66) logits
            "yaw": self.fc_yaw(x),  # (B, 66) logits
            "roll": self.fc_roll(x),  # (B, 66) logits
            "t": self.fc_t(x),  # (B, 3)
            "exp": self.fc_exp(x),  # (B, 3K), x y z of each point in turn
            "scale": self.fc_scale(x),  # (B, 1)
            "kp": self.fc_kp(x),  # (B, 3K)
        }


def pose_from_raw(raw: dict[str, torch.Tensor]) -> Pose:
    """The heads' outputs as a Pose, in float32 whatever dtype the network ran in."""
    pitch, yaw, roll = (headpose_from_bins(raw[name]) for name in ("pitch", "yaw", "roll"))
    return Pose(
        canonical=rearrange(raw["kp"].float(), "b (k xyz) -> b k xyz", xyz=3),
        rotation=rotation_matrix(pitch, yaw, roll),
        pitch=pitch,
        yaw=yaw,
        roll=roll,
        expression=rearrange(raw["exp"].float(), "b (k xyz) -> b k xyz", xyz=3),
        scale=raw["scale"].float(),
        translation=raw["t"].float(),
    )


class MotionExtractor(nn.Module):
    """M: (B, 3, S, S) in [0, 1] -> Pose. Layers and names as LivePortrait publishes them."""

    def __init__(self, cfg: Vid2VidConfig):
        super().__init__()
        self.cfg = cfg
        self.detector = Detector(cfg)

    def raw(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """The heads' outputs before they become a Pose: pitch, yaw, roll, t, exp, scale, kp."""
        check_crop(image, self.cfg.crop_size)
        return self.detector(image)

    def forward(self, image: torch.Tensor) -> Pose:
        return pose_from_raw(self.raw(image))
