"""M, taught by the truth of rendered heads: keypoints, pose, expression, scale, translation."""

import copy
import logging
from pathlib import Path

import torch
from torch import nn

from ..config import Vid2VidConfig
from ..vid2vid.keypoints import Pose, angle_between, transform
from ..vid2vid.motion import MotionExtractor, pose_from_raw
from .loop import Budget, fit, recalibrate
from .store import Store, crop_batch, jitter, to_unit
from .truth import MOUTH_AND_EYES, pick

log = logging.getLogger(__name__)

CPU = torch.device("cpu")
FEATURES = 4.0              # weight of the points of mouth and eyes, beside 1 for the others


def recolour(images: torch.Tensor, place: torch.device = CPU) -> torch.Tensor:
    """Brightness, contrast and tint drawn per picture: M must not depend on them. place: the CPU's random state is the one that
    a checkpoint holds."""
    batch = len(images)

    def draw(channels: int) -> torch.Tensor:
        return torch.rand(batch, channels, 1, 1, device=place).to(images)

    gain = 1 + 0.25 * (draw(3) - 0.5) + 0.5 * (draw(1) - 0.5)
    offset, grey = 0.2 * (draw(1) - 0.5), (draw(1) < 0.1).float()
    images = torch.lerp(images, images.mean(1, keepdim=True).expand_as(images), grey)
    return ((images - 0.5) * gain + 0.5 + offset).clamp(0, 1)


def draw_faces(store: Store, usable: torch.Tensor, batch: int, size: int, device: torch.device) -> tuple[torch.Tensor, Pose]:
    """Pairs of frames of one clip, one after the other, in jittered portrait or clip crops: pictures (B, 3, size, size) and
    their truth."""
    chosen = usable[torch.randint(len(usable), (batch // 2,))]
    clips, frames = chosen.repeat_interleave(2, 0).unbind(1)
    other = torch.randint(store.frames.shape[1], (batch // 2,))
    frames[1::2] = torch.where(store.found[clips[::2], other], other, frames[::2])
    of_clip = (torch.rand(batch // 2) < 0.5).repeat_interleave(2)[:, None, None]
    crops = torch.where(of_clip, store.clip_crops[clips], store.portrait_crops[clips, frames])
    crops = jitter(crops, scale=0.1, shift=0.04, degrees=6.0)
    images = crop_batch(store.images(clips, frames).to(device), crops, size)
    return images, pick(store.heads, clips, frames, to_unit(crops))[0].to(device)


class Standardised(nn.Module):
    """M with its pooled features standardised over the batch, without which pictures hardly differ for the heads and
    nothing is learned for thousands of steps. `folded` puts the statistics into the heads' weights: an ordinary M."""

    def __init__(self, cfg: Vid2VidConfig, mean_face: torch.Tensor):
        super().__init__()
        self.model = MotionExtractor(cfg)
        # Branches that carry signal from the first step, and heads that start at the mean face (K, 3).
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
                head.weight.mul_(inverse)                                               # W (x - mean) / std
                head.bias.sub_(head.weight @ self.standardise.running_mean)
        return model.eval()


@torch.no_grad()
def unfolded(model: MotionExtractor, pictures: torch.Tensor) -> Standardised:
    """The same function with its features standardised again, by those of pictures (B, 3, S, S): so an M that was folded learns on.
    Without, the least step of its trunk moves the heads, whose weights hold the inverse deviations, by a thousand times as much."""
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


def feature_weight(keypoints: int, device: torch.device) -> torch.Tensor:
    """(K, 1), of mean 1: FEATURES for mouth and eyes."""
    weight = torch.ones(keypoints)
    weight[list(MOUTH_AND_EYES)] = FEATURES
    return (weight / weight.mean())[:, None].to(device)


def motion_terms(pose: Pose, truth: Pose, weight: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Pictures come in pairs: relative motion reads nothing of expressions but how they differ between two frames."""
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


def motion_loss(model: Standardised, images: torch.Tensor, truth: Pose) -> tuple[torch.Tensor, dict[str, float]]:
    """motion_terms of what the model says of pictures, for the log of `fit`."""
    pose = pose_from_raw(model.raw(images))
    total, parts = motion_terms(pose, truth, feature_weight(pose.canonical.shape[1], images.device))
    return total, {name: part.item() for name, part in parts.items()}


def train_motion(store: Store, cfg: Vid2VidConfig, checkpoint: Path, minutes: float, batch: int = 32, lr: float = 1.5e-3,
                 holdout: int = 20, device: torch.device = CPU) -> MotionExtractor:
    """M on all clips but the last `holdout`, whose error is logged at the end."""
    usable = torch.nonzero(store.found)
    held = usable[usable[:, 0] >= len(store.names) - holdout][::12]
    usable = usable[usable[:, 0] < len(store.names) - holdout]
    mean_face = store.heads.canonical.mean(0)
    model = Standardised(cfg, mean_face).to(device)

    def loss(step: int):
        images, truth = draw_faces(store, usable, batch, cfg.crop_size, device)
        return motion_loss(model, recolour(images), truth)

    average = fit(model, loss, checkpoint, Budget(minutes=minutes), lr, adam_only=("model.detector.fc_",))
    model.load_state_dict(average)
    recalibrate(model, loss)
    result = model.cpu().folded()
    log.info("held out: %s", motion_error(result, store, held))
    return result


@torch.inference_mode()
def motion_error(model: MotionExtractor, store: Store, chosen: torch.Tensor) -> dict[str, float]:
    """Mean errors on frames (B, 2): keypoints in crop px of 128, rotation in degrees."""
    clips, frames = chosen.unbind(1)
    crops = store.portrait_crops[clips, frames]
    truth, _ = pick(store.heads, clips, frames, to_unit(crops))
    pose = model(crop_batch(store.images(clips, frames), crops, model.cfg.crop_size))
    apart = torch.linalg.vector_norm((transform(pose) - transform(truth))[..., :2], dim=-1) * model.cfg.crop_size / 2
    return {"keypoints_px": round(float(apart.mean()), 3),
            "mouth_eyes_px": round(float(apart[:, list(MOUTH_AND_EYES)].mean()), 3),
            "rotation_deg": round(float(angle_between(pose.rotation, truth.rotation).mean()), 3)}
