"""How near a denoising step comes to what the processor can do, how its cost grows, and MINI from end to end.

The floor of a step is its arithmetic at the rate of a large matrix product, measured in the same run. Made for a GPU; on a
CPU it runs too, for small sizes.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest.mock import patch

import realportrait_core
import torch
import torch.nn.functional as F
from realportrait_core.config import DiTConfig
from realportrait_core.diffusion.schedule import linear_schedule
from realportrait_core.dit import ClipShape, RealPortraitDiT, fused
from realportrait_core.face.track import FaceTrack
from realportrait_core.generate import extract_keypoints, motion_maps, render
from realportrait_core.vae import load_vae
from realportrait_core.vid2vid import FaceVid2Vid
from torch import Tensor, nn

from .measure import relative_difference, seconds
from .parts import FACE, random_weights, some_maps
from .sizes import Limits, Sizes

VAE = Path(realportrait_core.__file__).parent / "weights" / "vae" / "realportrait_mini_vae.safetensors"
MATRIX = {"cpu": 512, "cuda": 8192}             # side of the matrix product that tells the processor's rate


@dataclass(frozen=True)
class StepFigure:
    """A denoising step of L frames of px x px."""

    frames: int
    px: int
    way: str                        # "kernels" (as it runs), "plain" (without Triton's kernels), "compiled" or "fp8 weights"
    seconds: float
    flop: int
    times_floor: float              # seconds / (flop / rate)
    difference: float | None        # from the plain step, of the ways beside it
    peak_bytes: int | None          # of GPU memory, weights included


@dataclass(frozen=True)
class EndToEnd:
    """MINI over a driver: keypoints, warping, maps, denoising, VAE; without finding the face."""

    frames: int
    steps: int
    seconds: float
    frames_per_second: float


def step_flop(cfg: DiTConfig, frames: int, tokens: int) -> int:
    """Floating-point operations of a step whose reference and control tokens are at hand; a multiplication and an addition
    count as two."""
    linear = 2 * frames * tokens * cfg.hidden**2                                        # of one C x C layer
    block = (8 + 2 * cfg.mlp_ratio) * linear + 4 * frames * tokens * (tokens + frames) * cfg.hidden
    seen = 4 * frames * tokens * tokens * cfg.hidden                                    # of the reference's keys
    out = cfg.in_channels * (2 if cfg.learned_sigma else 1)
    ends = 2 * frames * tokens * cfg.hidden * cfg.patch**2 * (cfg.in_channels + out)
    return cfg.depth * (block + seen) + cfg.control_depth * (block + linear) + ends


def matrix_rate(device: str, dtype: torch.dtype) -> float:
    """Operations a second of a large matrix product."""
    n = MATRIX[device]
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    return 2 * n**3 / median_seconds(lambda: a @ b, device, 10)


def median_seconds(call: Callable[[], object], device: str, repeats: int) -> float:
    for _ in range(2):
        call()
    return statistics.median(seconds(call, device) for _ in range(repeats))


@torch.inference_mode()
def step_figures(sizes: Sizes, limits: Limits, device: str, repeats: int) -> list[StepFigure]:
    """The clip of the paper, with kernels, plain and compiled; then other lengths and sizes. On a CPU there are no kernels."""
    cfg, px, frames = sizes.config.dit, sizes.config.image_size, sizes.config.clip_frames
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    model = random_weights(RealPortraitDiT(cfg, device=device, dtype=dtype), device)
    rate = matrix_rate(device, dtype)
    # On a CPU only the tracing is tried, since compiling takes minutes.
    compiled = torch.compile(model, backend="inductor" if device == "cuda" else "eager")
    plain = partial(without_kernels, model)
    clip = step_arguments(model, frames, px, device, dtype)
    wanted = plain(*clip)
    figures = []
    for n, side, way in (
        *((frames, px, way) for way in ("kernels", "plain", "compiled")),
        *((n, px, "kernels") for n in limits.lengths if n != frames),
        *((frames, side, "kernels") for side in limits.sides if side != px),
        (frames, px, "fp8 weights"),
    ):
        forward = {"plain": plain, "compiled": compiled}.get(way, model)
        if way == "fp8 weights":
            keep_in_fp8(model)
        arguments = clip if (n, side) == (frames, px) else step_arguments(model, n, side, device, dtype)
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        took = median_seconds(lambda: forward(*arguments), device, repeats)
        peak = torch.cuda.max_memory_allocated() if device == "cuda" else None
        difference = relative_difference(forward(*clip), wanted) if arguments is clip and way != "plain" else None
        flop = step_flop(cfg, n, (side // 8 // cfg.patch) ** 2)
        figures.append(StepFigure(
            frames=n, px=side, way=way, seconds=took, flop=flop, times_floor=took * rate / flop,
            difference=difference, peak_bytes=peak,
        ))
    return figures


class Fp8Linear(nn.Linear):
    """Its weight is kept in fp8 and cast as it is used, as the host does."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype), self.bias)


def keep_in_fp8(model: RealPortraitDiT) -> None:
    for layer in model.modules():
        if type(layer) is nn.Linear:
            layer.__class__ = Fp8Linear
            layer.weight.data = layer.weight.data.to(torch.float8_e4m3fn)


def without_kernels(model: RealPortraitDiT, *arguments) -> Tensor:
    """A step by the plain expressions of realportrait_core.dit.fused, wherever it runs."""
    with patch.object(fused, "kernels_for", return_value=None):
        return model(*arguments)


def step_arguments(model: RealPortraitDiT, frames: int, px: int, device: str, dtype: torch.dtype) -> tuple:
    """What a step of a clip reads, its first frame known."""
    cfg, side = model.cfg, px // 8
    shape = ClipShape(px, px, frames, cfg.fps)
    z_t, z_r = (torch.randn(*lead, cfg.in_channels, side, side, device=device, dtype=dtype) for lead in ((1, frames), (1,)))
    maps, own = (some_maps(cfg.motion_channels, 64, px, n).to(device, dtype) for n in (frames, 1))
    control = torch.cat([model.encode_motion(maps[[i]]) for i in range(frames)])
    conditional = torch.arange(frames, device=device)[None] == 0
    t = torch.full((1, frames), 500.0, device=device)
    return z_t, t, shape, model.encode_reference(z_r, shape, own), control, conditional


@torch.inference_mode()
def end_to_end(sizes: Sizes, limits: Limits, device: str, repeats: int) -> EndToEnd:
    """Portrait and driver to frames, with random weights and the bundled VAE; TF32 where the GPU has it."""
    config, px, frames = sizes.config, sizes.config.image_size, limits.driver_frames
    torch.set_float32_matmul_precision("high")
    vid2vid = random_weights(FaceVid2Vid(config.vid2vid, with_generator=False), device)
    dit, vae = random_weights(RealPortraitDiT(config.dit), device), load_vae(VAE).to(device)
    portrait, driver = torch.rand(1, px, px, 3), torch.rand(frames, px, px, 3)
    points = ((FACE - 256) * px / 512 + px / 2).float()
    track = FaceTrack(points.expand(frames, 5, 2), torch.ones(frames, dtype=torch.bool), "")

    def animate() -> Tensor:
        keypoints = extract_keypoints(vid2vid, portrait, driver, points, track)
        motion = motion_maps(vid2vid, keypoints, size=px)
        reference = vae.encode(portrait.movedim(-1, 1).to(device))
        latents = render(dit, linear_schedule(), reference, motion, limits.steps)
        return torch.cat([vae.decode(part.to(device)).cpu() for part in latents.split(8)])

    took = median_seconds(animate, device, repeats)
    return EndToEnd(frames, limits.steps, took, frames / took)


def table(figures: list[StepFigure], whole: EndToEnd) -> str:
    """Markdown."""
    lines = [
        "| frames | px | | step ms | TFLOP | times the floor | difference | peak memory GB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in figures:
        difference = "" if row.difference is None else f"{row.difference:.1e}"
        peak = "" if row.peak_bytes is None else f"{row.peak_bytes / 1e9:.2f}"
        lines.append(
            f"| {row.frames} | {row.px} | {row.way} | {1e3 * row.seconds:.2f} "
            f"| {row.flop / 1e12:.2f} | {row.times_floor:.2f} | {difference} | {peak} |"
        )
    return "\n".join([
        *lines, "",
        f"End to end: {whole.frames} frames with {whole.steps} steps in {whole.seconds:.2f} s, "
        f"{whole.frames_per_second:.1f} frames a second.",
    ])
