"""F, W and G together: one portrait face, several driving faces of the same clip, on the true keypoints.

The deformation is taught directly too: where a surface point stands in the driving face, W must fetch from where that
point stands in the portrait. And f_{r->d} is read out linearly, one cell at a time, besides being painted by G: the DiT reads
it through three convolutions only, so the face's colours and edges must lie in it openly.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ...config import Vid2VidConfig
from ...vid2vid.appearance import AppearanceExtractor
from ...vid2vid.blocks import ConvNorm
from ...vid2vid.generator import Generator
from ...vid2vid.keypoints import transform
from ...vid2vid.warp import Warped, WarpingNetwork, axis
from ..loop import Budget, fit, recalibrate
from .motion import CPU
from .store import Store, crop_batch, jitter, to_unit
from .truth import pick

log = logging.getLogger(__name__)

FLOW_FIRST = 240  # steps of which every second one teaches the flow alone
PAINT_EVERY = 4  # steps from one that trains G to the next
FEATURES = 2.0  # weight around keypoints, where expressions are, beside 1 for the person
NEAR = 0.08  # crop units, reach of that weight
READOUT_BATCHES = 8  # from which the readout of given weights is fitted
KEYPOINT_NOISE = 0.012  # crop units: M's own error, so that W gets used to it


class Renderer(nn.Module):
    """What is trained here; the names are those of FaceVid2Vid, but for the readout, which only training has."""

    def __init__(self, cfg: Vid2VidConfig):
        super().__init__()
        self.appearance = AppearanceExtractor(cfg)
        self.warping = WarpingNetwork(cfg)
        self.generator = Generator(cfg)
        self.readout = nn.Conv2d(cfg.warped_channels, 3 * 4**cfg.appearance_down, 1)
        start_at_nearest_keypoint(self.warping)


@torch.no_grad()
def start_at_nearest_keypoint(warping: WarpingNetwork) -> None:
    """Where the driving heatmap of keypoint k is high, W's mask starts by choosing k: from there the rest is quickly learnt.

    The hourglass hands its input through; heatmap k is the input's channel k (1 + c).
    """
    dense = warping.dense_motion_network
    decoder, step = dense.hourglass.decoder, 1 + warping.cfg.compress
    first = warping.cfg.dense_width  # channels of the hourglass before its input
    nn.init.normal_(dense.mask.weight, std=0.01)
    centre = warping.cfg.mask_kernel // 2
    for k in range(1, warping.cfg.num_kp + 1):  # 0 is the background
        heat = first + k * step
        decoder.conv.weight[heat] *= 0.1
        decoder.conv.weight[heat, heat, 1] += 1 / 9  # a mean over 3 x 3 cells of one depth
        dense.mask.weight[k, heat, centre, centre, centre] += 0.5


@torch.no_grad()
def from_weights(model: Renderer, start: dict[str, torch.Tensor] | None) -> Renderer:
    """The networks as `start` has them; the readout, which no file has, stays as it is."""
    if start is not None:
        model.load_state_dict({name: start.get(name, value).float() for name, value in model.state_dict().items()})
    return model


@torch.no_grad()
def fit_readout(readout: nn.Conv2d, seen: list[tuple[Warped, "Faces"]]) -> None:
    """By least squares on what W made of faces: a readout that says nothing would turn F and W anywhere in their first steps."""
    factor = round((readout.out_channels / 3) ** 0.5)
    cells, pixels = [], []
    for warped, faces in seen:
        f = warped.out.float()
        small = F.interpolate(faces.target, size=[factor * n for n in f.shape[2:]], mode="area")
        cells.append(F.pad(f.movedim(1, -1).flatten(0, -2), (0, 1), value=1.0))  # (B h w, C + 1)
        pixels.append(F.pixel_unshuffle(small, factor).movedim(1, -1).flatten(0, -2))  # (B h w, 3 factor^2)
    solved = torch.linalg.lstsq(torch.cat(cells), torch.cat(pixels)).solution.T  # (3 factor^2, C + 1)
    readout.weight.copy_(solved[:, :-1, None, None])
    readout.bias.copy_(solved[:, -1])


def pyramid_loss(image: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Weighted L1 on three scales and on their finite differences: edges count, not only areas."""
    total = 0.0
    for level in range(3):
        total = total + (weight * (image - target).abs()).mean()
        for dim in (-1, -2):
            total = total + (image.diff(dim=dim) - target.diff(dim=dim)).abs().mean()
        if level < 2:
            image, target, weight = (F.avg_pool2d(x, 2) for x in (image, target, weight))
    return total


def flow_loss(deformation: torch.Tensor, driven: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """Deformation (B, D, h, w, 3) at the driving points (B, P, 3) against the same points in the portrait (B, P, 3)."""
    inside = (driven.abs().amax(-1) < 1) & (source.abs().amax(-1) < 1)  # (B, P)
    field = deformation.permute(0, 4, 1, 2, 3)  # (B, 3, D, h, w)
    # Looked up at cell centres, as W samples; grids of W that run from end to end are a little wider than that.
    found = F.grid_sample(field, driven[:, :, None, None], align_corners=False, padding_mode="border")
    apart = (found[..., 0, 0].transpose(1, 2) - source).abs()  # (B, P, 3)
    apart = apart[..., :2].sum(-1) + 0.3 * apart[..., 2]  # (B, P)
    return (apart * inside).sum() / inside.sum().clamp_min(1)


def near(keypoints: torch.Tensor, size: int) -> torch.Tensor:
    """1 at a keypoint (B, K, 3), 0 far from all: (B, 1, size, size)."""
    x, y = (torch.exp(-0.5 / NEAR**2 * (axis(size, keypoints.device, True) - keypoints[..., i, None]) ** 2) for i in (0, 1))
    return (y[..., :, None] * x[..., None, :]).amax(1, keepdim=True)


@torch.no_grad()
def psnr(image: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """dB, weighted."""
    return -10 * torch.log10(((image - target).square() * weight).sum() / (3 * weight.sum()))


@dataclass(frozen=True)
class Faces:
    """B portraits and F driving faces of their clips, on one device. Keypoints in their own crops."""

    face_r: torch.Tensor  # (B, 3, crop, crop)
    x_s: torch.Tensor  # (B, K, 3)
    x_d: torch.Tensor  # (F, K, 3)
    surface_r: torch.Tensor  # (B, P, 3) surface points in the portrait
    surface_d: torch.Tensor  # (F, P, 3) the same in the driving faces
    target: torch.Tensor  # (F, 3, S, S) what G shall paint
    weight: torch.Tensor  # (F, 1, S, S)
    portrait: torch.Tensor  # (F,) whose each driving face is


def beside(one: Faces, other: Faces) -> Faces:
    """Both as one batch."""
    joined = {entry.name: torch.cat([getattr(one, entry.name), getattr(other, entry.name)]) for entry in fields(Faces)}
    return Faces(**joined | {"portrait": torch.cat([one.portrait, len(one.x_s) + other.portrait])})


def warp_faces(model: Renderer, faces: Faces, mixed: Callable[[], torch.autocast]) -> tuple[Warped, torch.Tensor]:
    """What W makes of them, and its flow error."""
    x_s = (faces.x_s + KEYPOINT_NOISE * torch.randn_like(faces.x_s))[faces.portrait]
    x_d = faces.x_d + KEYPOINT_NOISE * torch.randn_like(faces.x_d)
    f_r = model.appearance(faces.face_r)  # of a few portraits; and in bf16 its 3-D convolutions' gradients are not finite
    with mixed():
        compressed = model.warping.compress(f_r).index_select(0, faces.portrait)
        warped = model.warping(f_r.index_select(0, faces.portrait), x_d, x_s, compressed)
    return warped, flow_loss(warped.deformation.float(), faces.surface_d, faces.surface_r[faces.portrait])


def painting_loss(
    model: Renderer, faces: Faces, warped: Warped, flow: torch.Tensor, paint: bool, mixed: Callable[[], torch.autocast]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The flow's error with that of the readout, and with paint that of G's picture; parts of it for the log."""
    with mixed():
        plain = F.pixel_shuffle(model.readout(warped.out), 2**model.warping.cfg.appearance_down).float()  # (F, 3, crop, crop)
    small = [F.interpolate(x, size=plain.shape[2:], mode="area") for x in (faces.target, faces.weight)]
    readout = pyramid_loss(plain, *small)
    parts = {"flow": flow.detach(), "readout": readout.detach(), "plain_psnr": psnr(plain, *small)}
    if not paint:
        return readout + 2 * flow, parts
    with mixed():
        image = model.generator(warped.out).float()
    picture = pyramid_loss(image, faces.target, faces.weight)
    return picture + readout + 2 * flow, {**parts, "picture": picture.detach(), "psnr": psnr(image, faces.target, faces.weight)}


def draw_pairs(store: Store, usable: torch.Tensor, faces: int, drivers: int) -> tuple[torch.Tensor, ...]:
    """`faces` clips with one portrait frame and `drivers` driving frames each: clip (B,), portrait (B,), driving (B, N)."""
    clips = usable[torch.randint(len(usable), (faces,))]
    order = torch.rand(faces, store.frames.shape[1]).argsort(1)
    return clips, order[:, 0], order[:, 1 : 1 + drivers]


def foreground(store: Store, clips: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """(B, 1, S, S) in [0, 1]."""
    alpha = np.stack([store.alpha[c, t] for c, t in zip(clips.tolist(), frames.tolist())])
    return F.interpolate(torch.from_numpy(alpha).float()[:, None], size=store.frames.shape[2:4], mode="bilinear")


def weight_of(images: torch.Tensor, alpha: torch.Tensor, crops: torch.Tensor, x_d: torch.Tensor, size: int) -> torch.Tensor:
    """(B, 1, size, size): the person counts more than what is behind, and most what is about keypoints x_d (B, K, 3); nothing does
    beyond the picture. images (B, 3, S, S), alpha (B, 1, S, S), crops (B, 3, 3)."""
    inside = crop_batch(torch.ones_like(images[:, :1]), crops, size)
    return inside * (0.3 + 0.7 * crop_batch(alpha, crops, size) + FEATURES * near(x_d, size))


def train_renderer(
    store: Store,
    cfg: Vid2VidConfig,
    checkpoint: Path,
    minutes: float,
    faces: int = 2,
    drivers: int = 3,
    lr: float = 4e-3,
    holdout: int = 20,
    device: torch.device = CPU,
    precision: torch.dtype = torch.float32,
    start: dict[str, torch.Tensor] | None = None,
) -> Renderer:
    """Trained for so many minutes, from scratch or from the weights `start`, named as in FaceVid2Vid."""
    usable = torch.nonzero(store.found.all(1))[:, 0]
    usable = usable[usable < len(store.names) - holdout]
    model = from_weights(Renderer(cfg), start).to(device)
    size = 4 * cfg.feature_size * cfg.upscale  # px, side of G's picture
    mixed = partial(torch.autocast, device.type, precision, enabled=precision != torch.float32)

    def draw() -> Faces:
        clips, portrait, driving = draw_pairs(store, usable, faces, drivers)
        crops_r = jitter(store.portrait_crops[clips, portrait], 0.05, 0.02, 3.0)
        pose_r, surface_r = pick(store.heads, clips, portrait, to_unit(crops_r))
        clips_d, driving = clips.repeat_interleave(drivers), driving.flatten()
        crops_d = jitter(store.clip_crops[clips_d], 0.05, 0.02, 0.0)
        pose_d, surface_d = pick(store.heads, clips_d, driving, to_unit(crops_d))
        images_d = store.images(clips_d, driving).to(device)
        alpha, x_d = foreground(store, clips_d, driving).to(device), transform(pose_d)
        return Faces(
            crop_batch(store.images(clips, portrait).to(device), crops_r, cfg.crop_size),
            transform(pose_r).to(device),
            x_d.to(device),
            surface_r.to(device),
            surface_d.to(device),
            crop_batch(images_d, crops_d, size),
            weight_of(images_d, alpha, crops_d, x_d.to(device), size),
            torch.arange(faces, device=device).repeat_interleave(drivers),
        )

    def loss(step: int):
        drawn = draw()
        warped, flow = warp_faces(model, drawn, mixed)
        if start is None and step < FLOW_FIRST and step % 2:  # W must be right before anything can be painted
            return 2 * flow, {"flow": flow.item()}
        # G is most of the cost, and only previews need it.
        value, parts = painting_loss(model, drawn, warped, flow, step % PAINT_EVERY == 0, mixed)
        return value, {name: part.item() for name, part in parts.items()}

    if start is not None and not checkpoint.is_file():
        drawn = [draw() for _ in range(READOUT_BATCHES)]
        fit_readout(model.readout, [(warp_faces(model, some, mixed)[0], some) for some in drawn])
    average = fit(model, loss, checkpoint, Budget(minutes=minutes), lr, adam_only=("readout",))
    model.load_state_dict(average)
    recalibrate(model, loss)
    for module in model.modules():
        if isinstance(module, ConvNorm):
            scale_down(module)
    return model.cpu().eval()


@torch.no_grad()
def scale_down(block: ConvNorm) -> None:
    """Channels with a variance above 1 before the norm get one of 1; the block says the same as before. Nothing holds such
    scales back in training, and a variance can grow beyond 65504, which fp16 files hold."""
    scale = block.norm.running_var.clamp(min=1).rsqrt()
    block.conv.weight.mul_(scale.view(-1, *[1] * (block.conv.weight.ndim - 1)))
    block.conv.bias.mul_(scale)
    block.norm.running_mean.mul_(scale)
    block.norm.running_var.mul_(scale**2)
