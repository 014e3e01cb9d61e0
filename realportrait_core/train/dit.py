"""Backbone, control and motion mapper together, in the paper's two stages; Face Vid2vid and VAE stay frozen.

Stage 1: single frames, portrait and driving frames from one clip. Stage 2: clips of L frames whose first and last frames
are sometimes known: no noise, t = 0, no loss.
"""

import logging
from pathlib import Path

import torch
from torch import nn

from ..config import Config
from ..diffusion.conditional import training_mask
from ..diffusion.schedule import Schedule, q_sample, target
from ..dit.embed import ClipShape
from ..dit.model import RealPortraitDiT
from .loop import fit
from .maps import MapSet
from .store import Store

log = logging.getLogger(__name__)

ENDS = ("x_embedder", "t_embedder", "csize_embedder", "ar_embedder", "fl_embedder", "fps_embedder", "final_layer")


@torch.no_grad()
def from_scratch(cfg) -> RealPortraitDiT:
    """Without public weights to protect, the control may speak from the first step."""
    dit = RealPortraitDiT(cfg).initialize()
    for layer in [dit.controlnet[0].before_proj, *(c.after_proj for c in dit.controlnet)]:
        nn.init.xavier_uniform_(layer.weight)
    if cfg.reference_motion:
        nn.init.xavier_uniform_(dit.reference_proj.weight)
    return dit


def stratified_times(count: int, steps: int) -> torch.Tensor:
    """`count` timesteps spread evenly over 0 .. steps - 1, shuffled: less noise in the loss than independent draws."""
    places = (torch.arange(count) + torch.rand(count)) / count
    return (places[torch.randperm(count)] * steps).long().clamp(max=steps - 1)


def latents_of(store: Store, clips: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """(B,) clips, (B, N) frames -> (B, N, 4, h, w)."""
    rows = [torch.from_numpy(store.latents[clip][picked]) for clip, picked in zip(clips.tolist(), frames.numpy())]
    return torch.stack(rows).float()


def squared_error(out: torch.Tensor, target: torch.Tensor, conditional: torch.Tensor | None = None) -> torch.Tensor:
    """Mean over noised frames; out and target (B, L, 4, h, w)."""
    error = (out[:, :, :target.shape[2]] - target).square().mean((2, 3, 4))             # (B, L)
    return error.mean() if conditional is None else error[~conditional].mean()


def train_frames(store: Store, maps: MapSet, cfg: Config, schedule: Schedule, checkpoint: Path, minutes: float,
                 portraits: int = 6, targets: int = 3, lr: float = 2e-3, compiled: bool = False) -> RealPortraitDiT:
    """Stage 1. `compiled`: by torch.compile, which needs a C compiler and minutes, and pays in long runs."""
    dit = from_scratch(cfg.dit)
    if compiled:
        for block in [*dit.blocks, *dit.controlnet]:
            block.compile()
    shape = ClipShape(cfg.image_size, cfg.image_size, cfg.clip_frames, cfg.fps)

    def loss(step: int):
        rows = torch.randint(len(maps.clips), (portraits,))
        columns = torch.stack([torch.randperm(maps.driving.shape[1])[:targets] for _ in rows])     # (B, N)
        z_r = latents_of(store, maps.clips[rows], maps.portrait[rows][:, None])[:, 0]
        z = latents_of(store, maps.clips[rows], maps.driving[rows[:, None], columns]).flatten(0, 1)[:, None]
        t = stratified_times(len(z), len(schedule))[:, None]                            # (B N, 1)
        noise = torch.randn_like(z)
        own = maps.maps(rows, torch.full((portraits, 1), maps.driving.shape[1]), cfg.image_size)
        reference = dit.encode_reference(z_r, shape, own if cfg.dit.reference_motion else None)
        control = dit.encode_motion(maps.maps(rows, columns, cfg.image_size))
        out = dit(q_sample(schedule, z, t, noise), t.float(), shape, reference, control)
        return squared_error(out, target(schedule, z, t, noise, cfg.dit.prediction)), {}

    average = fit(dit, loss, checkpoint, minutes, lr, decay=0.995, adam_only=ENDS)
    dit.load_state_dict(average)
    return dit.eval()


def train_clips(store: Store, maps: MapSet, cfg: Config, schedule: Schedule, dit: RealPortraitDiT, checkpoint: Path,
                minutes: float, lr: float = 6e-4) -> RealPortraitDiT:
    """Stage 2, from the weights of stage 1; one clip a step."""
    shape = ClipShape(cfg.image_size, cfg.image_size, cfg.clip_frames, cfg.fps)
    length, count = cfg.clip_frames, maps.driving.shape[1]
    dit.train()

    def loss(step: int):
        row = torch.randint(len(maps.clips), (1,))
        start = int(torch.randint(0, count - length + 1, ()))
        columns = torch.arange(start, start + length)[None]                             # (1, L)
        z_r = latents_of(store, maps.clips[row], maps.portrait[row][:, None])[:, 0]
        z = latents_of(store, maps.clips[row], maps.driving[row[:, None], columns])     # (1, L, 4, h, w)
        conditional = training_mask(1, length)
        t = stratified_times(1, len(schedule)).expand(1, length)
        noise = torch.randn_like(z)
        noised = torch.where(conditional[..., None, None, None], z, q_sample(schedule, z, t, noise))
        own = maps.maps(row, torch.full((1, 1), count), cfg.image_size)
        reference = dit.encode_reference(z_r, shape, own if cfg.dit.reference_motion else None)
        control = dit.encode_motion(maps.maps(row, columns, cfg.image_size))
        out = dit(noised, torch.where(conditional, 0, t).float(), shape, reference, control, conditional)
        return squared_error(out, target(schedule, z, t, noise, cfg.dit.prediction), conditional), {}

    average = fit(dit, loss, checkpoint, minutes, lr, decay=0.98, warmup=20, adam_only=ENDS)
    dit.load_state_dict(average)
    return dit.eval()
