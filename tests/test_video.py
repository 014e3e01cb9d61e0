"""Loading a part of a video: which frames, at which rate, how they lie, which sound; brightness or place tells the time."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
import videos
from videos import RATE

from realportrait_core.errors import InputError
from realportrait_core.video import decoding, reading
from realportrait_core.video.audio import Audio, read_audio
from realportrait_core.video.loading import load_video, select_frames
from realportrait_core.video.records import Request
from realportrait_core.video.source import VideoFile, probe
from realportrait_core.video.timeline import Selection

av = pytest.importorskip("av")

SLOPE = 52  # grey levels a second


def grey(time: float) -> np.ndarray:
    return np.full((48, 64, 3), round(30 + SLOPE * time), np.uint8)


def write(path: Path, pictures, fps=25, times=None, rotation=0, seconds=0.0, **codec) -> VideoFile:
    """Grey levels must survive the codec."""
    return VideoFile(path.name, videos.write(path, pictures, fps, times, rotation, crf=10, seconds=seconds, **codec))


def shown_times(images: torch.Tensor) -> list[float]:
    return ((255 * images.mean((1, 2, 3)) - 30) / SLOPE).tolist()


@pytest.fixture(scope="module")
def four_seconds(tmp_path_factory) -> VideoFile:
    """100 frames at 25 a second, and 5 s of sound."""
    folder = tmp_path_factory.mktemp("video")
    return write(folder / "four.mkv", [grey(i / 25) for i in range(100)], 25, seconds=5.0)


@pytest.mark.parametrize(
    "selection, first, step, count",
    [
        (Selection(), 0, 1, 100),
        (Selection(start=1.0, frames=10), 25, 1, 10),
        (Selection(start=30, start_in="frames", frames=4, stride=5), 30, 5, 4),
        (Selection(start=2.0, fps=12.5, frames=6), 50, 2, 6),
        (Selection(start=90, start_in="frames", frames=50), 90, 1, 10),
        (Selection(start=99, start_in="frames"), 99, 1, 1),
    ],
)
def test_the_frames_that_were_asked_for(four_seconds, selection, first, step, count, caplog):
    footage = load_video(four_seconds, selection)
    assert footage.images.shape == (count, 48, 64, 3) and footage.images.dtype == torch.float32
    assert footage.times == pytest.approx([(first + step * i) / 25 for i in range(count)], abs=2e-3)
    assert shown_times(footage.images) == pytest.approx(footage.times, abs=0.035)
    assert footage.fps == pytest.approx(25 / step)
    assert ("ends after 10 of the 50 frames" in caplog.text) == (selection.frames == 50)


def test_the_sound_of_these_frames(four_seconds):
    footage = load_video(four_seconds, Selection(start=1.0, frames=20, stride=2))
    sound = footage.audio
    assert sound.rate == RATE and sound.waveform.shape == (1, 1, round(40 / 25 * RATE))
    times = sound.waveform[0, 0, ::1600] * 100
    torch.testing.assert_close(times, 1.0 + torch.arange(len(times)) / 10, rtol=0, atol=5e-3)
    after = read_audio(four_seconds, 4.9, 0.4).waveform[0, 0]  # the track ends at 5 s
    assert after[:1500].min() > 0.048 and after[1700:].abs().max() == 0


def test_a_video_without_sound(tmp_path):
    source = write(tmp_path / "silent.mp4", [grey(i / 25) for i in range(3)])
    assert load_video(source, Selection()).audio is None


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_rate_that_varies_keeps_its_pace(tmp_path, suffix):
    times = np.cumsum([0.0, *np.random.default_rng(0).uniform(0.02, 0.06, 40)])
    times = np.concatenate([times, times[-1] + 0.6 + np.arange(5) / 25])  # and stands still for a while
    source = write(tmp_path / f"varies.{suffix}", [grey(time) for time in times], 25, times)
    footage = load_video(source, Selection(fps=25))
    assert footage.times == pytest.approx([i / 25 for i in range(len(footage.times))], abs=2e-3)
    for shown, time in zip(shown_times(footage.images), footage.times):
        assert abs(shown - time) <= np.abs(times - time).min() + 0.035
    assert len(footage.times) == pytest.approx(times[-1] * 25 + 1, abs=1)
    own = load_video(source, Selection())
    assert own.fps == probe(source).rate and len(own.images) == pytest.approx(times[-1] * own.fps + 1, abs=1)


def test_turned_and_squeezed(tmp_path):
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:32, :48] = 255  # white at the top left, as it is stored
    corner = {0: (0, 0), 90: (1, 0), 180: (1, 1), -90: (0, 1)}  # row, column of it once it is turned counterclockwise
    for rotation, (row, column) in corner.items():
        source = write(tmp_path / f"{rotation}.mov", [picture] * 3, rotation=rotation)
        for side, scale in ((0, 1), (48, 2)):
            shown = load_video(source, Selection(longest_side=side)).images[0]
            assert tuple(shown.shape[:2]) == ((96 // scale, 64 // scale) if rotation in (90, -90) else (64 // scale, 96 // scale))
            quarters = shown.reshape(2, shown.shape[0] // 2, 2, shown.shape[1] // 2, 3).mean((1, 3, 4))
            assert divmod(int(quarters.argmax()), 2) == (row, column)
    wide = write(tmp_path / "wide.mkv", [picture] * 3, sample_aspect_ratio=Fraction(2, 1))
    assert load_video(wide, Selection()).images.shape == (3, 64, 192, 3)
    assert load_video(wide, Selection(longest_side=96)).images.shape == (3, 32, 96, 3)
    assert load_video(wide, Selection(longest_side=500)).images.shape == (3, 64, 192, 3)


def read_here(source: VideoFile, selection: Selection) -> tuple[list[float], np.ndarray]:
    """Times and frames (n, H, W, 3), read as the process that decodes does it, in this one, so that its parts can be watched."""
    shown, pictures = list(reading.read(source, Request(selection), lambda n: None))[1:], []
    for one in shown:
        pictures.append(pictures[-1] if one.pixels is None else one.pixels)
    return [one.time for one in shown], np.stack(pictures)


def test_what_is_not_chosen_is_not_kept_and_not_decoded_behind_the_range(four_seconds, monkeypatch):
    made, seen, upright, decode = [], [], reading.upright, reading.decode
    monkeypatch.setattr(reading, "upright", lambda shown, side, whole=upright: made.append(shown.time) or whole(shown, side))
    monkeypatch.setattr(reading, "decode", lambda source, whole=decode: (seen.append(s.time) or s for s in whole(source)))
    read_here(four_seconds, Selection(start=1.0, frames=3, stride=2))
    assert made == pytest.approx([25 / 25, 27 / 25, 29 / 25], abs=2e-3) and max(seen) <= 31 / 25


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("varies", [False, True])
def test_a_late_range_is_searched_for_and_is_the_same(tmp_path, monkeypatch, suffix, varies):
    """40 s with a key frame every 2 s: at most 4 s are decoded before the range, and the frames are those of plain decoding."""
    times = np.arange(400) / 10
    if varies:
        times = times + np.random.default_rng(1).uniform(0, 0.08, 400)
    source = write(tmp_path / f"long.{suffix}", [grey(time / 10) for time in times], 10, times, gop_size=20)
    seen, whole = [], decoding.decode
    for module in (decoding, reading):
        monkeypatch.setattr(module, "decode", lambda *given: (seen.append(shown.time) or shown for shown in whole(*given)))
    for selection in (
        Selection(start=30.03, frames=12, fps=12.5),
        Selection(start=247, start_in="frames", stride=3, frames=9, fps=10),
    ):
        seen.clear()
        searched = read_here(source, selection)
        assert min(seen[1:]) > selection.first(selection.fps) / selection.fps - 4 and len(seen) < 80
        monkeypatch.setattr(reading, "SEARCHED", 1e9)
        plain = read_here(source, selection)
        monkeypatch.setattr(reading, "SEARCHED", 5.0)
        assert searched[0] == pytest.approx(plain[0], abs=1e-6) and np.array_equal(searched[1], plain[1])
    with pytest.raises(InputError, match=r"starts at frame 500 \(50.00 s\) and long.* has (399|400|401) frames at 10 a second"):
        load_video(source, Selection(start=50.0, fps=10))
    # An index that leads behind the range is not believed.
    for module in (decoding, reading):
        monkeypatch.setattr(module, "decode", lambda source, since=None: whole(source, None if since is None else since + 6))
    again = read_here(source, selection)
    assert again[0] == pytest.approx(plain[0], abs=1e-6) and np.array_equal(again[1], plain[1])


def test_progress_and_cancel(four_seconds):
    ticks = []
    load_video(four_seconds, Selection(start=1.0, frames=5), callback=lambda done, total: ticks.append((done, total)))
    assert ticks[:30] == [(i, 30) for i in range(1, 31)]

    def stop(done, total):
        if done == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_video(four_seconds, Selection(start=3.0), callback=stop)


def test_frames_in_memory_are_chosen_the_same(four_seconds):
    whole = load_video(four_seconds, Selection())
    for selection in (Selection(start=1.0, frames=8, stride=3), Selection(fps=10.0, start=7, start_in="frames")):
        ours, theirs = select_frames(whole.images, 25.0, whole.audio, selection), load_video(four_seconds, selection)
        assert torch.equal(ours.images, theirs.images) and ours.fps == theirs.fps
        assert ours.audio.waveform.shape == theirs.audio.waveform.shape
        torch.testing.assert_close(ours.audio.waveform, theirs.audio.waveform, rtol=0, atol=2e-6)
    small = select_frames(whole.images, 25.0, None, Selection(frames=2, longest_side=32))
    assert small.images.shape == (2, 24, 32, 3) and small.audio is None
    with pytest.raises(InputError, match=r"starts at frame 150 \(6.00 s\) and The video has 100 frames"):
        select_frames(whole.images, 25.0, None, Selection(start=6.0))


def test_a_gif(tmp_path):
    from PIL import Image

    frames = [Image.fromarray(grey(i)) for i in range(4)]
    frames[0].save(tmp_path / "four.gif", save_all=True, append_images=frames[1:], duration=100, loop=0)
    footage = load_video(VideoFile("four.gif", (tmp_path / "four.gif").read_bytes()), Selection())
    assert len(footage.images) == 4 and footage.fps == pytest.approx(10) and footage.audio is None
    assert shown_times(footage.images) == pytest.approx([0, 1, 2, 3], abs=0.05)


def test_refusals(four_seconds, tmp_path):
    def refused(match, source=four_seconds, selection=Selection(), **changes):
        with pytest.raises(InputError, match=match):
            load_video(source, selection, **changes)

    refused(
        r"starts at frame 250 \(10.00 s\) and four.mkv has 100 frames at 25 a second \(0 to 99, 4.00 s\)",
        selection=Selection(start=10.0),
    )
    refused("starts at frame 100 ", selection=Selection(start=100, start_in="frames"))
    refused(r"frames of 64x48 px of four.mkv take 0.0 GB .* Set frames", most=1000)
    load_video(four_seconds, Selection(frames=2), most=64 * 48 * 3 * 5 * 2)
    (tmp_path / "text.mp4").write_text("no video at all, and longer than twelve bytes")
    refused("text.mp4 is not a video", VideoFile("text.mp4", tmp_path / "text.mp4"))
    refused("gone.mp4 cannot be read as a video .*No such file", VideoFile("gone.mp4", tmp_path / "gone.mp4"))
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile /etc/passwd\n")
    refused("list.mp4 is not a video", VideoFile("list.mp4", tmp_path / "list.mp4"))
    data = four_seconds.content.read_bytes()
    refused("cannot be read as a video|is not a video", VideoFile("cut.mkv", data[:40]))
    with av.open(str(tmp_path / "sound.mkv"), "w") as media:
        tone = media.add_stream("pcm_s16le", rate=RATE)
        samples = av.AudioFrame.from_ndarray(np.zeros((1, RATE), np.int16), format="s16", layout="mono")
        samples.sample_rate = RATE
        media.mux(tone.encode(samples))
        media.mux(tone.encode(None))
    refused(
        "sound.mkv has no video that can be decoded: 1 of its 1 streams are sound", VideoFile("sound.mkv", tmp_path / "sound.mkv")
    )
    for wrong in ({"start_in": "hours"}, {"start": -1.0}, {"stride": 0}, {"frames": -1}, {"fps": -25.0}):
        with pytest.raises(InputError):
            Selection(**wrong)


def test_sound_in_stereo_stays_so():
    wave = torch.rand(1, 2, 1000)
    footage = select_frames(torch.rand(10, 16, 16, 3), 10.0, Audio(wave, 1000), Selection(start=0.3, frames=4))
    assert torch.equal(footage.audio.waveform, wave[..., 300:700])
