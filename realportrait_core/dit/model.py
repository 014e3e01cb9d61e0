"""The network of Figure 2: an STDiT2 backbone, reference attention to the portrait, and the motion ControlNet.

Shapes: B clips of L frames, S tokens of C channels a frame; R portraits; h x w is the latents' size, p the side of a patch.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from ..config import DiTConfig
from ..errors import InputError
from ..motion_map import MotionMaps
from .attention import AttentionFunction, KeyValue, scaled_dot_product
from .block import Block, Modulation, add_table
from .conditioner import Conditioner
from .controlnet import ControlBlock, add_control, add_residual
from .embed import ClipShape, PatchEmbed, SizeEmbedder, TimestepEmbedder, position_embedding, rope
from .fused import modulate
from .motion_mapper import MotionMapper


@dataclass(frozen=True)
class Constants:
    """Embeddings that are the same at every step of clips of one shape."""

    position_embedding: Tensor  # (S, C)
    size_embedding: Tensor  # (C,) of the picture's height, width and aspect ratio
    length_embedding: Tensor  # (C,) of the clip's frames and frame rate
    clean_embedding: Tensor  # (1, 1, C) of t = 0, the timestep of the portrait and of conditional frames

    def to(self, device=None, dtype=None) -> "Constants":
        return Constants(*(value.to(device, dtype) for value in vars(self).values()))


@dataclass(frozen=True)
class Reference:
    """K_r, V_r of every block for R portraits, each (R, heads, S, d): constant over steps, noise, motion and clips."""

    blocks: tuple[KeyValue, ...]
    shape: ClipShape
    constants: Constants
    features: Tensor | None = None  # (R, 4 + motion_latent, h, w) for MINI's conditioner; None in the paper's network

    def to(self, device=None, dtype=None) -> "Reference":
        blocks = tuple((k.to(device, dtype), v.to(device, dtype)) for k, v in self.blocks)
        features = None if self.features is None else self.features.to(device, dtype)
        return Reference(blocks, self.shape, self.constants.to(device, dtype), features)


class FinalLayer(nn.Module):
    """Tokens -> patches, modulated by the timestep."""

    def __init__(self, hidden: int, out: int, *, operations, dtype=None, device=None):
        super().__init__()
        self.linear = operations.Linear(hidden, out, dtype=dtype, device=device)
        self.scale_shift_table = nn.Parameter(torch.zeros(2, hidden, dtype=dtype, device=device))

    def forward(self, x: Tensor, t: Tensor, t_clean: Tensor, conditional: Tensor | None) -> Tensor:
        """x (B, L, S, C), t (B, L, C), t_clean (1, 1, C), conditional (B, L) or None -> (B, L, S, p p out).

        As in the public STDiT2: t is embedded without the picture's size, and conditional frames are modulated a second time,
        by t = 0 with it. The output of conditional frames is not used: no loss is taken there and samplers keep their latents.
        """
        x = self.modulate(x, t)
        if conditional is not None:
            x = torch.where(conditional[..., None, None], self.modulate(x, t_clean), x)
        return self.linear(x)

    def modulate(self, x: Tensor, t: Tensor) -> Tensor:
        shift, scale = add_table(self.scale_shift_table, t.unsqueeze(-2))
        return modulate(x, shift, scale)


class RealPortraitDiT(nn.Module):
    """Section "Conditional Spatial-Temporal Modeling". Weights are uninitialised: load a file or call `initialize`.

    operations: the module that Linear, Conv2d and Conv3d are taken from, torch.nn or the host's.
    attention: softmax attention, Q (N, heads, S, d), K and V (N, heads, S', d) -> (N, S, heads d).
    """

    def __init__(
        self,
        cfg: DiTConfig,
        *,
        operations=torch.nn,
        attention: AttentionFunction = scaled_dot_product,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ):
        super().__init__()
        self.cfg = cfg
        self.dtype = dtype or torch.get_default_dtype()  # required by the host alone
        self.out_channels = cfg.in_channels * (2 if cfg.learned_sigma else 1)
        factory = {"operations": operations, "dtype": dtype, "device": device}
        C = cfg.hidden

        def block() -> Block:
            return Block(C, cfg.heads, cfg.mlp_ratio, qk_norm_legacy=cfg.qk_norm_legacy, attention=attention, **factory)

        self.x_embedder = PatchEmbed(cfg.in_channels, cfg.patch, C, **factory)
        self.t_embedder = TimestepEmbedder(C, **factory)
        self.t_block = nn.Sequential(nn.SiLU(), operations.Linear(C, 6 * C, dtype=dtype, device=device))
        self.t_block_temp = nn.Sequential(nn.SiLU(), operations.Linear(C, 3 * C, dtype=dtype, device=device))
        self.csize_embedder = SizeEmbedder(C // 3, **factory)
        self.ar_embedder = SizeEmbedder(C // 3, **factory)
        self.fl_embedder = SizeEmbedder(C, **factory)
        self.fps_embedder = SizeEmbedder(C, **factory)
        self.blocks = nn.ModuleList(block() for _ in range(cfg.depth))
        self.final_layer = FinalLayer(C, cfg.patch**2 * self.out_channels, **factory)
        self.controlnet = nn.ModuleList(ControlBlock(block(), C, first=i == 0, **factory) for i in range(cfg.control_depth))
        self.conditioner = None
        if cfg.conditioner is None:  # the paper
            self.motion_net: nn.Module = MotionMapper(cfg.motion_channels, cfg.motion_widths, cfg.in_channels, **factory)
        else:  # MINI, which replaces the motion mapper
            self.conditioner = Conditioner(cfg, **factory)

    # ---- public steps: once per portrait, once per clip, once per denoising step ----

    def encode_reference(self, z_r: Tensor, shape: ClipShape, motion: MotionMaps | Tensor | None = None) -> Reference:
        """Latents z_r (R, 4, h, w) of portraits, without noise, t = 0 (Eq. 5, 6) -> K_r, V_r of every block.

        motion: the portraits' own motion maps (R frames), required by weights with cfg.reference_motion and unused by others.
        Raises InputError where z_r or the maps do not fit.
        """
        if z_r.ndim != 4 or z_r.shape[1] != self.cfg.in_channels:
            raise InputError(f"The portrait's latent is {tuple(z_r.shape)}; it must be (B, {self.cfg.in_channels}, h, w).")
        embedder, blocks = self.reference_modules()
        x = embedder(z_r)  # (R, S, C)
        constants = self.constants(z_r, shape, x.dtype)
        x = x + constants.position_embedding  # (R, S, C)
        features = None
        if self.cfg.reference_motion:  # MINI
            features = self.conditioner.reference_features(z_r, motion)  # (R, 4 + motion_latent, h, w)
            x = x + self.conditioner.reference_tokens(features, constants.position_embedding)  # (R, S, C)
        x = x.unsqueeze(1)  # (R, 1, S, C)
        m = self.modulation(constants.clean_embedding, constants)
        key_values = []
        for block in blocks[:-1]:
            x, key_value = block.encode(x, m)  # (R, 1, S, C), K_r and V_r
            key_values.append(key_value)
        key_values.append(blocks[-1].key_value(x, m))
        return Reference(tuple(key_values), shape, constants, features)

    def encode_motion(self, maps: MotionMaps | Tensor, reference: Reference | None = None) -> Tensor:
        """Motion position maps of F frames, lazy or dense (F, channels, H, W) -> control tokens (F, S, C).

        reference: of R portraits, R a divisor of F; required by MINI's draft, unused by the paper's network.
        """
        height, width = (maps.height, maps.width) if isinstance(maps, MotionMaps) else maps.shape[-2:]
        v = self.motion_latents(maps, None if reference is None else reference.features)  # (F, 4, h, w)
        return self.encode_motion_latent(v, height, width)  # (F, S, C)

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
        """One denoising step (Figure 2): the prediction (B, L, 4, h, w), or 8 channels with the learned variance; float32.

        z_t          (B, L, 4, h, w) noised latents, conditional frames clean
        t            (B, L) timesteps of 0 .. 999, fractions allowed
        reference    of R portraits, R a divisor of B: each serves B / R clips in a row. Frames that are to be denoised
                     independently are clips of L = 1
        control      (L, S, C) for every clip, or (B L, S, C), by encode_motion; None: no ControlNet
        conditional  (B, L) bool: these frames take t = 0
        strength     factor on the ControlNet's residuals, one or (B, 1, 1, 1); 0 is a clip without motion

        Raises InputError where shapes do not fit.
        """
        self.check(z_t, t, shape, reference, control, conditional)
        x = self.x_embedder(z_t)  # (B, L, S, C)
        constants = self.constants(z_t, shape, x.dtype) if reference is None else reference.constants
        x = x + constants.position_embedding  # (B, L, S, C)
        t = self.t_embedder(t, x.dtype)  # (B, L, C)
        m = self.modulation(t, constants, conditional)  # (B, L, 6, C) and (B, L, 3, C)
        c = None  # the ControlNet's state
        for i, block in enumerate(self.blocks):
            if control is not None and 1 <= i <= len(self.controlnet):
                c = add_control(x, control) if i == 1 else c  # (B, L, S, C)
                c, residual = self.controlnet[i - 1](c, m)  # (B, L, S, C), (B, L, S, C)
                x = add_residual(x, residual, strength)  # (B, L, S, C)
            x = block(x, m, None if reference is None else reference.blocks[i])  # (B, L, S, C), Eq. 4 and 2
        x = self.final_layer(x, t, constants.clean_embedding + constants.size_embedding, conditional)  # (B, L, S, p p c)
        return self.unpatchify(x, *z_t.shape[-2:])  # (B, L, c, h, w)

    # ---- helpers ----

    def reference_modules(self) -> tuple[PatchEmbed, nn.ModuleList]:
        """What the portrait passes through: the backbone itself ("reference attention"); ablation.py has another."""
        return self.x_embedder, self.blocks

    def motion_latents(self, maps: MotionMaps | Tensor, reference_features: Tensor | None = None) -> Tensor:
        """Maps of F frames -> motion latents (F, 4, h, w). MINI's conditioner has its own number of channels, and its draft
        requires the features of a Reference."""
        if self.conditioner is not None:  # MINI
            return self.conditioner.motion_latents(maps, reference_features)
        return self.motion_net(maps)

    def encode_motion_latent(self, v: Tensor, height: int, width: int) -> Tensor:
        """Motion latents v (F, 4, h, w) of frames of height x width px -> control tokens (F, S, C)."""
        embedder = self.x_embedder if self.conditioner is None else self.conditioner.embedder
        tokens = embedder(v)  # (F, S, C)
        return self.controlnet[0].before_proj(tokens + self.position_embedding(v, height, width).to(tokens))  # (F, S, C)

    def position_embedding(self, z: Tensor, height: int, width: int) -> Tensor:
        """(S, C), float32, for latents z (..., h, w) of a picture of height x width px."""
        rows, columns = self.x_embedder.grid(*z.shape[-2:])
        return position_embedding(rows, columns, self.cfg.hidden, height, width, self.cfg.input_sq_size, z.device)

    def constants(self, z: Tensor, shape: ClipShape, dtype: torch.dtype) -> Constants:
        """For clips of this shape, with latents of the size and on the device of z (..., h, w)."""

        def numbers(*values: float) -> Tensor:
            # Filled on the device: a copy from the CPU would wait for a GPU.
            return torch.stack([torch.full((), value, dtype=torch.float32, device=z.device) for value in values])

        size = torch.cat(
            [self.csize_embedder(numbers(shape.height, shape.width), dtype), self.ar_embedder(numbers(shape.aspect), dtype)]
        )
        length = self.fl_embedder(numbers(shape.frames), dtype) + self.fps_embedder(numbers(shape.fps), dtype)
        clean = self.t_embedder(torch.zeros(1, 1, device=z.device), dtype)
        return Constants(self.position_embedding(z, shape.height, shape.width).to(dtype), size, length, clean)

    def modulation(self, t: Tensor, constants: Constants, conditional: Tensor | None = None) -> Modulation:
        """Embedded timesteps t (B, L, C), t = 0 for conditional frames (B, L) -> the part of the modulation that blocks share."""
        if conditional is not None:
            t = torch.where(conditional[..., None], constants.clean_embedding, t)
        return Modulation(
            spatial=self.t_block(t + constants.size_embedding).unflatten(-1, (6, -1)),  # (B, L, 6, C)
            temporal=self.t_block_temp(t + constants.length_embedding).unflatten(-1, (3, -1)),  # (B, L, 3, C)
            rope=rope(t.shape[1], self.cfg.hidden // self.cfg.heads, t.device),
        )

    def control_tokens(self, rows: int, columns: int) -> int:
        """Control tokens of a frame: as many as it has patches."""
        return rows * columns

    def unpatchify(self, x: Tensor, h: int, w: int) -> Tensor:
        """(B, L, S, p p c) -> (B, L, c, h, w), float32, without the padding of an odd side."""
        p, (rows, _) = self.cfg.patch, self.x_embedder.grid(h, w)
        x = rearrange(x, "b l (i j) (p q c) -> b l c (i p) (j q)", i=rows, p=p, q=p)
        return x[..., :h, :w].float()

    def check(self, z_t, t, shape, reference, control, conditional) -> None:
        """Raises InputError with the numbers where shapes do not fit, before any of them is broadcast."""
        if z_t.ndim != 5 or z_t.shape[2] != self.cfg.in_channels:
            raise InputError(f"z_t is {tuple(z_t.shape)}; it must be (B, L, {self.cfg.in_channels}, h, w).")
        clips, frames = z_t.shape[:2]
        rows, columns = self.x_embedder.grid(*z_t.shape[-2:])
        for name, value in (("t", t), ("conditional", conditional)):
            if value is not None and tuple(value.shape) != (clips, frames):
                raise InputError(f"{name} is {tuple(value.shape)}; one value per frame of z_t is ({clips}, {frames}).")
        if control is not None:
            tokens = self.control_tokens(rows, columns)
            if control.ndim != 3 or tuple(control.shape[1:]) != (tokens, self.cfg.hidden):
                raise InputError(
                    f"The control tokens are {tuple(control.shape)}; the latents need ({frames}, {tokens}, {self.cfg.hidden}): is "
                    "the motion map of the latents' size, and from the same weights?"
                )
            if control.shape[0] not in (frames, clips * frames):
                raise InputError(f"The motion has {control.shape[0]} frames, the latents {clips} x {frames}.")
        if reference is not None:
            served, tokens = reference.blocks[0][0].shape[0], reference.blocks[0][0].shape[2]
            if clips % served or tokens != rows * columns or len(reference.blocks) != len(self.blocks):
                raise InputError(
                    f"The reference has {served} portraits of {tokens} tokens in {len(reference.blocks)} blocks, the latents "
                    f"{clips} clips of {rows * columns} tokens in {len(self.blocks)}: encode it for this clip and these weights."
                )
            if reference.shape != shape:
                raise InputError(f"The reference was encoded for {reference.shape}, the clip is {shape}: encode it again.")

    @torch.no_grad()
    def initialize(self) -> "RealPortraitDiT":
        """Weights for a training from scratch: every choice of initialisation but one, that `from_scratch` of train/initial.py
        makes the control's projections non-zero."""
        # Linear layers: Xavier uniform, zero bias, as DiT.
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        # Patch embeddings: as linear layers.
        for module in self.modules():
            if isinstance(module, PatchEmbed):
                module.initialize()
        # Motion mapper, or MINI's conditioner: see there.
        (self.motion_net if self.conditioner is None else self.conditioner).initialize()
        # Embeddings of timestep, size and length, and the layers that turn them into modulation: a small normal, as DiT.
        for embedder in (self.t_embedder, self.csize_embedder, self.ar_embedder, self.fl_embedder, self.fps_embedder):
            nn.init.normal_(embedder.mlp[0].weight, std=0.02)
            nn.init.normal_(embedder.mlp[2].weight, std=0.02)
        nn.init.normal_(self.t_block[1].weight, std=0.02)
        nn.init.normal_(self.t_block_temp[1].weight, std=0.02)
        for block in self.blocks:
            # Gates: 0.1, so that each block is near the identity and yet has a gradient, which zero gates would block.
            block.scale_shift_table.zero_()[[2, 5]] = 0.1
            block.scale_shift_table_temporal.zero_()[2] = 0.1
            # Norms of Q and K: identity.
            nn.init.ones_(block.attn.q_norm.weight)
            nn.init.ones_(block.attn.k_norm.weight)
            nn.init.ones_(block.attn_temp.q_norm.weight)
            nn.init.ones_(block.attn_temp.k_norm.weight)
            # Temporal attention: zero output, so that training starts from a model of single frames, as Open-Sora.
            nn.init.zeros_(block.attn_temp.proj.weight)
        # Final layer: zero, so that the first prediction is the mean of its target.
        self.final_layer.scale_shift_table.zero_()
        nn.init.zeros_(self.final_layer.linear.weight)
        # ControlNet: copies of the backbone's blocks between zero projections, so that it starts without effect.
        for block, control in zip(self.blocks, self.controlnet):
            control.copied_block.load_state_dict(block.state_dict())
            nn.init.zeros_(control.after_proj.weight)
        for control in self.controlnet[:1]:
            nn.init.zeros_(control.before_proj.weight)
        return self
