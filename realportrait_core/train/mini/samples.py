"""Training samples of the DiT, made of the rendered clips and of photographs."""

import logging
from dataclasses import replace
from pathlib import Path

import torch

from ...errors import InputError
from ...head_rotation.dataset import Photos, read_photos
from ...head_rotation.topology import Topology, read_topology
from ...vae import load_vae
from ...vid2vid.checkpoint import load_vid2vid
from ...vid2vid.interpolation import interpolate_poses
from ...vid2vid.keypoints import Pose
from ..data.frozen import freeze_segment
from ..data.prepare import weights_fingerprint
from ..data.sample import Sample, save_sample
from ..precision import precision_of
from .crops import to_unit
from .export import export
from .head_truth import HeadTruth, truth_in_crops
from .photos import photo_sample
from .run import VAE_FILE, VID2VID_FILE, RecipeRun

log = logging.getLogger(__name__)

POSE_BLEND = 1.0  # poses of the DiT's samples: 0 M's estimates, 1 the true ones
PORTRAITS = 3  # frames of a clip that can be its portrait: the first, the middle, the last


def samples(run: RecipeRun) -> None:
    """The DiT's training samples: latents, keypoints and features of the training clips, by the exported files (fp16)."""
    export(run)
    vid2vid, vae = (
        load_vid2vid(run.out / VID2VID_FILE).to(run.resolved_device()),
        load_vae(run.out / VAE_FILE).to(run.resolved_device()),
    )
    store, note = run.store(), {"vid2vid": weights_fingerprint(vid2vid)}
    precision = precision_of(run.precision, run.resolved_device())
    for done, name in enumerate(store.names):
        path = run.cache / "samples" / f"{name}.safetensors"
        if path.is_file():
            continue
        if not bool(store.found[done].all()):
            log.warning("%s is left out: no face in %d of its frames", name, int((~store.found[done]).sum()))
            continue
        frames = torch.from_numpy(store.frames[done].copy())
        sample = freeze_segment(vid2vid, vae, frames, store.points[done], store.found[done], PORTRAITS, precision)
        sample = blend_with_true_poses(sample, store.heads, done, POSE_BLEND)
        save_sample(path, sample, note | {"source": name})
        if done % 50 == 0:
            log.info("samples: %d of %d clips", done, len(store.names))


def photos(run: RecipeRun) -> None:
    """Samples of photographs, beside the clips': the photo turned in 3-D as portrait, the photo itself as driving frame."""
    pictures, topology = photos_to_turn(run)
    vid2vid, vae = (
        load_vid2vid(run.out / VID2VID_FILE).to(run.resolved_device()),
        load_vae(run.out / VAE_FILE).to(run.resolved_device()),
    )
    precision, note = precision_of(run.precision, run.resolved_device()), {"vid2vid": weights_fingerprint(vid2vid)}
    for i, name in enumerate(pictures.names[: run.limit]):
        path = run.cache / "samples" / "photos" / f"{Path(name).stem}.safetensors"
        if path.is_file():
            continue
        source = torch.Generator().manual_seed(run.seed + i)  # one per photo, so that skipping others changes nothing
        sample = photo_sample(vid2vid, vae, pictures, i, topology, source, precision)
        save_sample(path, sample, note | {"source": name})
        if i % 50 == 0:
            log.info("samples: %d of %d photos", i, len(pictures))


def photos_to_turn(run: RecipeRun) -> tuple[Photos, Topology]:
    """The photographs with their meshes. InputError where they, or the canonical face model, are not named."""
    if run.photos is None or run.canonical is None:
        raise InputError("Photographs are turned by --photos, a folder with points.npz, and --canonical, the canonical face model.")
    return read_photos(run.photos), read_topology(run.canonical)


def blend_with_true_poses(sample: Sample, heads: HeadTruth, clip: int, share: float) -> Sample:
    """The sample with poses between M's estimates (share 0) and the true ones (share 1).

    M's keypoints are off by some px, differently in every frame. A DiT trained on inaccurate maps learns not to rely on them, and
    blurs; with accurate maps it learns to follow them.
    """

    def moved(poses: Pose, frames: torch.Tensor, crops: torch.Tensor) -> Pose:
        truth, _ = truth_in_crops(heads, torch.full_like(frames, clip), frames, to_unit(crops))
        return interpolate_poses(poses, truth, torch.full((len(frames),), share))

    every = torch.arange(len(sample))
    return replace(
        sample,
        poses=moved(sample.poses, every, sample.driver_crop.expand(len(every), 3, 3)),
        portrait_poses=moved(sample.portrait_poses, sample.portraits, sample.portrait_crops),
    )
