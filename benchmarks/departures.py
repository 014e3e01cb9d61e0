"""What each departure from the paper is worth: MINI's DiT trained with it and without, at equal minutes of one core.

All variants are trained on the same samples with the same draws. Their time is the process's own CPU time, which does not depend
on the load of the machine: a variant with cheaper steps takes more of them. A third of the time goes to the stage `maps` (motion
mapper and draft only), the rest to `clips`; a variant without latent regression has no stage `maps`. A step of clips takes many
seconds of a core, so a few minutes from scratch are few steps and compare only how fast the variants start. From trained weights,
of which each variant takes those that fit it, a few minutes show the cost of removing a part that the weights were trained with.
Sampled clips that were not trained on are scored by the protocol of realportrait_core.eval `self`.

The standard error is that of the clips' paired differences: the uncertainty over the choice of clips. It does not contain that
over trainings; the row *MINI again*, with another seed, shows how far two trainings differ.
"""

import logging
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from realportrait_core.animation.rendering import render
from realportrait_core.config import MINI, DiTConfig
from realportrait_core.diffusion.schedule import linear_schedule
from realportrait_core.dit import RealPortraitDiT
from realportrait_core.errors import InputError
from realportrait_core.eval.judges.loading import load_judges
from realportrait_core.eval.modes.protocol import Prepared
from realportrait_core.eval.modes.score import judge, score
from realportrait_core.eval.modes.summary import mean
from realportrait_core.eval.networks import Networks
from realportrait_core.eval.rows import SEED, STATIC, decode, encode
from realportrait_core.face.detect import FaceDetector
from realportrait_core.face.find import find_detector
from realportrait_core.speed import GUIDANCE, STEPS
from realportrait_core.train.batch import Index, read_index
from realportrait_core.train.budget import Budget
from realportrait_core.train.checkpoint import read_checkpoint
from realportrait_core.train.data.prepare import weights_fingerprint
from realportrait_core.train.encoders import Encoders
from realportrait_core.train.initial import from_scratch
from realportrait_core.train.precision import autocast
from realportrait_core.train.run import make_objective
from realportrait_core.train.stage import train_stage
from realportrait_core.train.stages import STAGES, Stage
from realportrait_core.vae import load_vae
from realportrait_core.vid2vid.checkpoint import load_vid2vid

from .quality import WEIGHTS

log = logging.getLogger("benchmarks")

MAPS_SHARE = 1 / 3  # of a variant's minutes, for the stage `maps`
GOING_ON = 0.25  # of a stage's learning rate, from trained weights
GUIDANCES = (GUIDANCE, 1.0)
# Metric -> its name, and decimals.
METRICS = {"psnr_db": ("PSNR dB", 2), "st_lpips": ("ST-LPIPS", 4), "keypoint_error_px": ("keypoints px", 2)}
FULL, NO_DRAFT = "MINI", "no draft"
Figures = dict[str, list[float]]  # metric -> one figure for each clip, the mean of its frames


@dataclass(frozen=True)
class Variant:
    """A network and a loss, and the name of the variant that it is compared with."""

    cfg: DiTConfig
    beside: str | None = FULL
    plain: bool = False  # the paper's loss: no weights of places and frames, no latent regression
    seed: int = 0

    def plan(self, stages: tuple[Stage, Stage]) -> list[tuple[Stage, float]]:
        """stages: maps and clips -> the stages that are trained, each with its share of the minutes."""
        maps, clips = stages
        if self.plain:
            return [(replace(clips, face=0.0, latent_regression=0.0, error_reweighting=0.0), 1.0)]
        return [(maps, MAPS_SHARE), (clips, 1 - MAPS_SHARE)]


def variants(cfg: DiTConfig) -> dict[str, Variant]:
    """MINI and MINI without each departure, by name; a variant comes after the one that it is compared with."""

    def changed(**fields) -> DiTConfig:
        return replace(cfg, conditioner=replace(cfg.conditioner, **fields))

    return {
        FULL: Variant(cfg, beside=None),
        NO_DRAFT: Variant(changed(draft_widths=())),
        "none of them": Variant(replace(cfg, conditioner=None), plain=True),
        "plain loss": Variant(cfg, plain=True),
        "mask_reach 1": Variant(changed(mask_reach=1.0)),
        "motion_blocks 0": Variant(changed(motion_blocks=0)),
        "no draft or reference_motion": Variant(changed(draft_widths=(), reference_motion=False), beside=NO_DRAFT),
        "MINI again": Variant(cfg, seed=1),
    }


def chosen(tried: dict[str, Variant], names: str | None) -> dict[str, Variant]:
    """MINI and the named ones (comma-separated), with those they are compared with; all by default. InputError for another name."""
    if names is None:
        return tried
    wanted = names.split(",")
    if missing := [name for name in wanted if name not in tried]:
        raise InputError(f"There is no variant {missing[0]!r}; there are {', '.join(tried)}.")
    wanted += [FULL, *(tried[name].beside for name in wanted)]
    return {name: each for name, each in tried.items() if name in wanted}


def mini_stages(batch: float, rate: float = 1.0) -> tuple[Stage, Stage]:
    """MINI's stages maps and clips, with `rate` times the learning rate and `batch` times the portraits a step (one at least)."""
    return tuple(
        replace(
            stage,
            lr=rate * stage.lr,
            shapes=tuple(replace(shape, portraits=max(1, round(batch * shape.portraits))) for shape in stage.shapes),
        )
        for stage in (STAGES["mini"]["maps"], STAGES["mini"]["clips"])
    )


def started(cfg: DiTConfig, given: RealPortraitDiT | None) -> RealPortraitDiT:
    """From scratch, with those of the weights `given` that fit."""
    dit = from_scratch(cfg)
    if given is None:
        return dit
    theirs, ours = given.state_dict(), dit.state_dict()
    if cfg.conditioner is None:
        theirs |= {key.replace("conditioner.mapper.", "motion_net."): value for key, value in theirs.items()}
    dit.load_state_dict(ours | {key: value for key, value in theirs.items() if key in ours and value.shape == ours[key].shape})
    return dit


class CoreMinutes(Budget):
    """So many minutes of this process's own CPU time, from the first call of `spent` on."""

    @cached_property
    def began(self) -> float:
        """Seconds."""
        return time.process_time()

    def spent(self, step: int, seconds: float) -> float:
        return (time.process_time() - self.began) / 60 / self.minutes


@dataclass(frozen=True)
class Row:
    """One variant."""

    name: str
    beside: str | None
    steps: tuple[int, ...]  # of each stage
    parameters: int
    figures: dict[float, Figures]  # guidance -> figures


def load_networks(detector: Path | None, stlpips: Path | None) -> Networks:
    """The bundled Face Vid2vid and VAE, and the networks of the metrics. The DiT is MINI without weights; a variant replaces it."""
    return Networks(
        load_vid2vid(WEIGHTS / "realportrait" / "realportrait_mini_vid2vid.safetensors"),
        RealPortraitDiT(MINI.dit, device="meta"),
        load_vae(WEIGHTS / "vae" / "realportrait_mini_vae.safetensors"),
        FaceDetector(detector or find_detector()),
        linear_schedule(),
        load_judges(stlpips, "alex", None, None),
    )


def load_samples(folder: Path, networks: Networks) -> Index:
    """InputError where they were made with another Face Vid2vid: their keypoints would not fit its W."""
    index = read_index(folder, networks.dit.cfg.input_sq_size)
    if index.vid2vid != weights_fingerprint(networks.vid2vid):
        raise InputError(f"The samples in {folder} were made with another Face Vid2vid than the bundled one.")
    return index


def rows(
    networks: Networks,
    clips: list[Prepared],
    tried: dict[str, Variant],
    index: Index,
    stages: tuple[Stage, Stage],
    minutes: float,
    precision: torch.dtype,
    given: RealPortraitDiT | None = None,
) -> Iterator[Row]:
    """The static portrait, then a row for each variant, as soon as it is measured. stages: maps and clips;
    minutes: of one core, for each variant; given: weights to start from."""
    if len(clips) < 2:
        raise InputError("A standard error takes two clips or more.")
    still = [clip.truth.portrait.expand_as(clip.truth.pictures) for clip in clips]
    yield Row(STATIC, None, (), 0, dict.fromkeys(GUIDANCES, figures(networks, clips, still)))
    for name, variant in tried.items():
        log.info("%s ...", name)
        dit, steps = train(variant, networks, index, stages, minutes, precision, given)
        with_dit = replace(networks, dit=dit.requires_grad_(False))
        found = {
            guidance: figures(networks, clips, [sample(with_dit, clip, guidance, precision) for clip in clips])
            for guidance in GUIDANCES
        }
        yield Row(name, variant.beside, steps, sum(value.numel() for value in dit.parameters()), found)


def train(
    variant: Variant,
    networks: Networks,
    index: Index,
    stages: tuple[Stage, Stage],
    minutes: float,
    precision: torch.dtype,
    given: RealPortraitDiT | None,
) -> tuple[RealPortraitDiT, tuple[int, ...]]:
    """The averaged weights, and the steps of each stage."""
    torch.manual_seed(variant.seed)
    dit, steps = started(variant.cfg, given), []
    with tempfile.TemporaryDirectory() as folder:
        for stage, share in variant.plan(stages):
            checkpoint = Path(folder) / f"{len(steps)}.ckpt"
            objective, budget = make_objective(dit, stage, precision), CoreMinutes(minutes=share * minutes)
            dit = train_stage(
                objective,
                stage,
                index,
                networks.vid2vid.warping,
                checkpoint,
                budget,
                variant.seed,
                encoders=Encoders(networks.vid2vid.appearance, networks.vae),
            )
            steps.append(read_checkpoint(checkpoint)["step"])
    return dit, tuple(steps)


@torch.inference_mode()
def sample(networks: Networks, clip: Prepared, guidance: float, precision: torch.dtype) -> Tensor:
    """The clip's pictures (L, 3, S, S) in [0, 1], by STEPS even steps."""
    latent = encode(networks.vae, clip.truth.portrait)
    with autocast(latent.device, precision):
        latents = render(networks.dit, networks.schedule, latent, clip.motion, STEPS, SEED, guidance=guidance)
    return decode(networks.vae, latents.float())


@torch.inference_mode()
def figures(networks: Networks, clips: list[Prepared], results: list[Tensor]) -> Figures:
    """Of every clip's pictures (L, 3, S, S); without the network of ST-LPIPS that metric is left out."""
    found = [
        score(networks.vid2vid, {"": pictures}, clip.truth)[""]
        | judge(networks.judges, networks.detector, {"": pictures}, clip.truth)[""]
        for clip, pictures in zip(clips, results)
    ]
    return {metric: [mean(of_clip[metric]) for of_clip in found] for metric in METRICS if metric in found[0]}


def difference(values: list[float], others: list[float]) -> tuple[float, float]:
    """Mean of the clips' differences, and its standard error."""
    paired = [a - b for a, b in zip(values, others, strict=True)]
    return mean(paired), statistics.stdev(paired) / len(paired) ** 0.5


def header() -> str:
    """Of a Markdown table. In brackets behind a figure: its difference to the row that is named, ± standard error."""
    names = [f"{name}, guidance {guidance:g}" for guidance in GUIDANCES for name, _ in METRICS.values()]
    return "\n".join([f"| | beside | steps | M weights | {' | '.join(names)} |", "|---" * (4 + len(names)) + "|"])


def line(row: Row, before: dict[str, Row]) -> str:
    """before: the rows by name, with the one that this one is compared with."""
    cells = [row.name, row.beside or "", " + ".join(map(str, row.steps)), f"{row.parameters / 1e6:.2f}"]
    for guidance, of_metric in row.figures.items():
        for metric, (_, decimals) in METRICS.items():
            if metric not in of_metric:
                cells.append("-")
                continue
            cell = f"{mean(of_metric[metric]):.{decimals}f}"
            if row.beside is not None:
                gap, error = difference(of_metric[metric], before[row.beside].figures[guidance][metric])
                cell += f" ({gap:+.{decimals}f} ± {error:.{decimals}f})"
            cells.append(cell)
    return f"| {' | '.join(cells)} |"
