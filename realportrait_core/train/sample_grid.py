"""A grid of pictures to look at during training: portrait, truth and result of a few training samples."""

from pathlib import Path

import torch

from ..animation.extraction import device_of
from ..diffusion.sampling import sample_clip
from ..diffusion.schedule import linear_schedule
from ..dit.embed import ClipShape
from ..dit.model import RealPortraitDiT
from ..speed import default_sampling
from ..vae import VAE
from ..vid2vid.warp import WarpingNetwork
from .batch import Batch, Index, Item, load, maps_of
from .encoders import Encoders
from .stages import Stage

ROWS = 3  # samples
COLUMNS = 4  # frames of a clip
STEPS = 10  # of the sampler, if the weights take any number


@torch.inference_mode()
def sample_grid(
    dit: RealPortraitDiT, index: Index, stage: Stage, warping: WarpingNetwork, vae: VAE, encoders: Encoders
) -> torch.Tensor:
    """(H, W, 3) uint8. A row for each sample: the portrait, true frames of a clip, then the same frames as sampled."""
    shape = max(stage.shapes, key=lambda shape: shape.frames)
    usable = index.usable(shape).tolist()
    device = next(warping.parameters()).device
    rows = []
    for sample in usable[:: max(1, len(usable) // ROWS)][:ROWS]:
        rows.append(torch.cat(sample_row(dit, index, sample, shape.frames, device, warping, vae, encoders), 1))
    return torch.cat(rows)


def sample_row(
    dit, index: Index, sample: int, length: int, device, warping: WarpingNetwork, vae: VAE, encoders: Encoders
) -> list[torch.Tensor]:
    """1 + 2 n pictures (H, W, 3) uint8."""
    frames = torch.arange(length)[None] + (0 if index.video[sample] and length > 1 else 1)
    item = Item(sample, 0, frames, torch.zeros(1, 1, dtype=torch.long), torch.zeros(1, 1, length, dtype=torch.bool), seed=0)
    batch = load(index, [item], encoders).to(device)
    z = animate(dit.to(device), batch, warping)
    chosen = torch.linspace(0, length - 1, min(COLUMNS, length)).round().long()
    latents = torch.cat([batch.z_r, batch.z[0, chosen], z[chosen]]).to(device_of(vae))
    pictures = (vae.decode(latents) * 255).round().byte().movedim(1, -1).cpu()  # (1 + 2 n, H, W, 3)
    return list(pictures)


def animate(dit: RealPortraitDiT, batch: Batch, warping: WarpingNetwork) -> torch.Tensor:
    """A batch of one clip, sampled from its noise: latents (L, 4, h, w)."""
    maps, own = maps_of(warping, batch)
    shape = ClipShape(batch.size, batch.size, dit.cfg.clip_frames, dit.cfg.fps)
    reference = dit.encode_reference(batch.z_r, shape, own if dit.cfg.reference_motion else None)
    control = dit.encode_motion(maps, reference)

    def denoise(z, t, conditional):
        return dit(z[None], t[None], shape, reference, control, conditional[None])[0]

    speed = default_sampling(dit.cfg, STEPS, None if dit.cfg.distilled_steps else "ddim")
    return sample_clip(denoise, batch.noise[0], linear_schedule(), speed.steps, dit.cfg.prediction, solver=speed.solver)


def save_picture(path: Path, picture: torch.Tensor) -> None:
    """picture (H, W, 3) uint8 as a PNG."""
    import cv2

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", picture.numpy()[..., ::-1])[1].tobytes())
