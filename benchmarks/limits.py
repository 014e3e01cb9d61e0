"""How near a step and a clip come to what the processor can do, how a step's cost grows, and MINI from end to end.

The floor of a step is its arithmetic at the rate of a large matrix product, measured in the same run. Made for a GPU; on a
CPU it runs too, for small sizes. The bars, for PAPER on an H200: exact at most 1.6 times the floor, balanced 20 new frames a
second, fast 25, 8 GB at the peak, 6 GB in fp8; MINI from end to end 25 frames a second.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import realportrait_core
from realportrait_core.animation.mapping import PortraitMotion
from realportrait_core.animation.rendering import render
from realportrait_core.config import DiTConfig
from realportrait_core.diffusion.schedule import linear_schedule
from realportrait_core.dit import ClipShape, RealPortraitDiT, fused
from realportrait_core.face.track import FaceTrack
from realportrait_core.generate import generate
from realportrait_core.speed import PRESETS, Speed
from realportrait_core.vae import load_vae
from realportrait_core.vid2vid import FaceVid2Vid
from realportrait_core.vid2vid.blocks import fold_norms

from .measure import relative_difference, seconds
from .parts import FACE, random_weights, some_maps
from .sizes import Limits, Sizes

VAE = Path(realportrait_core.__file__).parent / "weights" / "vae" / "realportrait_mini_vae.safetensors"
MATRIX = {"cpu": 512, "cuda": 8192}  # side of the matrix product that tells the processor's rate
PAPER_STEPS = 50
VAE_AT_ONCE = 8  # frames


@dataclass(frozen=True)
class StepFigure:
    """A denoising step of L frames of px x px."""

    frames: int
    px: int
    way: str  # "kernels" (as it runs), "plain" (without Triton's kernels), "compiled" or "fp8 weights"
    seconds: float
    flop: int
    times_floor: float  # seconds / (flop / rate)
    difference: float | None  # from the plain step, of the ways beside it
    peak_bytes: int | None  # of GPU memory, weights included


@dataclass(frozen=True)
class ClipFigure:
    """A clip from the portrait's latent and the maps to pictures: K, V, control tokens, every step, the bundled VAE."""

    way: str  # of realportrait_core.speed, with the dtype of the weights
    steps: int
    seconds: float
    new_frames_per_second: float  # a clip's first frame is the last of the clip before
    times_floor: float  # seconds / (steps * flop of a step / rate)
    peak_bytes: int | None  # of GPU memory, weights included


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
    linear = 2 * frames * tokens * cfg.hidden**2  # of one C x C layer
    block = (8 + 2 * cfg.mlp_ratio) * linear + 4 * frames * tokens * (tokens + frames) * cfg.hidden
    seen = 4 * frames * tokens * tokens * cfg.hidden  # of the reference's keys
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
        figures.append(
            StepFigure(
                frames=n,
                px=side,
                way=way,
                seconds=took,
                flop=flop,
                times_floor=took * rate / flop,
                difference=difference,
                peak_bytes=peak,
            )
        )
    return figures


@torch.inference_mode()
def clip_figures(sizes: Sizes, device: str, repeats: int) -> list[ClipFigure]:
    """All of the paper's steps, and the presets of realportrait_core.speed; then these weights kept in fp8."""
    cfg, px, frames = sizes.config.dit, sizes.config.image_size, sizes.config.clip_frames
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    model = random_weights(RealPortraitDiT(cfg, device=device, dtype=dtype), device)
    vae, rate = load_vae(VAE).to(device, dtype), matrix_rate(device, dtype)
    maps, own = (some_maps(cfg.motion_channels, sizes.config.vid2vid.feature_size, px, n) for n in (frames, 1))
    motion = PortraitMotion(maps, own, torch.eye(3, dtype=torch.float64), (px, px))
    portrait, schedule = torch.randn(1, cfg.in_channels, px // 8, px // 8), linear_schedule()
    flop = step_flop(cfg, frames, (px // 8 // cfg.patch) ** 2)

    def pictures(speed: Speed) -> Tensor:
        latents = render(model, schedule, portrait, motion, speed.steps, solver=speed.solver, caching=speed.caching)
        return torch.cat([vae.decode(part.to(device, dtype)).cpu() for part in latents.split(VAE_AT_ONCE)])

    exact = Speed(PAPER_STEPS)
    figures = []
    for weights, speeds in (("", {"exact": exact, **PRESETS}), (", fp8 weights", {"exact": exact})):
        if weights:
            keep_in_fp8(model)
        for name, speed in speeds.items():
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            took = median_seconds(lambda: pictures(speed), device, repeats)
            peak = torch.cuda.max_memory_allocated() if device == "cuda" else None
            figures.append(
                ClipFigure(name + weights, speed.steps, took, (frames - 1) / took, took * rate / (speed.steps * flop), peak)
            )
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
    reference = model.encode_reference(z_r, shape, own)
    conditional = torch.arange(frames, device=device)[None] == 0
    t = torch.full((1, frames), 500.0, device=device)
    return z_t, t, shape, reference, model.encode_motion(maps, reference), conditional


@torch.inference_mode()
def end_to_end(sizes: Sizes, limits: Limits, device: str, repeats: int) -> EndToEnd:
    """Portrait and driver to frames, with random weights and the bundled VAE; TF32 where the GPU has it."""
    config, px, frames = sizes.config, sizes.config.image_size, limits.driver_frames
    torch.set_float32_matmul_precision("high")
    vid2vid = fold_norms(random_weights(FaceVid2Vid(config.vid2vid, with_generator=False), device))
    dit, vae = random_weights(RealPortraitDiT(config.dit), device), load_vae(VAE).to(device)
    portrait, driver = torch.rand(1, px, px, 3), torch.rand(frames, px, px, 3)
    points = ((FACE - 256) * px / 512 + px / 2).float()
    track = FaceTrack(points.expand(frames, 5, 2), torch.ones(frames, dtype=torch.bool), "")

    def animate() -> Tensor:
        return generate(vid2vid, dit, vae, linear_schedule(), portrait, driver, points, track, Speed(limits.steps), guidance=1.0)[0]

    took = median_seconds(animate, device, repeats)
    return EndToEnd(frames, limits.steps, took, frames / took)


def table(figures: list[StepFigure], clips: list[ClipFigure], whole: EndToEnd) -> str:
    """Markdown: steps, clips, and a line on MINI."""
    return "\n".join(
        [
            "| frames | px | | step ms | ms a frame | TFLOP | times the floor | difference | peak memory GB |",
            "|---|---|---|---|---|---|---|---|---|",
            *(
                f"| {row.frames} | {row.px} | {row.way} | {1e3 * row.seconds:.2f} | {1e3 * row.seconds / row.frames:.2f} "
                f"| {row.flop / 1e12:.3g} | {row.times_floor:.2f} | {'' if row.difference is None else f'{row.difference:.1e}'} "
                f"| {gigabytes(row.peak_bytes)} |"
                for row in figures
            ),
            "",
            "| a clip | steps | s | new frames a second | times the floor | peak memory GB |",
            "|---|---|---|---|---|---|",
            *(
                f"| {row.way} | {row.steps} | {row.seconds:.2f} | {row.new_frames_per_second:.1f} | {row.times_floor:.2f} "
                f"| {gigabytes(row.peak_bytes)} |"
                for row in clips
            ),
            "",
            f"End to end: {whole.frames} frames with {whole.steps} steps in {whole.seconds:.2f} s, "
            f"{whole.frames_per_second:.1f} frames a second.",
        ]
    )


def gigabytes(count: int | None) -> str:
    return "" if count is None else f"{count / 1e9:.2f}"
