"""Minutes of one GPU, from a pack and the committed weights to finished weights: everything stays on the device.

    python -m realportrait_core.train.mini gpu --minutes 8 --pack PACK.zip --out DIR [--only clips,student] [--start DIR]

Beside `mini`, the recipe for hours of a CPU with its arrays, samples and checkpoints on disk: the two share their losses, and
no option, file or step.
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
from .bank import FRAMES, render_bank
from .gauge import finish, product_speed
from .pack import read_pack
from .phases import PHASES, Load, State
from .shards import join
from .table import conclude
from .turned import turn_photos
from .writer import EVERY, FILES, Writer

log = logging.getLogger(__name__)

COMMITTED = Path(__file__).resolve().parents[2] / "weights"
RENDERING = 0.15  # of the minutes, for the clips that all phases read
TURNING = 0.1  # of these, for photographs, where there are any
# Of the rest, among the phases that are chosen.
SHARES = {"decoder": 0.08, "motion": 0.12, "renderer": 0.2, "maps": 0.15, "clips": 0.45, "student": 0.3}
ENDING = 0.06  # of the minutes, for the last writing and the table
MOST_BYTES = 16e9  # of a bank
STUDENT_STEPS = 4
PHOTO_CLIPS = 2000  # at most; of 256 px 2 GB
HELD = 8  # clips that nothing learns from
FIRST_SEED, HELD_SEED = 1_000_000, 2_000_000  # heads256 ends below the first
HALVINGS = 4  # of the batch, where it does not fit into the memory


@dataclass(frozen=True)
class GpuRun:
    """Where a training on a GPU reads and writes, and what it does."""

    pack: Path
    out: Path
    minutes: float = 8.0  # of everything, from start to end
    only: tuple[str, ...] = ()  # phases; none named: all
    start: Path | None = None  # folder of weights like the committed ones; what it lacks comes from those
    seed: int = 0
    device: str = "auto"
    precision: str | None = None  # None: bf16 on a GPU, fp32 on a CPU
    share: float = 1.0  # of the way from M's poses to the rendered ones
    compiled: bool | None = None  # None: on a GPU
    clips: int | None = None  # at most so many are rendered
    cfg: Config = MINI
    load: Load = Load()
    frames: int = FRAMES  # of a clip
    limit: int | None = None  # bytes of a file; None: shards.LIMIT
    every: float = EVERY  # seconds from writing to writing


def chosen(only: tuple[str, ...]) -> list[str]:
    """Phases in their order. InputError for a name that is none."""
    if unknown := [name for name in only if name not in PHASES]:
        raise InputError(f"There is no phase {', '.join(unknown)}; there are: {', '.join(PHASES)}.")
    return [name for name in PHASES if not only or name in only]


def run_gpu(run: GpuRun) -> int:
    """0, or 1 where a phase failed, which costs the others nothing, or a file could not be written."""
    began, names, device = time.perf_counter(), chosen(run.only), device_named(run.device)
    if run.minutes <= 0:
        raise InputError(f"The budget is {run.minutes} minutes; it must be above 0.")
    run.out.mkdir(parents=True, exist_ok=True)
    told = logging.FileHandler(run.out / "run.log", encoding="utf-8")
    told.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    package = logging.getLogger(__package__.rpartition(".")[0])
    package.addHandler(told)
    try:
        return run_phases(run, names, device, began)
    finally:
        package.removeHandler(told)
        told.close()


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
    failed += len(state.writer.write(state))
    conclude(state, run.out)
    log.info("done in %s", clock(time.perf_counter() - began))
    return int(failed > 0)


def run_phase(state: State, name: str, minutes: float) -> bool:
    """Whether it ended well. Batches that the memory does not hold are halved; any other failure is told of and costs this phase
    alone."""
    ends = time.perf_counter() + 60 * minutes
    for _ in range(HALVINGS + 1):
        try:
            PHASES[name](state, (ends - time.perf_counter()) / 60)
            return True
        except torch.OutOfMemoryError as error:
            log.warning("%s: %s", name, str(error).splitlines()[0])
        except Exception:  # minutes of a GPU are dear: the other phases go on
            log.exception("%s failed", name)
            return False
        state.load = state.load.halved()
        log.warning("%s: once more with half of the batch: %s", name, state.load)
    return False


def prepare(run: GpuRun, device: torch.device) -> State:
    """Weights and clips on the device."""
    if run.start is not None:
        join(run.start)
    packed = read_pack(run.pack, run.cfg.image_size)
    vae = load_vae(found(run.start, "vae")).to(device)
    vid2vid, dit = load_vid2vid(found(run.start, "vid2vid")).to(device), load_dit(found(run.start, "dit")).to(device)
    student = with_steps(load_dit(found(run.start, "student")), STUDENT_STEPS).to(device)
    cfg = Config(vid2vid.cfg, dit.cfg, run.cfg.image_size)
    tell_widths(cfg)
    seconds = 60 * run.minutes * RENDERING
    turned = turn_photos(packed, vae, vid2vid.motion, device, seconds * TURNING, PHOTO_CLIPS)
    seconds *= 1 if turned is None else 1 - TURNING
    clip_bytes = 3.5 * run.frames * cfg.image_size**2
    most = run.clips or max(1, int(MOST_BYTES / clip_bytes))
    empty = packed.photos[:0]
    held = render_bank(packed.rig, vae, HELD_SEED, cfg.image_size, empty, device, seconds / 2, HELD, run.frames)
    first = FIRST_SEED + 10_000 * run.seed
    bank = render_bank(packed.rig, vae, first, cfg.image_size, packed.photos, device, seconds, most, run.frames)
    writer = Writer(run.out, every=run.every) if run.limit is None else Writer(run.out, run.limit, run.every)
    best = product_speed(device)
    log.info("a matrix product runs at %.1f TFLOP/s", best / 1e12)
    return State(
        cfg,
        vid2vid,
        vae,
        dit,
        student,
        bank,
        held,
        device,
        precision_of(run.precision, device),
        writer,
        best,
        run.load,
        run.share,
        device.type == "cuda" if run.compiled is None else run.compiled,
        random.Random(run.seed),
        turned,
    )


def found(start: Path | None, network: str) -> Path:
    """The network's file in `start`, if it is there, and else the committed one; of the DiT that is the student's."""
    given = None if start is None else start / FILES[network]
    if given is not None and given.is_file():
        return given
    return COMMITTED / FILES["student" if network == "dit" else network]


def tell_widths(cfg: Config) -> None:
    """Tensor cores like multiples of 64; weights that go on keep what they have."""
    head = cfg.dit.hidden // cfg.dit.heads
    if cfg.dit.hidden % 64 or head != 64:
        log.info(
            "hidden %d with heads of %d channels stays, as the weights go on; multiples of 64 and heads of 64 would be faster",
            cfg.dit.hidden,
            head,
        )
