"""The architecture as numbers. PAPER is what the paper states; MINI is what the bundled weights are."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from .errors import InputError

MOST_REACH = 2.5        # a facial mask that holds nothing must stay empty when it is widened: face.crop.EMPTY_FACE


def refuse_nothing(config: object, names: Iterable[str]) -> None:
    """InputError where one of these sizes, or one of several in a tuple, is below 1."""
    for name in sorted(names):
        value = getattr(config, name)
        if min(value if isinstance(value, tuple) else (value,), default=0) < 1:
            raise InputError(f"{name} is {value}; it must be above 0.")


@dataclass(frozen=True)
class Vid2VidConfig:
    """Sizes of Face Vid2vid: F, M, W and G (Wang, Mallya, Liu 2021, as LivePortrait publishes it)."""

    crop_size: int = 256                # px, side of the face crop that F and M read
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
    dense_down: int = 0                 # halvings of f_r before the dense motion network looks at it; none in the public networks
    compress: int = 4                   # channels of the feature the dense motion net looks at
    mask_kernel: int = 7
    warped_channels: int = 256          # of f_{r->d}, the motion position map
    first_order: bool = False           # what surrounds a keypoint turns with the head; the public networks only shift it
    # G, generator
    generator_blocks: int = 6
    generator_out: int = 64             # channels before the picture
    spade_hidden: int = 128
    upscale: int = 2                    # the picture is 4 * upscale times the feature's side

    @property
    def feature_size(self) -> int:
        """Side of f_r and f_{r->d}."""
        return self.crop_size // 2**self.appearance_down

    def __post_init__(self) -> None:
        refuse_nothing(self, vars(self).keys() - {"crop_size", "dense_down", "first_order"})
        step = 2 ** (self.appearance_down + self.dense_down + self.dense_blocks)
        if not 0 < self.crop_size <= 2048:
            raise InputError(f"crop_size is {self.crop_size} px; it must be above 0 and at most 2048.")
        if self.crop_size % step:
            raise InputError(
                f"crop_size {self.crop_size} must be a multiple of {step}: "
                f"{self.appearance_down} poolings in F, then {self.dense_down + self.dense_blocks} in W."
            )


@dataclass(frozen=True)
class ConditionerConfig:
    """What small networks have in the place of the paper's motion mapper; the defaults add nothing to it."""

    motion_latent: int = 4              # channels of the motion latents
    motion_blocks: int = 0              # residual blocks behind the mapper's three convolutions
    reference_motion: bool = False      # the portrait's own map on the portrait's tokens
    draft_widths: tuple[int, ...] = ()  # channels of the draft at the latent's size, half and quarter; empty: no draft
    mask_reach: float = 1.0             # size of the facial mask in faces; the paper's is the face, twice that holds the hair

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
    """Sizes of the STDiT2 backbone, of its half control and of the motion mapper."""

    hidden: int = 1152
    depth: int = 28                     # "The backbone consists of 28 blocks" (Training and inference)
    heads: int = 16
    control_depth: int = 13             # "the ControlNet comprises 13 blocks"
    mlp_ratio: int = 4
    in_channels: int = 4                # of the SD1.5 latent
    patch: int = 2
    learned_sigma: bool = True          # IDDPM: the output carries the variance too
    qk_norm_legacy: bool = True         # RoPE before the q/k norm, as the public STDiT2 weights were trained
    input_sq_size: int = 512            # px, the picture side at which positions are integers
    prediction: str = "epsilon"         # or "v"
    distilled_steps: int = 0            # the number of steps that the weights are made for; 0: any
    clip_frames: int = 16               # L, "L is set to 16 in our experiments"
    fps: float = 25.0                   # told to the fps embedder; constant for one set of weights
    # motion mapper: 3 convolutions with a stride of 2
    motion_channels: int = 256          # of f_{r->d}
    motion_widths: tuple[int, int] = (64, 32)
    conditioner: ConditionerConfig | None = None    # in the motion mapper's place; None: the paper's network

    @property
    def reference_motion(self) -> bool:
        """Whether the network reads the portrait's own motion map too, which the paper's does not."""
        return self.conditioner is not None and self.conditioner.reference_motion

    @property
    def drafts(self) -> bool:
        """Whether the motion latents are a picture of each frame."""
        return self.conditioner is not None and bool(self.conditioner.draft_widths)

    def __post_init__(self) -> None:
        refuse_nothing(self, ("hidden", "heads", "mlp_ratio", "in_channels", "patch", "motion_channels", "motion_widths"))
        if self.hidden % self.heads or self.hidden % 12:
            raise InputError(f"hidden {self.hidden} must be a multiple of heads {self.heads} and of 12.")
        if not 0 <= self.control_depth < self.depth:
            raise InputError(f"control_depth {self.control_depth} must be below depth {self.depth}.")
        if self.prediction not in ("epsilon", "v"):
            raise InputError(f"prediction is {self.prediction!r}; it must be 'epsilon' or 'v'.")
        if not 0 <= self.distilled_steps < 1000:
            raise InputError(f"distilled_steps is {self.distilled_steps}; it must be 0 (not distilled) to 999.")


@dataclass(frozen=True)
class Config:
    """Everything that a set of weights fixes."""

    vid2vid: Vid2VidConfig = field(default_factory=Vid2VidConfig)
    dit: DiTConfig = field(default_factory=DiTConfig)
    image_size: int = 512               # px, "cropped to a resolution of 512x512"

    @property
    def clip_frames(self) -> int:
        """L, frames of a clip."""
        return self.dit.clip_frames

    @property
    def fps(self) -> float:
        """Told to the fps embedder."""
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

PRESETS = {"mini": MINI, "paper": PAPER}
