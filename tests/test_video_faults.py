"""Damaged, odd and empty video files, as real files: each is read as it should be shown, or refused in a sentence with its name."""

from fractions import Fraction
from pathlib import Path
from struct import pack

import numpy as np
import pytest
import torch
import videos

from realportrait_core.errors import InputError
from realportrait_core.video.loading import load_video
from realportrait_core.video.source import VideoFile
from realportrait_core.video.stream import VideoStream
from realportrait_core.video.timeline import Selection

av = pytest.importorskip("av")

FRAMES = 40  # of a film, 10 a second


def film(folder: Path, suffix: str) -> VideoFile:
    """Noise of 96x64 px, so that every part of the file matters, with sound; an mp4 whose index comes first."""
    pictures = np.random.default_rng(0).integers(0, 256, (FRAMES, 64, 96, 3), np.uint8)
    options = {"movflags": "+faststart"} if suffix == "mp4" else {}
    path = videos.write(folder / f"film.{suffix}", pictures, 10, seconds=4.0, options=options, gop_size=10)
    return VideoFile(path.name, path)


def outcome(source: VideoFile, selection: Selection = Selection()) -> torch.Tensor | str:
    """The frames (n, 64, 96, 3), or what the user is told."""
    try:
        images = load_video(source, selection).images
    except InputError as error:
        assert source.name in str(error) and "Traceback" not in str(error)
        return str(error)
    assert images.shape[1:] == (64, 96, 3) and torch.isfinite(images).all()
    return images


# 19: truncated or corrupt


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_file_that_is_cut_short(tmp_path, suffix):
    """Wherever it is cut, it is refused or gives the frames before; those before the cut can be loaded as before."""
    source = film(tmp_path, suffix)
    whole, content = outcome(source), source.content.read_bytes()
    assert len(whole) == FRAMES
    outcomes = {}
    for share in (0.0, 0.001, 0.3, 0.6, 0.999):
        path = tmp_path / f"cut.{suffix}"
        path.write_bytes(content[: int(share * len(content))])
        assert path.stat().st_size < source.content.stat().st_size
        outcomes[share] = outcome(VideoFile(path.name, path))
        if isinstance(outcomes[share], torch.Tensor):
            assert len(outcomes[share]) <= FRAMES
    for share in (0.0, 0.001):
        assert any(told in outcomes[share] for told in ("is not a video", "cannot be read as a video", "has no video that can be"))
    path.write_bytes(content[: int(0.6 * len(content))])
    assert torch.equal(outcome(VideoFile(path.name, path), Selection(frames=15)), whole[:15])


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_file_with_wrong_bytes(tmp_path, suffix):
    content = film(tmp_path, suffix).content.read_bytes()
    chance, told = np.random.default_rng(1), []
    for where in (slice(0, 2000), slice(2000, None), slice(0, None)):
        wrong = np.frombuffer(content, np.uint8).copy()
        part = wrong[where]  # a view
        at = chance.integers(0, len(part), len(part) // 20)
        part[at] ^= chance.integers(1, 256, len(at)).astype(np.uint8)
        assert bytes(wrong) != content
        result = outcome(VideoFile(f"wrong.{suffix}", wrong.tobytes()))
        told.append(result if isinstance(result, str) else len(result))
    assert any(isinstance(result, str) for result in told), told


def test_a_codec_that_nobody_knows(tmp_path):
    """PyAV gives no decoder for such a track (its issue 2344: reading on crashed the interpreter)."""
    content = film(tmp_path, "mp4").content.read_bytes()
    source = VideoFile("odd.mp4", content.replace(b"avc1", b"zzzz"))
    with source.open() as stream, av.open(stream, "r", "mp4") as opened:
        assert opened.streams.video[0].codec_context is None if opened.streams.video else True
    assert "odd.mp4 has no video that can be decoded" in outcome(source)
    with pytest.raises(InputError, match="odd.mp4 has no video that can be decoded"):
        next(iter(VideoStream(source, Selection())))


# 13 to 15: how many frames


def test_a_file_without_frames(tmp_path):
    path = tmp_path / "none.mkv"
    with av.open(str(path), "w") as video:
        stream = video.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        video.start_encoding()
    assert path.stat().st_size > 0
    assert "none.mkv" in outcome(VideoFile(path.name, path)) and "frames" in outcome(VideoFile(path.name, path))


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17])
def test_frames_out_are_frames_in(tmp_path, count):
    path = videos.write(tmp_path / "few.mp4", [np.full((64, 96, 3), 10 * i, np.uint8) for i in range(count)], 25)
    assert len(outcome(VideoFile("few.mp4", path))) == len(list(VideoStream(VideoFile("few.mp4", path), Selection()))) == count


# 17: rates and durations


@pytest.mark.parametrize("rate", [Fraction(25, 2), Fraction(24000, 1001), Fraction(30000, 1001), Fraction(60)])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_broken_rate_keeps_its_frames_and_the_length_of_its_sound(tmp_path, rate, suffix):
    pictures = [np.full((64, 96, 3), 5 * i, np.uint8) for i in range(48)]
    path = videos.write(tmp_path / f"rate.{suffix}", pictures, rate, seconds=float(48 / rate))
    footage = load_video(VideoFile(path.name, path), Selection())
    assert len(footage.images) == 48 and footage.fps == pytest.approx(float(rate), rel=2e-3)
    assert abs(footage.audio.waveform.shape[2] / footage.audio.rate - float(48 / rate)) < 1 / rate
    shown = 255 * footage.images.mean((1, 2, 3))
    assert (shown - 5 * torch.arange(48)).abs().max() < 4, "each frame once, in order"


def test_a_duration_that_is_wrong(tmp_path):
    source = film(tmp_path, "mkv")
    content, mark = source.content.read_bytes(), b"\x44\x89\x88"  # EBML's Duration, of 8 bytes
    at = content.index(mark) + 3
    for seconds in (400.0, 0.4, 0.0):
        lies = VideoFile("lies.mkv", content[:at] + pack(">d", 1000 * seconds) + content[at + 8 :])
        ticks = []
        footage = load_video(lies, Selection(), callback=lambda *tick: ticks.append(tick))
        assert len(footage.images) == FRAMES and all(done <= total for done, total in ticks)
        assert footage.audio.waveform.shape[2] == 4 * footage.audio.rate


# 18: sound


def test_sound_that_is_longer_than_the_picture(tmp_path):
    pictures = [np.zeros((64, 96, 3), np.uint8)] * 20
    long = videos.write(tmp_path / "long.mkv", pictures, 10, seconds=9.0)
    short = videos.write(tmp_path / "short.mkv", pictures, 10, seconds=0.5)
    for path, heard in ((long, 2.0), (short, 0.5)):
        sound = load_video(VideoFile(path.name, path), Selection()).audio
        assert sound.waveform.shape[2] == 2 * sound.rate  # that of the frames
        assert sound.waveform[0, 0].nonzero().max() / sound.rate == pytest.approx(heard, abs=0.01)


# 20: deep colours, transparency


def encode(path: Path, codec: str, form: str, pictures: list, source_form: str, **settings) -> VideoFile:
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    with av.open(str(path), "w") as video:
        stream = video.add_stream(codec, rate=10)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = form
        for name, value in settings.items():
            setattr(stream.codec_context, name, value)
        for picture in pictures:
            video.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format=source_form).reformat(format=form)))
        video.mux(stream.encode())
    return VideoFile(path.name, path)


def test_ten_bits(tmp_path, caplog):
    picture = np.full((64, 96, 3), (200, 120, 40), np.uint8)
    plain = encode(tmp_path / "ten.mkv", "ffv1", "yuv420p10le", [picture] * 3, "rgb24")
    with av.open(str(plain.content)) as video:
        assert video.streams.video[0].pix_fmt == "yuv420p10le"
    shown = 255 * outcome(plain)
    assert (shown - torch.tensor([200.0, 120, 40])).abs().max() <= 4 and "HDR" not in caplog.text
    for transfer, name in ((16, "PQ"), (18, "HLG")):
        caplog.clear()
        hdr = encode(tmp_path / f"{name}.mkv", "ffv1", "yuv420p10le", [picture] * 3, "rgb24", color_trc=transfer)
        assert len(outcome(hdr)) == 3 and f"{name}.mkv is HDR ({name}): its colours will look washed out." in caplog.text
        assert caplog.text.count("HDR") == 1


@pytest.mark.parametrize("longest_side", [0, 48])
def test_what_is_transparent_is_laid_over_white(tmp_path, longest_side):
    """As for pictures; what is under transparent pixels is anything."""
    picture = np.zeros((64, 96, 4), np.uint8)
    picture[:, :48] = (200, 0, 0, 255)
    picture[:32, 48:] = (0, 0, 200, 0)
    picture[32:, 48:] = (0, 200, 0, 128)
    source = encode(tmp_path / "clear.mov", "png", "rgba", [picture] * 2, "rgba")
    images = 255 * load_video(source, Selection(longest_side=longest_side)).images[0]
    height, width = images.shape[:2]
    corners = images[0, 0], images[0, width - 1], images[height - 1, width - 1]
    for shown, wanted in zip(corners, ([200, 0, 0], [255, 255, 255], [127, 227, 127])):
        assert (shown - torch.tensor(wanted)).abs().max() <= 1


def test_a_transparent_gif(tmp_path):
    image = pytest.importorskip("PIL.Image")
    frames = []
    for i in range(3):
        frame = image.new("RGBA", (96, 64), (0, 0, 0, 0))
        frame.paste((200, 0, 0, 255), (0, 0, 48, 64 - i))
        frames.append(frame)
    frames[0].save(tmp_path / "clear.gif", save_all=True, append_images=frames[1:], duration=100, loop=0, disposal=2)
    images = 255 * outcome(VideoFile("clear.gif", tmp_path / "clear.gif"))
    assert (images[:, 0, 0] - torch.tensor([200.0, 0, 0])).abs().max() <= 1 and (images[:, :, 60:] == 255).all()
