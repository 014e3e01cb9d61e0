"""Samples on actors of Ray: each actor loads the frozen networks once and prepares source after source.

The process that starts them opens the sources, keeps the journal and writes the report. A file on disk goes to an actor as its
path, a shard's member as its bytes.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from ...batch.pool import WorkerDied, connected, nodes, room, run_jobs, share_of
from ...config import Config
from ...face.detect import FaceDetector
from ...vae import VAE, load_vae
from ...vid2vid import FaceVid2Vid
from ...vid2vid.checkpoint import load_vid2vid
from .filters import Filters
from .journal import Dropped, Kept
from .prepare import preparation
from .sources import Source
from .work import Process


@dataclass(frozen=True)
class Files:
    """Of the frozen networks, at a path that every node knows."""

    vid2vid: Path
    vae: Path
    detector: Path

    def load(self, device: str) -> tuple[FaceVid2Vid, VAE, FaceDetector]:
        return load_vid2vid(self.vid2vid).to(device), load_vae(self.vae).to(device), FaceDetector(self.detector)


@dataclass(frozen=True)
class Settings:
    """As in `prepare_samples`."""

    cfg: Config
    filters: Filters
    pictures: bool = False
    from_posterior: bool | None = None


def make_preparer(
    files: Files, settings: Settings, out: Path, device: str, threads: int
) -> Callable[[Source], list[Kept | Dropped]]:
    """The worker of an actor: writes a source's samples into `out`."""
    torch.set_num_threads(threads)
    work = preparation(out, *files.load(device), settings.cfg, settings.filters, settings.pictures, settings.from_posterior)
    return lambda source: list(work.pieces(source))


@contextmanager
def on_ray(
    files: Files,
    settings: Settings,
    out: Path,
    address: str,
    gpus: float | None = None,
    cpus: float | None = None,
    workers: int | None = None,
) -> Iterator[Process]:
    """`process` of `prepare_samples` on the Ray cluster at an address; the others as in batch/pool.py, None by default.

    Raises InputError where Ray, or room for an actor, is missing. What the worker raises, a full disk say, ends the run.
    """
    with connected(address):
        share = share_of(nodes(), gpus, cpus)
        count = room(nodes(), share) if workers is None else workers
        make = partial(make_preparer, files, settings, out.resolve(), share.device, max(1, int(share.cpus)))

        def process(sources: Iterable[Source]) -> Iterator[tuple[Source, list[Kept | Dropped] | str]]:
            for done in run_jobs(make, (placed(source) for source in sources), share, count):
                if isinstance(done.error, WorkerDied):
                    yield done.job, str(done.error)
                elif done.error is not None:
                    raise done.error
                else:
                    yield done.job, done.result

        yield process


def placed(source: Source) -> Source:
    """With a path that does not depend on the working directory."""
    return replace(source, content=source.content.resolve()) if isinstance(source.content, Path) else source
