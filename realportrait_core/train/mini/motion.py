"""Trains the motion extractor M on the ground truth of rendered heads: keypoints, pose, expression, scale, translation.

    python -m realportrait_core.train.mini motion --data heads --start vid2vid.safetensors --photos DIR --canonical OBJ

continues from a trained M, on photographs too (photo_supervision.py).
"""

import copy
import logging
from pathlib import Path

import torch
from torch import nn

from ...config import Vid2VidConfig
from ...errors import InputError
from ...vid2vid.keypoints import Pose, angle_between, transform
from ...vid2vid.motion import MotionExtractor, pose_from_raw
from ..average import recalibrate
from ..budget import Budget
from ..loop import fit
from .crops import crop_batch, jitter, to_unit
from .head_truth import MOUTH_AND_EYES, NUM_KP, truth_in_crops
from .photo_supervision import PhotoSet, draw_turned, photo_error, photos_loss, weight_by_residual
from .store import Store

log = logging.getLogger(__name__)

CPU = torch.device("cpu")
PHOTOS = 0.5  # share of a step's pictures, if there are photographs
RATES = {"new": 1.5e-3, "trained": 1e-3}
WARMUPS = {"new": 100, "trained": 30}  # steps
MEASURED = 8  # batches by which the statistics of M's features and outputs are measured
FEATURES = 4.0  # weight of the points of mouth and eyes, beside 1 for the others


def jitter_colours(images: torch.Tensor, place: torch.device = CPU) -> torch.Tensor:
    """Colour jitter (brightness, contrast, tint, some to grey) of each picture of images (B, 3, S, S) in [0, 1]. place: the device
    of the random numbers; a checkpoint holds the CPU's random state."""
    batch = len(images)

    def draw(channels: int) -> torch.Tensor:
        return torch.rand(batch, channels, 1, 1, device=place).to(images)

    gain = 1 + 0.25 * (draw(3) - 0.5) + 0.5 * (draw(1) - 0.5)
    offset, grey = 0.2 * (draw(1) - 0.5), (draw(1) < 0.1).float()
    images = torch.lerp(images, images.mean(1, keepdim=True).expand_as(images), grey)
    return ((images - 0.5) * gain + 0.5 + offset).clamp(0, 1)


def draw_faces(store: Store, usable: torch.Tensor, batch: int, size: int, device: torch.device) -> tuple[torch.Tensor, Pose]:
    """Pairs of frames of one clip, adjacent in the batch, in jittered portrait or clip crops: pictures (B, 3, size, size) and
    their true poses."""
    chosen = usable[torch.randint(len(usable), (batch // 2,))]
    clips, frames = chosen.repeat_interleave(2, 0).unbind(1)
    other = torch.randint(store.frames.shape[1], (batch // 2,))
    frames[1::2] = torch.where(store.found[clips[::2], other], other, frames[::2])
    of_clip = (torch.rand(batch // 2) < 0.5).repeat_interleave(2)[:, None, None]
    crops = torch.where(of_clip, store.clip_crops[clips], store.portrait_crops[clips, frames])
    crops = jitter(crops, scale=0.1, shift=0.04, degrees=6.0)
    images = crop_batch(store.images(clips, frames).to(device), crops, size)
    return images, truth_in_crops(store.heads, clips, frames, to_unit(crops))[0].to(device)


class Standardised(nn.Module):
    """M with its pooled features standardised over the batch. Otherwise the features hardly differ between pictures, and training
    takes thousands of steps to begin. `folded` puts the statistics into the heads' weights: an ordinary M."""

    def __init__(self, cfg: Vid2VidConfig, mean_face: torch.Tensor):
        super().__init__()
        self.model = MotionExtractor(cfg)
        # Branches pass a signal from the first step; the heads start at the mean face (K, 3).
        detector = self.model.detector
        for module in (*detector.downsample_layers.modules(), *detector.stages.modules()):
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
        with torch.no_grad():
            detector.fc_kp.bias.copy_(mean_face.flatten())
            detector.fc_scale.bias.fill_(1.3)
        self.standardise = nn.BatchNorm1d(cfg.motion_dims[-1], affine=False, momentum=0.05)

    def raw(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        detector = self.model.detector
        return detector.heads(self.standardise(detector.trunk(images)))

    @torch.no_grad()
    def folded(self) -> MotionExtractor:
        model = copy.deepcopy(self.model)
        inverse = (self.standardise.running_var + self.standardise.eps).rsqrt()
        for name, head in model.detector.named_children():
            if name.startswith("fc_"):
                head.weight.mul_(inverse)  # W (x - mean) / std
                head.bias.sub_(head.weight @ self.standardise.running_mean)
        return model.eval()


@torch.no_grad()
def unfolded(model: MotionExtractor, pictures: torch.Tensor) -> Standardised:
    """The inverse of Standardised.folded, by the features of pictures (B, 3, S, S), so that a folded M can be trained further.
    Without it a small step of the trunk would change the heads' outputs a thousand times as much: their weights hold the inverse
    deviations."""
    with pictures.device:
        result = Standardised(model.cfg, torch.zeros(model.cfg.num_kp, 3))
    result.model.load_state_dict(model.state_dict())
    features = model.detector.trunk(pictures)
    norm = result.standardise
    norm.running_mean.copy_(features.mean(0))
    norm.running_var.copy_(features.var(0))
    for name, head in result.model.detector.named_children():
        if name.startswith("fc_"):
            head.bias.add_(head.weight @ norm.running_mean)
            head.weight.mul_((norm.running_var + norm.eps).sqrt())
    return result


@torch.no_grad()
def storable(model: MotionExtractor, pictures: torch.Tensor, dtype: torch.dtype = torch.float16) -> MotionExtractor:
    """An equivalent M whose weights are exact in `dtype`; pictures (B, 3, S, S) are on its device.

    Features differ between pictures by about 1e-4 of their size. Rounded to fp16 they are off by several deviations, equally in
    every picture, and the biases that cancel their mean are too large to be rounded well: keypoints would be shifted by px.
    So the mean is subtracted in the last norm, where it is of the features' own size, and after rounding each head's bias is set
    such that the head's mean output is as before.
    """
    result = copy.deepcopy(model)
    detector = result.detector
    means = {name: raw.mean(0) for name, raw in detector(pictures).items()}
    for weight in result.parameters():
        weight.copy_(weight.to(dtype))
    detector.norm.bias.sub_(detector.trunk(pictures).mean(0))
    detector.norm.bias.copy_(detector.norm.bias.to(dtype))
    features = detector.trunk(pictures).mean(0)
    for name, mean in means.items():
        head = getattr(detector, f"fc_{name}")
        head.bias.copy_((mean - head.weight @ features).to(dtype))
    return result


def feature_weight(keypoints: int, device: torch.device) -> torch.Tensor:
    """(K, 1), of mean 1: FEATURES for mouth and eyes."""
    weight = torch.ones(keypoints)
    weight[list(MOUTH_AND_EYES)] = FEATURES
    return (weight / weight.mean())[:, None].to(device)


def heads_loss(pose: Pose, truth: Pose, weight: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The loss of M's estimates on rendered heads, and its parts; weight (K, 1).

    Pictures come in pairs: relative motion uses expressions only by their difference between two frames (`change`).
    """
    points = (weight * (transform(pose) - transform(truth)).abs()).mean()
    canonical = (pose.canonical - truth.canonical).abs().mean()
    expression = (weight * (pose.expression - truth.expression).abs()).mean()
    change, true_change = (x.expression[::2] - x.expression[1::2] for x in (pose, truth))
    change = (weight * (change - true_change).abs()).mean()
    rotation = (pose.rotation - truth.rotation).abs().mean()
    scale = (pose.scale - truth.scale).abs().mean()
    translation = (pose.translation - truth.translation).abs()[:, :2].mean()
    total = 10 * points + 5 * canonical + 10 * expression + 20 * change + 5 * rotation + 2 * scale + 2 * translation
    parts = dict(points=points, canonical=canonical, expression=expression, change=change, rotation=rotation, scale=scale)
    return total, {name: part.detach() for name, part in parts.items()}


def heads_and_photos_loss(
    pose: Pose, truth: Pose, of_photos: tuple[torch.Tensor, torch.Tensor] | None, weight: torch.Tensor, photo_weight: torch.Tensor
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The loss of M's estimates on rendered heads and, behind them in the batch, on pairs of photos; and its parts. of_photos: the
    targets of photos_loss, None without photos; the weights (K, 1) are those of heads_loss and photos_loss."""
    rendered = len(truth.scale)
    total, parts = heads_loss(pose[:rendered], truth, weight)
    if of_photos is None:
        return total, parts
    more, photo_parts = photos_loss(pose[rendered:], *of_photos, photo_weight)
    return total + more, parts | {f"photo {name}": part for name, part in photo_parts.items()}


def photos_among(pictures: int) -> int:
    """How many of a step's pictures are photos (an even number), if there are any."""
    return 2 * round(PHOTOS * pictures / 2)


def train_motion(
    store: Store,
    cfg: Vid2VidConfig,
    checkpoint: Path,
    minutes: float,
    batch: int = 32,
    holdout: int = 20,
    device: torch.device = CPU,
    start: MotionExtractor | None = None,
    photos: PhotoSet | None = None,
) -> MotionExtractor:
    """Trains M on all clips and photos except the last `holdout` of each, whose error is logged at the end. From scratch, or from
    the trained M `start`, at a lower rate. photos: a share PHOTOS of every batch.

    Raises InputError for too few photos, or a `start` with another number of keypoints."""
    if start is not None and start.cfg.num_kp != NUM_KP:
        raise InputError(f"The rendered heads have {NUM_KP} keypoints; the M to continue from has {start.cfg.num_kp}.")
    if photos is not None and len(photos.photos) <= holdout:
        raise InputError(f"There are {len(photos.photos)} photos; {holdout} are held out, so more than that are needed.")
    usable = torch.nonzero(store.found)
    held = usable[usable[:, 0] >= len(store.names) - holdout][::12]
    usable = usable[usable[:, 0] < len(store.names) - holdout]
    count = 0 if photos is None else photos_among(batch)

    def draw() -> tuple[torch.Tensor, Pose, tuple[torch.Tensor, torch.Tensor] | None]:
        """Pictures, the rendered ones first, and their true poses; the targets of photos_loss for the photos, which follow."""
        images, truth = draw_faces(store, usable, batch - count, cfg.crop_size, device)
        if photos is None:
            return jitter_colours(images), truth, None
        faces, places, turned = draw_turned(photos, torch.randint(len(photos.photos) - holdout, (count // 2,)), cfg.crop_size)
        return jitter_colours(torch.cat([images, faces.to(device)])), truth, (places.to(device), turned.to(device))

    def measured() -> torch.Tensor:
        return torch.cat([draw()[0] for _ in range(MEASURED)])

    if start is None:
        model = Standardised(cfg, store.heads.canonical.mean(0)).to(device)
    else:
        model = unfolded(start.to(device), measured())
    weight, photo_weight = feature_weight(cfg.num_kp, device), weight_by_residual(feature_weight(cfg.num_kp, device))

    def loss(step: int):
        images, truth, of_photos = draw()
        total, parts = heads_and_photos_loss(pose_from_raw(model.raw(images)), truth, of_photos, weight, photo_weight)
        return total, {name: part.item() for name, part in parts.items()}

    kind = "new" if start is None else "trained"
    average = fit(
        model, loss, checkpoint, Budget(minutes=minutes), RATES[kind], warmup=WARMUPS[kind], adam_only=("model.detector.fc_",)
    )
    model.load_state_dict(average)
    recalibrate(model, loss)
    result = storable(model.folded(), measured()).cpu()
    log.info("held out: %s", motion_error(result, store, held))
    if photos is not None:
        log.info("held out, photos: %s", photo_error(result, photos, torch.arange(len(photos.photos))[-holdout:]))
    return result


@torch.inference_mode()
def motion_error(model: MotionExtractor, store: Store, chosen: torch.Tensor) -> dict[str, float]:
    """Mean errors on frames (B, 2): keypoints in crop px of 128, rotation in degrees."""
    clips, frames = chosen.unbind(1)
    crops = store.portrait_crops[clips, frames]
    truth, _ = truth_in_crops(store.heads, clips, frames, to_unit(crops))
    pose = model(crop_batch(store.images(clips, frames), crops, model.cfg.crop_size))
    apart = torch.linalg.vector_norm((transform(pose) - transform(truth))[..., :2], dim=-1) * model.cfg.crop_size / 2
    return {
        "keypoints_px": round(float(apart.mean()), 3),
        "mouth_eyes_px": round(float(apart[:, list(MOUTH_AND_EYES)].mean()), 3),
        "rotation_deg": round(float(angle_between(pose.rotation, truth.rotation).mean()), 3),
    }
