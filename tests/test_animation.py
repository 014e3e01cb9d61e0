"""The whole flow at toy sizes, its loop over clips, and what keeps generate.py short."""

from pathlib import Path

import pytest
import torch
from public import TINY

from realportrait_core.animation import rendering
from realportrait_core.animation.clips import Clip, denoise_clips, plan
from realportrait_core.animation.extraction import extract_keypoints
from realportrait_core.animation.mapping import frame_portrait, motion_maps
from realportrait_core.animation.rendering import render
from realportrait_core.animation.retargeting import drive_keypoints
from realportrait_core.config import DiTConfig
from realportrait_core.diffusion.schedule import linear_schedule
from realportrait_core.dit.cache import Caching
from realportrait_core.dit.model import RealPortraitDiT
from realportrait_core.errors import InputError
from realportrait_core.face.track import FaceTrack
from realportrait_core.generate import generate
from realportrait_core.speed import Speed
from realportrait_core.vae import TinyVAE
from realportrait_core.vid2vid import FaceVid2Vid

CORE = Path(__file__).resolve().parent.parent / "realportrait_core"
CFG = DiTConfig(
    hidden=24,
    depth=2,
    heads=2,
    control_depth=1,
    input_sq_size=64,
    motion_channels=TINY.warped_channels,
    motion_widths=(4, 4),
    clip_frames=3,
    prediction="v",
)
FACE = torch.tensor([[40.0, 45], [70, 45], [55, 60], [43, 75], [67, 75]])  # px
FRAMES = 5  # two clips


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    vid2vid, dit, vae = FaceVid2Vid(TINY, with_generator=False), RealPortraitDiT(CFG).initialize(), TinyVAE((4, 4, 4, 4))
    with torch.no_grad():
        for parameter in dit.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return [network.eval().requires_grad_(False) for network in (vid2vid, dit, vae)]


@pytest.fixture(scope="module")
def inputs():
    """A portrait, driving frames, the portrait's face points and the driving frames' track."""
    torch.manual_seed(1)
    track = FaceTrack(FACE + torch.arange(FRAMES)[:, None, None], torch.ones(FRAMES, dtype=torch.bool), "")
    return torch.rand(1, 120, 110, 3), torch.rand(FRAMES, 120, 110, 3), FACE, track


# Clips


@pytest.mark.parametrize("frames, length, overlap", [(1, 16, 1), (16, 16, 1), (17, 16, 1), (46, 16, 1), (21, 8, 3)])
def test_clips_cover_every_frame_once(frames, length, overlap):
    clips = plan(frames, length, overlap)
    assert [frame for clip in clips for frame in clip.new_frames] == list(range(frames))
    for n, clip in enumerate(clips):
        assert clip.number == n and len(clip.frames) == length and clip.overlap == (overlap if n else 0)
        assert clip.frames == [min(clip.start + i, clip.stop - 1) for i in range(length)]
    for before, clip in zip(clips, clips[1:]):
        assert clip.frames[:overlap] == before.frames[-overlap:]


def test_clips_that_cannot_be_are_refused():
    for given, match in (((0,), "0 frames"), ((20, 16, 16), "between 1 and 15"), ((20, 16, 0), "between 1 and 15")):
        with pytest.raises(InputError, match=match):
            plan(*given)


def test_seeds_of_clips_stay_within_64_bits():
    assert [clip.noise_seed(2**64 - 2) for clip in plan(46)] == [2**64 - 2, 2**64 - 1, 0]


def test_a_clip_starts_with_the_last_latents_of_the_one_before():
    """Whatever the sampler returns for conditional and padded frames, the earlier clip's frames stay."""
    received = []

    def denoise_clip(clip: Clip, known):
        received.append(known)
        return 100.0 * clip.number + torch.arange(8.0)[:, None, None, None].expand(8, 4, 2, 2)

    latents = denoise_clips(plan(15, 8, 2), denoise_clip)
    assert latents[:, 0, 0, 0].tolist() == [*range(8), *range(102, 108), 202]
    assert received[0] is None
    assert [known[:, 0, 0, 0].tolist() for known in received[1:]] == [[6, 7], [106, 107]]


# The flow


def test_every_clip_of_the_core_runs_in_that_loop(networks, inputs, monkeypatch):
    vid2vid, dit, _ = networks
    clips, results = [], []

    def recorded(planned, denoise_clip):
        def one(clip, known):
            clips.append((clip, known))
            results.append(denoise_clip(clip, known))
            return results[-1]

        return denoise_clips(planned, one)

    monkeypatch.setattr(rendering, "denoise_clips", recorded)
    ticks = []
    with torch.inference_mode():
        motion = motion_maps(vid2vid, drive_keypoints(extract_keypoints(vid2vid, *inputs)), 64)
        latents = render(dit, linear_schedule(), torch.randn(1, 4, 8, 8), motion, 2, callback=lambda *given: ticks.append(given))
    assert [clip.new_frames for clip, _ in clips] == [range(0, 3), range(3, 5)]
    assert torch.equal(clips[1][1], results[0][2:]) and torch.equal(results[1][:1], results[0][2:])
    assert torch.equal(latents, torch.cat([results[0], results[1][1:]]))
    assert ticks == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_generate_is_its_four_steps(networks, inputs):
    """Extract, drive, map, render, one by one, give the same frames."""
    vid2vid, dit, vae = networks
    speed = Speed(2, "dpmpp_2m", Caching(control_every=2))
    frames, framed = generate(vid2vid, dit, vae, linear_schedule(), *inputs, speed, seed=3, guidance=1.5)
    assert frames.shape == (FRAMES, 64, 64, 3) and framed.shape == (1, 64, 64, 3)
    with torch.inference_mode():
        motion = motion_maps(vid2vid, drive_keypoints(extract_keypoints(vid2vid, *inputs)), 64)
        assert torch.equal(frame_portrait(inputs[0], motion), framed)
        z_r = vae.encode(framed.movedim(-1, 1))
        z = render(dit, linear_schedule(), z_r, motion, 2, 3, solver="dpmpp_2m", caching=speed.caching, guidance=1.5)
        assert torch.equal(vae.decode(z).movedim(1, -1), frames)


def test_the_motion_carries_its_portrait(networks, inputs):
    """The picture itself, not a copy; a part of the driving video has the keypoints of its own frames."""
    vid2vid = networks[0]
    with torch.inference_mode():
        keypoints = extract_keypoints(vid2vid, *inputs)
        motion = motion_maps(vid2vid, drive_keypoints(keypoints, frames=slice(1, 3)), 64)
    assert motion.keypoints.picture is inputs[0]
    assert len(motion.keypoints) == 2 and torch.equal(motion.keypoints.driver.scale, keypoints.driver.scale[1:3])


def test_generate_can_be_read_at_a_glance():
    assert len((CORE / "generate.py").read_text(encoding="utf-8").splitlines()) <= 60
