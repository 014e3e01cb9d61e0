"""Vid2VidConfig from the shapes of the weights, and its agreement with a bundle's metadata."""

import math
from collections.abc import Mapping
from dataclasses import asdict, replace

import torch

from ..checkpoint import config_from_fields, read_bundle_metadata
from ..config import Vid2VidConfig
from ..errors import InputError, WeightsError


class Shapes:
    """Shapes of a state by key. A missing key raises a WeightsError that names it."""

    def __init__(self, state: Mapping[str, torch.Tensor]):
        self.shapes = {key: tuple(value.shape) for key, value in state.items()}

    def size(self, key: str, axis: int) -> int:
        if axis >= len(self.shapes.get(key, ())):
            raise WeightsError(f"The weights lack {key}.")
        return self.shapes[key][axis]

    def count(self, pattern: str, step: int = 1) -> int:
        """How many of pattern.format(0), pattern.format(step), ... there are."""
        n = 0
        while pattern.format(n * step) in self.shapes:
            n += 1
        return n


def generator_sizes(shapes: Shapes) -> dict[str, int]:
    if "generator.conv_img.weight" in shapes.shapes:
        upscale = 1
    else:
        upscale = math.isqrt(shapes.size("generator.conv_img.0.weight", 0) // 3)
    return {
        "generator_blocks": shapes.count("generator.G_middle_{}.conv_0.weight"),
        "generator_out": shapes.size("generator.up_1.conv_1.weight", 0),
        "spade_hidden": shapes.size("generator.up_0.norm_0.mlp_shared.0.weight", 0),
        "upscale": upscale,
    }


def appearance_sizes(shapes: Shapes) -> dict[str, int]:
    channels = shapes.size("appearance.resblocks_3d.3dr0.conv1.weight", 0)
    return {
        "appearance_width": shapes.size("appearance.first.conv.weight", 0),
        "appearance_down": shapes.count("appearance.down_blocks.{}.conv.weight"),
        "reshape_channel": channels,
        "reshape_depth": shapes.size("appearance.second.weight", 0) // max(1, channels),
        "appearance_resblocks": shapes.count("appearance.resblocks_3d.3dr{}.conv1.weight"),
    }


def motion_sizes(shapes: Shapes) -> dict:
    stages = shapes.count("motion.detector.stages.{}.0.dwconv.weight")
    return {
        "num_kp": shapes.size("motion.detector.fc_kp.weight", 0) // 3,
        "motion_depths": tuple(shapes.count(f"motion.detector.stages.{i}.{{}}.dwconv.weight") for i in range(stages)),
        "motion_dims": tuple(shapes.size(f"motion.detector.stages.{i}.0.dwconv.weight", 0) for i in range(stages)),
        "num_bins": shapes.size("motion.detector.fc_pitch.weight", 0),
    }


def warping_sizes(shapes: Shapes) -> dict[str, int]:
    dense = "warping.dense_motion_network"
    blocks = shapes.count(f"{dense}.hourglass.encoder.down_blocks.{{}}.conv.weight")
    return {
        "num_kp": shapes.size(f"{dense}.mask.weight", 0) - 1,
        "reshape_channel": shapes.size(f"{dense}.compress.weight", 1),
        "reshape_depth": shapes.size(f"{dense}.occlusion.weight", 1) // max(1, shapes.size(f"{dense}.mask.weight", 1)),
        "dense_width": shapes.size(f"{dense}.hourglass.decoder.up_blocks.{blocks - 1}.conv.weight", 0),
        "dense_max": shapes.size(f"{dense}.hourglass.encoder.down_blocks.{blocks - 1}.conv.weight", 0),
        "dense_blocks": blocks,
        "compress": shapes.size(f"{dense}.compress.weight", 0),
        "mask_kernel": shapes.size(f"{dense}.mask.weight", 2),
        "warped_channels": shapes.size("warping.fourth.weight", 0),
    }


SIZES = {"appearance": appearance_sizes, "motion": motion_sizes, "warping": warping_sizes, "generator": generator_sizes}


def sizes_from_shapes(shapes: Shapes) -> dict:
    """Every field of Vid2VidConfig but crop_size, which no weight depends on."""
    appearance, motion, warping = appearance_sizes(shapes), motion_sizes(shapes), warping_sizes(shapes)
    if motion["num_kp"] != warping["num_kp"]:
        raise WeightsError(
            f"M finds {motion['num_kp']} keypoints and W moves {warping['num_kp']}: the networks come from different sets "
            "of weights."
        )
    volumes = [(sizes["reshape_channel"], sizes["reshape_depth"]) for sizes in (appearance, warping)]
    if volumes[0] != volumes[1]:
        raise WeightsError(
            "F's volume has {} channels and a depth of {}, W's {} and {}: the networks come from different sets of weights.".format(
                *volumes[0], *volumes[1]
            )
        )
    sizes = appearance | motion | warping
    if shapes.count("generator.G_middle_{}.conv_0.weight"):
        sizes |= generator_sizes(shapes)
    return sizes


def vid2vid_config_from_state(state: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> Vid2VidConfig:
    """The config of a state with the bundle's prefixes.

    A bundle's metadata states it and must agree with the shapes; without metadata the shapes decide and the crop is
    LivePortrait's 256 px. Raises WeightsError on missing keys, on contradictions, and on impossible sizes.
    """
    sizes = sizes_from_shapes(Shapes(state))
    values = read_bundle_metadata(metadata, "vid2vid")
    try:
        if values is None:
            return Vid2VidConfig(**sizes)
        stated = config_from_fields(Vid2VidConfig, values)
        inferred = replace(stated, **sizes)
    except InputError as error:
        raise WeightsError(f"The weights have impossible sizes: {error}") from error
    for name, value in asdict(stated).items():
        found = getattr(inferred, name)
        if found != value:
            raise WeightsError(f"The file's config has {name} = {value} and its weights have {found}.")
    return stated
