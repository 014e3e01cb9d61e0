"""A clip of 512 px through the real nodes by a network of the paper's width, on the CPU, in a process of its own.

    CUDA_VISIBLE_DEVICES= python tests/host/paper.py BLOCKS CONTROL_BLOCKS FRAMES WEIGHT_DTYPE

Random weights are written to a file and loaded by Load RealPortrait Model; RealPortrait Sampler takes 1 step. Prints one line
of JSON, bytes and seconds; the memory is that of the process, the host's own in it.
"""

import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).resolve().parents[1]))  # for toy_sizes; behind this folder, whose conftest is meant
import tiny
from conftest import pack_module as pack
from conftest import start_host
from process_memory import memory, start_peak

PX = 512


def weights_file(path: Path, config) -> int:
    """In fp16, with no zero anywhere and activations of about one. Returns the number of parameters."""
    generator = torch.Generator().manual_seed(0)

    def filled(key: str, shape: torch.Size) -> torch.Tensor:
        if len(shape) == 1 or "table" in key:
            return torch.randn(shape, generator=generator) * 0.1 + key.endswith("norm.weight")
        return torch.randn(shape, generator=generator) * shape[1:].numel() ** -0.5

    bare = pack("realportrait_core.dit.model").RealPortraitDiT(config, device="meta")
    shapes = {key: value.shape for key, value in bare.state_dict().items()}
    checkpoint = pack("realportrait_core.checkpoint")
    state = {key: filled(key, shape).half() for key, shape in shapes.items()}
    checkpoint.save(path, state, checkpoint.bundle_metadata("dit", config))
    return sum(shape.numel() for shape in shapes.values())


def motion(config):
    """Of one clip, f as Face Vid2vid gives it at this size, 64 x 64 cells."""

    def maps(frames: int):
        f = torch.randn(frames, config.motion_channels, 64, 64, generator=torch.Generator().manual_seed(1))
        return replace(tiny.maps(pack, frames, PX, config.motion_channels), f=f.half())

    maps_of_clip, identity = maps(config.clip_frames), torch.eye(3, dtype=torch.float64)
    return pack("realportrait_core.animation.mapping").PortraitMotion(maps_of_clip, maps(1), identity, (PX, PX))


def measure_blocks(network, peaks: dict[str, int]) -> None:
    """Writes the peak of the process into `peaks`, block by block as they run: since the end of the one before."""
    blocks = {f"block {i}": block for i, block in enumerate(network.blocks)}
    blocks |= {f"control {i}": block for i, block in enumerate(network.controlnet)}

    def done(name: str) -> None:
        peaks[name] = memory("VmHWM")
        start_peak()

    for name, block in blocks.items():
        block.register_forward_hook(lambda *_, name=name: done(name))


@torch.inference_mode()
def main(blocks: int, control_blocks: int, frames: int, weight_dtype: str) -> dict:
    with tempfile.TemporaryDirectory() as base:
        nodes = start_host(Path(base)).NODE_CLASS_MAPPINGS
        process = memory("VmRSS")
        config = replace(pack("realportrait_core.config").PAPER.dit, depth=blocks, control_depth=control_blocks, clip_frames=frames)
        folder = Path(base, "models", "realportrait")
        folder.mkdir()
        parameters = weights_file(folder / "paper.safetensors", config)
        start_peak()
        model, _ = nodes["RealPortraitLoadModel"].execute(weights="paper.safetensors", weight_dtype=weight_dtype).result
        loading, loaded = memory("VmHWM"), memory("VmRSS")
        vae, peaks = nodes["VAELoader"]().load_vae("realportrait_mini_vae.safetensors")[0], {}
        measure_blocks(model.model.diffusion_model, peaks)
        portrait, driven = torch.rand(1, PX, PX, 3, generator=torch.Generator().manual_seed(2)), motion(config)
        start_peak()
        start = time.perf_counter()
        latent = (
            nodes["RealPortraitSampler"]
            .execute(
                model=model,
                vae=vae,
                portrait=portrait,
                motion=driven,
                seed=0,
                steps=1,
                sampler_name="euler",
                scheduler="normal",
                strength=1.0,
            )
            .result[0]["samples"]
        )
        seconds = time.perf_counter() - start
        return {
            "parameters": parameters,
            "process": process,
            "loading": loading,
            "loaded": loaded,
            "peaks": peaks | {"end": memory("VmHWM")},
            "seconds": seconds,
            "shape": list(latent.shape),
            "finite": bool(torch.isfinite(latent).all()),
            "spread": float(latent.std()),
        }


if __name__ == "__main__":
    blocks_, control_, frames_, dtype_ = sys.argv[1:]
    print(json.dumps(main(int(blocks_), int(control_), int(frames_), dtype_)))
