"""A stage of the DiT's training as a command: files in, weights out; distillation to few steps among them.

python -m realportrait_core.train frames --samples DIR --vid2vid FILE --init STDIT2 --out stage1.safetensors
torchrun --nproc-per-node 4 -m realportrait_core.train clips --samples DIR --vid2vid FILE --init stage1.safetensors --out F
"""

import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from ..checkpoint import read_header, sniff
from ..config import PRESETS, Config
from ..diffusion.schedule import linear_schedule
from ..dit.checkpoint import load_dit, save_dit, start_from_stdit2
from ..dit.model import RealPortraitDiT
from ..errors import InputError
from ..stlpips import load_stlpips
from ..vae import VAE, TinyVAE, load_tiny_vae, load_vae
from ..vid2vid.checkpoint import load_vid2vid
from .appearance import Appearance, Perceptual
from .batch import Index, batches, encoders_for, read_index
from .data.prepare import weights_fingerprint
from .distil import Distillation
from .dit import Objective, Reading, from_scratch, loss_of, train_stage
from .encoders import Encoders
from .loop import Budget
from .report import Report, clock, memory
from .stages import STAGES, Stage
from .strip import draw_strip, save_picture
from .student import Student
from .world import World, enter, leave

log = logging.getLogger(__name__)

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
PROBES = 2  # steps that are timed for the estimate


@dataclass(frozen=True)
class StageRun:
    """Where a stage reads and writes, and where it departs from its preset."""

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
    board: Path | None = None  # TensorBoard's files and sample strips
    vae: Path | None = None  # of the samples: encodes crops of photographs, decodes the sample strips; a TinyVAE for a student
    perceptual: Path | None = None  # wheel of ST-LPIPS, whose VGG16 a student's loss takes; None: the discriminator alone

    def stage(self, number: int) -> Stage:
        stage = STAGES[self.preset][number]
        shapes = tuple(replace(shape, portraits=max(1, round(self.batch * shape.portraits))) for shape in stage.shapes)
        return replace(stage, shapes=shapes, lr=self.lr or stage.lr)

    def budget(self, stage: Stage) -> Budget:
        if self.minutes is not None:
            return Budget(minutes=self.minutes) if self.steps is None else Budget(self.steps, self.minutes)
        return Budget(steps=self.steps or stage.steps)


def precision_of(name: str | None, device: torch.device) -> torch.dtype:
    """The one that was asked for; else bf16 on a GPU and fp32 on a CPU."""
    return PRECISIONS[name or ("bf16" if device.type == "cuda" else "fp32")]


def start(cfg: Config, init: Path | None) -> RealPortraitDiT:
    """RealPortrait weights go on, with a silent draft where they lack one; those of STDiT2 become the backbone; nothing is a start
    from scratch."""
    if init is None:
        return from_scratch(cfg.dit)
    if sniff(read_header(init).shapes) == "stdit2":
        dit = RealPortraitDiT(cfg.dit)
        start_from_stdit2(dit, init)
        return dit
    dit = with_steps(load_dit(init), 0).requires_grad_(True)
    if cfg.dit.drafts and dit.cfg.reference_motion and not dit.cfg.drafts:
        dit = with_draft(dit, cfg.dit.conditioner.draft_widths)
    if dit.cfg != cfg.dit:
        raise InputError(f"{init} is a network of another size or kind than the preset: {dit.cfg} against {cfg.dit}.")
    return dit


def with_steps(dit: RealPortraitDiT, steps: int) -> RealPortraitDiT:
    """The same weights as a start for another number of distilled steps, 0 for any number; only that number differs."""
    other = RealPortraitDiT(replace(dit.cfg, distilled_steps=steps))
    other.load_state_dict(dit.state_dict())
    return other.eval().requires_grad_(False)


def with_draft(dit: RealPortraitDiT, widths: tuple[int, ...]) -> RealPortraitDiT:
    """The same network with a draft that changes nothing yet."""
    grown = RealPortraitDiT(replace(dit.cfg, conditioner=replace(dit.cfg.conditioner, draft_widths=widths)))
    grown.conditioner.draft.initialize()
    grown.load_state_dict(grown.state_dict() | dit.state_dict())
    return grown


def make_objective(
    dit: RealPortraitDiT, stage: Stage, precision: torch.dtype, vae: TinyVAE | None = None, appearance: Appearance | None = None
) -> nn.Module:
    """What `dit` learns by: the data, the motion mapper by itself, the network as it is now, in fewer steps, or in these what
    its pictures look like."""
    if stage.alone:
        return Reading(dit, len(linear_schedule()), precision, stage.face, stage.even)
    if not stage.distil:
        return Objective(dit, linear_schedule(), precision, stage.face, stage.read, stage.even)
    student = with_steps(dit, stage.distil).requires_grad_(True).train()
    if stage.appearance:
        return Student(student, vae, linear_schedule(), precision, appearance)
    return Distillation(student, dit, linear_schedule(), precision, stage.face)


def perceptual_distance(wheel: Path | None, device: torch.device) -> Perceptual | None:
    """ST-LPIPS by VGG16 of pictures in -1 .. 1; by AlexNet it is a measure, and stays out of every loss."""
    if wheel is None:
        return None
    network = load_stlpips(wheel, "vgg").to(device)
    return lambda a, b: network((a + 1) / 2, (b + 1) / 2)


def run_stage(run: StageRun, number: int, cfg: Config | None = None) -> Path:
    """Trains stage `number` (0: frames, 1: clips, 2: distillation, 3: maps, 4: student); averaged, fp16, to `run.out`."""
    cfg, stage = cfg or PRESETS[run.preset], run.stage(number)
    index = read_index(run.samples, cfg.image_size)
    vid2vid = load_vid2vid(run.vid2vid)
    if vid2vid.cfg != cfg.vid2vid:
        raise InputError(f"{run.vid2vid} is of other sizes than the preset's Face Vid2vid: {vid2vid.cfg} against {cfg.vid2vid}.")
    if index.vid2vid != weights_fingerprint(vid2vid):
        raise InputError(
            f"The samples in {run.samples} were made with another Face Vid2vid than {run.vid2vid}: their keypoints would not fit "
            "its W. Give the file that they were made with, or make them anew."
        )
    if stage.distil and run.init is None:
        raise InputError("Distillation needs a teacher: give the trained weights with --init.")
    if stage.distil and run.shard:
        raise InputError("Distillation runs in one process or with DDP, where the teacher is whole: leave --shard away.")
    if stage.appearance and run.vae is None:
        raise InputError("A student's pictures are decoded: give the VAE with --vae.")
    vae = None if run.vae is None else (load_tiny_vae if stage.appearance else load_vae)(run.vae)
    torch.manual_seed(run.seed)
    dit = start(cfg, run.init)
    world = enter(run.device)
    try:
        precision = precision_of(run.precision, world.device)
        encoders = encoders_for(index, stage, vid2vid, vae, precision, world.device)
        appearance = None
        if stage.appearance:
            # Two crops of each clip: the true picture that one is compared with is another clip's.
            appearance = Appearance(world.device, precision, perceptual_distance(run.perceptual, world.device), lr=2e-4, apart=2)
        objective = make_objective(dit, stage, precision, vae, appearance).to(world.device)
        if world.first and appearance is None:  # a trial would teach the discriminator
            estimate(objective, stage, run.budget(stage), index, vid2vid.warping, world, encoders)
        dit = train_stage(
            objective,
            stage,
            index,
            vid2vid.warping,
            run.checkpoint or run.out.with_suffix(".ckpt"),
            run.budget(stage),
            run.seed,
            world,
            run.recompute,
            run.shard,
            report := Report(world, run.board),
            strips(run, stage, index, vid2vid, vae, report, encoders),
            encoders,
        )
        if world.first:
            save_dit(run.out, dit)
            log.info("wrote %s", run.out)
    finally:
        leave(world)
    return run.out


def strips(run: StageRun, stage: Stage, index: Index, vid2vid, vae: VAE | None, report: Report, encoders: Encoders):
    """A function that draws what the averaged weights make of the first usable sample; None without a folder or a VAE, or where
    only the motion mapper learns."""
    if run.board is None or vae is None or stage.alone:
        return None

    def draw(dit: RealPortraitDiT, step: int) -> None:
        picture = draw_strip(dit, index, stage, vid2vid.warping, vae, encoders)
        save_picture(run.board / f"strip_{step:06d}.png", picture)
        report.picture("strip", picture, step)

    return draw


def estimate(objective: nn.Module, stage: Stage, budget: Budget, index: Index, warping, world: World, encoders: Encoders) -> None:
    """What the training will take, from a few trial steps that change nothing."""
    warping = warping.to(world.device)
    source = batches(index, stage, seed=0, first=0, timesteps=objective.timesteps, rank=0, size=world.size, encoders=encoders)
    trial = [next(source) for _ in range(PROBES * len(stage.shapes))]
    times = []
    for batch in trial:
        began = time.perf_counter()
        batch = batch.to(world.device)
        loss_of(objective, warping, batch, objective.precision).backward()
        if world.device.type == "cuda":
            torch.cuda.synchronize(world.device)
        times.append(time.perf_counter() - began)
    took = sum(times[len(stage.shapes) :]) / len(times[len(stage.shapes) :])  # the first round warms up
    objective.zero_grad(set_to_none=True)
    number = sum(parameter.numel() for parameter in objective.dit.parameters())
    total = 60 * budget.minutes if budget.steps is None else took * budget.steps
    log.info(
        "%d samples (%d videos, %d pictures); %.1f M parameters; about %.2f s a step, %s: %s in all; peak of memory %s before "
        "the optimizer's state",
        len(index.paths),
        int(index.video.sum()),
        int((~index.video).sum()),
        number / 1e6,
        took,
        f"{budget.steps} steps" if budget.steps else f"about {int(total / took)} steps",
        clock(total),
        memory(world.device),
    )
