"""A stage of the DiT's training as a command: files in, weights out.

python -m realportrait_core.train frames --samples DIR --vid2vid FILE --init STDIT2 --out stage1.safetensors
torchrun --nproc-per-node 4 -m realportrait_core.train clips --samples DIR --vid2vid FILE --init stage1.safetensors --out F
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from ..config import PRESETS, Config
from ..diffusion.schedule import linear_schedule
from ..dit.ablation import save_network
from ..dit.model import RealPortraitDiT
from ..errors import InputError
from ..stlpips import load_stlpips
from ..vae import VAE, TinyVAE, load_tiny_vae, load_vae
from ..vid2vid import FaceVid2Vid
from ..vid2vid.checkpoint import load_vid2vid
from .appearance import Appearance, Perceptual
from .batch import Index, encoders_for, read_index
from .budget import Budget
from .data.prepare import weights_fingerprint
from .distil import Distillation
from .encoders import Encoders
from .estimate import estimate
from .initial import initial_network, with_steps
from .latent_regression import LatentRegression
from .objective import Objective
from .parallel import parallelize
from .precision import precision_of
from .report import Report
from .sample_grid import sample_grid, save_picture
from .stage import train_stage
from .stages import STAGES, Stage
from .student import Student
from .world import World, enter, leave

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageRun:
    """The files of a stage, and its departures from the preset."""

    samples: Path
    vid2vid: Path  # the weights that the samples were made with
    out: Path
    preset: str = "paper"
    init: Path | None = None  # RealPortrait weights, or the public STDiT2; None: from scratch
    checkpoint: Path | None = None  # None: beside `out`
    steps: int | None = None  # None and no minutes: the preset's
    minutes: float | None = None
    batch: float = 1.0  # factor on the preset's portraits a step
    lr: float | None = None
    seed: int = 0
    device: str = "auto"
    precision: str | None = None  # None: bf16 on a GPU, fp32 on a CPU
    recompute: bool = False  # activation checkpointing
    shard: bool = False  # FSDP2 instead of DDP
    board: Path | None = None  # TensorBoard's files and sample grids
    vae: Path | None = None  # of the samples: encodes crops of photographs, decodes sample grids; a student's is a TinyVAE
    perceptual: Path | None = None  # wheel of ST-LPIPS, whose VGG16 is in a student's loss; None: the discriminator alone

    def stage(self, name: str) -> Stage:
        stage = STAGES[self.preset].get(name)
        if stage is None:
            raise InputError(f"The preset {self.preset} has the stages {', '.join(STAGES[self.preset])}, and no {name}.")
        shapes = tuple(replace(shape, portraits=max(1, round(self.batch * shape.portraits))) for shape in stage.shapes)
        return replace(stage, shapes=shapes, lr=self.lr or stage.lr)

    def budget(self, stage: Stage) -> Budget:
        if self.minutes is not None:
            return Budget(minutes=self.minutes) if self.steps is None else Budget(self.steps, self.minutes)
        return Budget(steps=self.steps or stage.steps)


def run_stage(run: StageRun, name: str, cfg: Config | None = None) -> Path:
    """Trains the stage of this name in stages.STAGES; writes the averaged weights, fp16, to `run.out` and returns that path."""
    cfg, stage = cfg or PRESETS[run.preset], run.stage(name)
    budget = run.budget(stage)
    check(run, stage)
    index, vid2vid = read_samples(run, cfg)
    vae = None if run.vae is None else (load_tiny_vae if stage.appearance else load_vae)(run.vae)
    torch.manual_seed(run.seed)
    dit = initial_network(cfg, run.init)
    world = enter(run.device)
    try:
        precision = precision_of(run.precision, world.device)
        encoders = encoders_for(index, stage, vid2vid, vae, precision, world.device)
        appearance = student_appearance(run, world, precision) if stage.appearance else None
        objective = make_objective(dit, stage, precision, vae, appearance)
        objective = parallelize(objective, stage, world, run.recompute, run.shard)
        if appearance is None:  # a trial step would train the discriminator
            estimate(objective, stage, budget, index, vid2vid.warping, world, encoders)
        report = Report(world, run.board)
        dit = train_stage(
            objective,
            stage,
            index,
            vid2vid.warping,
            run.checkpoint or run.out.with_suffix(".ckpt"),
            budget,
            run.seed,
            world,
            report,
            grid_drawer(run, stage, index, vid2vid, vae, report, encoders),
            encoders,
        )
        if world.first:
            save_network(run.out, dit)
            log.info("wrote %s", run.out)
    finally:
        leave(world)
    return run.out


def check(run: StageRun, stage: Stage) -> None:
    """InputError where a stage lacks a file, or cannot be sharded."""
    if stage.distil and run.init is None:
        raise InputError("Distillation needs a teacher: give the trained weights with --init.")
    if stage.distil and run.shard:
        raise InputError("Distillation runs in one process or with DDP, where the teacher is whole: leave --shard away.")
    if stage.appearance and run.vae is None:
        raise InputError("A student's pictures are decoded: give the VAE with --vae.")


def read_samples(run: StageRun, cfg: Config) -> tuple[Index, FaceVid2Vid]:
    """The samples, and the Face Vid2vid that they were made with. InputError for another one."""
    index = read_index(run.samples, cfg.image_size)
    vid2vid = load_vid2vid(run.vid2vid)
    if vid2vid.cfg != cfg.vid2vid:
        raise InputError(f"{run.vid2vid} is of other sizes than the preset's Face Vid2vid: {vid2vid.cfg} against {cfg.vid2vid}.")
    if index.vid2vid != weights_fingerprint(vid2vid):
        raise InputError(
            f"The samples in {run.samples} were made with another Face Vid2vid than {run.vid2vid}: their keypoints would not fit "
            "its W. Give the file that they were made with, or make them anew."
        )
    return index, vid2vid


def make_objective(
    dit: RealPortraitDiT, stage: Stage, precision: torch.dtype, vae: TinyVAE | None = None, appearance: Appearance | None = None
) -> nn.Module:
    """The objective of a stage; its `dit` is the network that learns, for the distilled ones a copy of the teacher."""
    schedule = linear_schedule()
    if stage.mapper_only:
        return LatentRegression(dit, len(schedule), precision, stage.face, stage.error_reweighting)
    if not stage.distil:
        return Objective(dit, schedule, precision, stage.face, stage.latent_regression, stage.error_reweighting)
    student = with_steps(dit, stage.distil).requires_grad_(True).train()
    if stage.appearance:
        return Student(student, vae, schedule, precision, appearance)
    return Distillation(student, dit, schedule, precision, stage.face)


def student_appearance(run: StageRun, world: World, precision: torch.dtype) -> Appearance:
    """With two crops of each clip: the true picture that one is compared with is another clip's."""
    return Appearance(world.device, precision, perceptual_distance(run.perceptual, world.device), lr=2e-4, apart=2)


def perceptual_distance(wheel: Path | None, device: torch.device) -> Perceptual | None:
    """ST-LPIPS by VGG16 of pictures in -1 .. 1. By AlexNet it is an evaluation metric, and part of no loss."""
    if wheel is None:
        return None
    network = load_stlpips(wheel, "vgg").to(device)
    return lambda a, b: network((a + 1) / 2, (b + 1) / 2)


def grid_drawer(
    run: StageRun, stage: Stage, index: Index, vid2vid: FaceVid2Vid, vae: VAE | None, report: Report, encoders: Encoders
) -> Callable[[RealPortraitDiT, int], None] | None:
    """A function (averaged network, step) that draws a sample grid; None without a folder or a VAE, or for the mapper only."""
    if run.board is None or vae is None or stage.mapper_only:
        return None

    def draw(dit: RealPortraitDiT, step: int) -> None:
        picture = sample_grid(dit, index, stage, vid2vid.warping, vae, encoders)
        save_picture(run.board / f"samples_{step:06d}.png", picture)
        report.picture("samples", picture, step)

    return draw
