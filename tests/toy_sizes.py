"""Sizes of networks of a few thousand parameters in which no path is dead. As values, because the host's tests build the pack's own
copy of the configuration classes."""

VID2VID = dict(
    crop_size=32,
    num_kp=5,
    appearance_width=4,
    reshape_channel=4,
    reshape_depth=2,
    appearance_resblocks=1,
    motion_depths=(1, 1, 1, 1),
    motion_dims=(4, 8, 8, 16),
    dense_width=4,
    dense_max=16,
    dense_blocks=2,
    compress=2,
    mask_kernel=3,
    warped_channels=6,
    generator_blocks=1,
    generator_out=4,
    spade_hidden=4,
    upscale=1,
)
# MINI's kind: no learned variance, v, a conditioner (which is given beside these).
DIT = dict(
    hidden=48,
    depth=2,
    heads=2,
    control_depth=1,
    learned_sigma=False,
    qk_norm_legacy=False,
    input_sq_size=64,
    prediction="v",
    motion_channels=6,
    motion_widths=(8, 8),
    fps=12.5,
)
