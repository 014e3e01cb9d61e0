"""Training in minutes of one GPU, from a pack and the committed weights to finished weights; everything stays on the device.

    python -m realportrait_core.train.mini gpu --minutes 8 --pack PACK.zip --out DIR [--only clips,student] [--start DIR]

`mini` is the other recipe: hours of a CPU, with arrays, samples and checkpoints on disk. The two share their losses, but no
option, file or step.
"""

import logging
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from ...config import MINI, Config
from ...dit.checkpoint import load_dit
from ...errors import InputError
from ...vae import load_vae
from ...vid2vid.checkpoint import load_vid2vid
from ..initial import with_steps
from ..precision import precision_of
from ..report import clock
from ..world import device_named
from .clip_sets import FRAMES
from .gpu_phases import PHASES
from .gpu_report import write_report
from .gpu_state import Load, State
from .pack import read_pack
from .render_set import render_set
from .shards import join
from .throughput import finish, product_speed
from .turned_photos import turn_photos
from .weight_writer import EVERY, FILES, WeightWriter

log = logging.getLogger(__name__)

COMMITTED = Path(__file__).resolve().parents[2] / "weights"
RENDERING = 0.15  # share of the minutes for rendering the clips
TURNING = 0.1  # share of these for turning photographs, if there are any
# Shares of the remaining minutes, among the chosen phases.
SHARES = {"decoder": 0.08, "motion": 0.12, "renderer": 0.2, "maps": 0.15, "clips": 0.45, "student": 0.3}
ENDING = 0.06  # share of the minutes for writing the weights and the report
MOST_BYTES = 16e9  # of the rendered clips
STUDENT_STEPS = 4
PHOTO_CLIPS = 2000  # at most; of 256 px 2 GB
HELD = 8  # clips held out from training
FIRST_SEED, HELD_SEED = 1_000_000, 2_000_000  # the recipe's training clips have lower seeds
HALVINGS = 4  # of the batch, after which running out of memory ends a phase


@dataclass(frozen=True)
class GpuRun:
    """Where a training on a GPU reads and writes, and what it does."""

    pack: Path
    out: Path
    minutes: float = 8.0  # of everything, from start to end
    only: tuple[str, ...] = ()  # phases; empty: all
    start: Path | None = None  # folder of weights like the committed ones; what it lacks comes from those
    seed: int = 0
    device: str = "auto"
    precision: str | None = None  # None: bf16 on a GPU, fp32 on a CPU
    pose_blend: float = 1.0  # poses of the DiT's batches: 0 M's estimates, 1 the true ones
    compiled: bool | None = None  # None: on a GPU
    clips: int | None = None  # at most so many are rendered
    cfg: Config = MINI
    load: Load = Load()
    frames: int = FRAMES  # of a clip
    limit: int | None = None  # bytes of a file; None: shards.LIMIT
    every: float = EVERY  # seconds between two writings of the weights


def phases_of(only: tuple[str, ...]) -> list[str]:
    """Phases in their order. InputError for a name that is none."""
    if unknown := [name for name in only if name not in PHASES]:
        raise InputError(f"There is no phase {', '.join(unknown)}; there are: {', '.join(PHASES)}.")
    return [name for name in PHASES if not only or name in only]


def run_gpu(run: GpuRun) -> int:
    """0; 1 if a phase failed (the others still run) or a file could not be written."""
    began, names, device = time.perf_counter(), phases_of(run.only), device_named(run.device)
    if run.minutes <= 0:
        raise InputError(f"The budget is {run.minutes} minutes; it must be above 0.")
    run.out.mkdir(parents=True, exist_ok=True)
    file_log = logging.FileHandler(run.out / "run.log", encoding="utf-8")
    file_log.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    package = logging.getLogger(__package__.rpartition(".")[0])
    package.addHandler(file_log)
    try:
        return run_phases(run, names, device, began)
    finally:
        package.removeHandler(file_log)
        file_log.close()


def run_phases(run: GpuRun, names: list[str], device: torch.device, began: float) -> int:
    torch.manual_seed(run.seed)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
        log.info("%s, PyTorch %s", torch.cuda.get_device_name(device), torch.__version__)
    state, ends = prepare(run, device), began + 60 * run.minutes * (1 - ENDING)
    failed = 0
    for number, name in enumerate(names):
        left = ends - time.perf_counter()
        minutes = left / 60 * SHARES[name] / sum(SHARES[later] for later in names[number:])
        if minutes <= 0:
            log.error("%s: no time is left", name)
            failed += 1
            continue
        log.info("%s: %.2f minutes", name, minutes)
        failed += not run_phase(state, name, minutes)
    finish(device)
    failed += len(state.writer.write(state.networks))
    write_report(state, run.out)
    log.info("done in %s", clock(time.perf_counter() - began))
    return int(failed > 0)


def run_phase(state: State, name: str, minutes: float) -> bool:
    """Whether the phase succeeded. Out of memory, it is retried with half the batch; any other failure is logged and ends only this
    phase."""
    ends = time.perf_counter() + 60 * minutes
    for _ in range(HALVINGS + 1):
        try:
            PHASES[name](state, (ends - time.perf_counter()) / 60)
            return True
        except torch.OutOfMemoryError as error:
            log.warning("%s: %s", name, str(error).splitlines()[0])
        except Exception:  # the other phases still run
            log.exception("%s failed", name)
            return False
        state.load = state.load.halved()
        log.warning("%s: again with half the batch: %s", name, state.load)
    return False


def prepare(run: GpuRun, device: torch.device) -> State:
    """Weights and clips on the device."""
    if run.start is not None:
        join(run.start)
    packed = read_pack(run.pack, run.cfg.image_size)
    vae = load_vae(weights_file(run.start, "vae")).to(device)
    vid2vid, dit = load_vid2vid(weights_file(run.start, "vid2vid")).to(device), load_dit(weights_file(run.start, "dit")).to(device)
    student = with_steps(load_dit(weights_file(run.start, "student")), STUDENT_STEPS).to(device)
    cfg = Config(vid2vid.cfg, dit.cfg, run.cfg.image_size)
    log_widths(cfg)
    seconds = 60 * run.minutes * RENDERING
    turned = turn_photos(packed, vae, vid2vid.motion, device, seconds * TURNING, PHOTO_CLIPS)
    seconds *= 1 if turned is None else 1 - TURNING
    clip_bytes = 3.5 * run.frames * cfg.image_size**2
    most = run.clips or max(1, int(MOST_BYTES / clip_bytes))
    empty = packed.photos[:0]
    held = render_set(packed.rig, vae, HELD_SEED, cfg.image_size, empty, device, seconds / 2, HELD, run.frames)
    first = FIRST_SEED + 10_000 * run.seed
    data = render_set(packed.rig, vae, first, cfg.image_size, packed.photos, device, seconds, most, run.frames)
    writer = WeightWriter(run.out, every=run.every) if run.limit is None else WeightWriter(run.out, run.limit, run.every)
    best = product_speed(device)
    log.info("a matrix product runs at %.1f TFLOP/s", best / 1e12)
    return State(
        cfg=cfg,
        vid2vid=vid2vid,
        vae=vae,
        dit=dit,
        student=student,
        data=data,
        held=held,
        device=device,
        precision=precision_of(run.precision, device),
        writer=writer,
        best=best,
        load=run.load,
        pose_blend=run.pose_blend,
        compiled=device.type == "cuda" if run.compiled is None else run.compiled,
        chance=random.Random(run.seed),
        turned=turned,
    )


def weights_file(start: Path | None, network: str) -> Path:
    """The network's file in `start`, if it is there, and else the committed one; for the DiT that is the student's."""
    given = None if start is None else start / FILES[network]
    if given is not None and given.is_file():
        return given
    return COMMITTED / FILES["student" if network == "dit" else network]


def log_widths(cfg: Config) -> None:
    """Tensor cores are fastest with multiples of 64. The widths of trained weights cannot change; they are logged."""
    head = cfg.dit.hidden // cfg.dit.heads
    if cfg.dit.hidden % 64 or head != 64:
        log.info(
            "hidden %d with heads of %d channels, as the weights have them; multiples of 64 and heads of 64 would be faster",
            cfg.dit.hidden,
            head,
        )
