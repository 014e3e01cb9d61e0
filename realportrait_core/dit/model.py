"""The network of Figure 2: an STDiT2 backbone whose spatial attention also reads the portrait, and its motion ControlNet."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest

import torch
from einops import rearrange
from torch import Tensor, nn

from ..config import DiTConfig
from ..errors import InputError
from ..motion_map import MotionMaps
from .attention import AttentionFunction, KeyValue, scaled_dot_product
from .block import Block, Modulation, add_table
from .cache import StepCache
from .conditioner import Conditioner
from .controlnet import ControlBlock
from .embed import ClipShape, PatchEmbed, SizeEmbedder, TimestepEmbedder, positions, rope
from .fused import modulate
from .motion_mapper import MotionMapper


@dataclass(frozen=True)
class Constants:
    """What is the same at every step of clips of one shape."""

    place: Tensor  # (S, C) position of every token
    size: Tensor  # (C,) what the picture's size says to every block
    length: Tensor  # (C,) what the clip's frames and rate say
    clean: Tensor  # (1, 1, C) t = 0, the time of what carries no noise: the portrait and conditional frames

    def to(self, device=None, dtype=None) -> "Constants":
        return Constants(*(value.to(device, dtype) for value in (self.place, self.size, self.length, self.clean)))


@dataclass(frozen=True)
class Reference:
    """K_r, V_r of every block for R portraits, each (R, heads, S, d): constant over steps, noise, motion and clips."""

    blocks: tuple[KeyValue, ...]
    shape: ClipShape
    constants: Constants
    still: Tensor | None = None  # (R, 4 + motion_latent, h, w) what a conditioner reads of them

    def to(self, device=None, dtype=None) -> "Reference":
        blocks = tuple((k.to(device, dtype), v.to(device, dtype)) for k, v in self.blocks)
        still = None if self.still is None else self.still.to(device, dtype)
        return Reference(blocks, self.shape, self.constants.to(device, dtype), still)


class FinalLayer(nn.Module):
    """Tokens -> patches."""

    def __init__(self, hidden: int, out: int, *, operations, dtype=None, device=None):
        super().__init__()
        self.linear = operations.Linear(hidden, out, dtype=dtype, device=device)
        self.scale_shift_table = nn.Parameter(torch.zeros(2, hidden, dtype=dtype, device=device))

    def forward(self, x: Tensor, t: Tensor, t_clean: Tensor, conditional: Tensor | None) -> Tensor:
        """x (B, L, S, C), t (B, L, C), t_clean (1, 1, C), conditional (B, L) or None -> (B, L, S, patch patch out).

        As the public STDiT2 has it: t comes without the picture's size, and conditional frames are modulated a second time
        by t = 0 with it. Nobody reads their output: the loss leaves them out and a sampler keeps what it was given.
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

    operations: where Linear, Conv2d and Conv3d come from, torch.nn or the host's. attention: softmax attention, (N, heads, S, d).
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
        self.cfg, self.dtype = cfg, dtype or torch.get_default_dtype()
        self.out_channels = cfg.in_channels * (2 if cfg.learned_sigma else 1)
        made = {"operations": operations, "dtype": dtype, "device": device}
        C = cfg.hidden

        def block() -> Block:
            return Block(C, cfg.heads, cfg.mlp_ratio, qk_norm_legacy=cfg.qk_norm_legacy, attention=attention, **made)

        self.x_embedder = PatchEmbed(cfg.in_channels, cfg.patch, C, **made)
        self.t_embedder = TimestepEmbedder(C, **made)
        self.t_block = nn.Sequential(nn.SiLU(), operations.Linear(C, 6 * C, dtype=dtype, device=device))
        self.t_block_temp = nn.Sequential(nn.SiLU(), operations.Linear(C, 3 * C, dtype=dtype, device=device))
        self.csize_embedder = SizeEmbedder(C // 3, **made)
        self.ar_embedder = SizeEmbedder(C // 3, **made)
        self.fl_embedder = SizeEmbedder(C, **made)
        self.fps_embedder = SizeEmbedder(C, **made)
        self.blocks = nn.ModuleList(block() for _ in range(cfg.depth))
        self.final_layer = FinalLayer(C, cfg.patch**2 * self.out_channels, **made)
        self.controlnet = nn.ModuleList(ControlBlock(block(), C, first=i == 0, **made) for i in range(cfg.control_depth))
        # The paper's motion mapper, or what MINI has in its place.
        if cfg.conditioner is None:
            self.motion_net, self.conditioner = MotionMapper(cfg.motion_channels, cfg.motion_widths, cfg.in_channels, **made), None
        else:
            self.conditioner = Conditioner(cfg, **made)

    # ---- the three calls ----

    def encode_reference(self, z_r: Tensor, shape: ClipShape, motion: MotionMaps | Tensor | None = None) -> Reference:
        """Portraits' latents z_r (B, 4, h, w), not noised, t = 0 (Eq. 5, 6) -> K_r, V_r of every block.

        motion: the portraits' own maps (B frames), read by networks with cfg.reference_motion, which need them.
        """
        if z_r.ndim != 4 or z_r.shape[1] != self.cfg.in_channels:
            raise InputError(f"The portrait's latent is {tuple(z_r.shape)}; it must be (B, {self.cfg.in_channels}, h, w).")
        x = self.x_embedder(z_r)  # (B, S, C)
        constants = self.constants(z_r, shape, x.dtype)
        x = x + constants.place
        still = None if self.conditioner is None else self.conditioner.still(z_r, motion)
        if still is not None:
            x = x + self.conditioner.reference_tokens(still, constants.place)
        x = x.unsqueeze(1)  # (B, 1, S, C)
        m = self.modulation(constants.clean, constants)
        found = []
        for block in self.blocks[:-1]:
            x, key_value = block.encode(x, m)
            found.append(key_value)
        found.append(self.blocks[-1].key_value(x, m))
        return Reference(tuple(found), shape, constants, still)

    def encode_motion(self, maps: MotionMaps | Tensor, reference: Reference | None = None) -> Tensor:
        """Motion position maps of F frames, lazy or dense (F, channels, H, W) -> control tokens (F, S, C); once per clip.

        reference: of R portraits, R a divisor of F; networks with a draft need it, others leave it alone.
        """
        height, width = (maps.height, maps.width) if isinstance(maps, MotionMaps) else maps.shape[-2:]
        latents = self.motion_latents(maps, None if reference is None else reference.still)
        return self.encode_motion_latent(latents, height, width)

    def encode_motion_latent(self, v: Tensor, height: int, width: int) -> Tensor:
        """The same from motion latents v (F, motion_latent, h, w) of pictures of height x width px."""
        tokens = (self.x_embedder if self.conditioner is None else self.conditioner.embedder)(v)
        return self.controlnet[0].before_proj(tokens + self.place(v, height, width).to(tokens))

    def forward(
        self,
        z_t: Tensor,
        t: Tensor,
        shape: ClipShape,
        reference: Reference | None,
        control: Tensor | None,
        conditional: Tensor | None = None,
        strength: float | Tensor = 1.0,
        cache: StepCache | None = None,
    ) -> Tensor:
        """The prediction for every frame of B clips, (B, L, 4, h, w), or 8 channels with the learned variance; float32.

        z_t          (B, L, 4, h, w) noised latents, conditional frames clean
        t            (B, L) timesteps of 0 .. 999, fractions allowed
        reference    of R portraits, R a divisor of B: each serves B / R clips in a row. Frames that shall not see each
                     other in time are clips of L = 1
        control      (L, S, C) for every clip, or (B L, S, C)
        conditional  (B, L) bool: these frames count as t = 0
        strength     factor on the control's residuals, one or (B, 1, 1, 1); 0 is a clip without motion
        cache        this clip's, where steps may take over from those before; None: every step is computed
        """
        self.check(z_t, t, shape, reference, control, conditional)
        x = self.x_embedder(z_t)  # (B, L, S, C)
        constants = self.constants(z_t, shape, x.dtype) if reference is None else reference.constants
        x = x + constants.place
        t = self.t_embedder(t, x.dtype)  # (B, L, C)
        m = self.modulation(t if conditional is None else torch.where(conditional[..., None], constants.clean, t), constants)
        keys = (None,) * len(self.blocks) if reference is None else reference.blocks
        first = self.blocks[0](x, m, keys[0])
        residuals = () if control is None else self.control_residuals(first, control, m)
        later_blocks = partial(self.later_blocks, m=m, keys=keys[1:], strength=strength)
        x = later_blocks(first, residuals) if cache is None else cache(x, first, residuals, later_blocks)
        return self.unpatchify(self.final_layer(x, t, constants.clean + constants.size, conditional), *z_t.shape[-2:])

    # ---- their parts ----

    def control_residuals(self, x: Tensor, control: Tensor, m: Modulation) -> Iterator[Tensor]:
        """What enters the inputs of backbone blocks 1, 2, ..., each (B, L, S, C), computed when it is asked for.

        x (B, L, S, C) is what block 0 said, control (L, S, C) or (B L, S, C).
        """
        c = x + control.to(x).unflatten(0, (-1, x.shape[1]))
        for block in self.controlnet:
            c, residual = block(c, m)
            yield residual

    def later_blocks(
        self, x: Tensor, residuals: Iterable[Tensor], m: Modulation, keys: Sequence[KeyValue | None], strength: float | Tensor
    ) -> Tensor:
        """The backbone from block 1 on, the first of them with a residual of the control: x (B, L, S, C) -> (B, L, S, C)."""
        for block, key_value, residual in zip_longest(list(self.blocks)[1:], keys, residuals):
            if residual is not None:
                # A number is multiplied and added in one pass over memory.
                x = x + strength * residual if isinstance(strength, Tensor) else torch.add(x, residual, alpha=strength)
            x = block(x, m, key_value)
        return x

    def motion_latents(self, maps: MotionMaps | Tensor, still: Tensor | None = None) -> Tensor:
        """Maps of F frames -> motion latents (F, 4, h, w), or as many channels as a conditioner has. still: a Reference's."""
        return self.motion_net(maps) if self.conditioner is None else self.conditioner.motion_latents(maps, still)

    def place(self, z: Tensor, height: int, width: int) -> Tensor:
        """Position (S, C) of every token of latents z (..., h, w) of a picture of height x width px."""
        rows, columns = self.x_embedder.grid(*z.shape[-2:])
        return positions(rows, columns, self.cfg.hidden, height, width, self.cfg.input_sq_size, z.device)

    def constants(self, z: Tensor, shape: ClipShape, dtype: torch.dtype) -> Constants:
        """Of clips of this shape, with latents like z (..., h, w)."""

        def numbers(*values: float) -> Tensor:
            # Filled in where they are wanted: a copy from the host would make it wait for a GPU.
            return torch.stack([torch.full((), value, dtype=torch.float32, device=z.device) for value in values])

        size = torch.cat(
            [self.csize_embedder(numbers(shape.height, shape.width), dtype), self.ar_embedder(numbers(shape.aspect), dtype)]
        )
        length = self.fl_embedder(numbers(shape.frames), dtype) + self.fps_embedder(numbers(shape.fps), dtype)
        clean = self.t_embedder(torch.zeros(1, 1, device=z.device), dtype)
        return Constants(self.place(z, shape.height, shape.width).to(dtype), size, length, clean)

    def modulation(self, t: Tensor, constants: Constants) -> Modulation:
        """What every block is told, from embedded timesteps t (B, L, C)."""
        return Modulation(
            spatial=self.t_block(t + constants.size).unflatten(-1, (6, -1)),  # (B, L, 6, C)
            temporal=self.t_block_temp(t + constants.length).unflatten(-1, (3, -1)),  # (B, L, 3, C)
            rope=rope(t.shape[1], self.cfg.hidden // self.cfg.heads, t.device),
        )

    def unpatchify(self, x: Tensor, h: int, w: int) -> Tensor:
        """(B, L, S, patch patch c) -> (B, L, c, h, w), without the padding of an odd side."""
        p, (rows, _) = self.cfg.patch, self.x_embedder.grid(h, w)
        x = rearrange(x, "b l (i j) (p q c) -> b l c (i p) (j q)", i=rows, p=p, q=p)
        return x[..., :h, :w].float()

    def check(self, z_t, t, shape, reference, control, conditional) -> None:
        """Shapes that do not fit end here, with the numbers, and not as a broadcast."""
        if z_t.ndim != 5 or z_t.shape[2] != self.cfg.in_channels:
            raise InputError(f"z_t is {tuple(z_t.shape)}; it must be (B, L, {self.cfg.in_channels}, h, w).")
        clips, frames = z_t.shape[:2]
        rows, columns = self.x_embedder.grid(*z_t.shape[-2:])
        for name, value in (("t", t), ("conditional", conditional)):
            if value is not None and tuple(value.shape) != (clips, frames):
                raise InputError(f"{name} is {tuple(value.shape)}; one value per frame of z_t is ({clips}, {frames}).")
        if control is not None:
            if control.ndim != 3 or tuple(control.shape[1:]) != (rows * columns, self.cfg.hidden):
                raise InputError(
                    f"The control tokens are {tuple(control.shape)}; the latents need ({frames}, {rows * columns}, "
                    f"{self.cfg.hidden}): is the motion map of the latents' size, and from the same weights?"
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
        """Weights to train from when there are no public ones; every choice here."""
        # Linear layers: Xavier uniform, zero bias, as DiT.
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        # Patch embeddings: like the linear layers that they are.
        for module in self.modules():
            if isinstance(module, PatchEmbed):
                module.initialize()
        # Motion mapper, or what is in its place: see there.
        (self.motion_net if self.conditioner is None else self.conditioner).initialize()
        # Embeddings of numbers, and what makes modulation of them: a small normal, as DiT.
        for embedder in (self.t_embedder, self.csize_embedder, self.ar_embedder, self.fl_embedder, self.fps_embedder):
            nn.init.normal_(embedder.mlp[0].weight, std=0.02)
            nn.init.normal_(embedder.mlp[2].weight, std=0.02)
        nn.init.normal_(self.t_block[1].weight, std=0.02)
        nn.init.normal_(self.t_block_temp[1].weight, std=0.02)
        for block in self.blocks:
            # Gates start at 0.1: each block near the identity, yet none without a gradient, as zero gates would be.
            block.scale_shift_table.zero_()[[2, 5]] = 0.1
            block.scale_shift_table_temporal.zero_()[2] = 0.1
            # Norms of Q and K: identity.
            nn.init.ones_(block.attn.q_norm.weight)
            nn.init.ones_(block.attn.k_norm.weight)
            nn.init.ones_(block.attn_temp.q_norm.weight)
            nn.init.ones_(block.attn_temp.k_norm.weight)
            # Temporal attention starts silent: a model of single frames, as Open-Sora.
            nn.init.zeros_(block.attn_temp.proj.weight)
        # Final layer: zero, so that the first prediction is its mean.
        self.final_layer.scale_shift_table.zero_()
        nn.init.zeros_(self.final_layer.linear.weight)
        # Control: a copy of the backbone's blocks behind zero projections, so that at first it changes nothing.
        for block, control in zip(self.blocks, self.controlnet):
            control.copied_block.load_state_dict(block.state_dict())
            nn.init.zeros_(control.after_proj.weight)
        for control in self.controlnet[:1]:
            nn.init.zeros_(control.before_proj.weight)
        return self
