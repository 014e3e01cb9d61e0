"""Animate Long Video and the nodes of its state, in the host's process, on tiny random networks."""

import io
import shutil
from fractions import Fraction
from pathlib import Path

import pytest
import tiny
import torch
import yunet
from refusal import refused
from shown import on_the_node

ROOT = Path(__file__).resolve().parents[2]
FRAMES = 18  # two clips
SETTINGS = dict(
    seed=5,
    steps=1,
    sampler_name="euler",
    scheduler="normal",
    speed="exact",
    strength=1.0,
    guidance=1.0,
    result="whole portrait",
    pose_gain=1.0,
    expression_gain=1.0,
    framing="auto",
    neutral_frame=0,
    overlap=1,
    tail_window=1,
    correction=0.0,
)
SAMPLED = ("seed", "steps", "sampler_name", "scheduler", "speed", "strength", "guidance")


def pictures(frames, height=160, width=150, seed=3):
    return torch.rand(frames, height, width, 3, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def weights(pack):
    """Tiny files in models/realportrait, as a user would put them there."""
    import folder_paths

    folder = Path(folder_paths.models_dir) / "realportrait"
    folder.mkdir(exist_ok=True)
    tiny.dit_file(pack, folder / "long_dit.safetensors", input_sq_size=64)
    tiny.vid2vid_file(pack, folder / "long_vid2vid.safetensors")
    return folder


@pytest.fixture(scope="module")
def vae(pack):
    import comfy.sd

    return comfy.sd.VAE(sd=tiny.vae_state(pack))


@pytest.fixture
def model(run_node, weights):
    return run_node("RealPortraitLoadModel", weights="long_dit.safetensors", weight_dtype="default")[0]


@pytest.fixture
def vid2vid(run_node, weights):
    return run_node("RealPortraitLoadVid2Vid", weights="long_vid2vid.safetensors")[0]


@pytest.fixture
def runs(host) -> Path:
    """The folder of the runs, without those of other tests."""
    import folder_paths

    folder = Path(folder_paths.get_output_directory()) / "realportrait_long"
    shutil.rmtree(folder, ignore_errors=True)
    return folder


@pytest.fixture
def video():
    """A VIDEO of frames in memory, with a tone."""
    from comfy_api.latest import InputImpl, Types

    def make(frames=FRAMES, fps=Fraction(25, 2)):
        tone = torch.sin(torch.arange(round(frames / fps * 16000)) * (2 * torch.pi * 440 / 16000))
        audio = {"waveform": 0.5 * tone[None, None], "sample_rate": 16000}
        return InputImpl.VideoFromComponents(
            Types.VideoComponents(images=pictures(frames, 120, 110, seed=4), audio=audio, frame_rate=fps)
        )

    return make


@pytest.fixture
def keypoints(run_node, vid2vid):
    def run(frames=FRAMES):
        given = dict(vid2vid=vid2vid, portrait=pictures(1), driver=pictures(frames, 120, 110, seed=4))
        return run_node("RealPortraitExtractKeypoints", **given, **tiny.EXTRACTION)[0]

    return run


@pytest.fixture
def written(pack, monkeypatch) -> list[torch.Tensor]:
    """The frames of each clip that is written, before they are encoded."""
    folder, found = pack("realportrait_core.long.folder").RunFolder, []
    add = folder.add

    def recorded(self, frames, done):
        found.append(frames.clone())
        return add(self, frames, done)

    monkeypatch.setattr(folder, "add", recorded)
    return found


@pytest.fixture
def animate(host, run_node, vid2vid, model, vae, keypoints, video, runs):
    """animate(seed=6, ...) -> video, state, report. Of both networks, and keypoints by given boxes."""

    def run(**changes):
        frames = changes.pop("frames", FRAMES)
        given = dict(portrait=pictures(1), driving_video=video(frames), vid2vid=vid2vid, model=model, vae=vae)
        if "keypoints" not in changes:
            given["keypoints"] = keypoints(frames)
        return run_node("RealPortraitAnimateLong", **given | SETTINGS | changes)

    return run


def frames_of(video) -> torch.Tensor:
    return video.get_components().images


def by_the_graph(run_node, host, vid2vid, model, vae, keypoints, result, **changes) -> torch.Tensor:
    """The same by the other nodes."""
    motion = run_node("RealPortraitMotionMaps", vid2vid=vid2vid, keypoints=keypoints, **tiny.RELATIVE, framing="auto")[0]
    if model is None:
        shown = "portrait" if result == "whole portrait" else "face crop"
        return run_node("RealPortraitRenderVid2Vid", vid2vid=vid2vid, motion=motion, result=shown)[0]
    given = {name: SETTINGS[name] for name in SAMPLED} | changes
    latent = run_node("RealPortraitSampler", model=model, vae=vae, motion=motion, **given)[0]
    (frames,) = host.NODE_CLASS_MAPPINGS["VAEDecode"]().decode(vae, latent)
    if result == "animated square":
        return frames
    return run_node("RealPortraitPasteBack", frames=frames, motion=motion, feather=8.0, length="longest")[0]


# ---- Animate Long Video ----


@pytest.mark.parametrize("result", ["whole portrait", "animated square"])
@pytest.mark.parametrize("renderer", ["RealPortrait", "Face Vid2vid"])
def test_the_frames_are_those_of_the_graph(
    host, run_node, animate, vid2vid, model, vae, keypoints, written, renderer, result
):
    """33 frames are three clips, the last of two new frames; bit by bit, before they are encoded."""
    model, vae = (model, vae) if renderer == "RealPortrait" else (None, None)
    found = keypoints(33)
    animate(keypoints=found, frames=33, model=model, vae=vae, result=result, steps=2)
    wanted = by_the_graph(run_node, host, vid2vid, model, vae, found, result, steps=2)
    assert len(written) == 3
    assert torch.equal(torch.cat(written), wanted)
