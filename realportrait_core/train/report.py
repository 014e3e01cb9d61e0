"""The progress of a training: log lines with ETA, throughput and memory, a progress bar on a terminal, a table, TensorBoard's
files."""

import csv
import logging
import sys
from pathlib import Path

import torch

from .budget import Budget
from .world import World

log = logging.getLogger(__name__)

TABLE = "training.csv"  # a row for each line of the log; a resumed run may repeat steps, of which the last row counts


class Report:
    """Only the first process reports. With a folder, means go to its TABLE, scalars and pictures to TensorBoard."""

    def __init__(self, world: World, folder: Path | None = None):
        self.world = world
        self.sums: dict[str, tuple[float, int]] = {}
        self.frames = self.since = 0.0
        self.skipped = 0  # steps, since the start
        self.bar = self.board = self.table = None
        if world.first and folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self.table, self.board = folder / TABLE, summary_writer(folder)

    def begin(self, budget: Budget, step: int, spent: float) -> None:
        self.since = spent
        if self.world.first and sys.stderr.isatty():
            from tqdm import tqdm

            minutes = budget.minutes is not None
            self.bar = tqdm(
                total=round(60 * budget.minutes) if minutes else budget.steps,
                unit="s" if minutes else "step",
                initial=int(spent) if minutes else step,
            )

    def step(self, step: int, spent: float, scalars: dict[str, float]) -> None:
        for name, value in scalars.items():
            total, count = self.sums.get(name, (0.0, 0))
            self.sums[name] = (total + value, count + 1)
        self.frames += scalars.get("frames", 0.0)
        self.skipped = int(scalars["skipped"])
        if self.board is not None:
            for name, value in scalars.items():
                self.board.add_scalar(f"train/{name}", value, step)
        if self.bar is not None:
            self.bar.update((int(spent) if self.bar.unit == "s" else step) - self.bar.n)
            self.bar.set_postfix(loss=f"{scalars['loss']:.4f}", memory=memory(self.world.device), refresh=False)

    def line(self, budget: Budget, step: int, spent: float) -> None:
        """Logs the means since the last line, and the time left."""
        means = {name: total / count for name, (total, count) in self.sums.items()}
        seconds, gone = spent - self.since, budget.spent(step, spent)
        if self.world.first and self.bar is None:
            extra = "  ".join(f"{name} {value:.4f}" for name, value in means.items() if name not in ("rate", "skipped", "frames"))
            speed = f"  {self.frames / seconds:.1f} frames/s" if self.frames and seconds else ""
            left = clock(max(0.0, spent / gone - spent) if gone else 0)
            log.info(
                "step %d  %.0f %%, %s left  rate %.2e  %s  skipped %d%s  %s",
                step,
                100 * gone,
                left,
                means["rate"],
                extra,
                self.skipped,
                speed,
                memory(self.world.device),
            )
        if self.table is not None:
            new = not self.table.is_file()
            with self.table.open("a", newline="", encoding="utf-8") as file:
                rows = csv.writer(file)
                if new:
                    rows.writerow(["step", "seconds", "loss", "norm", "rate"])
                rows.writerow([step, round(spent, 1), *(f"{means[name]:.6g}" for name in ("loss", "norm", "rate"))])
        self.sums, self.frames, self.since = {}, 0.0, spent

    def picture(self, name: str, image: torch.Tensor, step: int) -> None:
        """image (H, W, 3) uint8."""
        if self.board is not None:
            self.board.add_image(name, image, step, dataformats="HWC")

    def end(self, budget: Budget, step: int, spent: float) -> None:
        if self.sums:
            self.line(budget, step, spent)
        if self.bar is not None:
            self.bar.close()
        if self.board is not None:
            self.board.flush()
        if self.world.first:
            log.info("done: %d steps in %s", step, clock(spent))


def summary_writer(folder: Path):
    """TensorBoard's writer; None, with a line in the log, where the package is not there."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        log.info("No TensorBoard files: the package is not installed (pip install tensorboard).")
        return None
    return SummaryWriter(folder)


def clock(seconds: float) -> str:
    """h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def memory(device: torch.device) -> str:
    """The peak so far: of the GPU's memory, or of this process."""
    if device.type == "cuda":
        return f"{torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB"
    status = Path("/proc/self/status")
    if status.is_file():  # Linux; getrusage would count the peak of the process that started this one
        (peak,) = (line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM:"))  # KiB
        return f"{int(peak) / 2**20:.1f} GiB"
    if sys.platform == "win32":
        return "memory unknown"
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return f"{peak / (2**30 if sys.platform == 'darwin' else 2**20):.1f} GiB"
