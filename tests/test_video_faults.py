"""Damaged, odd and empty video files, as real files: each is read as it should be shown, or refused in a sentence with its name."""

import re
from fractions import Fraction
from itertools import islice
from pathlib import Path
from struct import pack

import numpy as np
import pytest
import torch
import videos

from realportrait_core.errors import InputError
from realportrait_core.video.loading import load_video
from realportrait_core.video.pictures import read_picture
from realportrait_core.video.reading import read
from realportrait_core.video.records import Request
from realportrait_core.video.source import VideoFile
from realportrait_core.video.stream import VideoStream
from realportrait_core.video.timeline import Selection

av = pytest.importorskip("av")

RATE = 16000  # samples a second
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


def test_frames_that_are_missing_at_the_end_are_named(tmp_path, caplog):
    source = film(tmp_path, "mkv")
    assert len(outcome(source)) == FRAMES and not caplog.text
    content = source.content.read_bytes()
    part = outcome(VideoFile("cut.mkv", content[: int(0.6 * len(content))]))
    assert 0 < len(part) < FRAMES
    assert "The picture of cut.mkv ends after" in caplog.text and "copy it again" in caplog.text


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


def test_damage_in_the_middle_is_named_with_its_time(tmp_path):
    content = bytearray(film(tmp_path, "mp4").content.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 3000] = bytes(3000)
    told = outcome(VideoFile("middle.mp4", bytes(content)))
    found = re.search(
        r"middle.mp4 cannot be read as a video beyond (\d\.\d\d) s .*: it is damaged there. Load the part before it", told
    )
    assert found, told
    assert len(outcome(VideoFile("middle.mp4", bytes(content)), Selection(frames=int(10 * float(found[1]))))) > 5


@pytest.mark.parametrize("width, height", [(65535, 1), (1, 65535), (2**31 - 1, 1), (1000, 1)])
def test_pixels_of_no_shape(tmp_path, width, height):
    """A header that would make each frame millions of pixels wide."""
    path = encode(
        tmp_path / "wide.mp4", "libx264", "yuv420p", [np.zeros((64, 96, 3), np.uint8)], "rgb24", sample_aspect_ratio=2
    ).content
    content = path.read_bytes()
    at = content.index(b"pasp") + 4
    assert content[at : at + 8] == pack(">II", 2, 1)
    told = outcome(VideoFile("wide.mp4", content[:at] + pack(">II", width, height) + content[at + 8 :]))
    assert "wide.mp4 declares pixels" in told and "Convert it" in told


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_a_title_in_another_encoding(tmp_path, suffix):
    """PyAV refuses to open a file whose metadata are not UTF-8: many AVIs."""
    path = tmp_path / f"title.{suffix}"
    with av.open(str(path), "w") as video:
        video.metadata["title"] = "a title"
        stream = video.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        video.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 96, 3), np.uint8), format="rgb24")))
        video.mux(stream.encode())
    content = path.read_bytes().replace(b"a title", "M\u00fcller ".encode("latin-1"))
    path.write_bytes(content)
    with pytest.raises(UnicodeDecodeError):
        av.open(str(path)).close()
    assert len(outcome(VideoFile(path.name, path))) == 1


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


def test_one_wrong_timestamp_is_no_film_of_years(tmp_path):
    """The frame before it would be repeated until the middle between the two."""
    pictures = [np.full((64, 96, 3), 50 * i, np.uint8) for i in range(4)]
    path = videos.write(tmp_path / "jump.mkv", pictures, 25, times=[0, 0.04, 1e6, 1e6 + 0.04])
    with av.open(str(path)) as video:
        assert [round(frame.time) for frame in video.decode(video=0)] == [0, 0, 10**6, 10**6]
    with pytest.raises(InputError, match=r"The timestamps of jump.mkv jump from 0.04 s to 1000000.00 s"):
        list(islice(VideoStream(VideoFile("jump.mkv", path), Selection()), 100))
    assert len(outcome(VideoFile("jump.mkv", path), Selection(frames=1))) == 1


@pytest.mark.parametrize("values", [{"start": float("nan")}, {"start": 1e300}, {"fps": float("inf")}, {"fps": float("nan")}])
def test_a_selection_of_no_range(values):
    with pytest.raises(InputError, match="cannot be: none may be negative or above 1e"):
        Selection(**values)


# 18: sound


def test_sound_that_is_longer_than_the_picture(tmp_path):
    pictures = [np.zeros((64, 96, 3), np.uint8)] * 20
    long = videos.write(tmp_path / "long.mkv", pictures, 10, seconds=9.0)
    short = videos.write(tmp_path / "short.mkv", pictures, 10, seconds=0.5)
    for path, heard in ((long, 2.0), (short, 0.5)):
        sound = load_video(VideoFile(path.name, path), Selection()).audio
        assert sound.waveform.shape[2] == 2 * sound.rate  # that of the frames
        assert sound.waveform[0, 0].nonzero().max() / sound.rate == pytest.approx(heard, abs=0.01)


def test_a_cover_is_no_video(tmp_path):
    """A song as .m4a: FFmpeg gives its cover as a stream of video."""
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as song:
        track, cover = song.add_stream("aac", rate=RATE, layout="mono"), song.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt, cover.disposition = 48, 48, "yuvj420p", av.stream.Disposition.attached_pic
        picture = av.VideoFrame.from_ndarray(np.zeros((48, 48, 3), np.uint8), format="rgb24").reformat(format="yuvj420p")
        for packet in [*cover.encode(picture), *cover.encode()]:
            song.mux(packet)
        for packet in [*track.encode(noise("mono", RATE, RATE)), *track.encode()]:
            song.mux(packet)
    with av.open(str(path)) as song:
        assert len(song.streams.video) == 1
    told = outcome(VideoFile("song.mp4", path), Selection(fps=25))
    assert "song.mp4 has no video that can be decoded: 1 of its 2 streams are sound, 1 a cover picture" in told


def noise(layout: str, rate: int, count: int):
    channels = av.AudioLayout(layout).nb_channels
    wave = np.random.default_rng(0).normal(0, 0.1, (channels, count)).astype(np.float32)
    samples = av.AudioFrame.from_ndarray(wave, format="fltp", layout=layout)
    samples.sample_rate, samples.time_base, samples.pts = rate, Fraction(1, rate), 0
    return samples


def broadcast(path: Path, *forms: tuple[str, int]) -> VideoFile:
    """A second of AC-3 of each layout and rate, one after the other."""
    if "ac3" not in av.codecs_available:
        pytest.skip("this PyAV has no AC-3")
    with av.open(str(path), "w") as video:
        stream = video.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        track = video.add_stream("ac3", rate=forms[0][1], layout=forms[0][0])
        for _ in range(10 * len(forms)):
            video.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 96, 3), np.uint8), format="rgb24")))
        video.mux(stream.encode())
        for i, (layout, rate) in enumerate(forms):
            codec = av.CodecContext.create("ac3", "w")
            codec.layout, codec.sample_rate, codec.format = layout, rate, "fltp"
            for packet in [*codec.encode(noise(layout, rate, rate)), *codec.encode()]:
                packet.pts = packet.dts = packet.pts + i * rate
                packet.stream, packet.time_base = track, Fraction(1, rate)
                video.mux(packet)
    return VideoFile(path.name, path)


@pytest.mark.parametrize("first", [("stereo", 48000), ("5.1", 48000), ("mono", 32000)])
@pytest.mark.parametrize("then", [("stereo", 32000), ("5.1", 48000), ("mono", 48000)])
def test_sound_that_changes_its_channels_or_its_rate(tmp_path, first, then, caplog):
    source = broadcast(tmp_path / "news.mkv", first, then)
    with av.open(str(source.content)) as video:
        forms = {(frame.layout.name, frame.sample_rate) for frame in video.decode(audio=0)}
    assert len(forms) == 1 + (first != then)
    sound = load_video(source, Selection()).audio
    assert sound.rate == first[1] and sound.waveform.shape == (1, 1 + (first[0] != "mono"), 2 * first[1]) and not caplog.text
    loud = sound.waveform[0, 0].reshape(20, -1).std(1)
    assert loud[1:19].min() > 0.02, "from beginning to end"


def test_sound_of_no_rate_is_left_out(tmp_path, caplog):
    """At 0 samples a second, its second of silence was no sample, and there was no end of them."""
    content = broadcast(tmp_path / "rate.mkv", ("stereo", 48000)).content.read_bytes()
    mark = b"\xb5\x88"  # EBML's SamplingFrequency, of 8 bytes
    assert content.count(mark + pack(">d", 48000)) == 1
    content = content.replace(mark + pack(">d", 48000), mark + pack(">d", 0))
    path = tmp_path / "silent.mkv"
    path.write_bytes(content[: content.index(b"\x0b\x77") - 4])  # cut where its first block of sound begins
    with av.open(str(path)) as video:
        assert video.streams.audio[0].rate == 0
    assert list(islice(read(VideoFile("silent.mkv", path), Request(sound=(0.0, 1.0)), lambda n: None), 10)) == []
    assert (
        "The sound of silent.mkv cannot be read" in caplog.text
        and load_video(VideoFile("silent.mkv", path), Selection()).audio is None
    )


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


# Still pictures, of batches and evaluations


@pytest.mark.parametrize("settings", [[], ["PROGRESSIVE"], ["RST_INTERVAL"]])
def test_a_jpeg_with_a_film_behind_it(settings):
    """Telephones' motion photos; the film's bytes look like marks of a picture."""
    cv2 = pytest.importorskip("cv2")
    picture = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    options = [number for name in settings for number in (getattr(cv2, f"IMWRITE_JPEG_{name}"), 3)]
    content = cv2.imencode(".jpg", picture, options)[1].tobytes()
    whole = read_picture(VideoFile("still.jpg", content))
    for seed in range(8):
        film = np.random.default_rng(seed).bytes(300_000)
        assert np.array_equal(read_picture(VideoFile("motion.jpg", content + film)), whole)
    for cut in (2, 3, len(content) // 2, len(content) - 1):
        with pytest.raises(InputError, match="cut.jpg is cut short"):
            read_picture(VideoFile("cut.jpg", content[:cut]))
