"""How the bundled MINI weights are made: every step of it in order, on a budget of minutes.

Steps read and write one cache: arrays (prepare.py), motion maps, a checkpoint of each network from which a stopped run goes on,
and its result. A step whose result is there is skipped. Finished files of the pack go to another folder, `out`.
"""

import logging
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from ..checkpoint import read_safetensors, save
from ..config import MINI, Config
from ..diffusion.schedule import linear_schedule
from ..dit.checkpoint import load_dit, save_dit
from ..errors import InputError
from ..face.detect import FaceDetector
from ..face.find import find_detector
from ..vae import load_vae
from ..vid2vid import FaceVid2Vid
from ..vid2vid.checkpoint import load_vid2vid, save_vid2vid
from . import prepare
from .dit import train_clips, train_frames
from .maps import load_maps, make_maps, save_maps
from .motion import train_motion
from .store import Store, open_store
from .vae import train_vae
from .warp import train_renderer

log = logging.getLogger(__name__)

# Shares of the minutes, by step. What has no share takes what it needs: on two cores about 2 minutes for the frames, 5 for
# the points, 8 for the latents and 10 for the maps of 993 clips.
SHARES = {"vae": 0.17, "motion": 0.16, "renderer": 0.17, "frames": 0.4, "clips": 0.1}
SEEDS = {"vae": 0, "motion": 0, "renderer": 1, "frames": 2, "clips": 3}     # added to the run's seed

STILLS = (0, 5, 10, 15, 20)     # frames of a clip that stage 1 draws from ...
PORTRAITS = (0, 10, 20)         # ... and its portrait: the first of these for clips 0, 3, 6 ..., the second for 1, 4, 7 ...
WHOLE_CLIPS = 120               # so many clips serve stage 2, with their first L frames
WHOLE_PORTRAIT = 0
HELD_OUT = 20                   # clips at the end that M and W never see; their error is logged

VAE_FILE = Path("vae") / "realportrait_mini_vae.safetensors"
VID2VID_FILE = Path("realportrait") / "realportrait_mini_vid2vid.safetensors"
DIT_FILE = Path("realportrait") / "realportrait_mini.safetensors"


@dataclass(frozen=True)
class Run:
    """Where a training reads and writes, and what it trains."""

    data: Path                  # with train/ and val/ of heads256
    cache: Path
    out: Path
    teacher: Path               # folder of TAESD, the VAE's teacher
    detector: Path | None = None    # YuNet's file; None: where install.py puts it
    seed: int = 0
    limit: int | None = None    # of the training clips
    cfg: Config = MINI

    def store(self) -> Store:
        return open_store(self.cache, self.data / "train", self.limit)

    def sow(self, step: str) -> None:
        torch.manual_seed(self.seed + SEEDS[step])


# Arrays

def prepare_faces(run: Run) -> None:
    """Decodes the training clips and finds the face of each frame."""
    prepare.decode_clips(run.data / "train", run.cache, run.limit)
    if not (run.cache / "points.npy").is_file():
        prepare.find_points(run.cache, FaceDetector(run.detector or find_detector()))


def prepare_latents(run: Run) -> None:
    """Encodes the frames that the DiT learns from, by the VAE of `out`."""
    store = run.store()
    stills = [(clip, frame) for frame in STILLS for clip in range(len(store.names))]
    whole = [(clip, frame) for clip in range(len(store.names))[:WHOLE_CLIPS] for frame in range(run.cfg.clip_frames)]
    prepare.encode_frames(run.cache, load_vae(run.out / VAE_FILE), stills + whole)


# Networks

def vae(run: Run, minutes: float) -> None:
    """The tiny VAE, with TAESD as the teacher of its latent space."""
    path = run.out / VAE_FILE
    if skipped(path):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    train_vae(run.data, run.teacher, path, minutes, cache=run.cache, seed=run.seed + SEEDS["vae"])


def motion(run: Run, minutes: float) -> None:
    """M, taught by the truth of the rendered heads."""
    path = run.cache / "motion.safetensors"
    if skipped(path):
        return
    run.sow("motion")
    network = train_motion(enough(run.store()), run.cfg.vid2vid, run.cache / "motion.ckpt", minutes, holdout=HELD_OUT)
    save(path, network.state_dict(), {})


def renderer(run: Run, minutes: float) -> None:
    """F, W and G together."""
    path = run.cache / "renderer.safetensors"
    if skipped(path):
        return
    run.sow("renderer")
    network = train_renderer(enough(run.store()), run.cfg.vid2vid, run.cache / "renderer.ckpt", minutes, holdout=HELD_OUT)
    save(path, network.state_dict(), {})


def maps(run: Run) -> None:
    """Motion maps of the training clips, by the Face Vid2vid that users get (fp16)."""
    export(run)
    vid2vid, store = load_vid2vid(run.out / VID2VID_FILE), run.store()
    length = run.cfg.clip_frames
    groups = [(f"frames_{portrait}", range(k, len(store.names), len(PORTRAITS)), portrait, list(STILLS))
              for k, portrait in enumerate(PORTRAITS)]
    groups.append((f"clips_{WHOLE_PORTRAIT}", range(len(store.names))[:WHOLE_CLIPS], WHOLE_PORTRAIT, list(range(length))))
    for name, clips, portrait, driving in groups:
        path = run.cache / "maps" / f"{name}.npz"
        if skipped(path):
            continue
        usable = [clip for clip in clips if bool(store.found[clip, [portrait, *driving]].all())]
        if not usable:
            log.warning("%s: a face is missing in every clip", name)
            continue
        partial = path.with_name(f".{path.name}")
        save_maps(make_maps(store, vid2vid, usable, [portrait], driving), partial)
        os.replace(partial, path)


def frames(run: Run, minutes: float) -> None:
    """Stage 1 of the DiT: single frames."""
    path = run.cache / "frames.safetensors"
    if skipped(path):
        return
    run.sow("frames")
    learned = load_maps(maps_of(run, "frames"))
    dit = train_frames(run.store(), learned, run.cfg.dit, linear_schedule(), run.cache / "frames.ckpt", minutes)
    save_dit(path, dit, torch.float32)


def clips(run: Run, minutes: float) -> None:
    """Stage 2 of the DiT: clips of L frames, from the weights of stage 1."""
    path = run.cache / "clips.safetensors"
    if skipped(path):
        return
    run.sow("clips")
    learned = load_maps(maps_of(run, "clips"))
    dit = load_dit(run.cache / "frames.safetensors").requires_grad_(True)
    dit = train_clips(run.store(), learned, linear_schedule(), dit, run.cache / "clips.ckpt", minutes)
    save_dit(path, dit, torch.float32)


def export(run: Run) -> None:
    """Writes the pack's files, fp16, of the networks that are done: Face Vid2vid, and the DiT after its last stage."""
    parts = {"motion": run.cache / "motion.safetensors", "renderer": run.cache / "renderer.safetensors"}
    if all(path.is_file() for path in parts.values()):
        network = FaceVid2Vid(run.cfg.vid2vid)
        (moving, _), (painting, _) = (read_safetensors(parts[name]) for name in ("motion", "renderer"))
        network.load_state_dict(painting | {f"motion.{key}": value for key, value in moving.items()})
        save_vid2vid(run.out / VID2VID_FILE, network)
        log.info("wrote %s", run.out / VID2VID_FILE)
    stages = [path for path in (run.cache / "clips.safetensors", run.cache / "frames.safetensors") if path.is_file()]
    if stages:
        save_dit(run.out / DIT_FILE, load_dit(stages[0]))
        log.info("wrote %s from %s", run.out / DIT_FILE, stages[0].name)


def mini(run: Run, minutes: float) -> None:
    """The whole recipe in order; the minutes are those of the trainings alone, split by SHARES."""
    prepare_faces(run)
    vae(run, minutes * SHARES["vae"])
    motion(run, minutes * SHARES["motion"])
    renderer(run, minutes * SHARES["renderer"])
    prepare_latents(run)
    maps(run)
    frames(run, minutes * SHARES["frames"])
    clips(run, minutes * SHARES["clips"])
    export(run)


def skipped(path: Path) -> bool:
    if path.is_file():
        log.info("%s is there: skipped", path)
    return path.is_file()


def enough(store: Store) -> Store:
    if len(store.names) <= HELD_OUT:
        raise InputError(f"There are {len(store.names)} training clips; {HELD_OUT} are held out, so more than that are needed.")
    return store


def maps_of(run: Run, stage: str) -> list[Path]:
    paths = sorted((run.cache / "maps").glob(f"{stage}_*.npz"))
    if not paths:
        raise InputError(f"{run.cache / 'maps'} holds no {stage}_*.npz: run the step `maps` first.")
    return paths
