"""Open-Sora's STDiT-v2-stage3 -> a file from which training at the paper's size starts."""

import re
from collections.abc import Iterable
from pathlib import Path

import torch

from ..checkpoint import bundle_metadata, save, sniff, wrong_role
from ..config import PAPER, DiTConfig
from ..dit.checkpoint import start_state
from ..errors import WeightsError
from ..licences import OPEN_SORA
from .files import read_shards, refuse_existing

SEED = 0  # of the motion mapper: the same file gives the same start


def grouped(keys: Iterable[str]) -> list[str]:
    """Keys with the numbers of equal blocks merged, in their first order: blocks.0-27.attn.qkv.weight."""
    numbers: dict[str, list[int]] = {}
    for key in keys:
        match = re.match(r"(blocks|controlnet)\.(\d+)\.(.*)", key)
        numbers.setdefault(f"{match[1]}.{{}}.{match[3]}" if match else key, []).extend([int(match[2])] if match else [])
    return [pattern.format(span(found)) if found else pattern for pattern, found in numbers.items()]


def span(numbers: list[int]) -> str:
    first, last = min(numbers), max(numbers)
    if sorted(numbers) != list(range(first, last + 1)):
        return ",".join(map(str, numbers))
    return str(first) if first == last else f"{first}-{last}"


def convert(source: Path, out: Path, cfg: DiTConfig = PAPER.dit) -> list[str]:
    """Writes `out` in the dtypes of `source`: a file, a folder, or the index of a sharded file. Returns lines for the user.

    The config in the metadata holds what no weight shows: qk_norm_legacy, epsilon, and the paper's clip.
    Raises WeightsError if `source` is not an STDiT2 of the size of `cfg`, or `out` is already there.
    """
    refuse_existing(out)
    if out.suffix.lower() != ".safetensors":
        raise WeightsError(f"{out} must end in .safetensors.")
    public = read_shards(source)
    torch.manual_seed(SEED)
    if (role := sniff(public)) != "stdit2":
        raise wrong_role(source, role, "stdit2")
    try:
        start = start_state(public, cfg)
    except WeightsError as error:
        raise WeightsError(f"{source} is not the STDiT2 that the paper starts from. {error}") from error
    save(out, start.state, bundle_metadata("dit", cfg, OPEN_SORA))
    lines = []
    for what, keys in (
        ("kept as they are", start.kept),
        ("copied from the backbone's first blocks into the control", start.copied),
        ("new: zero projections, and the motion mapper at random", start.new),
        ("dropped: text, and the table of RoPE, which is computed anew", start.dropped),
        ("of the file unknown and left out", start.unknown),
    ):
        if keys:
            lines += [f"{len(keys)} tensors {what}", *(f"    {key}" for key in grouped(keys))]
    return [
        *lines,
        f"qk_norm_legacy: {cfg.qk_norm_legacy} (no weight shows it; so the public weights were trained)",
        f"Written: {out}, a start for `python -m realportrait_core.train frames --init {out}`; it animates only after training",
        f"Licence: {OPEN_SORA}",
    ]
