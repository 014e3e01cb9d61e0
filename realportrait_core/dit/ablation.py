"""The networks that the paper compares its own with, for `python -m realportrait_core.eval`; no node loads them.

KeypointDiT, Table 3, "1D motion": "we employ cross-attention to interact implicit keypoints with the driving latents, a method that
has been successfully applied in text-to-image generation tasks" (Ablation of Motion Position Map).
ReferenceNetworkDiT: "recent works typically employ a separate reference network, which shares the same architecture as the
backbone" (Reference attention), which the paper found redundant.
"""

import os

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..checkpoint import (
    bundle_metadata,
    config_from_fields,
    load_strictly,
    read_bundle_metadata,
    read_header,
    read_safetensors,
    save,
    sniff,
)
from ..config import AblationConfig, DiTConfig
from ..errors import InputError, WeightsError
from ..motion_map import MotionMaps
from .block import Block
from .checkpoint import load_dit, save_dit
from .embed import ClipShape, PatchEmbed
from .model import RealPortraitDiT, Reference


def network_of(cfg: DiTConfig) -> RealPortraitDiT:
    """The network of a config, on the CPU; its weights are uninitialised."""
    if not isinstance(cfg, AblationConfig):
        return RealPortraitDiT(cfg)
    return KeypointDiT(cfg) if cfg.keypoints else ReferenceNetworkDiT(cfg)


class KeypointEmbed(nn.Module):
    """Keypoints (..., K, 3) -> tokens (..., K, C)."""

    def __init__(self, count: int, hidden: int):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(3, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        self.index = nn.Parameter(torch.zeros(count, hidden))  # which keypoint it is

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x) + self.index

    def initialize(self) -> None:
        nn.init.normal_(self.index, std=0.02)


class CrossAttention(nn.Module):
    """Each frame's tokens (N, S, C) attend to the tokens of its keypoints (N, K, C): softmax(Q K^T / sqrt(d)) V -> (N, S, C)."""

    def __init__(self, hidden: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q, self.kv, self.proj = nn.Linear(hidden, hidden), nn.Linear(hidden, 2 * hidden), nn.Linear(hidden, hidden)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        q, k, v = (rearrange(y, "n s (h d) -> n h s d", h=self.heads) for y in (self.q(x), *self.kv(tokens).chunk(2, dim=-1)))
        return self.proj(rearrange(F.scaled_dot_product_attention(q, k, v), "n h s d -> n s (h d)"))


class KeypointDiT(RealPortraitDiT):
    """1-D motion: the motion of a frame is x_d (K, 3) in the frame's units (mapping.frame_keypoints), not a map."""

    def __init__(self, cfg: AblationConfig):
        super().__init__(cfg)
        self.motion_net = KeypointEmbed(cfg.keypoints, cfg.hidden)
        self.cross_attn = nn.ModuleList(CrossAttention(cfg.hidden, cfg.heads) for _ in self.blocks)

    def motion_latents(self, maps: MotionMaps | Tensor, reference_features: Tensor | None = None) -> Tensor:
        """The keypoints (F, K, 3) as they are. InputError for anything else."""
        if not isinstance(maps, Tensor) or maps.shape[1:] != (self.cfg.keypoints, 3):
            raise InputError(f"1-D motion is keypoints (F, {self.cfg.keypoints}, 3) of F frames, in the frame's units.")
        return maps

    def encode_motion(self, maps: MotionMaps | Tensor, reference: Reference | None = None) -> Tensor:
        """Keypoints (F, K, 3) -> tokens (F, K, C)."""
        return self.motion_net(self.motion_latents(maps).to(self.x_embedder.proj.weight.dtype))

    def encode_motion_latent(self, v: Tensor, height: int, width: int) -> Tensor:
        return self.encode_motion(v)

    def control_tokens(self, rows: int, columns: int) -> int:
        return self.cfg.keypoints

    def forward(
        self,
        z_t: Tensor,
        t: Tensor,
        shape: ClipShape,
        reference: Reference | None,
        control: Tensor | None,
        conditional: Tensor | None = None,
        strength: float | Tensor = 1.0,
    ) -> Tensor:
        """RealPortraitDiT.forward with control (L, K, C) or (B L, K, C), by cross-attention in every block, as STDiT2's text."""
        self.check(z_t, t, shape, reference, control, conditional)
        x = self.x_embedder(z_t)  # (B, L, S, C)
        constants = self.constants(z_t, shape, x.dtype) if reference is None else reference.constants
        x = x + constants.position_embedding  # (B, L, S, C)
        t = self.t_embedder(t, x.dtype)  # (B, L, C)
        m = self.modulation(t, constants, conditional)  # (B, L, 6, C) and (B, L, 3, C)
        for i, (block, cross) in enumerate(zip(self.blocks, self.cross_attn)):
            spatial, mlp = block.spatial_modulation(m)
            x = block.spatial_attention(x, spatial, None if reference is None else reference.blocks[i])  # (B, L, S, C), Eq. 4
            x = block.temporal_attention(x, m)  # (B, L, S, C), Eq. 2
            if control is not None:
                x = x + strength * self.attend(cross, x, control)  # (B, L, S, C)
            x = block.feed_forward(x, mlp)  # (B, L, S, C)
        x = self.final_layer(x, t, constants.clean_embedding + constants.size_embedding, conditional)  # (B, L, S, p p c)
        return self.unpatchify(x, *z_t.shape[-2:])  # (B, L, c, h, w)

    def attend(self, cross: CrossAttention, x: Tensor, control: Tensor) -> Tensor:
        """x (B, L, S, C), control (L, K, C) or (B L, K, C) -> (B, L, S, C)."""
        control = control.to(x).unflatten(0, (-1, x.shape[1])).expand(len(x), -1, -1, -1)  # (B, L, K, C)
        return cross(x.flatten(0, 1), control.flatten(0, 1)).unflatten(0, x.shape[:2])


class ReferenceNetworkDiT(RealPortraitDiT):
    """The portrait passes through a patch embedding and blocks of its own; embeddings of t = 0, size and length are shared."""

    def __init__(self, cfg: AblationConfig):
        super().__init__(cfg)
        self.reference_embedder = PatchEmbed(cfg.in_channels, cfg.patch, cfg.hidden, operations=nn)
        self.reference_blocks = nn.ModuleList(
            Block(
                cfg.hidden,
                cfg.heads,
                cfg.mlp_ratio,
                qk_norm_legacy=cfg.qk_norm_legacy,
                attention=self.blocks[0].attn.attention,
                operations=nn,
            )
            for _ in self.blocks
        )

    def reference_modules(self) -> tuple[PatchEmbed, nn.ModuleList]:
        return self.reference_embedder, self.reference_blocks

    def initialize(self) -> "ReferenceNetworkDiT":
        """The reference network starts as a copy of the backbone."""
        super().initialize()
        return self.copy_backbone()

    def copy_backbone(self) -> "ReferenceNetworkDiT":
        """The reference network becomes what the portrait passes through in the paper's network."""
        self.reference_embedder.load_state_dict(self.x_embedder.state_dict())
        self.reference_blocks.load_state_dict(self.blocks.state_dict())
        return self


# Weight files

ROLE = "ablation"


def load_network(path: str | os.PathLike) -> RealPortraitDiT:
    """RealPortrait's network as `load_dit`, or an ablation's. Raises WeightsError where the file is something else."""
    if sniff(read_header(path).shapes) != ROLE:
        return load_dit(path)
    state, metadata = read_safetensors(path)
    values = read_bundle_metadata(metadata, ROLE)
    if values is None:
        raise WeightsError(f"{path} has the keys of an ablation and lacks its config: train it again.")
    try:
        network = network_of(config_from_fields(AblationConfig, values))
        load_strictly(network, {key: value.float() if value.is_floating_point() else value for key, value in state.items()})
    except (InputError, WeightsError) as error:
        raise WeightsError(f"{path} cannot be used as the weights of an ablation. {error}") from error
    return network.eval().requires_grad_(False)


def save_network(path: str | os.PathLike, network: RealPortraitDiT, dtype: torch.dtype = torch.float16) -> None:
    """The inverse of load_network; weights in `dtype`."""
    if not isinstance(network.cfg, AblationConfig):
        return save_dit(path, network, dtype)
    save(path, {key: value.to(dtype) for key, value in network.state_dict().items()}, bundle_metadata(ROLE, network.cfg))
