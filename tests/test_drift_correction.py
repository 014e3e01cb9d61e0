"""Correction of drift in long videos: what reaches the next clip, and that what was written stays."""

import pytest
import torch
from long_jobs import SIZE, driven, networks, renderer

from benchmarks import long_drift
from realportrait_core.errors import InputError
from realportrait_core.long.correction import colours_of, moved
from realportrait_core.long.renderers import RenderedClip
from realportrait_core.long.run import LongSettings, animate_long
from realportrait_core.long.state import load_state

pytest.importorskip("av")
FRAMES = 13  # four clips


@pytest.fixture(scope="module")
def made():
    return networks()


@pytest.fixture(scope="module")
def motion(made):
    return driven(made[0], FRAMES)


class Watched:
    """A renderer that keeps what it is given and what it makes."""

    def __init__(self, render):
        self.render, self.clips = render, []

    def __getattr__(self, name):
        return getattr(self.render, name)

    def __call__(self, clip, motion, known):
        rendered = self.render(clip, motion, known)
        self.clips.append((clip, known, rendered))
        return rendered

    @property
    def latents(self) -> torch.Tensor:
        """Of the frames that are written."""
        return torch.cat([made.latents[clip.overlap : clip.stop - clip.start] for clip, _, made in self.clips])


class Drifting:
    """In place of a network: each clip shows the frame that it starts from, brighter and with more contrast."""

    continues, framing, seed, clip_frames, size = True, "auto", 0, 4, SIZE
    portrait_square, fingerprints, settings = torch.full((1, SIZE, SIZE, 3), 0.5), {}, {}

    def __call__(self, clip, motion, known):
        n = clip.stop - clip.start
        start = torch.linspace(-1, 1, 4 * 8 * 8).view(1, 4, 8, 8) if known is None else known[-1:]
        changed = start if known is None else 1.1 * start + 0.1
        latents = changed.repeat(n, 1, 1, 1)
        latents[: clip.overlap] = known if known is not None else latents[:0]
        square = latents[:, :3].sigmoid().repeat_interleave(8, 2).repeat_interleave(8, 3).movedim(1, -1)
        return RenderedClip(square, square, latents)


@pytest.mark.parametrize("strength", [0.25, 1.0])
def test_moved_latents_have_the_wanted_colours(strength):
    random = torch.Generator().manual_seed(0)
    latents, wanted = torch.randn(3, 4, 8, 8, generator=random) * 2 + 1, [0.1, 0.2, -0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
    found = colours_of(latents)
    assert found[:4] == pytest.approx(4 * [1.0], abs=0.5) and found[4:] == pytest.approx(4 * [2.0], abs=0.3)
    after = colours_of(moved(latents, found, wanted, strength))
    assert after == pytest.approx([a + strength * (b - a) for a, b in zip(found, wanted)], abs=1e-5)


def test_flat_latents_are_moved_and_stay_finite():
    flat = torch.full((1, 4, 8, 8), 0.25)
    assert torch.allclose(moved(flat, colours_of(flat), 4 * [0.5] + 4 * [1.0], 1.0), torch.tensor(0.5))


def test_each_clip_starts_with_the_colours_of_the_first(made, motion, tmp_path):
    """And what was written is what the networks made."""
    watched = Watched(renderer("square", made, motion))
    state = animate_long(made[0], motion, watched, tmp_path, 25.0, LongSettings(overlap=2, correction=0.5)).state
    (_, _, made_first), *others = watched.clips
    first, before, seen = colours_of(made_first.latents), made_first.latents, None
    assert state.colours == first and state.settings["correction"] == "0.5"
    for clip, known, rendered in others:
        wanted = before[-2:] if seen is None else moved(before[-2:], seen, first, 0.5)
        assert torch.equal(known, wanted) and torch.equal(rendered.latents[:2], known)
        assert seen is None or not torch.equal(known, before[-2:])
        before = rendered.latents
        seen = colours_of(before[clip.overlap : clip.stop - clip.start])
    assert len(watched.latents) == FRAMES


def test_the_first_clip_and_a_correction_of_0_change_nothing(made, motion, tmp_path):
    runs = {}
    for name, settings in (("none", LongSettings()), ("off", LongSettings(correction=0.0)), ("on", LongSettings(correction=1.0))):
        runs[name] = Watched(renderer("square", made, motion))
        animate_long(made[0], motion, runs[name], tmp_path / name, 25.0, settings)
    assert torch.equal(runs["none"].latents, runs["off"].latents)
    assert (tmp_path / "none" / "video.mp4").read_bytes() == (tmp_path / "off" / "video.mp4").read_bytes()
    assert torch.equal(runs["none"].latents[:7], runs["on"].latents[:7]), "the second clip still starts as the first one ends"
    assert not torch.equal(runs["none"].latents, runs["on"].latents)


def test_a_drift_at_every_clip_stays_bounded(made, tmp_path):
    """Of a network that comes back to nothing by itself: the colours grow without end, and with a correction they do not."""
    motion, after = driven(made[0], 31), {}
    for strength in (0.0, 0.5, 1.0):
        watched = Watched(Drifting())
        animate_long(made[0], motion, watched, tmp_path / str(strength), 25.0, LongSettings(correction=strength))
        colours = [colours_of(rendered.latents[-1:]) for _, _, rendered in watched.clips]
        after[strength] = [abs(colour[3] - colours[0][3]) for colour in colours]
    assert len(after[0.0]) == 10 and after[0.0][-1] > 1.0 and after[0.0] == sorted(after[0.0])
    assert max(after[0.5]) < 0.5 * after[0.0][-1] and max(after[1.0]) < 0.3
    assert after[1.0][-1] < after[0.5][-1] < after[0.0][-1]


class Cancelled(Exception):
    pass


def test_a_corrected_run_goes_on(made, motion, tmp_path):
    """Bit for bit; of the join to the clip at which it was taken up only the video tells."""
    settings, runs = LongSettings(correction=1.0), {}
    runs["whole"] = Watched(renderer("square", made, motion))
    whole = animate_long(made[0], motion, runs["whole"], tmp_path / "whole", 25.0, settings)

    def cancel(done, total):
        if done >= 7:
            raise Cancelled

    with pytest.raises(Cancelled):
        animate_long(made[0], motion, renderer("square", made, motion), tmp_path / "part", 25.0, settings, callback=cancel)
    assert load_state(tmp_path / "part" / "state.safetensors").colours == whole.state.colours
    part = animate_long(made[0], motion, renderer("square", made, motion), tmp_path / "part", 25.0, settings)
    assert part.path.read_bytes() == whole.path.read_bytes() and torch.equal(part.state.latents, whole.state.latents)
    assert ["join" in clip for clip in whole.figures] == [False, True, True, True]
    assert ["join" in clip for clip in part.figures] == [False, True, False, True]
    with pytest.raises(InputError, match="correction 1 there and 0.5 here"):
        other = LongSettings(correction=0.5)
        animate_long(made[0], motion, renderer("square", made, motion), tmp_path / "new", 25.0, other, state=part.state)
    with pytest.raises(InputError, match="part holds another run.*correction 1 there and 0 here"):
        animate_long(made[0], motion, renderer("square", made, motion), tmp_path / "part", 25.0)


def test_a_join_is_measured_in_what_the_video_shows(made, motion, tmp_path):
    """From the last frame that was shown: fully corrected, all clips after the first show the same, and nothing moves at a join."""
    joins = {}
    for strength in (0.0, 1.0):
        result = animate_long(made[0], motion, Drifting(), tmp_path / str(strength), 25.0, LongSettings(correction=strength))
        joins[strength] = [clip["join"] for clip in result.figures[1:]]
    assert min(joins[0.0]) > 10 and joins[1.0][0] == joins[0.0][0]
    assert max(joins[1.0][1:]) < 1.5


class Colours:
    """In place of a VAE: three channels are the picture."""

    def decode(self, latents):
        return latents[:, :3]

    def encode(self, pictures):
        return torch.cat([pictures, pictures[:, :1]], 1)


class Forgetful:
    """In place of a network: every clip is the same, whatever it starts from."""

    framing, clip_frames, size, vae = "auto", 4, SIZE, Colours()

    def __call__(self, clip, motion, known):
        latents = torch.linspace(0.3, 0.7, 4 * 8 * 8).view(1, 4, 8, 8).repeat(clip.stop - clip.start, 1, 1, 1)
        return RenderedClip(latents, None, latents)


@pytest.mark.parametrize("keeps", [0.0, 1.0])
def test_the_benchmark_adds_an_error_at_every_clip(made, motion, keeps):
    """Of a network that hands on nothing one is left, of one that hands on all they add up, and corrected they do not."""
    scene = long_drift.Scene(made[0], motion, Forgetful(), None)
    found = list(long_drift.accumulate(scene, 3, keeps))
    assert len(found) == 3 and set(found[0].values()) == {found[0][0.0]} and found[0][0.0] == pytest.approx((1, 1), abs=0.05)
    for none, half, whole in zip(*(found[-1][strength] for strength in (0.0, 0.5, 1.0))):
        if keeps:
            assert none > 2.5 and 1.2 < half < 2 and whole == pytest.approx(1.0, abs=0.1)
        else:
            assert none == half == whole == pytest.approx(1.0, abs=0.05)


def test_face_vid2vid_has_nothing_to_correct(made, motion, tmp_path):
    state = animate_long(made[0], motion, renderer("vid2vid", made, motion), tmp_path, 25.0, LongSettings(correction=1.0)).state
    assert state.settings["correction"] == "0" and state.colours == []
