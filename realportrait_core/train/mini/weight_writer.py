"""Writes the weights of a training on a GPU while it runs, in files that can be fetched one by one."""

import copy
import logging
import tempfile
import time
from pathlib import Path

from torch import nn

from ...checkpoint import read_safetensors
from ...dit.checkpoint import save_dit
from ...errors import RealPortraitError
from ...vae import TinyVAE, save_vae
from ...vid2vid import FaceVid2Vid
from ...vid2vid.blocks import ConvNorm
from ...vid2vid.checkpoint import save_vid2vid
from .renderer import scale_down
from .run import DISTILLED_FILE, DIT_FILE, VAE_FILE, VID2VID_FILE
from .shards import LIMIT, save_in_parts

log = logging.getLogger(__name__)

EVERY = 120.0  # seconds
FILES = {"vae": VAE_FILE, "vid2vid": VID2VID_FILE, "dit": DIT_FILE, "student": DISTILLED_FILE}


class WeightWriter:
    """Writes the networks that some phase has changed; fp16, in parts of at most `limit` bytes."""

    def __init__(self, out: Path, limit: int = LIMIT, every: float = EVERY):
        self.out, self.limit, self.every = out, limit, every
        self.changed: set[str] = set()
        self.last = time.perf_counter()

    def changes(self, network: str) -> None:
        """A name of FILES."""
        self.changed.add(network)

    def due(self) -> bool:
        return time.perf_counter() - self.last >= self.every

    def write(self, networks: dict[str, nn.Module]) -> list[str]:
        """Writes the networks, by their names in FILES, that have changed. Returns the names of those that could not be written:
        the failure is logged and their older files stay."""
        began, paths, failed = time.perf_counter(), [], []
        with tempfile.TemporaryDirectory() as folder:
            for name in sorted(self.changed):
                file = FILES[name]
                try:
                    save_network(Path(folder) / file.name, networks[name])
                    paths += save_in_parts(self.out / file, *read_safetensors(Path(folder) / file.name), self.limit)
                except RealPortraitError as error:
                    log.error("%s is not written: %s", file, error)
                    failed.append(name)
        self.last = time.perf_counter()
        log.info("wrote %s in %.1f s", ", ".join(path.relative_to(self.out).as_posix() for path in paths), self.last - began)
        return failed


def save_network(path: Path, network: nn.Module) -> None:
    if isinstance(network, TinyVAE):
        save_vae(path, network)
    elif isinstance(network, FaceVid2Vid):
        save_vid2vid(path, within_half(network))
    else:
        save_dit(path, network)


def within_half(vid2vid: FaceVid2Vid) -> FaceVid2Vid:
    """An equivalent copy whose batch-norm variances fit into fp16."""
    vid2vid = copy.deepcopy(vid2vid)
    for module in vid2vid.modules():
        if isinstance(module, ConvNorm):
            scale_down(module)
    return vid2vid
