"""What fewer steps, other solvers and caching cost in likeness and save in time.

Every variant animates the same clips with the same noise: by the protocol of realportrait_core.eval `self`, a clip's first
frame performing the clip. The reference is the first variant, 50 steps of which every one is computed. A variant is measured
on all clips before the next, so that its row is known then; its time is set beside that of a few plain steps taken next to it.
"""

import copy
import logging
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

import realportrait_core
from realportrait_core.animation.rendering import render
from realportrait_core.diffusion.schedule import linear_schedule
from realportrait_core.dit import Caching, RealPortraitDiT
from realportrait_core.dit.checkpoint import load_dit
from realportrait_core.errors import FaceError, InputError
from realportrait_core.eval.cases import self_cases
from realportrait_core.eval.modes.protocol import Prepared, prepare
from realportrait_core.eval.modes.score import score
from realportrait_core.eval.modes.summary import mean
from realportrait_core.eval.networks import Networks
from realportrait_core.eval.rows import SEED, decode, encode
from realportrait_core.face.detect import FaceDetector
from realportrait_core.face.find import find_detector
from realportrait_core.speed import PRESETS, Speed, preset
from realportrait_core.vae import load_vae
from realportrait_core.vid2vid.checkpoint import load_vid2vid

from .measure import seconds

log = logging.getLogger("benchmarks")

WEIGHTS = Path(realportrait_core.__file__).parent / "weights"
DISTILLED = WEIGHTS / "realportrait" / "realportrait_mini.safetensors"
YARDSTICK_STEPS = 4  # of DDIM, beside every measurement
METRICS = {"psnr_db": "PSNR dB", "ssim": "SSIM", "keypoint_error_px": "keypoints px", "rotation_error_deg": "head degrees"}


@dataclass(frozen=True)
class Variant:
    """A way to denoise a clip."""

    speed: Speed
    dit: RealPortraitDiT | None = None  # other weights than the reference's


@dataclass(frozen=True)
class Row:
    """One variant; each figure the mean of the clips' means over frames 1 to the last."""

    name: str
    speed: Speed
    truth: dict[str, float]  # metric -> figure, against the truth
    reference: dict[str, float]  # metric -> figure, against the reference variant's frames
    seconds: float  # of a clip's latents, mean
    times_as_fast: float  # as the reference: median over the clips, both measured in plain steps


def variants(distilled: RealPortraitDiT | None) -> dict[str, Variant]:
    """The rows by name, the reference first. InputError for `distilled` weights that are not."""
    speeds = {
        **{f"DDIM, {steps} steps": Speed(steps) for steps in (50, 20, 15, 10, 8, 4)},
        **{f"DPM-Solver++(2M), {steps} steps": Speed(steps, "dpmpp_2m") for steps in (10, 8)},
        **{f"DDIM, 20 steps, control every {n}": Speed(20, caching=Caching(control_every=n)) for n in (2, 3)},
        **{f"DDIM, 20 steps, first-block cache {limit:g}": Speed(20, caching=Caching(threshold=limit)) for limit in (0.1, 0.2)},
    }
    for name, speed in PRESETS.items():  # one that is among them takes its row over
        same = next((row for row in speeds if speeds[row] == speed), None)
        speeds[name if same is None else f"{name}: {same}"] = speeds.pop(same, speed)
    found = {name: Variant(speed) for name, speed in speeds.items()}
    if distilled is not None:
        speed = preset("distilled", distilled.cfg)
        found[f"{speed.steps} steps, distilled"] = Variant(speed, distilled)
    return found


def fp8_row(dit: RealPortraitDiT) -> dict[str, Variant]:
    """The same network with every weight rounded to float8_e4m3fn, in which Load RealPortrait Model can keep them."""
    rounded = copy.deepcopy(dit)
    for value in rounded.parameters():
        value.data = value.data.to(torch.float8_e4m3fn).to(value.dtype)
    return {"DDIM, 20 steps, fp8 weights": Variant(Speed(20), rounded)}


def load_networks(detector: Path | None, dit: Path, device: str) -> Networks:
    """The bundled weights with a DiT for any number of steps, which the bundled one is not. Only the DiT is timed, and only it goes
    to the device.

    detector: YuNet's file; None looks for it.
    """
    return Networks(
        load_vid2vid(WEIGHTS / "realportrait" / "realportrait_mini_vid2vid.safetensors"),
        load_dit(dit).to(device),
        load_vae(WEIGHTS / "vae" / "realportrait_mini_vae.safetensors"),
        FaceDetector(detector or find_detector()),
        linear_schedule(),
    )


def load_distilled(path: Path | None, device: str) -> RealPortraitDiT:
    """Weights for few steps: those of `path`, else the bundled ones."""
    return load_dit(path or DISTILLED).to(device)


def prepared_clips(networks: Networks, data: Path, limit: int | None, frames: int | None) -> tuple[list[Prepared], dict[str, str]]:
    """The first `limit` clips of `data`, `frames` of each (None: all), and those that were left out because of a face:
    name -> reason. InputError where no clip is left.
    """
    if limit is not None and limit < 1 or frames is not None and frames < 2:
        raise InputError(f"--limit is {limit} and --frames {frames}; at least 1 clip and 2 frames are needed.")
    clips, left_out = [], {}
    for case in self_cases(data)[:limit]:
        log.info("%s ...", case.name)
        try:
            with torch.inference_mode():
                clips.append(prepare(networks, replace(case, frames=frames)))
        except FaceError as error:
            left_out[case.name] = str(error)
    if not clips:
        raise InputError(f"No clip could be measured: {'; '.join(left_out.values())}")
    return clips, left_out


@dataclass(frozen=True)
class Measured:
    """One variant of one clip."""

    pictures: Tensor  # (L, 3, S, S)
    seconds: float
    plain_steps: float  # so many plain steps would have taken as long


def rows(networks: Networks, clips: list[Prepared], tried: dict[str, Variant], device: str) -> Iterator[Row]:
    """A row for each variant, as soon as it is measured; the first variant is the reference."""
    first = None
    for name, variant in tried.items():
        measured = [measure(networks, clip, variant, device) for clip in clips]
        first = first or measured
        yield Row(
            name,
            variant.speed,
            truth=scores(networks, clips, measured, [clip.truth.pictures for clip in clips]),
            reference=scores(networks, clips, measured, [own.pictures for own in first]),
            seconds=mean(own.seconds for own in measured),
            times_as_fast=statistics.median(a.plain_steps / b.plain_steps for a, b in zip(first, measured)),
        )


@torch.inference_mode()
def measure(networks: Networks, clip: Prepared, variant: Variant, device: str) -> Measured:
    latent, latents = encode(networks.vae, clip.truth.portrait), []

    def run(dit: RealPortraitDiT, speed: Speed) -> None:
        latents[:] = [
            render(dit, networks.schedule, latent, clip.motion, speed.steps, SEED, solver=speed.solver, caching=speed.caching)
        ]

    run(networks.dit, Speed(1))  # the first call prepares
    yardstick = seconds(lambda: run(networks.dit, Speed(YARDSTICK_STEPS)), device)
    took = seconds(lambda: run(variant.dit or networks.dit, variant.speed), device)
    return Measured(decode(networks.vae, latents[0]), took, YARDSTICK_STEPS * took / yardstick)


@torch.inference_mode()
def scores(networks: Networks, clips: list[Prepared], measured: list[Measured], truths: list[Tensor]) -> dict[str, float]:
    """Metric -> mean over the clips of their means over the frames."""
    found = [
        score(networks.vid2vid, {"": own.pictures}, replace(clip.truth, pictures=truth))[""]
        for clip, own, truth in zip(clips, measured, truths)
    ]
    return {metric: mean(mean(figures[metric]) for figures in found) for metric in METRICS}


def header() -> str:
    """Of a Markdown table: a row's figures against the truth, then against the reference."""
    names = list(METRICS.values())
    return "\n".join(
        [
            f"| | steps | times as fast | {' | '.join(names)} | {' | '.join(f'to the first: {name}' for name in names)} |",
            "|---" * (3 + 2 * len(names)) + "|",
        ]
    )


def line(row: Row) -> str:
    figures = [f"{values[metric]:.{4 if metric == 'ssim' else 2}f}" for values in (row.truth, row.reference) for metric in METRICS]
    return f"| {row.name} | {row.speed.steps} | {row.times_as_fast:.2f} | {' | '.join(figures)} |"
