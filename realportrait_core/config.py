"""The sizes of all networks. PAPER: the paper's. MINI: those of the bundled weights, with an addition of its own."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from .errors import InputError

MOST_POOLINGS = 11       # of a crop of 2048 px
MOST_FRAMES = 1024       # of a clip, all of which are denoised at once
FASTEST = 1000.0         # frames a second
MOST_REACH = 2.5        # a wider mask would no longer keep an empty one empty: face.crop.EMPTY_FACE


def check_positive(config: object, names: Iterable[str]) -> None:
    """Raises InputError where one of these sizes, or one of several in a tuple, is below 1."""
    for name in sorted(names):
        value = getattr(config, name)
        if min(value if isinstance(value, tuple) else (value,), default=0) < 1:
            raise InputError(f"{name} is {value}; it must be above 0.")


@dataclass(frozen=True)
class Vid2VidConfig:
    """Sizes of Face Vid2vid: F, M, W and G (Wang, Mallya, Liu 2021, as LivePortrait publishes it)."""

    crop_size: int = 256                # px, side of the face crop, the input of F and M
    num_kp: int = 21                    # K implicit keypoints
    # F, appearance
    appearance_width: int = 64          # channels of the first convolution
    appearance_down: int = 2            # 2x average poolings
    reshape_channel: int = 32           # channels of the feature volume f_r
    reshape_depth: int = 16             # depth of the feature volume f_r
    appearance_resblocks: int = 6
    # M, motion
    motion_depths: tuple[int, ...] = (3, 3, 9, 3)
    motion_dims: tuple[int, ...] = (96, 192, 384, 768)
    num_bins: int = 66                  # of 3 degrees each
    # W, warping
    dense_width: int = 32               # hourglass: channels double from twice this ...
    dense_max: int = 1024               # ... up to this
    dense_blocks: int = 5
    dense_down: int = 0                 # 2x average poolings of f_r before the dense motion network; none in the public networks
    compress: int = 4                   # channels of f_r in the dense motion network
    mask_kernel: int = 7
    warped_channels: int = 256          # of f_{r->d}, the motion position map
    first_order: bool = False           # each keypoint's neighbourhood rotates with the head; the public networks only translate it
    # G, generator
    generator_blocks: int = 6
    generator_out: int = 64             # channels before the last convolution
    spade_hidden: int = 128
    upscale: int = 2                    # side of the picture / (4 sides of the feature)

    @property
    def feature_size(self) -> int:
        """Side of f_r and f_{r->d}."""
        return self.crop_size // 2**self.appearance_down

    def __post_init__(self) -> None:
        check_positive(self, vars(self).keys() - {"crop_size", "dense_down", "first_order"})
        poolings = self.appearance_down + self.dense_down + self.dense_blocks
        if self.dense_down < 0 or poolings > MOST_POOLINGS:
            raise InputError(f"{poolings} poolings, {self.dense_down} of them dense_down; possible are 0 to {MOST_POOLINGS}.")
        step = 2**poolings
        if not 0 < self.crop_size <= 2**MOST_POOLINGS:
            raise InputError(f"crop_size is {self.crop_size} px; it must be above 0 and at most {2**MOST_POOLINGS}.")
        if self.crop_size % step:
            raise InputError(
                f"crop_size {self.crop_size} must be a multiple of {step}: "
                f"{self.appearance_down} poolings in F, then {self.dense_down + self.dense_blocks} in W."
            )


@dataclass(frozen=True)
class ConditionerConfig:
    """MINI's addition, which replaces the paper's motion mapper; with the defaults it is one."""

    motion_latent: int = 4              # channels of the motion latents
    motion_blocks: int = 0              # residual blocks after the mapper's three convolutions
    reference_motion: bool = False      # the portrait's own motion map is added to its tokens
    draft_widths: tuple[int, ...] = ()  # channels of the draft at the latent's size, 1/2 and 1/4; empty: no draft
    mask_reach: float = 1.0             # size of the facial mask in faces; 1 in the paper, 2 includes the hair

    def __post_init__(self) -> None:
        if self.motion_blocks < 0:
            raise InputError(f"motion_blocks is {self.motion_blocks}; the motion mapper has 0 residual blocks or more.")
        if self.motion_latent < 1:
            raise InputError(f"motion_latent is {self.motion_latent}; the motion mapper gives at least 1 channel.")
        if self.draft_widths and (len(self.draft_widths) != 3 or min(self.draft_widths) < 1 or not self.reference_motion):
            raise InputError(
                f"draft_widths is {self.draft_widths} with reference_motion {self.reference_motion}; a draft has 3 widths above "
                "0 and reads the portrait's own map."
            )
        if not 1 <= self.mask_reach <= MOST_REACH:
            raise InputError(f"mask_reach is {self.mask_reach}; it must be 1 (face only) to {MOST_REACH:g} faces.")


@dataclass(frozen=True)
class DiTConfig:
    """Sizes of the STDiT2 backbone, the motion ControlNet and the motion mapper."""

    hidden: int = 1152
    depth: int = 28                     # "The backbone consists of 28 blocks" (Training and inference)
    heads: int = 16
    control_depth: int = 13             # "the ControlNet comprises 13 blocks"
    mlp_ratio: int = 4
    in_channels: int = 4                # of the SD1.5 latent
    patch: int = 2
    learned_sigma: bool = True          # IDDPM: the network also predicts the variance
    qk_norm_legacy: bool = True         # RoPE before the norm of Q and K, as the public STDiT2
    input_sq_size: int = 512            # px, side of a picture whose positions are integers
    prediction: str = "epsilon"         # or "v"
    distilled_steps: int = 0            # the only number of steps of distilled weights; 0: any
    clip_frames: int = 16               # L, "L is set to 16 in our experiments"
    fps: float = 25.0                   # input of the fps embedder; constant for a set of weights
    # motion mapper: 3 convolutions with a stride of 2
    motion_channels: int = 256          # of f_{r->d}
    motion_widths: tuple[int, int] = (64, 32)
    conditioner: ConditionerConfig | None = None    # None: the paper's network

    @property
    def reference_motion(self) -> bool:
        """Whether the portrait's own motion map is an input, as in MINI."""
        return self.conditioner is not None and self.conditioner.reference_motion

    @property
    def drafts(self) -> bool:
        """Whether the motion latents are a draft of each frame, as in MINI."""
        return self.conditioner is not None and bool(self.conditioner.draft_widths)

    def __post_init__(self) -> None:
        check_positive(self, ("hidden", "heads", "mlp_ratio", "in_channels", "patch", "motion_channels", "motion_widths"))
        if self.hidden % self.heads or self.hidden % 12:
            raise InputError(f"hidden {self.hidden} must be a multiple of heads {self.heads} and of 12.")
        if not 0 <= self.control_depth < self.depth:
            raise InputError(f"control_depth {self.control_depth} must be below depth {self.depth}.")
        if self.prediction not in ("epsilon", "v"):
            raise InputError(f"prediction is {self.prediction!r}; it must be 'epsilon' or 'v'.")
        if not (1 <= self.clip_frames <= MOST_FRAMES and 0 < self.fps <= FASTEST and 1 <= self.input_sq_size <= 2**16):
            raise InputError(
                f"clip_frames {self.clip_frames}, fps {self.fps} and input_sq_size {self.input_sq_size} px cannot be; possible are "
                f"1 to {MOST_FRAMES} frames, above 0 to {FASTEST:g} a second, and 1 to {2**16} px."
            )
        if not 0 <= self.distilled_steps < 1000:
            raise InputError(f"distilled_steps is {self.distilled_steps}; it must be 0 (not distilled) to 999.")


@dataclass(frozen=True)
class AblationConfig(DiTConfig):
    """A network that is compared with the paper's (dit/ablation.py); with the defaults it is the paper's."""

    keypoints: int = 0                  # K tokens of 1-D motion instead of maps and ControlNet (Table 3); 0: maps
    reference_network: bool = False     # the portrait passes through blocks of its own instead of the backbone's

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keypoints < 0 or bool(self.keypoints) == self.reference_network or self.conditioner is not None:
            raise InputError(
                f"An ablation has either keypoints ({self.keypoints}) or a reference network ({self.reference_network}), and none "
                "of MINI's additions."
            )
        if self.keypoints and self.control_depth:
            raise InputError(f"1-D motion has no ControlNet; control_depth is {self.control_depth}.")


@dataclass(frozen=True)
class Config:
    """The sizes of one set of weights."""

    vid2vid: Vid2VidConfig = field(default_factory=Vid2VidConfig)
    dit: DiTConfig = field(default_factory=DiTConfig)
    image_size: int = 512               # px, "cropped to a resolution of 512x512"

    @property
    def clip_frames(self) -> int:
        """L, frames of a clip."""
        return self.dit.clip_frames

    @property
    def fps(self) -> float:
        """Input of the fps embedder."""
        return self.dit.fps


PAPER = Config()

MINI = Config(
    vid2vid=Vid2VidConfig(
        crop_size=128, num_kp=26, appearance_width=32, appearance_down=1, appearance_resblocks=2,
        reshape_channel=32, reshape_depth=4,
        motion_depths=(1, 2, 6, 2), motion_dims=(32, 64, 160, 320),
        dense_width=16, dense_max=128, dense_blocks=3, compress=1, mask_kernel=3, warped_channels=32,
        dense_down=1, first_order=True,
        generator_blocks=2, generator_out=16, spade_hidden=16, upscale=1,
    ),
    dit=DiTConfig(
        hidden=240, depth=6, heads=3, control_depth=2, learned_sigma=False, qk_norm_legacy=False,
        input_sq_size=256, prediction="v", fps=12.5, motion_channels=32, motion_widths=(64, 128),
        conditioner=ConditionerConfig(
            motion_latent=24, motion_blocks=3, reference_motion=True, draft_widths=(96, 128, 160), mask_reach=2.0,
        ),
    ),
    image_size=256,
)

# The ablations, at MINI's size without its additions: three networks that differ in one part.
PLAIN = replace(MINI, dit=replace(MINI.dit, conditioner=None))
ABLATIONS = {
    "plain": PLAIN,
    "keypoints": replace(
        PLAIN, dit=AblationConfig(**{**vars(PLAIN.dit), "keypoints": MINI.vid2vid.num_kp, "control_depth": 0})
    ),
    "reference_network": replace(PLAIN, dit=AblationConfig(**vars(PLAIN.dit), reference_network=True)),
}

PRESETS = {"mini": MINI, "paper": PAPER, **ABLATIONS}
