"""What MINI adds to the paper's Figure 2, all of it: a deeper motion mapper, the portrait's own map, a draft of every frame.

In the paper three convolutions make a latent of four channels of each motion map, and the backbone finds everything else in the
portrait by attention. Large networks learn that; small ones are helped where the motion enters. A conditioner stands in the motion
mapper's place and hands over two things: the control's tokens and, beside those of its latent, tokens of the portrait.
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
    """Each part is there where cfg.conditioner, a ConditionerConfig, has it. operations: as in RealPortraitDiT."""

    def __init__(self, cfg: DiTConfig, *, operations, dtype=None, device=None):
        super().__init__()
        made = {"operations": operations, "dtype": dtype, "device": device}
        self.cfg, own = cfg.conditioner, cfg.conditioner
        self.in_channels, last = cfg.in_channels, cfg.motion_widths[1] if own.motion_blocks else own.motion_latent
        self.mapper = MotionMapper(cfg.motion_channels, cfg.motion_widths, last, **made)
        if own.motion_blocks:

            def conv(a: int, b: int, kernel: int = 3) -> nn.Module:
                return operations.Conv2d(a, b, kernel, padding=kernel // 2, dtype=dtype, device=device)

            self.deeper = nn.Sequential(
                *(ResidualBlock(last, conv) for _ in range(own.motion_blocks)), conv(last, own.motion_latent, kernel=1)
            )
        self.embedder = PatchEmbed(own.motion_latent, cfg.patch, cfg.hidden, **made)
        if own.reference_motion:
            self.reference_proj = operations.Linear(cfg.hidden, cfg.hidden, dtype=dtype, device=device)
        if own.draft_widths:
            self.draft = Draft(own.motion_latent, cfg.in_channels, own.draft_widths, **made)

    def still(self, z_r: Tensor, motion: MotionMaps | Tensor | None) -> Tensor | None:
        """Portraits' latents z_r (R, 4, h, w) with their own motion latents, (R, 4 + motion_latent, h, w); None without
        cfg.reference_motion. motion: the portraits' own maps, R frames. Raises InputError where they are missing or do not fit.
        """
        if not self.cfg.reference_motion:
            return None
        if motion is None:
            raise InputError("These weights also read the portrait's own motion map; none was given.")
        own = self.mapped(motion)
        if own.shape[0] != len(z_r) or own.shape[2:] != z_r.shape[2:]:
            raise InputError(
                f"The portraits' own maps make motion latents {tuple(own.shape)}, their latents are {tuple(z_r.shape)}: frames or "
                "sizes differ."
            )
        return torch.cat([z_r, own.to(z_r)], 1)

    def reference_tokens(self, still: Tensor, place: Tensor) -> Tensor:
        """still as above, place (S, C) -> what is added to the portraits' tokens, (R, S, C)."""
        tokens = self.embedder(still[:, self.in_channels :])
        return self.reference_proj(tokens + place.to(tokens))

    def motion_latents(self, maps: MotionMaps | Tensor, still: Tensor | None = None) -> Tensor:
        """Maps of F frames -> (F, motion_latent, h, w). still: of R portraits, R a divisor of F, where there is a draft."""
        if not self.cfg.draft_widths:
            return self.mapped(maps)
        if still is None:
            raise InputError("These weights draft the frames from the portrait too: encode_motion needs its Reference.")
        return self.draft(self.mapped(maps), still)

    def mapped(self, maps: MotionMaps | Tensor) -> Tensor:
        """The same before a draft. Dense maps are masked already."""
        m = self.mapper(maps.reaching(self.cfg.mask_reach) if isinstance(maps, MotionMaps) else maps)
        return self.deeper(m) if self.cfg.motion_blocks else m

    @torch.no_grad()
    def initialize(self) -> None:
        """For a training from scratch, or from a public backbone. At first the portrait's own map and the draft change nothing,
        and each residual block is the identity."""
        self.mapper.initialize()
        self.embedder.initialize()
        if self.cfg.motion_blocks:
            for module in self.deeper.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
                    nn.init.zeros_(module.bias)
            for block in self.deeper[:-1]:
                nn.init.zeros_(block.conv2.weight)
        if self.cfg.reference_motion:
            nn.init.zeros_(self.reference_proj.weight)
            nn.init.zeros_(self.reference_proj.bias)
        if self.cfg.draft_widths:
            self.draft.initialize()
