"""At which sizes the parts are measured: seconds a call on two cores."""

from dataclasses import dataclass, replace

from realportrait_core.config import MINI, PAPER, Config, DiTConfig, Vid2VidConfig


@dataclass(frozen=True)
class Sizes:
    """The networks, and how much of them one measurement takes."""

    name: str
    config: Config
    step: DiTConfig  # of the denoising step beside its literal form
    step_px: int
    step_frames: int
    map_px: int
    map_frames: int
    vid2vid_frames: int


@dataclass(frozen=True)
class Limits:
    """What is tried at a preset's full size, beside its own clip."""

    lengths: tuple[int, ...]  # L, frames of a clip
    sides: tuple[int, ...]  # px
    driver_frames: int  # of MINI end to end
    steps: int


# Every part in a blink: for the tests.
TINY = Config(
    vid2vid=Vid2VidConfig(
        crop_size=32,
        num_kp=5,
        appearance_width=8,
        reshape_channel=4,
        reshape_depth=8,
        appearance_resblocks=1,
        motion_depths=(1, 1, 1, 1),
        motion_dims=(8, 8, 8, 8),
        dense_width=4,
        dense_max=8,
        dense_blocks=2,
        compress=2,
        mask_kernel=3,
        warped_channels=6,
        generator_blocks=1,
        generator_out=4,
        spade_hidden=4,
        upscale=1,
    ),
    dit=DiTConfig(
        hidden=48, depth=3, heads=4, control_depth=1, input_sq_size=64, motion_channels=6, motion_widths=(2, 4), clip_frames=3
    ),
    image_size=64,
)

SIZES = {
    "tiny": Sizes(name="tiny", config=TINY, step=TINY.dit, step_px=64, step_frames=3, map_px=64, map_frames=2, vid2vid_frames=2),
    "mini": Sizes(
        name="MINI", config=MINI, step=MINI.dit, step_px=256, step_frames=16, map_px=256, map_frames=16, vid2vid_frames=4
    ),
    # The paper's widths: its 28 and 13 blocks are alike, so two of them and one of control tell the ratio.
    "paper": Sizes(
        name="PAPER",
        config=PAPER,
        step=replace(PAPER.dit, depth=2, control_depth=1),
        step_px=256,
        step_frames=16,
        map_px=512,
        map_frames=2,
        vid2vid_frames=1,
    ),
}

LIMITS = Limits(lengths=(8, 16, 32, 64), sides=(256, 512, 768, 1024), driver_frames=46, steps=8)
TINY_LIMITS = Limits(lengths=(2,), sides=(128,), driver_frames=4, steps=2)
