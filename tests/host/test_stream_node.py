"""Stream Driving Video: a part of a video that stays in its file until it is read, in the host's process."""

import gc
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
import videos
from process_memory import memory, start_peak
from refusal import refused

ALL = {"start": 0.0, "start_in": "seconds", "frames": 0, "stride": 1, "fps": 0.0, "longest_side": 0}
SOCKET = "(the video input)"
SECONDS = 4.8


@pytest.fixture(scope="module")
def film(host) -> Path:
    """60 frames of 48x40 px at 12.5 a second with a sound, in the input folder; the picture moves."""
    import folder_paths

    pictures = np.random.default_rng(0).integers(0, 256, (1, 40, 108, 3), np.uint8).repeat(60, 0)
    path = Path(folder_paths.get_input_directory(), "film.mkv")
    return videos.write(path, [picture[:, i : i + 48] for i, picture in enumerate(pictures)], seconds=SECONDS)


@pytest.fixture
def load(run_node):
    """load(file, start=..., ...) -> images, audio, fps, count, video"""
    return lambda file=SOCKET, **changes: run_node("RealPortraitLoadDrivingVideo", file=file, **{**ALL, **changes})


@pytest.fixture
def stream(run_node):
    """stream(file, start=..., ...) -> video, fps"""
    return lambda file=SOCKET, **changes: run_node("RealPortraitStreamDrivingVideo", file=file, **{**ALL, **changes})


def pixels(frames) -> torch.Tensor:
    """Frames (H, W, 3) uint8 of a stream, as an IMAGE has them."""
    return torch.from_numpy(np.stack(list(frames))) / 255


def from_file(path: Path):
    from comfy_api.latest import InputImpl

    return InputImpl.VideoFromFile(str(path))


def from_memory():
    from comfy_api.latest import InputImpl, Types

    audio = {"waveform": torch.rand(1, 2, 1600), "sample_rate": 1600}
    return InputImpl.VideoFromComponents(
        Types.VideoComponents(images=torch.rand(10, 32, 40, 3), audio=audio, frame_rate=Fraction(10))
    )


CHOICES = {
    "start": {"start": 1.3},
    "start_in": {"start": 7, "start_in": "frames", "frames": 30},
    "frames": {"frames": 11},
    "stride": {"stride": 3, "start": 0.5},
    "fps": {"fps": 30.0, "start": 1.0, "frames": 40},
    "longest_side": {"longest_side": 24, "frames": 5},
}


@pytest.mark.parametrize("choice", ["file", "video", *CHOICES])
def test_frames_and_sound_are_those_of_load_driving_video(pack, load, stream, film, choice):
    """To the bit, one frame at a time or all at once."""
    given, choice = {"video": from_file(film)} if choice == "video" else {"file": film.name}, CHOICES.get(choice, {})
    (images, audio, rate, count, _), (video, fps) = load(**given, **choice), stream(**given, **choice)
    streamed = pack("nodes.stream").driving_frames(video)
    assert not isinstance(streamed, torch.Tensor) and torch.equal(pixels(streamed), images)
    parts = video.get_components()
    assert torch.equal(parts.images, images) and torch.equal(parts.audio["waveform"], audio["waveform"])
    assert fps == rate == float(parts.frame_rate) == float(video.get_frame_rate())
    assert (video.get_frame_count(), video.get_dimensions()) == (count, (images.shape[2], images.shape[1]))
    assert video.get_duration() == pytest.approx(count / rate)
    driving = pack("nodes.long").Driving.of(video)
    sound = torch.cat(list(driving.sound.part(0.0, count / rate).pieces), 1)
    assert driving.fps == rate and torch.equal(sound, audio["waveform"][0]) and torch.equal(pixels(driving.frames), images)


def test_of_the_video_input(pack, load, stream, film):
    """A part of a part is read from the file too; frames in memory stay there."""
    video, fps = stream(video=stream(film.name, start=2.0, stride=2)[0], start=3, start_in="frames", frames=5)
    images = load(film.name)[0][25:][::2][3:8]
    assert fps == 6.25 and torch.equal(pixels(pack("nodes.stream").driving_frames(video)), images)
    assert torch.equal(load(video=stream(film.name, start=2.0, stride=2)[0], start=3, start_in="frames", frames=5)[0], images)
    held = from_memory()
    video, fps = stream(video=held, start=4, start_in="frames", frames=3)
    parts, whole = video.get_components(), held.get_components()
    assert fps == 10.0 and parts.frame_rate == 10 and torch.equal(parts.images, whole.images[4:7])
    assert torch.equal(parts.audio["waveform"], whole.audio["waveform"][..., 640:1120])


def test_the_hosts_nodes_take_it(load, stream, film, tmp_path):
    """As Save Video and Get Video Components call it."""
    from comfy_api.latest import InputImpl, Types

    video, _ = stream(film.name, start=2.0, frames=10, fps=25.0)
    saved = tmp_path / "saved.mp4"
    video.save_to(str(saved), format=Types.VideoContainer.MP4, codec=Types.VideoCodec.H264, metadata={"prompt": "one"})
    found, wanted = InputImpl.VideoFromFile(str(saved)).get_components(), video.get_components()
    assert found.images.shape == wanted.images.shape == (10, 40, 48, 3) and found.frame_rate == wanted.frame_rate == 25
    assert (found.images - wanted.images).abs().mean() < 0.1
    assert found.audio["waveform"].shape[-1] == pytest.approx(wanted.audio["waveform"].shape[-1], abs=2048)


def test_what_it_refuses(pack, stream, film, monkeypatch, tmp_path):
    """When it runs, and not only when the frames are read."""
    import comfy.model_management

    with refused(pack, "choose or upload a file, or connect Load Video"):
        stream()
    with refused(pack, r"starts at frame 100 \(8.00 s\) and film.mkv has 60 frames at 12.5 a second"):
        stream(film.name, start=8.0)
    with refused(pack, "start_in is 'hours'; it must be one of: seconds, frames"):
        stream(film.name, start_in="hours")
    with refused(pack, "fps is nan; it must be a finite number"):
        stream(film.name, fps=float("nan"))
    with refused(pack, "fps is 25, and these frames of film.mkv come at 12.5 a second already. Set fps where the file is chosen"):
        stream(video=stream(film.name, frames=9)[0], fps=25.0)
    (tmp_path / "text.mp4").write_text("no video")
    with refused(pack, "text.mp4 is not a video"):
        stream(video=from_file(tmp_path / "text.mp4"))
    shutil.copy(film, tmp_path / "gone.mkv")
    video, _ = stream(video=from_file(tmp_path / "gone.mkv"))
    (tmp_path / "gone.mkv").unlink()
    for read in (video.get_components, lambda: stream(video=video), lambda: pack("nodes.long").Driving.of(video)):
        with refused(pack, "There is no file .*gone.mkv"):
            read()
    video, _ = stream(film.name)
    monkeypatch.setattr(comfy.model_management, "get_free_memory", lambda device: (1 << 30) + (1 << 18))
    with refused(pack, "60 frames of 48x40 px of film.mkv take .* connect Stream Driving Video to Animate Long Video"):
        video.get_components()
    assert len(pixels(pack("nodes.stream").driving_frames(video))) == 60, "which a stream does not need"


@pytest.mark.parametrize("name", ["../../outside.mp4", "/etc/passwd", "no such.mp4", "", "film.mkv [output]"])
def test_only_videos_of_the_input_folder_are_opened(host, pack, stream, film, name):
    said = host.NODE_CLASS_MAPPINGS["RealPortraitStreamDrivingVideo"].validate_inputs(file=name)
    assert isinstance(said, str) and "is not one of the" in said
    with refused(pack, "is not one of the"):
        stream(name)


def test_it_has_the_inputs_of_load_driving_video(host):
    """And runs again when the file changes."""
    import os

    import folder_paths

    nodes = [host.NODE_CLASS_MAPPINGS[f"RealPortrait{name}DrivingVideo"] for name in ("Load", "Stream")]
    own, other = (node.INPUT_TYPES() for node in nodes)
    assert own == other and "example: driving.mp4" in own["required"]["file"][1]["options"]
    path = Path(folder_paths.get_input_directory(), "changed.mkv")
    path.write_bytes(b"one")
    before = nodes[1].fingerprint_inputs(file=path.name, **ALL)
    os.utime(path, (1, 1))
    assert before != nodes[1].fingerprint_inputs(file=path.name, **ALL)
    assert nodes[1].fingerprint_inputs(file=SOCKET, **ALL) is None


def test_reaching_a_late_start_is_cancelled(stream, film, cancelled):
    ticks = cancelled(lambda: stream(film.name, start=40, start_in="frames"), 7)
    assert ticks == [(i, 41) for i in range(1, 8)]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of a process is read from /proc")
def test_memory_does_not_grow_with_the_video(pack, stream, load, film, tmp_path):
    """Of 2,000 frames of 160x120 px the bytes would be 115 MB, and an IMAGE 461 MB."""
    picture = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    files = {count: videos.write(tmp_path / f"{count}.mp4", [picture] * count, 25, seconds=count / 25) for count in (50, 200, 2000)}

    def read(video, count: int) -> None:
        driving = pack("nodes.long").Driving.of(video)
        assert sum(len(frame) == 120 for frame in driving.frames) == count
        assert sum(piece.shape[1] for piece in driving.sound.part(0.0, count / 25).pieces) == count / 25 * videos.RATE

    def peak(work) -> int:
        gc.collect()
        start_peak()
        work()
        return memory("VmHWM")

    def streamed(count: int) -> int:
        return peak(lambda: read(stream(video=from_file(files[count]))[0], count))

    streamed(50)  # what is loaded once
    short, long = streamed(200), streamed(2000)
    held = peak(lambda: load(video=from_file(files[2000])))
    print(*(f"{size / 2**20:.1f} MB" for size in (short, long, held)))
    assert long < 1.05 * short
    assert held > 1.05 * short, "which frames in memory would show"
