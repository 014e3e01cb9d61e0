"""The nodes around the driving video and the result, in the host's process: loading, pasting back, looking inside."""

import math
import re
import shutil
from fractions import Fraction
from pathlib import Path

import pytest
import tiny
import torch
from refusal import refused

ROOT = Path(__file__).resolve().parents[2]
ALL = {"start": 0.0, "start_in": "seconds", "frames": 0, "stride": 1, "fps": 0.0, "longest_side": 0}
SOCKET = "(the video input)"


# ---- Load Driving Video ----


@pytest.fixture(scope="module")
def clip(host) -> Path:
    """24 frames of 256x256 px at 12.5 a second, in the input folder."""
    import folder_paths

    path = Path(folder_paths.get_input_directory(), "clip.mp4")
    shutil.copy(ROOT / "tests" / "data" / "800000.mp4", path)
    return path


@pytest.fixture
def load(run_node):
    def run(file=SOCKET, **changes):
        return run_node("RealPortraitLoadDrivingVideo", file=file, **{**ALL, **changes})

    return run


def test_a_file_of_the_input_folder(host, load, clip):
    from comfy_api.latest import InputImpl

    node = host.NODE_CLASS_MAPPINGS["RealPortraitLoadDrivingVideo"]
    assert "clip.mp4" in node.INPUT_TYPES()["required"]["file"][1]["options"]
    images, audio, fps, count, _ = load("clip.mp4")
    assert (images.shape, fps, count, audio) == ((24, 256, 256, 3), 12.5, 24, None)
    video = InputImpl.VideoFromFile(str(clip))
    assert torch.equal(images, video.get_components().images)  # what the stock node gives
    some, _, fps, count, _ = load(video=video, start=0.8, frames=3, stride=2, longest_side=64)
    assert (some.shape, fps, count) == ((3, 64, 64, 3), 6.25, 3)
    small = torch.nn.functional.interpolate(images.movedim(-1, 1), (64, 64), mode="area").movedim(1, -1)
    away = [(some[:, None] - small).abs().mean((2, 3, 4))[n] for n in range(3)]  # of each from every frame of the file
    assert [int(one.argmin()) for one in away] == [10, 12, 14]


def test_another_rate(load, clip):
    """Each frame is the one of the file that is nearest in time."""
    images = load("clip.mp4")[0]
    fewer, _, fps, count, _ = load("clip.mp4", fps=6.25)
    assert (fps, count) == (6.25, 12) and torch.equal(fewer, images[::2])


def test_a_video_in_memory_and_as_bytes(pack, load, clip):
    import io

    from comfy_api.latest import InputImpl, Types

    images = torch.rand(10, 32, 40, 3)
    audio = {"waveform": torch.rand(1, 2, 1600), "sample_rate": 1600}
    video = InputImpl.VideoFromComponents(Types.VideoComponents(images=images, audio=audio, frame_rate=Fraction(10)))
    picked, sound, fps, count, part = load(video=video, start=4, start_in="frames", frames=3)
    assert torch.equal(picked, images[4:7]) and (fps, count) == (10.0, 3)
    assert torch.equal(sound["waveform"], audio["waveform"][..., 640:1120]) and sound["sample_rate"] == 1600
    parts = part.get_components()  # the same in one
    assert parts.images is picked and parts.audio is sound and parts.frame_rate == Fraction(10)
    whole = load(video=InputImpl.VideoFromFile(io.BytesIO(clip.read_bytes())))
    assert torch.equal(whole[0], load("clip.mp4")[0])


@pytest.mark.parametrize(
    "cut",
    [
        {"get_duration": 0.4, "frames": slice(5, 10)},
        {"get_dimensions": (128, 256), "width": slice(100, 228)},
        {"get_duration": 1.92, "get_dimensions": (256, 256)},
    ],
    ids=["in time", "to a rectangle", "not at all"],
)
def test_a_video_that_a_newer_host_has_cut(load, clip, cut):
    """Its file holds more than it says, so its own frames are taken; and one that is whole is still read from its file."""
    from comfy_api.latest import InputImpl, Types

    class Cut(InputImpl.VideoFromFile):
        def as_trimmed(self):
            raise AssertionError("not asked for")

        def get_duration(self):
            return cut.get("get_duration", super().get_duration())

        def get_dimensions(self):
            return cut.get("get_dimensions", super().get_dimensions())

        def get_components(self):
            asked.append(1)
            whole = super().get_components()
            images = whole.images[cut.get("frames", slice(None)), :, cut.get("width", slice(None))]
            return Types.VideoComponents(images=images, audio=None, frame_rate=whole.frame_rate)

    whole, asked = load("clip.mp4")[0], []
    shown = whole[cut.get("frames", slice(None)), :, cut.get("width", slice(None))]
    assert torch.equal(load(video=Cut(str(clip)))[0], shown)
    assert torch.equal(load(video=Cut(str(clip)), frames=2, stride=2)[0], shown[0:4:2])
    assert len(asked) == (0 if shown.shape == whole.shape else 2)


@pytest.mark.parametrize("name", ["../../outside.mp4", "/etc/passwd", "no such.mp4", "", "clip.mp4 [output]"])
def test_only_videos_of_the_input_folder_are_opened(host, pack, load, clip, name):
    said = host.NODE_CLASS_MAPPINGS["RealPortraitLoadDrivingVideo"].validate_inputs(file=name)
    assert isinstance(said, str) and re.search(r"is not one of the \d videos in", said) and "clip.mp4" in said
    with refused(pack, "is not one of the"):
        load(name)


def test_what_the_loader_refuses(pack, load, clip, monkeypatch, tmp_path):
    import comfy.model_management
    from comfy_api.latest import InputImpl

    with refused(pack, "choose or upload a file, or connect Load Video"):
        load()
    with refused(pack, r"starts at frame 50 \(4.00 s\) and clip.mp4 has 24 frames at 12.5 a second"):
        load("clip.mp4", start=4.0)
    with refused(pack, "start_in is 'hours'; it must be one of: seconds, frames"):
        load("clip.mp4", start_in="hours")
    shutil.copy(clip, tmp_path / "gone.mp4")
    video = InputImpl.VideoFromFile(str(tmp_path / "gone.mp4"))
    (tmp_path / "gone.mp4").unlink()
    with refused(pack, "There is no file .*gone.mp4"):
        load(video=video)
    monkeypatch.setattr(comfy.model_management, "get_free_memory", lambda device: (1 << 30) + (1 << 20))
    with refused(pack, "24 frames of 256x256 px of clip.mp4 take 0.0 GB"):
        load("clip.mp4")


def test_the_loader_runs_again_when_the_file_changes(host, clip):
    import os

    node = host.NODE_CLASS_MAPPINGS["RealPortraitLoadDrivingVideo"]
    before = node.fingerprint_inputs(file="clip.mp4", **ALL)
    assert before == node.fingerprint_inputs(file="clip.mp4", **ALL)
    os.utime(clip, (1, 1))
    assert before != node.fingerprint_inputs(file="clip.mp4", **ALL)
    assert node.fingerprint_inputs(file=SOCKET, **ALL) is None


def test_loading_reports_progress_and_is_cancelled(load, clip, cancelled):
    assert cancelled(lambda: load("clip.mp4", start=1.0), 7) == [(i, 24) for i in range(1, 8)]


# ---- Paste Animation Back ----


def motion_for(pack, height, width, size, corner, zoom):
    mapping, maps = pack("realportrait_core.animation.mapping"), pack("realportrait_core.motion_map")
    nothing = maps.MotionMaps(torch.zeros(1, 1, 1, 1), torch.eye(3)[None], torch.zeros(1, 2, 3), size, size)
    forward = torch.diag(torch.tensor([zoom, zoom, 1.0], dtype=torch.float64))
    forward[:2, 2] = (0.5 - torch.tensor(corner, dtype=torch.float64)) * zoom - 0.5
    return mapping.PortraitMotion(nothing, nothing, forward, (height, width))


def test_pasting_back_keeps_the_picture_outside(pack, run_node):
    import comfy.utils

    picture, frames = torch.rand(1, 90, 120, 3), torch.rand(20, 64, 64, 3)
    motion = motion_for(pack, 90, 120, 64, (30.0, 10.0), 1.0)
    kept, ticks = (picture.clone(), frames.clone()), []
    comfy.utils.set_progress_bar_global_hook(lambda value, total, preview, node_id=None: ticks.append((value, total)))
    try:
        images, mask = run_node(
            "RealPortraitPasteBack", picture=picture, frames=frames, motion=motion, feather=10.0, length="longest"
        )
    finally:
        comfy.utils.set_progress_bar_global_hook(None)
    assert ticks == [(8, 20), (16, 20), (20, 20)]
    assert images.shape == (20, 90, 120, 3) and mask.shape == (1, 90, 120)
    assert torch.equal(images[:, mask[0] == 0], picture.expand(20, -1, -1, -1)[:, mask[0] == 0])
    assert torch.equal(images[:, 20:60, 40:80], frames[:, 10:50, 10:50])
    assert torch.equal(picture, kept[0]) and torch.equal(frames, kept[1])
    again, _ = run_node(
        "RealPortraitPasteBack",
        picture=images,
        frames=frames[:5],
        motion=motion,
        feather=10.0,
        length="shortest",
        mask=torch.zeros(1, 90, 120),
    )
    assert torch.equal(again, images[:5])


def test_what_pasting_refuses(pack, run_node, monkeypatch):
    import comfy.model_management

    given = dict(
        picture=torch.rand(1, 90, 120, 3),
        frames=torch.rand(2, 64, 64, 3),
        feather=8.0,
        length="longest",
        motion=motion_for(pack, 90, 120, 64, (30.0, 10.0), 1.0),
    )
    with refused(pack, "picture is 120x80 px; the motion was made for one of 120x90 px"):
        run_node("RealPortraitPasteBack", **{**given, "picture": torch.rand(1, 80, 120, 3)})
    with refused(pack, "length is 'loop'; it must be one of: longest, shortest"):
        run_node("RealPortraitPasteBack", **{**given, "length": "loop"})
    monkeypatch.setattr(comfy.model_management, "get_free_memory", lambda device: 1 << 16)
    with refused(pack, "2 frames of 120x90 px take 0.0 GB"):
        run_node("RealPortraitPasteBack", **given)


def test_the_feather_is_a_share_of_the_side(pack, run_node):
    """On a square of 64 px inside the picture: as hard as can be, or soft over so many percent of its side."""
    motion = motion_for(pack, 90, 120, 64, (30.0, 10.0), 1.0)
    given = dict(picture=torch.rand(1, 90, 120, 3), frames=torch.rand(1, 64, 64, 3), motion=motion, length="longest")
    for feather, soft in ((0.0, 0), (12.5, 8), (25.0, 16)):
        across = run_node("RealPortraitPasteBack", feather=feather, **given)[1][0, 42]  # a row through the square's middle
        assert int(((across > 0) & (across < 1)).sum()) == 2 * soft and int((across > 0).sum()) == 64


@pytest.mark.parametrize("height, width", [(91, 120), (90, 121), (91, 121), (90, 120)])
def test_an_even_size_can_be_saved(pack, run_node, tmp_path, height, width):
    """The host's H.264 refuses odd sides. Nothing else is cut, and nothing at all unless it is asked for."""
    from comfy_api.latest import InputImpl, Types

    def save(images):
        parts = Types.VideoComponents(images=images, audio=None, frame_rate=Fraction(10))
        InputImpl.VideoFromComponents(parts).save_to(str(tmp_path / "pasted.mp4"))
        return InputImpl.VideoFromFile(str(tmp_path / "pasted.mp4")).get_dimensions()

    given = dict(
        picture=torch.rand(1, height, width, 3),
        frames=torch.rand(2, 64, 64, 3),
        feather=10.0,
        length="longest",
        motion=motion_for(pack, height, width, 64, (30.0, 10.0), 1.0),
    )
    whole, shown = run_node("RealPortraitPasteBack", **given)
    even, mask = run_node("RealPortraitPasteBack", even_size=True, **given)
    assert whole.shape == (2, height, width, 3) and save(even) == (120, 90)
    assert torch.equal(even, whole[:, :90, :120]) and torch.equal(mask, shown[:, :90, :120])
    if whole.shape != even.shape:
        with pytest.raises(Exception, match="avcodec_open2"):
            save(whole)


def test_the_result_in_the_drivers_framing(pack, run_node):
    """The portrait's pixel that the crops send to a driver's pixel is seen there; beyond the portrait all is black."""
    from types import SimpleNamespace

    turn = 0.2
    to_crop = torch.tensor([[2.0, 0.0, 30.0], [0.0, 2.0, 40.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    from_driver = torch.tensor(
        [[2 * math.cos(turn), -2 * math.sin(turn), -60.0], [2 * math.sin(turn), 2 * math.cos(turn), -90.0], [0.0, 0.0, 1.0]],
        dtype=torch.float64,
    )
    keypoints = SimpleNamespace(
        driver_size=(200, 240), portrait_size=(90, 120), driver_crop=from_driver, portrait_crop=to_crop, of_video=False
    )
    rows, columns = torch.meshgrid(torch.arange(90.0), torch.arange(120.0), indexing="ij")
    picture = torch.stack([columns / 120, rows / 90, torch.ones(90, 120)], -1)[None]  # where a pixel is says its colour
    given = dict(
        picture=picture,
        frames=torch.zeros(2, 64, 64, 3),
        feather=0.0,
        length="longest",
        motion=motion_for(pack, 90, 120, 64, (30.0, 10.0), 1.0),
    )
    whole, shown = run_node("RealPortraitPasteBack", **given)
    framed, mask = run_node("RealPortraitPasteBack", driver_framing=keypoints, **given)
    assert framed.shape == (2, 200, 240, 3) and mask.shape == (1, 200, 240)
    forward = torch.linalg.inv(from_driver) @ to_crop
    for x, y in ((5, 5), (110, 8), (10, 80), (112, 84)):  # beside the animated square
        across, down = (forward @ torch.tensor([x, y, 1.0], dtype=torch.float64))[:2].round().long().tolist()
        torch.testing.assert_close(framed[0, down, across], whole[0, y, x], atol=0.012, rtol=0)
        assert mask[0, down, across] == 0
    across, down = (forward @ torch.tensor([62.0, 42.0, 1.0], dtype=torch.float64))[:2].round().long().tolist()
    assert mask[0, down, across] == 1 and framed[1, down, across].max() == 0
    assert framed[0, 0, 0].max() == 0 and framed[0, -1, -1].max() == 0
    even, _ = run_node(
        "RealPortraitPasteBack",
        driver_framing=SimpleNamespace(**{**vars(keypoints), "driver_size": (201, 241)}),
        even_size=True,
        **given,
    )
    assert even.shape == (2, 200, 240, 3)
    keypoints.portrait_size = (64, 64)
    with refused(pack, "driving_framing is of a portrait of 64x64 px and the motion of one of 120x90 px"):
        run_node("RealPortraitPasteBack", driver_framing=keypoints, **given)


# ---- Inspect RealPortrait ----


@pytest.fixture(scope="module")
def vid2vid(host, pack):
    import folder_paths

    folder = Path(folder_paths.models_dir) / "realportrait"
    folder.mkdir(exist_ok=True)
    tiny.vid2vid_file(pack, folder / "tiny_for_video.safetensors")
    return host.NODE_CLASS_MAPPINGS["RealPortraitLoadVid2Vid"].execute(weights="tiny_for_video.safetensors").result[0]


def test_inspecting_a_run(pack, run_node, vid2vid):
    generator = torch.Generator().manual_seed(3)
    portrait, driver = torch.rand(1, 160, 150, 3, generator=generator), torch.rand(40, 120, 110, 3, generator=generator)
    keypoints = run_node("RealPortraitExtractKeypoints", vid2vid=vid2vid, portrait=portrait, driver=driver, **tiny.EXTRACTION)[0]
    motion = run_node("RealPortraitMotionMaps", vid2vid=vid2vid, keypoints=keypoints, **tiny.RELATIVE, framing="auto")[0]
    given = dict(keypoints=keypoints, motion=motion, portrait=portrait, driver=driver, most=3, clip_frames=16)
    sheets, report = run_node("RealPortraitInspect", **given)
    assert sheets.shape[0] == 3 and sheets.shape[3] == 3 and 0 <= sheets.min() and sheets.max() <= 1
    assert report.startswith("Face found in 40 of 40 driving frames.") and "Connect the animated frames" in report
    _, report = run_node("RealPortraitInspect", **given, frames=torch.rand(40, 64, 64, 3, generator=generator))
    assert "portrait " in report and "31-39" in report and "Clip 2 against clip 0" in report and "keypoints" not in report
    _, report = run_node("RealPortraitInspect", **{**given, "clip_frames": 11}, frames=torch.rand(40, 64, 64, 3))
    assert [line.split()[1] for line in report.splitlines()[3:7]] == ["0-10", "11-20", "21-30", "31-39"]
    _, report = run_node("RealPortraitInspect", **given, frames=torch.rand(40, 64, 64, 3, generator=generator), vid2vid=vid2vid)
    assert "keypoints px" in report.splitlines()[1] and "; keypoints " in report.splitlines()[-1]
    # A part of the driver is shown beside its own frames.
    part = run_node(
        "RealPortraitMotionMaps", vid2vid=vid2vid, keypoints=keypoints, **tiny.RELATIVE, framing="auto", first_frame=30, frames=5
    )[0]
    sheets, report = run_node("RealPortraitInspect", **{**given, "motion": part, "most": 9}, frames=torch.rand(5, 64, 64, 3))
    assert part.first == 30 and len(sheets) == 5 and "0-4" in report
    # And what was animated goes back into the portrait.
    images, _ = run_node(
        "RealPortraitPasteBack", picture=portrait, frames=torch.rand(2, 64, 64, 3), motion=motion, feather=8.0, length="longest"
    )
    assert images.shape == (2, 160, 150, 3)
    # The motion holds the portrait, where none is connected; another one of its size is shown where it is.
    shown = [run_node("RealPortraitInspect", **given | wire)[0] for wire in ({}, {"portrait": None}, {"portrait": 1 - portrait})]
    assert torch.equal(shown[0], shown[1]) and not torch.equal(shown[0], shown[2])
    own, _ = run_node("RealPortraitPasteBack", frames=torch.zeros(1, 64, 64, 3), motion=motion, feather=8.0, length="longest")
    given_too, _ = run_node(
        "RealPortraitPasteBack", picture=portrait, frames=torch.zeros(1, 64, 64, 3), motion=motion, feather=8.0, length="longest"
    )
    assert torch.equal(own, given_too)
    with refused(pack, "of 40 driving frames, the driving video has 39"):
        run_node("RealPortraitInspect", **{**given, "driver": driver[:39]})


# ---- Extract Face Motion, from the file of a VIDEO ----


def equal(one, other) -> bool:
    """Whether two results hold the same to the last bit."""
    if isinstance(other, torch.Tensor):
        return torch.equal(one, other)
    if hasattr(other, "__dataclass_fields__"):
        return all(equal(getattr(one, name), getattr(other, name)) for name in other.__dataclass_fields__)
    return one == other


@pytest.fixture
def extract(run_node, vid2vid):
    portrait = torch.rand(1, 160, 150, 3, generator=torch.Generator().manual_seed(3))

    def run(driver, **changes):
        given = {"portrait": portrait, "driver": driver, **tiny.EXTRACTION, **changes}
        return run_node("RealPortraitExtractKeypoints", vid2vid=vid2vid, **given)

    return run


def test_a_graph_may_connect_frames_or_a_video(host):
    info = host.NODE_CLASS_MAPPINGS["RealPortraitExtractKeypoints"].GET_NODE_INFO_V1()
    assert list(info["input"]["required"])[:3] == ["vid2vid", "portrait", "driver"]
    assert info["input"]["required"]["driver"][0] == "IMAGE,VIDEO"


@pytest.mark.parametrize("case", ["typed boxes", "connected boxes", "a portrait video", "a longer portrait video"])
def test_a_video_gives_the_motion_of_its_frames(load, clip, extract, case):
    from comfy_api.latest import InputImpl

    pictures = torch.rand(30, 160, 150, 3, generator=torch.Generator().manual_seed(4))
    changes = {
        "typed boxes": {},
        "connected boxes": {
            "driver_box": "",
            "driving_boxes": [[{"x": 60 + i, "y": 50, "width": 100, "height": 120}] if i != 5 else [] for i in range(24)],
        },
        "a portrait video": {"portrait": pictures[:7]},
        "a longer portrait video": {"portrait": pictures},
    }[case]
    video, frames = InputImpl.VideoFromFile(str(clip)), load("clip.mp4")[0]
    streamed, preview, report = extract(video, **changes)
    keypoints, shown, said = extract(frames, **changes)
    assert equal(streamed, keypoints) and torch.equal(preview, shown) and report == said
    assert len(keypoints) == {"a portrait video": 7}.get(case, 24)


@pytest.mark.parametrize("portraits", [1, 7])
def test_a_part_of_a_file_gives_the_motion_of_its_frames(run_node, load, clip, extract, portraits):
    """Stream Driving Video: of a portrait video the first frames of the part."""
    part = ALL | {"start": 9.0, "start_in": "frames", "fps": 25.0, "longest_side": 240}
    given = {"portrait": torch.rand(portraits, 160, 150, 3, generator=torch.Generator().manual_seed(4))}
    streamed = extract(run_node("RealPortraitStreamDrivingVideo", file="clip.mp4", **part)[0], **given)
    keypoints = extract(load("clip.mp4", **part)[0], **given)
    assert equal(streamed[0], keypoints[0]) and torch.equal(streamed[1], keypoints[1]) and streamed[2] == keypoints[2]


def test_a_video_in_memory_gives_the_motion_of_its_frames(load, clip, extract):
    import io

    from comfy_api.latest import InputImpl

    whole = extract(load("clip.mp4")[0])
    for video in (load("clip.mp4")[4], InputImpl.VideoFromFile(io.BytesIO(clip.read_bytes()))):
        assert equal(extract(video)[0], whole[0])


def test_extracting_from_a_video_is_cancelled(clip, extract):
    import comfy.model_management as management
    import comfy.utils
    import leftovers
    from comfy_api.latest import InputImpl

    ticks = []

    def hook(value, total, preview, node_id=None):
        ticks.append(value)
        assert leftovers.decoders()
        management.interrupt_current_processing(True)

    comfy.utils.set_progress_bar_global_hook(hook)
    try:
        with leftovers.nothing_left(), pytest.raises(management.InterruptProcessingException):
            extract(InputImpl.VideoFromFile(str(clip)))
    finally:
        comfy.utils.set_progress_bar_global_hook(None)
        management.interrupt_current_processing(False)
    assert len(ticks) == 1


def test_a_damaged_video_is_refused_by_its_name(pack, clip, extract, tmp_path):
    from comfy_api.latest import InputImpl

    (tmp_path / "cut.mp4").write_bytes(clip.read_bytes()[:3000])
    with refused(pack, "cut.mp4 "):
        extract(InputImpl.VideoFromFile(str(tmp_path / "cut.mp4")))
    with refused(pack, "The driving video must be an IMAGE; this is a str"):
        extract("clip.mp4")
