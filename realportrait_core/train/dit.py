"""Backbone, control and motion mapper together, in the paper's two stages; Face Vid2vid and VAE stay frozen.

Stage 1: single frames, portrait and driving frames from one clip. Stage 2: clips of L frames whose first and last frames
are sometimes known: no noise, t = 0, no loss.
"""

import logging
from pathlib import Path

import torch
from torch import nn

from ..config import DiTConfig
from ..diffusion.conditional import training_mask
from ..diffusion.objective import diffusion_loss, noise_clip
from ..diffusion.schedule import Schedule
from ..dit.embed import ClipShape
from ..dit.model import RealPortraitDiT
from .loop import fit
from .maps import MapSet
from .store import Store

log = logging.getLogger(__name__)

ENDS = ("x_embedder", "t_embedder", "csize_embedder", "ar_embedder", "fl_embedder", "fps_embedder", "final_layer")


@torch.no_grad()
def from_scratch(cfg: DiTConfig) -> RealPortraitDiT:
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


def batch_loss(dit: RealPortraitDiT, schedule: Schedule, store: Store, maps: MapSet, rows: torch.Tensor,
               columns: torch.Tensor, together: bool) -> torch.Tensor:
    """Loss of the driving frames `columns` (R, N) of R pairs `rows` of a clip and a portrait in it.

    together: the N frames are one clip with one timestep, some of them conditional; else N independent frames.
    """
    cfg, size = dit.cfg, store.frames.shape[2]
    shape = ClipShape(size, size, cfg.clip_frames, cfg.fps)
    z_r = latents_of(store, maps.clips[rows], maps.portrait[rows][:, None])[:, 0]       # (R, 4, h, w)
    z = latents_of(store, maps.clips[rows], maps.driving[rows[:, None], columns])       # (R, N, 4, h, w)
    if together:
        conditional = training_mask(*columns.shape)
        t = stratified_times(len(rows), len(schedule))[:, None].expand(columns.shape)
    else:
        z, conditional = z.flatten(0, 1)[:, None], None                                 # (R N, 1, 4, h, w)
        t = stratified_times(len(z), len(schedule))[:, None]
    noise = torch.randn_like(z)
    z_t = noise_clip(schedule, z, t, noise, conditional)

    own = maps.maps(rows, torch.full((len(rows), 1), maps.driving.shape[1]), size) if cfg.reference_motion else None
    reference = dit.encode_reference(z_r, shape, own)
    control = dit.encode_motion(maps.maps(rows, columns, size))
    told = t.float() if conditional is None else t.float().masked_fill(conditional, 0)
    out = dit(z_t, told, shape, reference, control, conditional)
    return diffusion_loss(schedule, out, z, z_t, t, noise, cfg.prediction, conditional).mean()


def train_frames(store: Store, maps: MapSet, cfg: DiTConfig, schedule: Schedule, checkpoint: Path, minutes: float,
                 portraits: int = 6, targets: int = 3, lr: float = 1.5e-3) -> RealPortraitDiT:
    """Stage 1: single frames, portrait and driving frames from one clip."""
    dit = from_scratch(cfg)

    def loss(step: int):
        rows = torch.randint(len(maps.clips), (portraits,))
        columns = torch.rand(portraits, maps.driving.shape[1]).argsort(1)[:, :targets]
        return batch_loss(dit, schedule, store, maps, rows, columns, together=False), {}

    average = fit(dit, loss, checkpoint, minutes, lr, decay=0.995, adam_only=ENDS)
    dit.load_state_dict(average)
    return dit.eval()


def train_clips(store: Store, maps: MapSet, schedule: Schedule, dit: RealPortraitDiT, checkpoint: Path, minutes: float,
                lr: float = 6e-4) -> RealPortraitDiT:
    """Stage 2, from the weights of stage 1: L consecutive frames, one clip a step."""
    length = dit.cfg.clip_frames

    def loss(step: int):
        row = torch.randint(len(maps.clips), (1,))
        start = int(torch.randint(0, maps.driving.shape[1] - length + 1, ()))
        columns = torch.arange(start, start + length)[None]                             # (1, L)
        return batch_loss(dit, schedule, store, maps, row, columns, together=True), {}

    average = fit(dit, loss, checkpoint, minutes, lr, decay=0.98, warmup=20, adam_only=ENDS)
    dit.load_state_dict(average)
    return dit.eval()
