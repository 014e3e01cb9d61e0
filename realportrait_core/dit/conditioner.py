"""MINI's addition to the paper's Figure 2: a deeper motion mapper, the portrait's own motion map, and a draft of every frame.

In the paper's network the motion mapper turns each motion map into a latent of four channels, and the backbone takes the
appearance from the portrait by attention. A small network learns that slowly. In MINI a conditioner replaces the motion mapper: it
provides the tokens that enter the ControlNet, and tokens that are added to the portrait's.
"""

import torch
from torch import Tensor, nn

from ..config import DiTConfig
from ..errors import InputError
from ..motion_map import MotionMaps
from .draft import Draft, ResidualBlock
from .embed import PatchEmbed
from .motion_mapper import MotionMapper


class Conditioner(nn.Module):
    """cfg.conditioner, a ConditionerConfig, decides which parts there are. operations: as in RealPortraitDiT."""

    def __init__(self, cfg: DiTConfig, *, operations, dtype=None, device=None):
        super().__init__()
        factory = {"operations": operations, "dtype": dtype, "device": device}
        self.cfg, parts = cfg.conditioner, cfg.conditioner
        self.in_channels, last = cfg.in_channels, cfg.motion_widths[1] if parts.motion_blocks else parts.motion_latent
        self.mapper = MotionMapper(cfg.motion_channels, cfg.motion_widths, last, **factory)
        if parts.motion_blocks:

            def conv(a: int, b: int, kernel: int = 3) -> nn.Module:
                return operations.Conv2d(a, b, kernel, padding=kernel // 2, dtype=dtype, device=device)

            self.deeper = nn.Sequential(
                *(ResidualBlock(last, conv) for _ in range(parts.motion_blocks)), conv(last, parts.motion_latent, kernel=1)
            )
        self.embedder = PatchEmbed(parts.motion_latent, cfg.patch, cfg.hidden, **factory)
        if parts.reference_motion:
            self.reference_proj = operations.Linear(cfg.hidden, cfg.hidden, dtype=dtype, device=device)
        if parts.draft_widths:
            self.draft = Draft(parts.motion_latent, cfg.in_channels, parts.draft_widths, **factory)

    def reference_features(self, z_r: Tensor, motion: MotionMaps | Tensor | None) -> Tensor | None:
        """Portraits' latents z_r (R, 4, h, w) joined with their own motion latents -> (R, 4 + motion_latent, h, w).

        motion: the portraits' own motion maps, R frames. None without cfg.reference_motion. Raises InputError where the maps are
        missing or do not fit.
        """
        if not self.cfg.reference_motion:
            return None
        if motion is None:
            raise InputError("These weights also read the portrait's own motion map; none was given.")
        v = self.map_motion(motion)
        if v.shape[0] != len(z_r) or v.shape[2:] != z_r.shape[2:]:
            raise InputError(
                f"The portraits' own maps make motion latents {tuple(v.shape)}, their latents are {tuple(z_r.shape)}: frames or "
                "sizes differ."
            )
        return torch.cat([z_r, v.to(z_r)], 1)

    def reference_tokens(self, reference_features: Tensor, position_embedding: Tensor) -> Tensor:
        """(R, 4 + motion_latent, h, w), (S, C) -> what is added to the portraits' tokens, (R, S, C)."""
        tokens = self.embedder(reference_features[:, self.in_channels :])
        return self.reference_proj(tokens + position_embedding.to(tokens))

    def motion_latents(self, maps: MotionMaps | Tensor, reference_features: Tensor | None = None) -> Tensor:
        """Maps of F frames -> (F, motion_latent, h, w). A draft requires the features of R portraits, R a divisor of F."""
        if not self.cfg.draft_widths:
            return self.map_motion(maps)
        if reference_features is None:
            raise InputError("These weights draft the frames from the portrait too: encode_motion needs its Reference.")
        return self.draft(self.map_motion(maps), reference_features)

    def map_motion(self, maps: MotionMaps | Tensor) -> Tensor:
        """Maps of F frames, dense ones already masked -> motion latents (F, motion_latent, h, w) before the draft."""
        v = self.mapper(maps.reaching(self.cfg.mask_reach) if isinstance(maps, MotionMaps) else maps)
        return self.deeper(v) if self.cfg.motion_blocks else v

    @torch.no_grad()
    def initialize(self) -> None:
        """For a training from scratch, or from a public backbone."""
        self.mapper.initialize()
        self.embedder.initialize()
        # Residual blocks: the identity.
        if self.cfg.motion_blocks:
            for module in self.deeper.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
                    nn.init.zeros_(module.bias)
            for block in self.deeper[:-1]:
                nn.init.zeros_(block.conv2.weight)
        # The portrait's own map and the draft: without effect.
        if self.cfg.reference_motion:
            nn.init.zeros_(self.reference_proj.weight)
            nn.init.zeros_(self.reference_proj.bias)
        if self.cfg.draft_widths:
            self.draft.initialize()
