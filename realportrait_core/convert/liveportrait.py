"""LivePortrait's weights, .pth or safetensors -> one bundle of ours, or safetensors of one network each."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from ..checkpoint import DESCRIPTIONS, LICENCE_KEY, VID2VID_PARTS, bundle_metadata, save, sniff
from ..errors import WeightsError
from ..licences import LIVEPORTRAIT
from ..vid2vid.checkpoint import build, bundle_parts, stitching_networks, stitching_part, without_wrapper
from ..vid2vid.public import NEEDED_PARTS, PUBLIC_FILES
from .files import read_weights, refuse_existing, weight_files

logger = logging.getLogger(__name__)

NAMES = {role: file.name for role, file in PUBLIC_FILES.items()}
State = dict[str, torch.Tensor]


def recognised(state: State) -> tuple[str, State]:
    """The role of a public file, and its state in the spelling of the safetensors conversions."""
    stitching = stitching_part(state)
    return ("stitching", stitching) if stitching else (sniff(state), without_wrapper(state))


def read_networks(sources: Sequence[Path]) -> tuple[dict[str, State], dict[str, Path]]:
    """State and file of each network in files and folders, by role. In a folder, other files are left out.

    Raises WeightsError on a file that is something else, on two files of one network, and where nothing is found.
    """
    states: dict[str, State] = {}
    files: dict[str, Path] = {}
    for source in sources:
        for path in weight_files(source):
            try:
                role, state = recognised(read_weights(path))
                if role not in NAMES:
                    what, where = DESCRIPTIONS[role]
                    raise WeightsError(f"{path} looks like {what}, not like a network of LivePortrait. {where}.")
            except WeightsError as error:
                if not source.is_dir():
                    raise
                logger.warning("Left out: %s", error)
                continue
            if role in files:
                raise WeightsError(f"{files[role]} and {path} are both {DESCRIPTIONS[role][0]}. Name one of them.")
            states[role], files[role] = state, path
    if not states:
        raise WeightsError(f"No network of LivePortrait in {', '.join(map(str, sources))}.")
    return states, files


def bundle(states: dict[str, State], half: bool) -> tuple[State, dict[str, str]]:
    """Tensors and metadata of a bundle. Raises WeightsError if F, M or W is missing or the networks do not fit together."""
    if missing := [NAMES[part] for part in NEEDED_PARTS if part not in states]:
        raise WeightsError(f"A bundle needs {' and '.join(missing)} too. Name these files, or a folder as OUT for single ones.")
    state = bundle_parts({part: states[part] for part in VID2VID_PARTS if part in states}, "LivePortrait's file")
    cfg = build(state, {}).cfg  # every tensor is there, in the right shape
    if "stitching" in states:
        read = stitching_networks(states["stitching"])["stitching"].mlp[0].in_features
        if read != 6 * cfg.num_kp:
            raise WeightsError(
                f"M finds {cfg.num_kp} keypoints and the stitching MLP reads {read / 6:g}: the networks come from different "
                "sets of weights."
            )
        state |= states["stitching"]
    return stored(state, half), bundle_metadata("vid2vid", cfg, LIVEPORTRAIT)


def stored(state: State, half: bool) -> State:
    return {key: value.half() if half and value.is_floating_point() else value for key, value in state.items()}


def convert(sources: Sequence[Path], out: Path, half: bool = False) -> list[str]:
    """Writes a bundle if `out` ends in .safetensors, else a folder with one file a network under its published name.

    A bundle has the generator's spectral norm folded in and states its config; single files keep keys and values, so that
    other programs read them too. `half` stores fp16 instead of what the files have. Returns lines for the user.
    Raises WeightsError as read_networks and bundle do, and where a file to be written is already there.
    """
    single = out.suffix.lower() != ".safetensors"
    targets = {role: out / f"{name}.safetensors" if single else out for role, name in NAMES.items()}
    states, files = read_networks(sources)
    for role in states:
        refuse_existing(targets[role])
    lines = [f"{path}: {DESCRIPTIONS[role][0]}, {len(states[role])} tensors" for role, path in files.items()]
    if single:
        for role, state in states.items():
            save(targets[role], stored(state, half), {LICENCE_KEY: LIVEPORTRAIT})
    else:
        save(out, *bundle(states, half))
    return [*lines, f"Written: {', '.join(sorted({str(targets[role]) for role in states}))}", f"Licence: {LIVEPORTRAIT}"]
