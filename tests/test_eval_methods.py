"""Other methods' results as rows: how they are found, placed and aligned; LivePortrait's row; the cases as files."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import toy_sizes
import videos
import yunet
from public import TINY, write_kijai

from realportrait_core.animation.extraction import extract_keypoints
from realportrait_core.animation.framing import frame_square, sample_frame
from realportrait_core.animation.mapping import PortraitMotion, frame_portrait, motion_maps
from realportrait_core.animation.retargeting import drive_keypoints
from realportrait_core.animation.vid2vid_frames import frames_mask, portrait_frames
from realportrait_core.config import ConditionerConfig, DiTConfig, Vid2VidConfig
from realportrait_core.diffusion.schedule import linear_schedule
from realportrait_core.dit.model import RealPortraitDiT
from realportrait_core.errors import InputError, WeightsError
from realportrait_core.eval import __main__ as command
from realportrait_core.eval import cases, rows
from realportrait_core.eval.methods.alignment import align
from realportrait_core.eval.methods.liveportrait import liveportrait_frames, load_liveportrait
from realportrait_core.eval.methods.results import method_folders, method_frames, method_rows, result_files
from realportrait_core.eval.metrics.frames import psnr
from realportrait_core.eval.networks import Networks
from realportrait_core.eval.run.tables import MOST
from realportrait_core.eval.source import Source
from realportrait_core.face.crop import rescale
from realportrait_core.face.track import FaceTrack
from realportrait_core.motion_map import MotionMaps
from realportrait_core.speed import Speed
from realportrait_core.vae import TinyVAE
from realportrait_core.vid2vid import FaceVid2Vid
from realportrait_core.vid2vid.checkpoint import load_stitching, load_vid2vid
from realportrait_core.vid2vid.stitching import Finish

CLIPS = Path(__file__).parent / "data"
S, FPS = 64, 12.5


def case_of(frames: int, height: int = S, width: int = S, to_frame: torch.Tensor | None = None) -> PortraitMotion:
    """A case's motion as far as results depend on it: the whole of a square portrait, unless to_frame says otherwise."""
    face = torch.eye(3).expand(frames, 3, 3)[:, :2] / S
    maps = MotionMaps(torch.randn(frames, 6, 8, 8).half(), rescale(512 / S).expand(frames, 3, 3), face, S, S)
    return PortraitMotion(maps, maps[0], torch.eye(3, dtype=torch.float64) if to_frame is None else to_frame, (height, width))


def counted(frames: int, height: int = S, width: int = S) -> list[np.ndarray]:
    """Frame i is grey of level 20 + 5 i."""
    return [np.full((height, width, 3), 20 + 5 * i, np.uint8) for i in range(frames)]


def which(pictures: torch.Tensor) -> list[int]:
    return ((255 * pictures.mean((1, 2, 3)) - 20) / 5).round().int().tolist()


def smooth(height: int, width: int) -> np.ndarray:
    """The same picture at any size."""
    y, x = (torch.arange(height) + 0.5)[:, None] / height * 5, (torch.arange(width) + 0.5) / width * 5
    waves = torch.stack([torch.sin(x + y), torch.sin(x - 2 * y), torch.cos(2 * x + y)], -1)
    return (127.5 + 100 * waves).round().byte().numpy()


def write_pictures(folder: Path, pictures, form: str = "frame_{:04d}.png", first: int = 0) -> None:
    cv2 = pytest.importorskip("cv2")
    folder.mkdir(parents=True, exist_ok=True)
    for i, picture in enumerate(pictures, first):
        assert cv2.imwrite(str(folder / form.format(i)), picture[..., ::-1])


def result(folder: Path, motion: PortraitMotion, fps: float | None = FPS, size: int = S):
    return method_frames("X", folder, "self", "a", motion, fps, size)


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "self").mkdir()
    return tmp_path


# Found


@pytest.mark.parametrize("name", ["self/a.mp4", "self/a.webm", "self/a.MOV", "a.mkv"])
def test_a_video_of_every_kind_is_found(folder, name):
    if name.endswith("webm"):  # by its content, whatever the name says
        videos.write(folder / "a.mkv", counted(6), FPS).rename(folder / name)
    else:
        videos.write(folder / name.lower(), counted(6), FPS).rename(folder / name)
    found = result(folder, case_of(6))
    assert which(found.pictures) == list(found.numbers) == [0, 1, 2, 3, 4, 5] and found.note is None
    assert result_files(folder, "self", "a") == [folder / name]


@pytest.mark.parametrize("form, first", [("{}.png", 0), ("frame_{:04d}.png", 1), ("a2_{:02d}.jpg", 8)])
def test_numbered_pictures_are_found_in_the_order_of_their_numbers(folder, form, first):
    write_pictures(folder / "self" / "a", counted(12), form, first)
    write_pictures(folder / "self" / "a", counted(1, 9, 9), "portrait.png")  # no number: not a frame
    found = result(folder, case_of(12))
    assert which(found.pictures) == list(range(12)) and found.note is None
    assert len(result_files(folder, "self", "a")) == 12


def test_the_tables_own_result_comes_first(folder):
    videos.write(folder / "a.mp4", counted(6), FPS)
    videos.write(folder / "self" / "a.mp4", counted(6)[::-1], FPS)
    assert which(result(folder, case_of(6)).pictures) == [5, 4, 3, 2, 1, 0]
    other = method_frames("X", folder, "cross", "a", case_of(6), FPS, S)
    assert which(other.pictures) == [0, 1, 2, 3, 4, 5]


def test_what_is_not_there_is_left_out_and_the_rest_compared(folder, tmp_path):
    videos.write(folder / "self" / "a.mp4", counted(6), FPS)
    empty = tmp_path / "empty"
    (empty / "self" / "a").mkdir(parents=True)
    found, left_out = method_rows({"X": folder, "Y": empty}, "self", "a", case_of(6), FPS, S)
    assert list(found) == ["X"] and list(left_out) == ["Y"]
    assert left_out["Y"].startswith("Y has neither self/a.mp4 (or .webm, .mov, .mkv) nor a folder self/a of numbered")
    assert result_files(empty, "self", "a") == []
    write_pictures(folder / "self" / "a", counted(6))
    with pytest.raises(InputError, match="X has more than one result of a: a.mp4, a. Keep one"):
        result(folder, case_of(6))


def test_results_lie_in_their_folder(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write_pictures(elsewhere / "a", counted(6))
    secret = videos.write(elsewhere / "secret.mp4", counted(6), FPS)
    for table, name in (("..", "a"), ("self", "../self/a"), ("self", ".."), ("self", ""), ("self", "a\\b"), ("self/self", "a")):
        with pytest.raises(InputError, match="cannot name a result"):
            method_frames("X", folder, table, name, case_of(6), FPS, S)
    link = folder / "self" / "a.mp4"
    link.symlink_to(secret)
    with pytest.raises(InputError, match="self/a.mp4 is a link out of"):
        result(folder, case_of(6))
    link.unlink()
    (folder / "self" / "a").symlink_to(elsewhere / "a")
    with pytest.raises(InputError, match="self/a is a link out of"):
        result(folder, case_of(6))
    (folder / "self" / "a").unlink()
    write_pictures(folder / "self" / "a", counted(5))
    (folder / "self" / "a" / "5.png").symlink_to(elsewhere / "a" / "frame_0005.png")
    with pytest.raises(InputError, match="5.png is a link out of"):
        result(folder, case_of(6))


# Not usable


def test_damaged_files_are_sentences(folder):
    path = folder / "self" / "a.mp4"
    path.write_bytes(b"not a video")
    with pytest.raises(InputError, match="^X: a.mp4 is not a video"):
        result(folder, case_of(6))
    videos.write(path, counted(40, 128, 128), FPS)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match="^X: a.mp4 cannot be read as a video"):
        result(folder, case_of(6))
    path.unlink()
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as sound:
        track = sound.add_stream("aac", rate=16000, layout="mono")
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        samples.sample_rate = 16000
        sound.mux(track.encode(samples))
        sound.mux(track.encode())
    with pytest.raises(InputError, match="^X: a.mp4 has no video"):
        result(folder, case_of(6))


def test_one_frame_is_not_a_video(folder):
    videos.write(folder / "self" / "a.mp4", counted(1), FPS)
    with pytest.raises(InputError, match="X has 1 of the 6 frames; at least 2"):
        result(folder, case_of(6))
    (folder / "self" / "a.mp4").unlink()
    write_pictures(folder / "self" / "a", counted(1))
    with pytest.raises(InputError, match="X has 1 of the 6 frames; at least 2"):
        result(folder, case_of(6))


def test_pictures_that_are_missing_double_or_of_two_sizes(folder):
    pictures = folder / "self" / "a"
    write_pictures(pictures, counted(6))
    (pictures / "frame_0003.png").rename(folder / "spare.png")
    with pytest.raises(InputError, match="a has no picture of number 3; number them one by one, from 0 to 5"):
        result(folder, case_of(6))
    write_pictures(pictures, counted(1, 32, 32), first=3)
    with pytest.raises(InputError, match="frame_0003.png is 32x32 px, and the ones before it 64x64"):
        result(folder, case_of(6))
    shutil.copy(folder / "spare.png", pictures / "frame_0003.png")
    shutil.copy(folder / "spare.png", pictures / "mask_3.png")
    with pytest.raises(InputError, match="more than one picture of number 3"):
        result(folder, case_of(6))
    (pictures / "mask_3.png").unlink()
    (pictures / "frame_0004.png").write_bytes((folder / "spare.png").read_bytes()[:40])
    with pytest.raises(InputError, match="^X: frame_0004.png is cut short"):
        result(folder, case_of(6))


@pytest.mark.parametrize(
    "height, width, portrait, said",
    [
        (64, 192, (64, 64), "as 3 pictures beside or above each other"),
        (128, 64, (256, 256), "as 2 pictures beside or above each other"),
        (144, 512, (180, 320), "as 2 pictures beside or above each other"),
        (64, 88, (64, 64), "is 88x64 px; the portrait is 64x64 px. Give the animation alone, in any size: the whole portrait."),
        (64, 88, (180, 320), "the whole portrait, or its square .square.png"),
    ],
)
def test_pictures_beside_each_other_are_refused_with_a_hint(folder, height, width, portrait, said):
    write_pictures(folder / "self" / "a", counted(6, height, width))
    with pytest.raises(InputError, match=said):
        result(folder, case_of(6, *portrait))


# Placed


@pytest.mark.parametrize("side", [64, 48, 128, 200])
def test_a_result_of_any_size_shows_the_whole_portrait(folder, side):
    write_pictures(folder / "self" / "a", [smooth(side, side)] * 2)
    wanted = torch.from_numpy(smooth(S, S)).movedim(-1, 0) / 255
    found = result(folder, case_of(2)).pictures
    assert found.shape == (2, 3, S, S) and torch.equal(found[0], found[1])
    if side == S:
        assert torch.equal(found[0], wanted)
    assert (found[0] - wanted).abs().max() < 0.02


def test_of_a_wide_portrait_both_the_whole_and_the_square_are_placed(folder):
    """The whole portrait, rounded to multiples of 16 px too, its square, and a cut last column; all against the truth's way."""
    height, width = 90, 161
    portrait = smooth(height, width)
    to_frame = frame_square(torch.tensor([[90.0, 40], [105, 41], [97, 50], [92, 58], [104, 58]]), height, width, S, "whole")
    motion = case_of(2, height, width, to_frame)
    wanted = frame_portrait(torch.from_numpy(portrait)[None] / 255, motion).movedim(-1, 1)
    square = sample_frame(torch.from_numpy(portrait)[None].movedim(-1, 1) / 255, rescale(90 / S) @ to_frame, 90)
    square = (255 * square[0]).round().byte().movedim(0, -1).numpy()
    given = {
        "whole": (portrait, 1e-6),
        "even": (portrait[:, :160], 0.04),
        "rounded": (smooth(96, 176), 0.02),
        "square": (square, 0.03),
        "small square": (square[1::2, 1::2], 0.2),
    }
    for name, (picture, bound) in given.items():
        write_pictures(folder / "self" / name, [picture] * 2)
        found = method_frames("X", folder, "self", name, motion, FPS, S).pictures
        assert (found - wanted).abs().max() < bound, name


def test_the_frames_size_is_the_comparisons(folder):
    write_pictures(folder / "self" / "a", [smooth(128, 128)] * 2)
    found = result(folder, case_of(2, 128, 128, rescale(0.5)), size=128).pictures
    assert torch.equal(found[0], torch.from_numpy(smooth(128, 128)).movedim(-1, 0) / 255)


# Aligned


def test_shorter_and_longer_results_are_compared_as_far_as_both_go(folder):
    videos.write(folder / "self" / "a.mp4", counted(10), 30)
    longer, shorter = result(folder, case_of(6)), result(folder, case_of(20))
    assert which(longer.pictures) == list(longer.numbers) == list(range(6))
    assert longer.note == "X has 10 frames; the first 6 are compared."
    assert which(shorter.pictures) == list(shorter.numbers) == list(range(10))
    assert shorter.note == "X has 10 of the 20 frames; these 10, the first, are compared."


def test_as_many_frames_at_another_declared_rate_are_compared_frame_by_frame(folder):
    videos.write(folder / "self" / "a.mp4", counted(12), 25)
    found = result(folder, case_of(12))
    assert which(found.pictures) == list(range(12)) and found.note is None


def test_a_converted_rate_is_compared_by_time(folder):
    videos.write(folder / "self" / "a.mp4", counted(24), 25)
    found = result(folder, case_of(12))
    assert list(found.numbers) == list(range(12)) and which(found.pictures) == list(range(0, 24, 2))
    assert found.note == (
        "X has 24 frames at 25 a second, over the same time as the driving video's 12 at 12.5: the 12 frames that both have at one "
        "time are compared."
    )
    slower = result(folder, case_of(48), fps=50)
    assert list(slower.numbers) == list(range(0, 48, 2)) and which(slower.pictures) == list(range(24))
    unknown = result(folder, case_of(12), fps=None)
    assert which(unknown.pictures) == list(range(12)) and "first 12" in unknown.note


def test_times_at_24_for_25_stay_in_step():
    times = [0.2 + i / 24 for i in range(96)]  # 4 s; what the file counts from does not matter
    found = align("X", times, 100, 25.0, 96)
    assert len(found.case) == len(found.result) > 90 and list(found.case) == sorted(set(found.case))
    assert len(set(found.result)) == len(found.result)
    assert max(abs(i / 25 - j / 24) for i, j in zip(found.case, found.result)) <= 0.5 / 25 + 1e-4
    dropped = align("X", [i / 24 for i in range(98)], 100, 25.0, 98)  # two frames are lost: no conversion
    assert dropped.case == dropped.result == tuple(range(98))


# The command line


def test_names_and_folders_of_methods(tmp_path):
    (tmp_path / "a=b").mkdir()
    assert method_folders([f"X-Portrait = {tmp_path}/a=b"], ["RealPortrait"]) == {"X-Portrait": tmp_path / "a=b"}
    for options, said in (
        (["X"], "must be NAME=DIR"),
        ([f"={tmp_path}"], "must be NAME=DIR"),
        ([f"realportrait={tmp_path}"], "there is a row realportrait already"),
        ([f"X={tmp_path}", f"x={tmp_path}"], "there is a row x already"),
        ([f"X={tmp_path}/none"], "none is no folder"),
    ):
        with pytest.raises(InputError, match=said):
            method_folders(options, ["RealPortrait"])


# Cases as files


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[Path, Path]:
    """The folder of `inputs`, and that of its clips: two of 256x256 px and, of other names, a wide one of odd sides."""
    pytest.importorskip("av")
    pytest.importorskip("cv2")
    data, out = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("out")
    for name in ("800000", "810000"):
        shutil.copy(CLIPS / f"{name}.mp4", data)
    frames = cases.read_clip(CLIPS / "800000.mp4")[:3].movedim(-1, 1)
    wide = torch.nn.functional.pad(frames.float(), (60, 21, 0, 0), mode="replicate").byte().movedim(1, -1)
    videos.write(data / "wide.mp4", wide.numpy(), 20, crf=1, width=336)  # 337 px: the codec takes even sides alone
    options = ["--data", str(data), "--tables", "self", "cross", "--detector", str(yunet.onnx())]
    assert command.main(["inputs", "--out", str(out), *options]) == 0
    return out, data


def test_inputs_are_the_cases_of_the_tables(written):
    out, _ = written
    with (out / "cases.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["table"], line["name"], line["frames"], line["fps"]) for line in lines] == [
        ("self", "800000", str(MOST), "12.5"),
        ("self", "810000", str(MOST), "12.5"),
        ("self", "wide", "3", "20.0"),
        ("cross", "810000_800000", str(MOST), "12.5"),
    ]
    assert lines[3]["result"] == "cross/810000_800000.mp4" and "--method NAME=FOLDER" in (out / "README.md").read_text()
    for line in lines:
        case = out / line["table"] / line["name"]
        assert {path.name for path in case.iterdir()} - {"square.png"} == {"portrait.png", "driving.mp4"}
        assert (case / "square.png").exists() == (line["name"] == "wide") == bool(line["square"])
        frames = cases.read_clip(case / "driving.mp4")
        assert len(frames) == int(line["frames"]) and not any(side % 2 for side in frames.shape[1:3])


def as_result(folder: Path, table: str, name: str, picture: Path, frames: int) -> None:
    (folder / table / name).mkdir(parents=True)
    for i in range(frames):
        shutil.copy(picture, folder / table / name / f"{i}.png")


def test_what_inputs_writes_is_what_the_rows_are_compared_with(written, tmp_path):
    """The driving video given back as a result of self-reenactment is the truth, the portrait is the static row."""
    out, data = written
    truth = cases.read_clip(data / "800000.mp4", MOST).movedim(-1, 1) / 255
    motion = case_of(MOST, 256, 256, rescale(S / 256))
    (tmp_path / "self").mkdir()
    shutil.copy(out / "self" / "800000" / "driving.mp4", tmp_path / "self" / "800000.mp4")
    found = method_frames("X", tmp_path, "self", "800000", motion, FPS, 256)
    assert found.note is None and psnr(found.pictures, truth).min() > 44

    as_result(tmp_path / "still", "self", "800000", out / "self" / "800000" / "portrait.png", MOST)
    still = method_frames("X", tmp_path / "still", "self", "800000", motion, FPS, 256).pictures
    assert torch.equal(still, truth[:1].expand_as(still))
    # Of another identity: the portrait is the truth's first frame, the driving video the other clip.
    as_result(tmp_path / "still", "cross", "b", out / "cross" / "810000_800000" / "portrait.png", 2)
    other = method_frames("X", tmp_path / "still", "cross", "b", case_of(2, 256, 256, rescale(S / 256)), FPS, 256).pictures
    assert torch.equal(other[0], cases.read_clip(data / "810000.mp4")[0].movedim(-1, 0) / 255)
    assert psnr(cases.read_clip(out / "cross" / "810000_800000" / "driving.mp4").movedim(-1, 1) / 255, truth).min() > 44


def test_the_square_of_inputs_is_the_square_of_the_report(written, tmp_path):
    from realportrait_core.eval.source import find_faces
    from realportrait_core.face.detect import FaceDetector

    out, data = written
    clip = cases.read_clip(data / "wide.mp4")
    height, width = clip.shape[1:3]
    source = find_faces(clip[0], clip, FaceDetector(yunet.onnx()))
    to_frame = frame_square(source.points, height, width, S, "whole")
    motion = case_of(3, height, width, to_frame)
    wanted = frame_portrait(source.portrait, motion).movedim(-1, 1)
    for picture in ("portrait", "square"):
        as_result(tmp_path / picture, "self", "wide", out / "self" / "wide" / f"{picture}.png", 3)
        found = method_frames("X", tmp_path / picture, "self", "wide", motion, 20.0, S).pictures
        assert psnr(found[:1], wanted) > (40 if picture == "square" else 90)


def test_inputs_says_what_is_missing(tmp_path, caplog):
    pytest.importorskip("cv2")
    options = ["inputs", "--out", str(tmp_path / "out"), "--detector", str(yunet.onnx())]
    assert command.main(options) == 1 and "No --data is given" in caplog.text
    assert command.main([*options, "--data", str(CLIPS), "--limit", "0"]) == 1 and "--limit is 0" in caplog.text
    assert not (tmp_path / "out").exists()


# LivePortrait's row

POINTS = torch.tensor([[100.0, 105], [160, 108], [128, 140], [104, 170], [154, 172]])


@pytest.fixture(scope="module")
def source() -> Source:
    """A portrait of 460x420 px and three driving frames, whose face moves."""
    g = torch.Generator().manual_seed(3)
    portrait, driving = torch.rand(1, 420, 460, 3, generator=g), torch.randint(0, 256, (3, 250, 256, 3), generator=g).byte()
    track = FaceTrack(POINTS + 2.0 * torch.arange(3)[:, None, None], torch.ones(3, dtype=torch.bool), "")
    return Source(portrait, driving, POINTS + 90, track)


@pytest.fixture(scope="module")
def public(tmp_path_factory) -> Path:
    """Random weights in the public layout."""
    torch.manual_seed(0)
    model = FaceVid2Vid(replace(TINY, crop_size=256))
    for name, value in model.named_parameters():
        torch.nn.init.normal_(value, std=0.3 if value.ndim > 1 else 0.1)
    folder = tmp_path_factory.mktemp("public")
    write_kijai(folder, model.eval())
    return folder


@torch.inference_mode()
def test_liveportraits_row_is_its_chain_on_the_cases_frame(public, source):
    """Relative motion from the first frame, stitched, drawn by G, pasted at the portrait's size, framed as the case is."""
    motion = case_of(3, 420, 460, frame_square(source.points, 420, 460, S, "whole"))
    networks = load_liveportrait(public)
    found = liveportrait_frames(networks, source, motion, S)
    assert found.shape == (3, 3, S, S) and 0 <= found.min() and found.max() <= 1

    vid2vid = load_vid2vid(public)
    keypoints = extract_keypoints(vid2vid, source.portrait, source.driving / 255, source.points, source.track)
    keypoints = replace(keypoints, finish=Finish(load_stitching(public), shoulders=True))
    own = motion_maps(vid2vid, drive_keypoints(keypoints, neutral=0), S)
    pasted = torch.cat(list(portrait_frames(vid2vid, own)))
    torch.testing.assert_close(found, frame_portrait(pasted, motion).movedim(-1, 1), atol=1e-5, rtol=0)
    static = frame_portrait(source.portrait, motion).movedim(-1, 1)
    outside = frame_portrait((frames_mask(own, 16) == 0)[..., None].float(), motion)[0, ..., 0] == 1
    assert 0 < outside.float().mean() < 0.9
    assert (found - static)[:, :, outside].abs().max() < 1e-6 < 0.1 < (found - static)[:, :, ~outside].abs().max()
    unstitched = liveportrait_frames(replace(networks, stitching=None), source, motion, S)
    assert (found - unstitched).abs().max() > 0.01


def test_liveportrait_needs_a_generator_and_stitching_of_its_keypoints(public, tmp_path):
    for path in public.iterdir():
        if path.stem not in ("spade_generator", "stitching_retargeting_module"):
            shutil.copy(path, tmp_path)
    with pytest.raises(WeightsError, match="have no generator"):
        load_liveportrait(tmp_path)
    shutil.copy(public / "spade_generator.safetensors", tmp_path)
    assert load_liveportrait(tmp_path).stitching is None
    other = tmp_path / "other"
    write_kijai(other, FaceVid2Vid(replace(TINY, num_kp=7)))
    shutil.copy(other / "stitching_retargeting_module.safetensors", tmp_path)
    with pytest.raises(InputError, match="belongs to another Face Vid2vid"):
        load_liveportrait(tmp_path)


# Our own rows


@torch.inference_mode()
def test_without_a_truth_the_other_rows_keep_their_bits():
    torch.manual_seed(0)
    conditioner = ConditionerConfig(motion_latent=6, reference_motion=True, draft_widths=(4, 4, 4))
    networks = Networks(
        FaceVid2Vid(Vid2VidConfig(**toy_sizes.VID2VID)).eval(),
        RealPortraitDiT(DiTConfig(**toy_sizes.DIT | dict(conditioner=conditioner))).initialize().eval(),
        TinyVAE((4, 4, 4, 4)).eval(),
        None,
        linear_schedule(),
    )
    motion, portrait, truth = case_of(3), torch.rand(1, 3, S, S), torch.rand(3, 3, S, S)
    both = [rows.rows_of(networks, motion, portrait, given, Speed(1)) for given in (truth, None)]
    names = [rows.STATIC, rows.FACE_VID2VID, rows.MOTION_LATENTS, rows.REALPORTRAIT]
    assert list(both[1].pictures) == names and [name for name in both[0].pictures if name != rows.ROUND_TRIP] == names
    for name in names:
        assert torch.equal(both[0].pictures[name], both[1].pictures[name]) and both[0].pictures[name].shape == (3, 3, S, S)
    for made in both:
        assert list(made.seconds) == list(made.pictures) and made.seconds[rows.REALPORTRAIT] > made.sampling_seconds > 0
    networks.vid2vid.generator = None
    assert rows.FACE_VID2VID not in rows.rows_of(networks, motion, portrait, None, Speed(1)).pictures
