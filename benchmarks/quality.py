"""What fewer steps, other solvers and caching cost in likeness and save in time.

Every variant animates the same clips with the same noise: by the protocol of realportrait_core.eval `self`, a clip's first
frame performing the clip. The reference is the first variant, 50 steps of which every one is computed.
"""

import logging
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import realportrait_core
import torch
from realportrait_core.diffusion.schedule import linear_schedule
from realportrait_core.dit import Caching
from realportrait_core.dit.checkpoint import load_dit
from realportrait_core.errors import FaceError, InputError
from realportrait_core.eval.protocol import SEED, Networks, Prepared, decode, encode, mean, prepare, score, self_cases
from realportrait_core.face.detect import FaceDetector
from realportrait_core.face.find import find_detector
from realportrait_core.generate import render
from realportrait_core.speed import PRESETS, Speed
from realportrait_core.vae import load_vae
from realportrait_core.vid2vid.checkpoint import load_vid2vid
from torch import Tensor

from .measure import seconds

log = logging.getLogger("benchmarks")

WEIGHTS = Path(realportrait_core.__file__).parent / "weights"
VARIANTS = {
    "DDIM, 50 steps": Speed(50),
    **{f"DDIM, {steps} steps": Speed(steps) for steps in (20, 12, 8, 4)},
    **{f"DPM-Solver++(2M), {steps} steps": Speed(steps, "dpmpp_2m") for steps in (15, 10, 8)},
    **{f"ancestral, {steps} steps": Speed(steps, "ancestral") for steps in (50, 20)},
    **{f"control every {n} steps": Speed(20, caching=Caching(control_every=n)) for n in (2, 3)},
    **{f"first-block cache {limit:g}": Speed(20, caching=Caching(threshold=limit)) for limit in (0.1, 0.2)},
    **PRESETS,
}
METRICS = {
    "psnr_db": "PSNR dB", "ssim": "SSIM", "keypoint_error_px": "keypoints px", "rotation_error_deg": "head degrees",
}


@dataclass(frozen=True)
class Row:
    """One variant; each figure the mean of the clips' means over frames 1 to the last."""

    name: str
    speed: Speed
    truth: dict[str, float]             # metric -> figure, against the truth
    reference: dict[str, float]         # metric -> figure, against the reference variant's frames
    seconds: float                      # of a clip's latents, mean
    times_as_fast: float                # median over the clips of the reference's seconds / this variant's


def bundled_networks(detector: Path | None, device: str) -> Networks:
    """The bundled weights; only the DiT is timed, and only it goes to the device. detector: YuNet's file; None looks for it."""
    return Networks(
        load_vid2vid(WEIGHTS / "realportrait" / "realportrait_mini_vid2vid.safetensors"),
        load_dit(WEIGHTS / "realportrait" / "realportrait_mini.safetensors").to(device),
        load_vae(WEIGHTS / "vae" / "realportrait_mini_vae.safetensors"),
        FaceDetector(detector or find_detector()), linear_schedule(),
    )


def rows_of(
    networks: Networks, data: Path, limit: int | None, frames: int | None, device: str, variants: dict[str, Speed] = VARIANTS
) -> tuple[list[Row], dict[str, str]]:
    """A row for each variant over the first `limit` clips of `data`, `frames` of each (None: all), and the clips that
    were left out because of a face: name -> reason. The first variant is the reference. InputError where no clip is left.
    """
    if limit is not None and limit < 1 or frames is not None and frames < 2:
        raise InputError(f"--limit is {limit} and --frames {frames}; at least 1 clip and 2 frames are needed.")
    clips, left_out = [], {}
    for case in self_cases(data)[:limit]:
        log.info("%s ...", case.name)
        try:
            clips.append(measure(networks, prepare(networks, replace(case, frames=frames)), device, variants))
        except FaceError as error:
            left_out[case.name] = str(error)
    if not clips:
        raise InputError(f"No clip could be measured: {'; '.join(left_out.values())}")
    first = next(iter(variants))
    rows = []
    for name, speed in variants.items():
        measured = [clip[name] for clip in clips]
        rows.append(Row(
            name, speed,
            *({metric: mean(m[i][metric] for m in measured) for metric in METRICS} for i in range(2)),
            seconds=mean(took for _, _, took in measured),
            times_as_fast=statistics.median(clip[first][2] / clip[name][2] for clip in clips),
        ))
    return rows, left_out


@torch.inference_mode()
def measure(
    networks: Networks, given: Prepared, device: str, variants: dict[str, Speed]
) -> dict[str, tuple[dict[str, float], dict[str, float], float]]:
    """Each variant of one clip: its metrics against the truth, against the first variant's frames, and its seconds."""
    latent, latents, took = encode(networks.vae, given.portrait), {}, {}

    def run(name: str, speed: Speed) -> None:
        latents[name] = render(
            networks.dit, networks.schedule, latent, given.motion, speed.steps, SEED, solver=speed.solver, caching=speed.caching,
        )

    run("", Speed(1))                                       # the first call prepares
    for name, speed in variants.items():
        took[name] = seconds(lambda: run(name, speed), device)
    pictures = {name: decode(networks.vae, latents[name]) for name in variants}
    of_truth = scores(networks, given, pictures, given.truth)
    of_reference = scores(networks, given, pictures, pictures[next(iter(variants))])
    return {name: (of_truth[name], of_reference[name], took[name]) for name in variants}


def scores(networks: Networks, given: Prepared, pictures: dict[str, Tensor], truth: Tensor) -> dict[str, dict[str, float]]:
    """Variant -> metric -> mean over the frames."""
    found = score(networks.vid2vid, pictures, truth, given.crop, given.motion.maps.mask())
    return {name: {metric: mean(found[name][metric]) for metric in METRICS} for name in pictures}


def table(rows: Sequence[Row]) -> str:
    """Markdown: a row's figures against the truth, then against the reference."""
    names = list(METRICS.values())
    lines = [
        f"| | steps | times as fast | {' | '.join(names)} | {' | '.join(f'to the first: {name}' for name in names)} |",
        "|---" * (3 + 2 * len(names)) + "|",
    ]
    for row in rows:
        figures = [
            f"{values[metric]:.{4 if metric == 'ssim' else 2}f}" for values in (row.truth, row.reference) for metric in METRICS
        ]
        lines.append(f"| {row.name} | {row.speed.steps} | {row.times_as_fast:.2f} | {' | '.join(figures)} |")
    return "\n".join(lines)
