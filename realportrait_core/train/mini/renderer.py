"""Trains F, W and G together: one portrait face, several driving faces of the same clip, with the true keypoints.

The deformation is supervised directly too: at a surface point of the driving face, W must fetch from that point's position in the
portrait. Besides G's picture, a linear readout of f_{r->d} is trained to give the face's pixels: the DiT receives f_{r->d}
through three convolutions only, so it must represent colours and edges explicitly.
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
from ..average import recalibrate
from ..budget import Budget
from ..loop import fit
from .crops import crop_batch, jitter, to_unit
from .head_truth import truth_in_crops
from .motion import CPU
from .store import Store

log = logging.getLogger(__name__)

FLOW_FIRST = 240  # steps of which every second one trains the flow alone
PAINT_EVERY = 4  # every so many steps G is trained
FEATURES = 2.0  # weight near keypoints, where expressions show, beside 1 for the person
NEAR = 0.08  # crop units, sigma of that weight
READOUT_BATCHES = 8  # to which the readout of given weights is fitted
KEYPOINT_NOISE = 0.012  # crop units, as large as M's error, so that W is robust to it


class Renderer(nn.Module):
    """F, W and G, with the names of FaceVid2Vid; and the readout, which only training has."""

    def __init__(self, cfg: Vid2VidConfig):
        super().__init__()
        self.appearance = AppearanceExtractor(cfg)
        self.warping = WarpingNetwork(cfg)
        self.generator = Generator(cfg)
        self.readout = nn.Conv2d(cfg.warped_channels, 3 * 4**cfg.appearance_down, 1)
        start_at_nearest_keypoint(self.warping)


@torch.no_grad()
def start_at_nearest_keypoint(warping: WarpingNetwork) -> None:
    """Initialises W such that its mask selects keypoint k where the driving heatmap of k is high.

    The hourglass passes its input through; heatmap k is the input's channel k (1 + c).
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
    """The model with the networks' weights `start`; the readout, which no file has, stays as it is."""
    if start is not None:
        model.load_state_dict({name: start.get(name, value).float() for name, value in model.state_dict().items()})
    return model


@torch.no_grad()
def fit_readout(readout: nn.Conv2d, seen: list[tuple[Warped, "Faces"]]) -> None:
    """Fits the readout by least squares to warped faces: a random one would spoil trained weights of F and W in the first steps."""
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
    """Weighted L1 at three scales, and of finite differences, which emphasise edges."""
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
    # Sampled at cell centres, as W samples; W's grids from end to end (align_corners) are slightly wider.
    found = F.grid_sample(field, driven[:, :, None, None], align_corners=False, padding_mode="border")
    apart = (found[..., 0, 0].transpose(1, 2) - source).abs()  # (B, P, 3)
    apart = apart[..., :2].sum(-1) + 0.3 * apart[..., 2]  # (B, P)
    return (apart * inside).sum() / inside.sum().clamp_min(1)


def keypoint_weight(keypoints: torch.Tensor, size: int) -> torch.Tensor:
    """1 at a keypoint (B, K, 3), 0 far from all: (B, 1, size, size)."""
    x, y = (torch.exp(-0.5 / NEAR**2 * (axis(size, keypoints.device, True) - keypoints[..., i, None]) ** 2) for i in (0, 1))
    return (y[..., :, None] * x[..., None, :]).amax(1, keepdim=True)


@torch.no_grad()
def weighted_psnr(image: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
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
    target: torch.Tensor  # (F, 3, S, S) of G
    weight: torch.Tensor  # (F, 1, S, S)
    portrait: torch.Tensor  # (F,) index of each driving face's portrait


def concatenated(one: Faces, other: Faces) -> Faces:
    """Both as one batch."""
    joined = {entry.name: torch.cat([getattr(one, entry.name), getattr(other, entry.name)]) for entry in fields(Faces)}
    return Faces(**joined | {"portrait": torch.cat([one.portrait, len(one.x_s) + other.portrait])})


def warp_faces(model: Renderer, faces: Faces, mixed: Callable[[], torch.autocast]) -> tuple[Warped, torch.Tensor]:
    """The output of W, and the error of its flow."""
    x_s = (faces.x_s + KEYPOINT_NOISE * torch.randn_like(faces.x_s))[faces.portrait]
    x_d = faces.x_d + KEYPOINT_NOISE * torch.randn_like(faces.x_d)
    f_r = model.appearance(faces.face_r)  # in fp32: the gradients of its 3-D convolutions are not finite in bf16
    with mixed():
        compressed = model.warping.compress(f_r).index_select(0, faces.portrait)
        warped = model.warping(f_r.index_select(0, faces.portrait), x_d, x_s, compressed)
    return warped, flow_loss(warped.deformation.float(), faces.surface_d, faces.surface_r[faces.portrait])


def painting_loss(
    model: Renderer, faces: Faces, warped: Warped, flow: torch.Tensor, paint: bool, mixed: Callable[[], torch.autocast]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The loss of the flow, of the readout, and with `paint` of G's picture; and its parts, for the log."""
    with mixed():
        plain = F.pixel_shuffle(model.readout(warped.out), 2**model.warping.cfg.appearance_down).float()  # (F, 3, crop, crop)
    small = [F.interpolate(x, size=plain.shape[2:], mode="area") for x in (faces.target, faces.weight)]
    readout = pyramid_loss(plain, *small)
    parts = {"flow": flow.detach(), "readout": readout.detach(), "plain_psnr": weighted_psnr(plain, *small)}
    if not paint:
        return readout + 2 * flow, parts
    with mixed():
        image = model.generator(warped.out).float()
    picture = pyramid_loss(image, faces.target, faces.weight)
    return picture + readout + 2 * flow, {
        **parts,
        "picture": picture.detach(),
        "psnr": weighted_psnr(image, faces.target, faces.weight),
    }


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
    """(B, 1, size, size): 0.3 on the background, 1 on the person, up to FEATURES more near keypoints x_d (B, K, 3), 0 outside the
    picture. images (B, 3, S, S), alpha (B, 1, S, S), crops (B, 3, 3)."""
    inside = crop_batch(torch.ones_like(images[:, :1]), crops, size)
    return inside * (0.3 + 0.7 * crop_batch(alpha, crops, size) + FEATURES * keypoint_weight(x_d, size))


def draw_faces(store: Store, usable: torch.Tensor, cfg: Vid2VidConfig, faces: int, drivers: int, device: torch.device) -> Faces:
    """`faces` portraits of the clips `usable` with `drivers` driving faces each, in jittered crops, on `device`."""
    size = 4 * cfg.feature_size * cfg.upscale  # px, side of G's picture
    clips, portrait, driving = draw_pairs(store, usable, faces, drivers)
    crops_r = jitter(store.portrait_crops[clips, portrait], 0.05, 0.02, 3.0)
    pose_r, surface_r = truth_in_crops(store.heads, clips, portrait, to_unit(crops_r))
    clips_d, driving = clips.repeat_interleave(drivers), driving.flatten()
    crops_d = jitter(store.clip_crops[clips_d], 0.05, 0.02, 0.0)
    pose_d, surface_d = truth_in_crops(store.heads, clips_d, driving, to_unit(crops_d))
    images_d = store.images(clips_d, driving).to(device)
    alpha, x_d = foreground(store, clips_d, driving).to(device), transform(pose_d).to(device)
    return Faces(
        face_r=crop_batch(store.images(clips, portrait).to(device), crops_r, cfg.crop_size),
        x_s=transform(pose_r).to(device),
        x_d=x_d,
        surface_r=surface_r.to(device),
        surface_d=surface_d.to(device),
        target=crop_batch(images_d, crops_d, size),
        weight=weight_of(images_d, alpha, crops_d, x_d, size),
        portrait=torch.arange(faces, device=device).repeat_interleave(drivers),
    )


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
    mixed = partial(torch.autocast, device.type, precision, enabled=precision != torch.float32)

    def draw() -> Faces:
        return draw_faces(store, usable, cfg, faces, drivers, device)

    def loss(step: int):
        drawn = draw()
        warped, flow = warp_faces(model, drawn, mixed)
        if start is None and step < FLOW_FIRST and step % 2:  # G can only learn once W is right
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
    """Scales channels whose variance before the norm is above 1 to a variance of 1; the block's function stays. In training nothing
    limits these scales, and a variance can grow beyond 65504, the largest number of an fp16 file."""
    scale = block.norm.running_var.clamp(min=1).rsqrt()
    block.conv.weight.mul_(scale.view(-1, *[1] * (block.conv.weight.ndim - 1)))
    block.conv.bias.mul_(scale)
    block.norm.running_mean.mul_(scale)
    block.norm.running_var.mul_(scale**2)
