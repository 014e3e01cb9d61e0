"""The report at the end of a training on a GPU: PSNR on held-out clips, and a strip of pictures.

Quick figures within the last seconds of the budget; `python -m realportrait_core.eval` is the full evaluation.
"""

import logging
from pathlib import Path

import torch

from ..batch import maps_of
from ..denoiser import conditions
from ..sample_grid import animate, save_picture
from .gpu_batches import batch_of
from .gpu_state import State
from .vae import psnr

log = logging.getLogger(__name__)

SHOWN, COLUMNS = 4, 6  # clips of the strip, frames of each
DECODED_AT_ONCE = 16  # frames


@torch.inference_mode()
def write_report(state: State, out: Path) -> dict[str, float]:
    """Rows of the table in dB, and strip.png: for each clip a row of truth, of motion latents alone and of the animation."""
    rows: dict[str, list[torch.Tensor]] = {}
    strips = []
    length = min(state.cfg.dit.clip_frames, state.held.length - 1)
    with torch.compiler.set_stance("force_eager"):  # for these shapes compiling would take longer than sampling
        for clip in range(len(state.held)):
            pictures = draw_clip(state, clip, length)
            truth = pictures["truth"]
            for name, made in pictures.items():
                if name != "truth":
                    rows.setdefault(name, []).append(psnr(made, truth).mean())
            if clip < SHOWN:
                chosen = torch.linspace(0, length - 1, min(COLUMNS, length)).round().long()
                strips += [row_of(pictures[name][chosen]) for name in ("truth", "motion latents alone", "RealPortrait")]
    table = {name: torch.stack(values).mean().item() for name, values in rows.items()}
    for name, value in table.items():
        log.info("%-22s %6.2f dB", name, value)
    save_picture(out / "strip.png", (torch.cat(strips, 1) * 255).round().byte().movedim(0, -1).cpu())
    return table


def draw_clip(state: State, clip: int, length: int) -> dict[str, torch.Tensor]:
    """Pictures (L, 3, S, S) in [0, 1] of frames 1 .. L of a held-out clip with frame 0 as portrait."""
    device, held = state.device, state.held
    frames = torch.arange(1, length + 1, device=device)
    first, no = torch.zeros(1, dtype=torch.long, device=device), torch.zeros(1, dtype=torch.bool, device=device)
    known = no[:, None].expand(1, length)
    batch = batch_of(held, state.vid2vid.appearance, first + clip, first, frames[None, None], first, known, no, pictures=False)
    _, motion = conditions(state.dit, batch, *maps_of(state.vid2vid.warping, batch))
    truth = held.frames[clip, frames].float() / 255

    def decode(latents: torch.Tensor) -> torch.Tensor:
        return torch.cat([state.vae.decode(part) for part in latents.float().split(DECODED_AT_ONCE)])

    return {
        "truth": truth,
        "static portrait": (held.frames[clip, :1].float() / 255).expand_as(truth),
        "VAE round trip": decode(batch.z[0]),
        "motion latents alone": decode(motion[:, : batch.z.shape[2]]),
        "RealPortrait": decode(animate(state.dit, batch, state.vid2vid.warping)),
    }


def row_of(pictures: torch.Tensor) -> torch.Tensor:
    """(n, 3, S, S) -> (3, S, n S)."""
    return torch.cat(list(pictures), 2)
