"""A real ComfyUI server with this pack alone, and small media, for the whole test session.

Most workflows run with a transformer that is smaller than the bundled one and random: what they test is not the picture.
"""

import json
import shutil
import signal
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from realportrait_core.config import PAPER
from realportrait_core.dit import RealPortraitDiT
from realportrait_core.dit.checkpoint import load_dit, save_dit
from realportrait_core.vid2vid import FaceVid2Vid
from realportrait_core.vid2vid.checkpoint import save_vid2vid

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = ROOT / "realportrait_core" / "weights"
BUNDLED = "realportrait_mini.safetensors"
SMALL = "small.safetensors"
sys.path.append(str(ROOT / "scripts"))  # at the end: the host's and the standard library's names come first


@pytest.fixture(scope="session")
def bad_weights(tmp_path_factory) -> dict[str, Path]:
    """Weight files that somebody may have in models/realportrait, by their name."""
    folder = tmp_path_factory.mktemp("weights")
    model = (WEIGHTS / "realportrait" / BUNDLED).read_bytes()
    (folder / "truncated.safetensors").write_bytes(model[: len(model) // 2])
    (folder / "renamed.safetensors").write_bytes(b"PK\x03\x04" + bytes(1000))  # a pickle of torch.save is a zip file
    (folder / "other.safetensors").write_bytes((WEIGHTS / "vae" / "realportrait_mini_vae.safetensors").read_bytes())
    return {file.name: file for file in folder.iterdir()}


@pytest.fixture(scope="session")
def small_weights(tmp_path_factory) -> Path:
    """Random ones for the maps, latents and frames of the bundled, of a third of their size and for any number of steps."""
    bundled = load_dit(WEIGHTS / "realportrait" / BUNDLED).cfg
    network = RealPortraitDiT(replace(bundled, hidden=48, depth=2, heads=2, control_depth=1, distilled_steps=0))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.1, generator=generator)
    path = tmp_path_factory.mktemp("small") / SMALL
    save_dit(path, network)
    return path


@pytest.fixture(scope="session")
def paper_weights(tmp_path_factory) -> dict[str, Path]:
    """What workflows/animate_portrait_paper.json names, below models/: networks of PAPER's layout at toy width, filled at random,
    and the pack's VAE under an SD1.5 VAE's name."""
    folder, generator = tmp_path_factory.mktemp("paper"), torch.Generator().manual_seed(0)
    sizes = dict(
        crop_size=32,
        appearance_width=4,
        appearance_resblocks=1,
        reshape_channel=4,
        reshape_depth=2,
        motion_depths=(1, 1, 1, 1),
        motion_dims=(4, 8, 8, 16),
        dense_width=4,
        dense_max=16,
        dense_blocks=2,
        warped_channels=6,
        generator_blocks=1,
        generator_out=4,
        spade_hidden=4,
    )
    dit = RealPortraitDiT(replace(PAPER.dit, hidden=24, heads=2, motion_channels=sizes["warped_channels"], motion_widths=(8, 8)))
    dit.load_state_dict({key: torch.randn(value.shape, generator=generator) * 0.15 for key, value in dit.state_dict().items()})
    save_dit(folder / "dit.safetensors", dit)
    torch.manual_seed(0)
    save_vid2vid(folder / "vid2vid.safetensors", FaceVid2Vid(replace(PAPER.vid2vid, **sizes)).eval())
    return {
        "realportrait/realportrait_paper.safetensors": folder / "dit.safetensors",
        "realportrait/liveportrait.safetensors": folder / "vid2vid.safetensors",
        "vae/vae-ft-mse-840000-ema-pruned.safetensors": WEIGHTS / "vae" / "realportrait_mini_vae.safetensors",
    }


@pytest.fixture(scope="session")
def server(host_sources, bad_weights, small_weights, paper_weights):
    pytest.importorskip("aiohttp", reason="this Python has not the packages that ComfyUI needs: run python scripts/test.py")
    from environment import Environment
    from headless import HeadlessComfyUI

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl+C: the server goes with the tests
    ours = bad_weights | {SMALL: small_weights}
    models = {f"realportrait/{name}": file for name, file in ours.items()} | paper_weights
    with HeadlessComfyUI(Environment(Path(sys.executable), host_sources), models) as running:
        yield running


@pytest.fixture(scope="session")
def client(server):
    from comfy_client import ComfyClient

    return ComfyClient(server.url)


@pytest.fixture(scope="session")
def browser() -> Path:
    """The folder whose node_modules hold Chromium and what drives it."""
    from browser import BrowserError, find_browser

    try:
        return find_browser()
    except BrowserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def media_folder(tmp_path_factory) -> Path:
    """Portraits and driving videos, good and bad."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("media")
    portrait = Image.open(ROOT / "assets" / "portrait.png").convert("RGB")
    frames = read_video(ROOT / "assets" / "driving.mp4")
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)

    for name in ("portrait.png", "driving.mp4"):
        shutil.copy(ROOT / "assets" / name, folder)
    Image.fromarray(noise).save(folder / "noise.png")
    portrait.resize((301, 253)).convert("RGBA").save(folder / "odd_rgba.png")
    portrait.convert("L").save(folder / "grey.png")
    portrait.resize((12, 12)).save(folder / "tiny.png")
    two = Image.new("RGB", (512, 256))
    two.paste(portrait, (0, 0))
    two.paste(Image.fromarray(frames[0]), (256, 0))
    two.save(folder / "two_faces.png")
    write_video(folder / "with_sound.mp4", frames[:5], sound=True)
    write_video(folder / "one_frame.mp4", frames[:1])
    write_video(folder / "odd_size.mp4", [np.ascontiguousarray(frame[:250, :230]) for frame in frames[:3]])
    write_video(folder / "no_face.mp4", [noise] * 3)
    write_video(folder / "face_lost.mp4", [*frames[:2], noise, *frames[3:5]])
    return folder


@pytest.fixture(scope="session")
def media(client, media_folder) -> dict[str, str]:
    """What lies in the server's input folder: {name here: name there}."""
    return {file.name: client.upload(file) for file in media_folder.iterdir()}


@pytest.fixture(scope="session")
def two_clips(tmp_path_factory) -> Path:
    """18 frames, which are two clips, with a tone."""
    path = tmp_path_factory.mktemp("long") / "two_clips.mp4"
    write_video(path, read_video(ROOT / "assets" / "driving.mp4")[:18], sound=True)
    return path


def read_video(source) -> list[np.ndarray]:
    """Frames (H, W, 3) uint8."""
    import av

    with av.open(source if not isinstance(source, Path) else str(source)) as video:
        return [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]


def write_video(path: Path, frames: list[np.ndarray], sound: bool = False) -> None:
    """12.5 fps; sound: a 440 Hz tone for as long as the picture and a second more."""
    import av

    height, width = frames[0].shape[:2]
    with av.open(str(path), "w") as video:
        picture = video.add_stream("libx264", rate=Fraction(25, 2))
        picture.width, picture.height, picture.pix_fmt = width, height, "yuv420p"
        tone = video.add_stream("aac", rate=16000) if sound else None
        for frame in frames:
            video.mux(picture.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        video.mux(picture.encode(None))
        if tone:
            seconds = len(frames) / 12.5 + 1
            wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(int(16000 * seconds)) / 16000)
            samples = av.AudioFrame.from_ndarray(wave[None].astype(np.float32), format="fltp", layout="mono")
            samples.sample_rate = 16000
            video.mux(tone.encode(samples))
            video.mux(tone.encode(None))


@pytest.fixture
def workflow(media):
    """workflow("animate_portrait", driving="with_sound.mp4", steps=1): `api_workflow` with files of the server's input folder."""

    def make(name="animate_portrait", portrait="portrait.png", driving="driving.mp4", **settings) -> dict:
        return api_workflow(name, media[portrait], media[driving], **settings)

    return make


@pytest.fixture(scope="session")
def workflow_of_files():
    """`api_workflow`, for a test with a server of its own."""
    return api_workflow


def api_workflow(name: str, portrait: str, driving: str, frames=None, steps=2, seed=1, weights=SMALL, vid2vid=None) -> dict:
    """An API workflow with small settings.

    weights, vid2vid: the transformer's file and Face Vid2vid's instead of the bundled ones.
    """
    import demo

    made = json.loads((ROOT / "workflows" / "api" / f"{name}.json").read_text(encoding="utf-8"))
    made[demo.only(made, "RealPortraitLoadPortrait")]["inputs"]["image"] = portrait
    (chooser,) = (entry for entry in made.values() if entry["class_type"] in demo.DRIVING)
    chooser["inputs"]["file"] = driving
    for entry in made.values():
        if entry["class_type"] in ("RealPortraitSampler", "RealPortraitAnimateLong", "KSampler"):
            entry["inputs"].update(steps=steps, seed=seed)
        if entry["class_type"] == "RealPortraitAnimate":  # it samples as the weights were trained for
            entry["inputs"].update(seed=seed)
        if entry["inputs"].get("weights") == BUNDLED:
            entry["inputs"].update(weights=weights)
        if vid2vid and entry["class_type"] == "RealPortraitLoadVid2Vid":
            entry["inputs"].update(weights=vid2vid)
    if frames:
        demo.limit_frames(made, frames)
    return made
