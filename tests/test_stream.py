"""A video of any length with a few frames in memory: decoded in a process of its own, tracked and extracted as it comes."""

import functools
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing, suppress
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import toy_sizes
import videos
import yunet
from logged import said

from realportrait_core.animation.extraction import CHUNK, extract_keypoints
from realportrait_core.config import Vid2VidConfig
from realportrait_core.errors import FaceError, InputError
from realportrait_core.face.detect import Face, FaceDetector
from realportrait_core.face.track import SMOOTHING, smooth, track
from realportrait_core.vid2vid import FaceVid2Vid
from realportrait_core.video import apart, process, reading
from realportrait_core.video.apart import read_apart
from realportrait_core.video.audio import audio_pieces, read_audio
from realportrait_core.video.loading import load_video, select_frames
from realportrait_core.video.records import Request, Shown
from realportrait_core.video.source import VideoFile
from realportrait_core.video.stream import FramesInMemory, VideoStream
from realportrait_core.video.timeline import Selection

pytest.importorskip("av")
psutil = pytest.importorskip("psutil")
leftovers = pytest.importorskip("leftovers")
decoders = leftovers.decoders

DATA = yunet.ROOT / "tests" / "data"


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> VideoFile:
    """60 frames of noise at 10 a second, each 48x64 px, and 5.5 s of sound."""
    pictures = np.random.default_rng(0).integers(0, 256, (60, 48, 64, 3), np.uint8)
    path = tmp_path_factory.mktemp("stream") / "film.mkv"
    return VideoFile(path.name, videos.write(path, pictures, 10, seconds=5.5))


@pytest.fixture(autouse=True)
def nothing_is_left():
    """No process, thread or open file of a reading outlives it."""
    with leftovers.nothing_left():
        yield


def clip(seed: int) -> VideoFile:
    """24 frames of a rendered head, 256x256 px."""
    return VideoFile(f"{seed}.mp4", DATA / f"{seed}.mp4")


@functools.cache
def frames_of(seed: int) -> torch.Tensor:
    return load_video(clip(seed), Selection()).images


# The process that decodes


@pytest.mark.parametrize(
    "request_",
    [
        Request(),
        Request(Selection()),
        Request(Selection(start=1.0, frames=12, stride=2)),
        Request(Selection(fps=25.0, start=55, start_in="frames", frames=9)),
        Request(Selection(fps=24.0, start=5.5, longest_side=20)),
        Request(sound=(0.0, 4.0)),
        Request(sound=(4.7, 2.35)),
        Request(sound=(7.0, 0.5)),
    ],
    ids=str,
)
@pytest.mark.parametrize("in_memory", [False, True])
def test_another_process_reads_what_this_one_reads(film, request_, in_memory):
    there = VideoFile("film.mkv", film.content.read_bytes()) if in_memory else film
    ticks, own_ticks = [], []
    found = list(read_apart(there, request_, ticks.append))
    own = list(reading.read(film, request_, own_ticks.append))
    assert len(found) == len(own) > 0 and ticks == own_ticks
    for one, other in zip(found, own):
        assert type(one) is type(other)
        for field in fields(one):
            mine, its = getattr(one, field.name), getattr(other, field.name)
            assert np.array_equal(mine, its) if isinstance(its, np.ndarray) else mine == its
    assert any(shown.pixels is None for shown in own if isinstance(shown, Shown)) == (
        request_.selection is not None and bool(request_.selection.fps)
    )


def test_it_starts_without_torch():
    loaded = "print('torch' in sys.modules, 'av' in sys.modules)"
    program = f"import sys; sys.path.append({str(apart.ROOT)!r}); import {apart.MODULE}; {loaded}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.parametrize("how", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
@pytest.mark.parametrize("after", [0, 1, 40])
def test_a_crash_of_the_decoder_is_an_error(film, how, after):
    records, seen = read_apart(film, Request(Selection())), []
    next(records)  # what the container declares
    seen = [next(records) for _ in range(after)]
    decoders()[0].send_signal(how)
    told = r"was killed after .*\(SIGKILL\), probably because memory" if how == signal.SIGKILL else rf"crashed.*\({how.name}\)"
    with pytest.raises(InputError, match=told) as error:
        for one in records:
            seen.append(one)
    assert "film.mkv" in str(error.value) and f"after {len(seen)} frame" in str(error.value) and after <= len(seen) < 60
    assert len(list(VideoStream(film, Selection()))) == 60, "and the next video is read as ever"


def test_sound_on_which_the_decoder_crashes_is_silent_from_there(film, caplog):
    whole = read_audio(film, 0.0, 5.0).waveform[0]
    stream = audio_pieces(film, 0.0, 5.0)
    pieces = [next(stream.pieces)]
    decoders()[0].send_signal(signal.SIGSEGV)
    pieces += list(stream.pieces)
    heard = torch.cat(pieces, 1)
    assert heard.shape == whole.shape and torch.equal(heard[:, :16000], whole[:, :16000])
    lost = (heard != whole)[0].nonzero()
    assert len(lost) and (heard[:, lost[0, 0] :] == 0).all() and "is silent from" in caplog.text and "SIGSEGV" in caplog.text


def test_leaving_early_ends_the_process_at_once(film):
    stream = VideoStream(film, Selection())
    for frame in stream:
        assert len(decoders()) == 1
        break
    del frame
    assert decoders() == []
    with pytest.raises(ZeroDivisionError):
        for frame in stream:
            len(frame) // 0
    assert decoders() == []

    def interrupt(done, total):
        if done == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_video(film, Selection(), callback=interrupt)
    assert decoders() == []


def test_a_stopped_process_is_ended_too(film):
    """One that hangs inside FFmpeg reads no pipe and answers no question."""
    with closing(read_apart(film, Request(Selection()))) as records:
        next(records)
        decoders()[0].suspend()


# A decoder that hangs


class Cancelled(Exception):
    """Of the user."""


@pytest.mark.parametrize("after", [0, 1, 40])
def test_a_decoder_that_hangs_is_cancelled(film, after):
    """Stopped in the middle it sends no byte more, and does not end."""
    asked, frames = [], []

    def interrupt():
        asked.append(len(frames))
        if asked[-3:] == 3 * [len(frames)] and decoders()[0].status() == psutil.STATUS_STOPPED:
            raise Cancelled  # one of the three was the next frame's tick, the others were slices of the wait for it

    records = read_apart(film, Request(Selection()), interrupt=interrupt)
    next(records)  # what the container declares
    frames += [next(records) for _ in range(after)]
    decoders()[0].suspend()
    with pytest.raises(Cancelled):
        for frame in records:
            frames.append(frame)
    assert after <= len(frames) < 60 and decoders() == []
    assert len(list(VideoStream(film, Selection()))) == 60, "and the next video is read as ever"


@pytest.mark.parametrize(
    "read, error",
    [
        (lambda file, interrupt: load_video(file, Selection(), interrupt=interrupt), Cancelled),
        (lambda file, interrupt: list(VideoStream(file, Selection(), interrupt)), KeyboardInterrupt),
        (lambda file, interrupt: VideoStream(file, Selection(), interrupt).fps, InputError),
        (lambda file, interrupt: audio_pieces(file, 0.0, 1.0, interrupt=interrupt), OSError),
    ],
    ids=["load", "stream", "probe", "sound"],
)
def test_a_file_that_gives_no_byte_is_cancelled(tmp_path, caplog, read, error):
    """As on a network drive that does not answer: here a FIFO whose other end is open and silent."""
    path, silent = tmp_path / "stalled.mp4", []
    os.mkfifo(path)

    def interrupt():
        if silent:
            raise error
        with suppress(OSError):  # there is no reader, until the decoder opens it
            silent.append(os.open(path, os.O_WRONLY | os.O_NONBLOCK))

    with pytest.raises(error):
        read(VideoFile(path.name, path), interrupt)
    os.close(*silent)
    with pytest.raises(OSError, match="No such device"):  # nobody reads it any more
        os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    assert not said(caplog), "neither a crash nor a reason to decode in this process"


ASKS = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}]
import conftest
from realportrait_core.video.source import VideoFile
from realportrait_core.video.stream import VideoStream
from realportrait_core.video.timeline import Selection
from leftovers import decoders
def tell():
    print(*(one.pid for one in decoders()), flush=True)
VideoStream(VideoFile("stalled.mp4", Path(sys.argv[1])), Selection(), tell).fps
"""


def test_a_decoder_that_hangs_ends_with_a_killed_host(tmp_path):
    path, program = tmp_path / "stalled.mp4", ASKS.format(tests=str(Path(__file__).parent))
    os.mkfifo(path)
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True) as host:
        decoder = psutil.Process(int(host.stdout.readline()))
        silent = waiting_reader(path)
        host.kill()
        while decoder.is_running() and decoder.status() != psutil.STATUS_ZOMBIE:  # which is for the system to reap
            time.sleep(0.01)
    os.close(silent)


def waiting_reader(path: Path) -> int:
    """The writing end of a FIFO, as soon as a process waits for what comes out of it."""
    while True:
        with suppress(OSError):  # there is no reader yet
            return os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        time.sleep(0.01)


@pytest.mark.skipif(sys.platform != "linux", reason="a process that cannot be reaped is made by ptrace")
def test_a_process_that_cannot_be_ended_is_left_to_itself(film, monkeypatch, caplog):
    """As one that waits for a network drive: a tracer, which does not wait for it, keeps it from ending."""
    monkeypatch.setattr(process, "PATIENCE", 0.5)
    records = read_apart(film, Request(Selection()))
    next(records)
    decoder = decoders()[0]
    seize = "import ctypes, sys; print(ctypes.CDLL(None).ptrace(0x4206, int(sys.argv[1]), None, None), flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", seize, str(decoder.pid)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as tracer:
        if tracer.stdout.readline() != b"0\n":
            pytest.skip("this system allows no ptrace")
        records.close()
        assert decoder.is_running() and f"Process {decoder.pid} cannot be ended" in caplog.text
        tracer.stdin.close()


def test_ctrl_c_in_the_terminal_is_for_the_other_process(film):
    frames = iter(VideoStream(film, Selection()))
    next(frames)
    decoders()[0].send_signal(signal.SIGINT)
    assert len(list(frames)) == 59


def test_two_videos_at_once(film):
    pairs = list(zip(VideoStream(film, Selection()), VideoStream(film, Selection())))
    assert len(pairs) == 60 and all(np.array_equal(*pair) for pair in pairs)


def test_inside_a_running_event_loop(film):
    """Where the host runs its nodes."""
    import asyncio

    async def node() -> int:
        return len(load_video(film, Selection(frames=3)).images)

    assert asyncio.run(node()) == 3


@pytest.mark.parametrize("program", ["/no/such/python", shutil.which("false"), shutil.which("echo"), None])
def test_without_another_process_this_one_decodes(film, monkeypatch, caplog, program):
    with_it = load_video(film, Selection(frames=5))
    monkeypatch.setattr(sys, "executable", program)
    caplog.clear()
    footage = load_video(film, Selection(frames=5))
    assert torch.equal(footage.images, with_it.images) and torch.equal(footage.audio.waveform, with_it.audio.waveform)
    of_frames, of_sound = said(caplog)
    assert "No process can be started to decode film.mkv" in of_frames and "No process can be started" in of_sound


def test_sound_comes_a_second_at_a_time(film):
    stream, whole = audio_pieces(film, 0.75, 6.0), read_audio(film, 0.75, 6.0)
    pieces = list(stream.pieces)
    assert (stream.rate, stream.channels) == (whole.rate, 1) and len(pieces) == 6
    assert torch.equal(torch.cat(pieces, 1), whole.waveform[0]) and all(piece.shape == (1, whole.rate) for piece in pieces)
    assert whole.waveform[0, 0, : 4 * 16000].diff().min() >= 0 and whole.waveform[0, 0, -16000:].abs().max() == 0
    assert audio_pieces(clip(800000), 0.0, 1.0) is None


# Streams of frames


def test_a_stream_is_read_again_and_again(film):
    selection = Selection(start=1.0, fps=20.0, frames=30, stride=2)
    stream, footage = VideoStream(film, selection), load_video(film, selection)
    assert stream.fps == footage.fps == 10 and stream.total == len(footage.images) == 30 and stream.name == "film.mkv"
    for _ in range(2):
        frames = list(stream)
        assert all(frame.dtype == np.uint8 for frame in frames)
        assert torch.equal(torch.from_numpy(np.stack(frames)) / 255, footage.images)
    assert [time for time, _ in stream.timed()] == footage.times


INNER = [Selection(longest_side=24), Selection(1.3), Selection(fps=25.0, start=7, start_in="frames", frames=40, stride=3)]
OUTER = [
    Selection(),
    Selection(longest_side=20, frames=4),
    Selection(0.4, frames=3, stride=2),
    Selection(5, "frames", stride=4),
    Selection(3, "frames", frames=30),
]


@pytest.mark.parametrize("inner", INNER, ids=str)
@pytest.mark.parametrize("outer", OUTER, ids=str)
def test_a_part_of_a_part_is_read_from_the_file(film, inner, outer):
    """What would be selected of the part's frames; what is scaled down is so once."""
    part, whole = VideoStream(film, inner).part(outer), load_video(film, replace(inner, longest_side=0))
    wanted = select_frames(whole.images, whole.fps, None, replace(outer, longest_side=0))
    sides = [side for side in (inner.longest_side, outer.longest_side) if side]
    assert part.selection.longest_side == min(sides, default=0) and part.fps == pytest.approx(wanted.fps)
    frames = torch.from_numpy(np.stack(list(replace(part, selection=replace(part.selection, longest_side=0))))) / 255
    assert torch.equal(frames, wanted.images) and part.source is film


def test_what_a_part_refuses(film):
    part = VideoStream(film, Selection()).part(Selection(2.0, frames=10, fps=20.0))
    assert part.part(Selection(frames=4, fps=20.0)).selection == Selection(40, "frames", frames=4, fps=20.0)
    with pytest.raises(InputError, match="fps is 25, and these frames of film.mkv come at 20 a second already. Set fps where"):
        part.part(Selection(fps=25.0))
    with pytest.raises(InputError, match=r"starts at frame 10 \(0.50 s\), and only 10 frames of film.mkv were chosen .*\(0 to 9\)"):
        part.part(Selection(0.5))


def test_the_first_frame_is_the_only_one_that_is_decoded(film):
    ticks = []
    stream = VideoStream(film, Selection(7, "frames", stride=2))
    time, picture = stream.first(lambda *tick: ticks.append(tick))
    first = next(iter(stream.timed()))
    assert time == first[0] and np.array_equal(picture, first[1]) and ticks == [(n, 8) for n in range(1, 9)]


def test_a_stream_of_a_late_part_does_not_decode_what_is_before(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (200, 16, 16, 3), np.uint8)
    source = VideoFile("late.mkv", videos.write(tmp_path / "late.mkv", pictures, 10, gop_size=20))
    ticks = []
    late = [one.pixels for one in list(read_apart(source, Request(Selection(start=15.0)), ticks.append))[1:]]
    assert min(ticks) > 120 and np.array_equal(late, list(VideoStream(source, Selection()))[150:])


def test_frames_in_memory_are_a_stream_too():
    frames = torch.rand(3, 8, 9, 3)
    stream = FramesInMemory(frames, 12.5)
    for _ in range(2):
        assert np.array_equal(np.stack(list(stream)), frames.numpy())
    assert (stream.total, stream.fps) == (3, 12.5)


# Tracking and extracting a stream


def same(one, other) -> bool:
    """Whether two dataclasses hold the same to the last bit."""
    for field in fields(one):
        mine, its = getattr(one, field.name), getattr(other, field.name)
        if isinstance(its, torch.Tensor):
            equal = torch.equal(mine.nan_to_num(-1), its.nan_to_num(-1)) if its.is_floating_point() else torch.equal(mine, its)
        else:
            equal = same(mine, its) if hasattr(its, "__dataclass_fields__") else mine == its
        if not equal:
            return False
    return True


class Gone:
    """A stream whose face is painted over in some frames."""

    def __init__(self, source: VideoFile, gone: list[int]):
        self.stream, self.gone = VideoStream(source, Selection()), gone

    def __iter__(self):
        for i, frame in enumerate(self.stream):
            yield np.full_like(frame, 90) if i in self.gone else frame


@pytest.mark.parametrize("seed", [800000, 810000])
def test_a_stream_is_tracked_as_its_frames_are(seed):
    detector, calls, own_calls = FaceDetector(yunet.onnx()), [], []
    own = track(frames_of(seed), detector, callback=lambda *call: own_calls.append(call))
    assert same(track(VideoStream(clip(seed), Selection()), detector, callback=lambda *call: calls.append(call)), own)
    assert calls == own_calls == [(i, 24) for i in range(1, 25)]
    for policy in ("hold", "interpolate", "fade") if seed == 800000 else ():
        gone = [0, 7, 8, 9, 20, 23]
        frames = torch.from_numpy(np.stack(list(Gone(clip(seed), gone)))) / 255
        own = track(frames, detector, missing_face=policy)
        assert not own.present[gone].any() and same(track(Gone(clip(seed), gone), detector, missing_face=policy), own)


def boxes(count: int) -> list[list[Face]]:
    corner = torch.tensor([20.0, 10.0])
    rows = [torch.cat([corner + torch.tensor([i % 7, 0.5 * i % 5]), torch.tensor([80.0, 90.0])]) for i in range(count)]
    return [
        [Face(box, box[:2] + torch.tensor([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.3, 0.75], [0.7, 0.75]]) * box[2:], 1.0)]
        for box in rows
    ]


def test_faces_and_boxes_that_were_given_for_a_stream():
    stream, frames = VideoStream(clip(800000), Selection()), frames_of(800000)
    assert same(track(stream, None, given=boxes(24)), track(frames, None, given=boxes(24)))
    box = torch.tensor([60.0, 50.0, 100.0, 110.0])
    assert same(track(stream, None, boxes=box), track(frames, None, boxes=box))
    assert same(track(stream, None, boxes=box.repeat(24, 1)), track(frames, None, boxes=box.repeat(24, 1)))
    for count in (23, 25):
        with pytest.raises(InputError, match=f"Faces were given for {count} frames, and the driving video has 24"):
            track(stream, None, given=boxes(count))
        with pytest.raises(InputError, match=rf"must be \(4,\) or \(24, 4\), one a frame; these are \({count}, 4\)"):
            track(stream, None, boxes=box.repeat(count, 1))
    with pytest.raises(FaceError, match="No face was found in any of the 24 driving frames .256x256 px"):
        track(Gone(clip(800000), list(range(24))), FaceDetector(yunet.onnx()))
    with pytest.raises(InputError, match="at least one frame"):
        track(iter(()), None, boxes=box)


@pytest.mark.parametrize("length", [3, 9, 10, 40, 333])
def test_points_are_smoothed_as_by_all_frames(length):
    """The window's weights beyond 9 standard deviations change nothing."""
    points = 500 * torch.rand(length, 5, 2, generator=torch.Generator().manual_seed(length))
    ahead = torch.arange(length, dtype=torch.float64) - torch.arange(length)[:, None]
    weight = torch.exp(-0.5 * (ahead / SMOOTHING) ** 2)
    s0, s1, s2 = (torch.sum(weight * ahead**power, 1, keepdim=True) for power in (0, 1, 2))
    line = weight * (s2 - s1 * ahead) / (s0 * s2 - s1**2)
    torch.testing.assert_close(smooth(points), torch.einsum("ts,spd->tpd", line, points.double()).float(), rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def vid2vid() -> FaceVid2Vid:
    torch.manual_seed(0)
    return FaceVid2Vid(Vid2VidConfig(**toy_sizes.VID2VID)).eval().requires_grad_(False)


@pytest.mark.parametrize("missing_face", ["hold", "interpolate"])
def test_keypoints_of_a_stream_are_those_of_its_frames(vid2vid, missing_face):
    portrait, points = frames_of(810000)[:1], torch.tensor([[100.0, 110], [150, 110], [125, 140], [105, 165], [145, 165]])
    given, ticks, own_ticks = [[] if i in (3, 4, 9, 23) else found for i, found in enumerate(boxes(24))], [], []
    stream, found = VideoStream(clip(800000), Selection()), track(frames_of(800000), None, 0, missing_face, given=given)
    own = extract_keypoints(vid2vid, portrait, frames_of(800000), points, found, lambda *call: own_ticks.append(call))
    streamed = extract_keypoints(vid2vid, portrait, stream, points, found, lambda *call: ticks.append(call))
    assert same(streamed, own) and ticks == own_ticks and len(own.driver) == 24 and streamed.driver_size == (256, 256)
    assert CHUNK < 20 < 24 - 3, "several chunks, and the last of them not whole"
    whole = replace(found, gaps=None)
    assert same(
        extract_keypoints(vid2vid, portrait, stream, points, whole),
        extract_keypoints(vid2vid, portrait, frames_of(800000), points, whole),
    )
    for other in (Selection(frames=23), Selection(fps=25.0)):
        with pytest.raises(InputError, match="The driving video has .* frames and its face track 24"):
            extract_keypoints(vid2vid, portrait, VideoStream(clip(800000), other), points, found)


MEASURE = """
import sys
from pathlib import Path
import torch
sys.path[:0] = {paths!r}
import conftest, test_stream, toy_sizes
from process_memory import memory
from test_stream import *

class Watched(VideoStream):
    def __iter__(self):
        for i, frame in enumerate(super().__iter__()):
            if i == {count} - 1:
                print("decoder", memory("VmHWM", decoders()[0].pid) / 2**20)
            yield frame

torch.set_num_threads(1)
torch.manual_seed(0)
vid2vid = FaceVid2Vid(Vid2VidConfig(**toy_sizes.VID2VID)).eval().requires_grad_(False)
stream = Watched(VideoFile("long.mp4", Path({path!r})), Selection())
found = track(stream, None, given=boxes({count}))
portrait = torch.rand(1, 120, 160, 3)
with torch.inference_mode():
    keypoints = extract_keypoints(vid2vid, portrait, stream, found.points[0], found)
sound = sum(piece.shape[1] for piece in audio_pieces(stream.source, 0.0, {count} / 25).pieces)
assert len(keypoints) == {count} and sound == {count} / 25 * 16000
print("own", memory("VmHWM") / 2**20)
"""


@pytest.mark.nightly
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process is read from /proc")
def test_memory_does_not_grow_with_the_video(tmp_path):
    """Of 2,000 frames of 160x120 px the bytes would be 115 MB, and an IMAGE 461 MB."""
    peaks = {}
    picture = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    for count in (200, 2000):
        path = videos.write(tmp_path / f"{count}.mp4", [picture] * count, 25, seconds=count / 25)
        program = MEASURE.format(paths=[str(Path(__file__).parent)], count=count, path=str(path))
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        for line in done.stdout.splitlines():
            who, size = line.split()
            peaks.setdefault(who, {})[count] = float(size)
    print(peaks)
    assert set(peaks) == {"decoder", "own"}
    for who, size in peaks.items():
        assert size[2000] < 1.05 * size[200], f"{who}: {size} MB"
