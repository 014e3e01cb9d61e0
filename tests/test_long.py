"""Long videos, clip by clip: the clips, their motion, frames and files; runs that are broken off and go on."""

import errno
import json
import logging
import os
import re
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import long_jobs
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from long_jobs import LENGTH, SIZE, animate, driven, networks, renderer, tone
from safetensors.torch import load_file, save_file

from realportrait_core.animation.clips import clip_at, next_clip, plan
from realportrait_core.animation.mapping import motion_maps
from realportrait_core.animation.rendering import render
from realportrait_core.animation.vid2vid_frames import face_frames, portrait_frames
from realportrait_core.checkpoint import METADATA_KEY
from realportrait_core.diffusion.schedule import linear_schedule
from realportrait_core.errors import InputError
from realportrait_core.long.fingerprint import driving_fingerprint, weights_fingerprint
from realportrait_core.long.maps import ClipMotion
from realportrait_core.long.run import LongSettings, animate_long
from realportrait_core.long.segments import Sound, join_segments
from realportrait_core.long.state import ContinuationState, check_state, load_state, save_state
from realportrait_core.motion_map import MotionMaps
from realportrait_core.paste import paste
from realportrait_core.video.audio import Audio
from realportrait_core.video.writing import frame_rate, write_video

av = pytest.importorskip("av")
JOBS = Path(long_jobs.__file__)
few = settings(max_examples=200, deadline=None, derandomize=True)


@pytest.fixture(scope="module")
def made():
    return networks()


def decoded(path: Path) -> list[tuple[Fraction, np.ndarray]]:
    """(time in s, pixels) of each frame."""
    with av.open(str(path)) as video:
        return [(frame.pts * frame.time_base, frame.to_ndarray(format="rgb24")) for frame in video.decode(video=0)]


def same(frames, others) -> bool:
    return len(frames) == len(others) and all(np.array_equal(a, b) for (_, a), (_, b) in zip(frames, others))


# Clips


@given(st.integers(1, 200), st.integers(2, 20), st.data())
@few
def test_clips_that_end_with_their_last_frame_are_those_of_the_plan(frames, length, data):
    overlap = data.draw(st.integers(1, length - 1))
    clips = plan(frames, length, overlap)
    for clip, following in zip(clips, [*clips[1:], None]):
        assert next_clip(clip, clip.stop - 1, frames, length, overlap) == following


@given(st.integers(1, 120), st.integers(2, 20), st.data())
@few
def test_every_frame_is_added_once_wherever_the_tails_are(frames, length, data):
    """With overlap 0 too, and for clips that continue another video."""
    overlap = data.draw(st.integers(0, length - 1))
    known = data.draw(st.integers(0, overlap))
    clip, added = clip_at(7, 0, frames, length, known), []
    assert clip.start == -known
    while clip is not None:
        assert len(clip.frames) == len(clip.positions) == length and set(clip.positions) <= set(range(length))
        first = max(clip.new_frames.start, clip.start + overlap - 1)
        tail = clip.stop - 1 if clip.stop == frames else data.draw(st.integers(first, clip.stop - 1))
        added += range(clip.new_frames.start, tail + 1)
        following = next_clip(clip, tail, frames, length, overlap)
        if following is not None:
            assert (following.number, following.start, following.overlap) == (clip.number + 1, tail + 1 - overlap, overlap)
            assert following.start >= clip.start, "the known frames are the earlier clip's"
        clip = following
    assert added == list(range(frames))


@pytest.mark.parametrize("tail, overlap, match", [(16, 1, "15 to 15|0 to 15"), (0, 3, "2 to 15"), (3, 16, "between 0 and 15")])
def test_tails_that_cannot_be_are_refused(tail, overlap, match):
    with pytest.raises(InputError, match=match):
        next_clip(plan(40)[0], tail, 40, 16, overlap)


# Motion


@pytest.mark.parametrize("frames", [1, 8, 17, 31])
def test_the_motion_of_clips_is_bit_for_bit_that_of_the_whole_video(made, frames):
    motion = driven(made[0], frames)
    with torch.inference_mode():
        whole = motion_maps(made[0], motion, SIZE)
        for length, overlap in ((4, 1), (16, 1), (16, 3)):
            of_clip = ClipMotion(made[0], motion, SIZE)
            for clip in plan(frames, length, overlap):
                part = of_clip(clip.start, clip.stop)
                for name in ("f", "frame_to_crop", "face"):
                    assert torch.equal(getattr(part.maps, name), getattr(whole.maps, name)[clip.start : clip.stop])
                assert torch.equal(part.portrait_maps.f, whole.portrait_maps.f)
                assert torch.equal(part.portrait_to_frame, whole.portrait_to_frame)
                assert torch.equal(part.x_d, whole.x_d[clip.start : clip.stop]) and part.first == clip.start
                assert len(part.keypoints) == len(part.maps)


def test_the_motion_of_another_video_comes_first(made):
    with torch.inference_mode():
        before = motion_maps(made[0], driven(made[0], 6), SIZE).maps[4:]
        of_clip = ClipMotion(made[0], driven(made[0], 9, seed=2), SIZE, before=before)
        part = of_clip(-1, 3)
        assert torch.equal(part.maps.f[0], before.f[1]) and torch.equal(part.maps.f[1:], of_clip(0, 3).maps.f)
        assert torch.equal(part.maps.face[0], before.face[1]) and len(part.x_d) == 4
        with pytest.raises(InputError, match="no motion maps of 3 frames of 64 px"):
            of_clip(-3, 2)
        with pytest.raises(InputError, match="no motion maps of 1 frames of 32 px"):
            ClipMotion(made[0], driven(made[0], 9), 32, before=before)(-1, 2)


# Frames


class Recorder:
    """A renderer that keeps what it renders."""

    def __init__(self, render):
        self.render, self.frames, self.clips = render, [], []

    def __getattr__(self, name):
        return getattr(self.render, name)

    def __call__(self, clip, motion, known):
        rendered = self.render(clip, motion, known)
        self.clips.append(clip)
        self.frames.append(rendered.frames[clip.overlap : clip.stop - clip.start])
        return rendered


def in_memory(made, motion, name: str) -> torch.Tensor:
    """What the same networks make of all frames at once."""
    vid2vid, dit, vae = made
    with torch.inference_mode():
        maps = motion_maps(vid2vid, motion, SIZE)
        if name == "vid2vid":
            return torch.cat(list(portrait_frames(vid2vid, maps)))
        if name == "crop":
            return torch.cat(list(face_frames(vid2vid, maps))).movedim(1, -1)
        one = renderer(name, made, motion)
        z = render(dit, linear_schedule(), one.portrait_latent, maps, 2, 3, solver="ddim", guidance=one.guidance)
        square = torch.cat([vae.decode(part) for part in z.split(8)]).movedim(1, -1)
        return square if name == "square" else paste(motion.keypoints.picture, square, maps.portrait_to_frame, SIZE)[0]


@pytest.mark.parametrize("name", ["square", "whole", "vid2vid", "crop"])
def test_frames_are_bit_for_bit_those_of_the_path_in_memory(made, tmp_path, name):
    motion = driven(made[0], 11)
    recorder = Recorder(renderer(name, made, motion))
    result = animate_long(made[0], motion, recorder, tmp_path, 25.0)
    assert torch.equal(torch.cat(recorder.frames), in_memory(made, motion, name))
    assert recorder.clips == (plan(11, LENGTH) if recorder.continues else [clip_at(n, LENGTH * n, 11, LENGTH, 0) for n in range(3)])
    shape = (SIZE, SIZE) if name in ("square", "crop") else (120, 110)  # of an odd size the last column and row are left out
    assert [pixels.shape[:2] for _, pixels in decoded(result.path)] == 11 * [shape]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["state.safetensors", "video.mp4"]


@pytest.mark.parametrize("frames", [1, 3, 4, 5, 7, 13])
@pytest.mark.parametrize("overlap, window", [(1, 1), (2, 1), (3, 1), (1, 3), (2, 2)])
def test_frames_out_are_frames_in(made, tmp_path, frames, overlap, window):
    """Faults 14 and 15: one frame, below, at and above a clip's length, and primes."""
    motion = driven(made[0], frames)
    recorder = Recorder(renderer("square", made, motion))
    result = animate_long(made[0], motion, recorder, tmp_path, 25.0, LongSettings(overlap, window, keep_clips=True))
    assert result.state.frame == result.state.frames == frames
    video = decoded(result.path)
    assert [time for time, _ in video] == [Fraction(n, 25) for n in range(frames)]
    segments = sorted((tmp_path / "clips").glob("*.mp4"))
    assert len(segments) == len(recorder.clips) == result.state.clip
    assert same(video, [frame for path in segments for frame in decoded(path)])


def test_each_clip_starts_from_latents_of_the_one_before(made, tmp_path):
    motion, given = driven(made[0], 9), []

    class Watched(Recorder):
        def __call__(self, clip, motion, known):
            rendered = super().__call__(clip, motion, known)
            given.append((clip, known, rendered.latents))
            return rendered

    animate_long(made[0], motion, Watched(renderer("square", made, motion)), tmp_path, 25.0, LongSettings(overlap=2))
    assert [(clip.start, clip.overlap) for clip, _, _ in given] == [(0, 0), (2, 2), (4, 2), (6, 2)]
    for (_, _, before), (_, known, latents) in zip(given, given[1:]):
        assert torch.equal(known, before[-2:]) and torch.equal(latents[:2], known)


@pytest.mark.parametrize(
    "changes, match",
    [
        (dict(overlap=0), "overlap of 0 frames must be between 1 and 3"),
        (dict(overlap=4), "overlap of 4 frames must be between 1 and 3"),
        (dict(tail_window=0), "tail window of 0 frames must be between 1 and 3"),
        (dict(overlap=2, tail_window=3), "tail window of 3 frames must be between 1 and 2"),
        (dict(correction=1.5), "correction is 1.5"),
    ],
)
def test_settings_that_cannot_be_are_refused(made, tmp_path, changes, match):
    motion = driven(made[0], 5)
    with pytest.raises(InputError, match=match):
        animate_long(made[0], motion, renderer("square", made, motion), tmp_path, 25.0, LongSettings(**changes))
    assert not list(tmp_path.iterdir())


def test_frames_that_are_not_finite_are_refused(made, tmp_path):
    motion = driven(made[0], 9)

    class Broken(Recorder):
        def __call__(self, clip, motion, known):
            rendered = super().__call__(clip, motion, known)
            if clip.number == 1:
                rendered.frames[2, 5, 5] = float("nan")
            return rendered

    with pytest.raises(InputError, match=r"driving frames 5 to 5 became NaN \(clip 1\)"):
        animate_long(made[0], motion, Broken(renderer("square", made, motion)), tmp_path, 25.0)
    assert load_state(tmp_path / "state.safetensors").frame == 4


# The joined video


def picture_frames(count: int, first: int = 0) -> torch.Tensor:
    picture = torch.rand(1, 45, 61, 3, generator=torch.Generator().manual_seed(0))
    return (picture + 0.3 * (torch.arange(first, first + count) / 3).sin()[:, None, None, None]).clamp(0, 1)


def write_segments(folder: Path, counts, fps: float) -> list[Path]:
    paths, first = [], 0
    for n, count in enumerate(counts):
        paths.append(folder / f"{n:05d}.mp4")
        write_video(paths[-1], picture_frames(count, first), fps)
        first += count
    return paths


@pytest.mark.parametrize("fps", [12.5, 23.976, 24000 / 1001, 25, 29.97, 30000 / 1001])
@pytest.mark.parametrize("counts", [(16, 15, 15, 7), (1,), (1, 2, 1), (16, 15, 1)])
def test_joined_segments_show_the_same_frames_at_exact_times(tmp_path, fps, counts):
    segments, frames = write_segments(tmp_path, counts, fps), sum(counts)
    join_segments(tmp_path / "video.mp4", segments, frames, fps, tone().part(0, frames / fps))
    video = decoded(tmp_path / "video.mp4")
    assert same(video, [frame for path in segments for frame in decoded(path)])
    assert [time for time, _ in video] == [n / frame_rate(fps) for n in range(frames)]
    assert video[0][1].shape == (44, 60, 3), "of an odd size the last column and row are left out"
    with av.open(str(tmp_path / "video.mp4")) as file:
        packets = [packet for packet in file.demux(file.streams.video[0]) if packet.dts is not None]
        assert sum(packet.is_keyframe for packet in packets) == len(counts)
        assert all(a.dts < b.dts for a, b in zip(packets, packets[1:])) and all(packet.dts <= packet.pts for packet in packets)
        seconds = float(file.streams.audio[0].duration * file.streams.audio[0].time_base)
    assert abs(seconds - frames / fps) < 1 / fps


def test_sound_of_the_joined_video_is_the_drivings_at_the_same_time(tmp_path):
    """The sound is given by a ramp of loudness; the video begins 0.5 s into it, and outlasts it."""
    rate, fps = 16000, 25
    time = torch.arange(2 * rate) / rate
    sound = Sound(Audio((0.4 * time * (440 * 2 * torch.pi * time).sin())[None, None], rate), 0.5)
    segments = write_segments(tmp_path, (30, 30), fps)
    join_segments(tmp_path / "video.mp4", segments, 60, fps, sound.part(0.0, 60 / fps))
    with av.open(str(tmp_path / "video.mp4")) as file:
        heard = np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)])
    loud = [float(np.abs(heard[round(at * rate) : round((at + 0.05) * rate)]).max()) for at in (0.1, 1.0, 1.4, 1.7, 2.3)]
    assert loud == pytest.approx([0.4 * 0.63, 0.4 * 1.54, 0.4 * 1.94, 0, 0], abs=0.05)


def test_segments_that_do_not_fit_together_are_refused(tmp_path):
    segments, into = write_segments(tmp_path, (4, 3), 25), tmp_path / "video.mp4"
    with pytest.raises(InputError, match="hold 7 frames of 8"):
        join_segments(into, segments, 8, 25, None)
    write_video(segments[1], torch.rand(3, 64, 64, 3), 25)
    with pytest.raises(InputError, match="encoded in another way"):
        join_segments(into, segments, 7, 25, None)
    segments[1].write_bytes(segments[1].read_bytes()[:500])
    with pytest.raises(InputError, match="00001.mp4 cannot be read"):
        join_segments(into, segments, 7, 25, None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000.mp4", "00001.mp4"]
