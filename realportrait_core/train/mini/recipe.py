"""The recipe of the bundled MINI weights: its steps in order, on a budget of minutes.

The steps share a cache: arrays (prepare.py), samples, and for each network a checkpoint, from which a stopped run continues, and
the result. A step whose result exists is skipped. Finished files of the pack go to another folder, `out`.
"""

import logging
from pathlib import Path

from rendered_heads.clips import CROSS, DRIVING, write_folder
from rendered_heads.rig import load_rig

from ...checkpoint import save
from ...errors import InputError
from ...face.detect import FaceDetector
from ...face.find import find_detector
from ...vae import load_taesd, load_vae, save_vae
from ...vid2vid.checkpoint import load_vid2vid, save_vid2vid
from ..appearance import Appearance
from ..budget import Budget
from ..precision import precision_of
from ..run import StageRun, perceptual_distance, run_stage
from . import prepare
from .decoder import train_decoder
from .export import export
from .motion import train_motion
from .photo_supervision import PhotoSet
from .photos import read_pictures
from .renderer import train_renderer
from .run import SEEDS, VAE_FILE, VID2VID_FILE, RecipeRun, exists
from .samples import photos_to_turn, samples
from .store import Store
from .vae import train_vae

log = logging.getLogger(__name__)

# Shares of the minutes. Steps without a share take as long as they need: on two cores about 2 minutes for decoding, 5 for face
# points and 25 for the samples of 993 clips.
SHARES = {"vae": 0.08, "decoder": 0.07, "motion": 0.13, "renderer": 0.2, "maps": 0.2, "frames": 0.02, "clips": 0.24, "distil": 0.06}
GPU_BATCH = 16.0  # times the portraits of a step on a CPU: smaller batches would leave a GPU idle between launches
GPU_VAE = {"batch": 32, "side": 16, "per_clip": 4}
GPU_DECODER = {"batch": 64, "side": 128}
LOOKS_DECODER = {"side": 128, "lr": 3e-4}
GPU_MOTION = {"batch": 256}
GPU_RENDERER = {"faces": 12, "drivers": 4}
PAIRS = 20  # rendered for validation
HELD_OUT = 20  # clips, the last ones, held out from the training of M and W; their error is logged


# Arrays


def render(run: RecipeRun) -> None:
    """Renders clips of synthetic heads into `data`: train/, and val/ with pairs of identities in the same motion."""
    if run.heads is None:
        return
    rig = load_rig(run.heads, run.resolved_device(), run.cache / "rig.safetensors")
    write_folder(rig, run.data / "train", range(run.clips), device=run.resolved_device())
    for first in (DRIVING, CROSS):
        write_folder(rig, run.data / "val", range(first, first + PAIRS), device=run.resolved_device())


def prepare_faces(run: RecipeRun) -> None:
    """Decodes the training clips and finds the face of each frame."""
    prepare.decode_clips(run.data / "train", run.cache, run.limit)
    if not (run.cache / "points.npy").is_file():
        prepare.find_points(run.cache, FaceDetector(run.detector or find_detector()))


# Networks


def vae(run: RecipeRun, minutes: float) -> None:
    """The tiny VAE, with TAESD as the teacher of its latent space."""
    path = run.out / VAE_FILE
    if exists(path):
        return
    if run.teacher is None:
        raise InputError("The VAE is trained with TAESD as its teacher: name its folder with --teacher.")
    path.parent.mkdir(parents=True, exist_ok=True)
    size = GPU_VAE if run.resolved_device().type == "cuda" else {}
    train_vae(
        run.data, run.teacher, path, minutes, cache=run.cache, seed=run.seed + SEEDS["vae"], device=run.resolved_device(), **size
    )


def decoder(run: RecipeRun, minutes: float) -> None:
    """The VAE's decoder alone, at more channels; the latent space stays."""
    path = run.cache / "decoder.safetensors"
    if exists(path):
        return
    store, network = enough(run.store()), load_vae(run.out / VAE_FILE)
    teacher = None if run.teacher is None else load_taesd(run.teacher)
    run.seed_everything("decoder")
    size, precision, appearance = (
        GPU_DECODER if run.resolved_device().type == "cuda" else {},
        precision_of(run.precision, run.resolved_device()),
        None,
    )
    if run.looks:
        appearance = Appearance(run.resolved_device(), precision, perceptual_distance(run.perceptual, run.resolved_device()))
        size = size | LOOKS_DECODER
    photos = None if run.photos is None else read_pictures(run.photos)
    network = train_decoder(
        store,
        network,
        teacher,
        run.cache / "decoder.ckpt",
        Budget(minutes=minutes),
        holdout=HELD_OUT,
        device=run.resolved_device(),
        precision=precision,
        photos=photos,
        appearance=appearance,
        **size,
    )
    for file in (run.out / VAE_FILE, path):  # the step is done when both exist
        save_vae(file, network)


def motion(run: RecipeRun, minutes: float) -> None:
    """M, supervised by the ground truth of rendered heads, and optionally by photographs."""
    path = run.cache / "motion.safetensors"
    if exists(path):
        return
    photos, whole = None, None
    if run.photos is not None:
        pictures, topology = photos_to_turn(run)
        photos = PhotoSet(pictures, topology)
    if run.start is not None:
        whole = load_vid2vid(run.start)
    run.seed_everything("motion")
    size = GPU_MOTION if run.resolved_device().type == "cuda" else {}
    network = train_motion(
        enough(run.store()),
        run.cfg.vid2vid,
        run.cache / "motion.ckpt",
        minutes,
        holdout=HELD_OUT,
        device=run.resolved_device(),
        start=None if whole is None else whole.motion,
        photos=photos,
        **size,
    )
    if whole is not None:  # F, W and G as they are
        whole.motion = network
        save_vid2vid(run.out / VID2VID_FILE, whole)
    save(path, network.state_dict(), {})


def renderer(run: RecipeRun, minutes: float) -> None:
    """F, W and G together."""
    path = run.cache / "renderer.safetensors"
    if exists(path):
        return
    run.seed_everything("renderer")
    size = GPU_RENDERER if run.resolved_device().type == "cuda" else {}
    start = None if run.start is None else load_vid2vid(run.start).state_dict()
    network = train_renderer(
        enough(run.store()),
        run.cfg.vid2vid,
        run.cache / "renderer.ckpt",
        minutes,
        holdout=HELD_OUT,
        device=run.resolved_device(),
        precision=precision_of(run.precision, run.resolved_device()),
        start=start,
        **size,
    )
    del network.readout  # only training needs it
    save(path, network.state_dict(), {})


def maps(run: RecipeRun, minutes: float) -> None:
    """The motion mapper alone: latents from warped features."""
    path = run.cache / "maps.safetensors"
    if not exists(path):
        run_stage(stage_run(run, "maps", minutes, path), "maps", run.cfg)


def frames(run: RecipeRun, minutes: float) -> None:
    """Stage 1 of the DiT: single frames, from the motion mapper's weights."""
    path = run.cache / "frames.safetensors"
    if not exists(path):
        run_stage(stage_run(run, "frames", minutes, path, run.cache / "maps.safetensors"), "frames", run.cfg)


def clips(run: RecipeRun, minutes: float) -> None:
    """Stage 2 of the DiT: clips of L frames, from the weights of stage 1."""
    path = run.cache / "clips.safetensors"
    if not exists(path):
        run_stage(stage_run(run, "clips", minutes, path, run.cache / "frames.safetensors"), "clips", run.cfg)


def distil(run: RecipeRun, minutes: float) -> None:
    """The DiT once more, for 4 steps, with the result of stage 2 as its teacher."""
    path = run.cache / "distilled.safetensors"
    if not exists(path):
        run_stage(stage_run(run, "distil", minutes, path, run.cache / "clips.safetensors"), "distil", run.cfg)


def stage_run(run: RecipeRun, step: str, minutes: float, out: Path, init: Path | None = None) -> StageRun:
    batch = GPU_BATCH if run.resolved_device().type == "cuda" else 1.0
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


def mini(run: RecipeRun, minutes: float) -> None:
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


def enough(store: Store) -> Store:
    if len(store.names) <= HELD_OUT:
        raise InputError(f"There are {len(store.names)} training clips; {HELD_OUT} are held out, so more than that are needed.")
    return store
