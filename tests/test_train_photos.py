"""A user's folder of photographs becomes the input of the trainings on photographs. The "photographs" are rendered heads."""

import json
import logging
import re
import shutil
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yunet
from judges import canonical_face
from judges import landmarker as landmarker_file
from test_head_rotation import write_face

from realportrait_core.config import MINI
from realportrait_core.errors import InputError
from realportrait_core.eval.cases import photo_cases
from realportrait_core.face.detect import FaceDetector
from realportrait_core.face.landmarks import FaceLandmarker
from realportrait_core.head_rotation.dataset import read_photos, read_squares
from realportrait_core.head_rotation.topology import FIVE
from realportrait_core.train.data import __main__ as command
from realportrait_core.train.data import photos
from realportrait_core.train.data.filters import Filters
from realportrait_core.train.data.journal import JOURNAL, REPORT
from realportrait_core.train.data.photos import POINTS, SHARE, portrait_square, prepare_photos
from realportrait_core.train.data.sample import load_sample
from realportrait_core.train.mini import pack, samples
from realportrait_core.train.mini.photos import read_pictures
from realportrait_core.train.mini.run import RecipeRun

cv2 = pytest.importorskip("cv2")

ASSETS, CLIPS = yunet.ROOT / "assets", yunet.ROOT / "tests" / "data"
WEIGHTS = yunet.ROOT / "realportrait_core" / "weights"
FILTERS = Filters.for_size(MINI.image_size, {})
KEPT = {"portrait.png", "wide.png", "turned.jpg", "grey.png"}


class Known:
    """A landmarker that puts its mesh where the five points say: a disc of 2.6 times the eyes' distance across."""

    def __init__(self, path: Path, away: float = 0.0):
        self.path, self.away = path, away
        path.write_bytes(b"known")

    def points(self, picture, five) -> torch.Tensor:
        five, turn = torch.as_tensor(five), 2 * torch.pi * torch.arange(478) / 478
        eyes = (five[1] - five[0]).norm()
        mesh = torch.stack([turn.cos(), turn.sin(), 0 * turn], 1) * 1.3 * eyes
        mesh[:, :2] += five.mean(0)
        mesh[FIVE, :2] = five + self.away * eyes
        return mesh


def frame_of(clip: Path, number: int) -> np.ndarray:
    """(256, 256, 3) uint8 BGR."""
    av = pytest.importorskip("av")
    with av.open(str(clip)) as video:
        return [frame.to_ndarray(format="bgr24") for frame in video.decode(video=0)][number]


def lying(picture: np.ndarray) -> bytes:
    """A JPEG that shows the picture upright by its EXIF alone."""
    data = cv2.imencode(".jpg", cv2.rotate(picture, cv2.ROTATE_90_COUNTERCLOCKWISE))[1].tobytes()
    exif = b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">HHHIHHI", 1, 0x112, 3, 1, 6, 0, 0)
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What a user's folder may hold: any size and aspect, one face, several or none, and what is no photograph."""
    root = tmp_path_factory.mktemp("mine")
    one, other = frame_of(CLIPS / "800000.mp4", 0), frame_of(CLIPS / "810000.mp4", 0)
    shutil.copy(ASSETS / "portrait.png", root)
    portrait = cv2.imread(str(ASSETS / "portrait.png"))
    cv2.imwrite(str(root / "wide.png"), cv2.copyMakeBorder(one, 60, 90, 50, 600, cv2.BORDER_CONSTANT, value=(90, 90, 90)))
    tall = cv2.copyMakeBorder(cv2.resize(other, (900, 900), interpolation=cv2.INTER_CUBIC), 0, 500, 0, 0, cv2.BORDER_REPLICATE)
    (root / "turned.jpg").write_bytes(lying(tall))
    cv2.imwrite(str(root / "grey.png"), cv2.cvtColor(one, cv2.COLOR_BGR2GRAY))
    cv2.imwrite(str(root / "small.png"), cv2.resize(portrait, (96, 96), interpolation=cv2.INTER_AREA))
    cv2.imwrite(str(root / "noise.png"), np.random.default_rng(0).integers(0, 255, (300, 200, 3), np.uint8))
    cv2.imwrite(str(root / "couple.png"), cv2.resize(np.concatenate([one[:, 70:180], one[:, 70:180]], 1), None, fx=2, fy=2))
    (root / "half.jpg").write_bytes((root / "turned.jpg").read_bytes()[:9000])
    deep = root / "more"
    deep.mkdir()
    shutil.copy(root / "wide.png", deep / "copy.png")
    shutil.copy(ASSETS / "driving.mp4", deep)
    return root


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector(yunet.onnx())


@pytest.fixture(scope="module")
def prepared(folder, detector, tmp_path_factory):
    out = tmp_path_factory.mktemp("photos")
    return out, prepare_photos([folder], out, detector, Known(out.with_name("known.task")), 256, FILTERS)


def files_of(report) -> dict[str, str]:
    """The file of each photograph that was kept, by its name without folders."""
    return {entry.name.rpartition("/")[2]: kept.file for entry in report.entries for kept in entry.kept}


def test_photographs_become_squares_with_their_points(prepared):
    out, report = prepared
    read = read_photos(out)
    assert read.pixels.shape == (4, 3, 256, 256) and read.mesh.shape == (4, 478, 3) and read.five.shape == (4, 5, 2)
    assert set(files_of(report)) == KEPT and sorted(files_of(report).values()) == list(read.names)
    torch.testing.assert_close(read.mesh[:, FIVE, :2], read.five, atol=0.01, rtol=0)
    extent = (read.mesh[..., :2].amax(1) - read.mesh[..., :2].amin(1)).amax(1)
    assert (256 / extent <= SHARE + 0.01).all()
    assert not list(out.glob(".*")) and len(read_pictures(out)) == 4


def test_points_lie_on_the_faces_of_the_squares(prepared, detector):
    """What the detector sees in the picture as written is where points.npz says, however the photograph lay."""
    read = read_photos(prepared[0])
    for picture, five in zip(read.pixels, read.five):
        (face,) = detector.detect(picture.movedim(0, -1))
        assert (face.points - five).norm(dim=1).max() < 6


def test_everything_else_is_named_with_its_reason(prepared):
    out, report = prepared
    said = {entry.name.rpartition("/")[2]: entry.dropped[0] for entry in report.entries if entry.dropped}
    assert {name: dropped.reason for name, dropped in said.items()} == {
        "small.png": "low resolution",
        "noise.png": "no face",
        "couple.png": "several faces",
        "half.jpg": "unreadable file",
        "copy.png": "duplicate",
        "driving.mp4": "no photograph",
    }
    assert re.search(r"another face, (0.9\d|1.0\d) times as large; below 0.5 passes", said["couple.png"].detail)
    summary = json.loads((out / REPORT).read_text(encoding="utf-8"))["summary"]
    assert summary["images_kept"] == 4 and summary["left_out"]["low resolution"] == 1


def test_a_mesh_beside_the_face_or_beyond_the_picture_is_left_out(folder, detector, tmp_path):
    one = [folder / "portrait.png"]
    report = prepare_photos(one, tmp_path / "a", detector, Known(tmp_path / "known.task", away=1.0), 256, FILTERS)
    assert report.reasons() == {"mesh beside the face": 1} and not list((tmp_path / "a").glob("*.[jn]p[gz]"))
    cut = cv2.imread(str(one[0]))[:150]
    cv2.imwrite(str(tmp_path / "cut.png"), cut)
    report = prepare_photos([tmp_path / "cut.png"], tmp_path / "b", detector, Known(tmp_path / "known.task"), 128, FILTERS)
    assert report.reasons() == {"face leaves the frame": 1}


@pytest.mark.parametrize("height, width, side", [(1000, 1000, 368.0), (1000, 300, 300.0), (250, 1000, 250.0)])
def test_the_square_lies_in_the_picture_and_its_middle_above_the_faces(height, width, side):
    mesh = torch.tensor([[50.0, 100.0, 0.0], [210.0, 300.0, 0.0]])
    square = portrait_square(mesh, height, width, 256)
    assert 256 / float(square[0, 0]) == pytest.approx(side) and square[0, 1] == square[1, 0] == 0
    corner = (-0.5 - square[:2, 2]) / square[0, 0] + 0.5
    assert float(corner.min()) >= 0 and float(corner[0]) + side <= width and float(corner[1]) + side <= height
    middle = (200 - float(corner[1])) / side if side == 368.0 else 0.522
    assert middle == pytest.approx(0.522, abs=0.01)


# Going on, and not


def same(a: Path, b: Path) -> bool:
    """Whether two folders hold the same pictures and points."""
    one, other = read_photos(a), read_photos(b)
    parts = ("pixels", "mesh", "five")
    return one.names == other.names and all(torch.equal(getattr(one, name), getattr(other, name)) for name in parts)


def test_a_killed_run_goes_on_and_makes_the_same(folder, prepared, detector, tmp_path, monkeypatch):
    out, landmarker = tmp_path / "out", Known(tmp_path / "known.task")

    class Killed(BaseException):
        """The machine went down."""

    written, whole, write_points = [], photos.write_jpeg, photos.Squares.write_points

    def write_and_die(path, picture):
        if len(written) == 2:
            path.with_name(f".{path.name}.1.part").write_bytes(b"half")
            raise Killed
        written.append(path)
        whole(path, picture)

    with monkeypatch.context() as patch:
        patch.setattr(photos, "write_jpeg", write_and_die)
        patch.setattr(photos, "WRITE_EVERY", 1)
        patch.setattr(photos.Squares, "write_points", lambda self: None if len(written) == 2 else write_points(self))
        with pytest.raises(Killed):
            prepare_photos([folder], out, detector, landmarker, 256, FILTERS)
    assert len(list(out.glob("*.jpg"))) == 2
    times = {path: path.stat().st_mtime_ns for path in written[:1]}
    report = prepare_photos([folder], out, detector, landmarker, 256, FILTERS)
    assert {path: path.stat().st_mtime_ns for path in times} == times  # not made again
    assert same(out, prepared[0]) and not list(out.glob(".*"))
    assert report.summary() == prepared[1].summary() | {"reused": report.reused} and report.reused >= 1


def test_a_finished_run_is_not_repeated_and_a_lost_square_is(folder, prepared, detector, tmp_path):
    out, landmarker = shutil.copytree(prepared[0], tmp_path / "out"), Known(tmp_path / "known.task")
    (out / files_of(prepared[1])["portrait.png"]).unlink()
    report = prepare_photos([folder], out, detector, landmarker, 256, FILTERS)
    assert report.reused == len(prepared[1].entries) - 2 and same(out, prepared[0])  # all but it and the duplicate
    more = tmp_path / "more"
    more.mkdir()
    cv2.imwrite(str(more / "new.png"), frame_of(CLIPS / "800000.mp4", 18))
    assert len(prepare_photos([more], out, detector, landmarker, 256, FILTERS).not_given) == report.reused + 1
    assert len(read_photos(out)) == 5
    with pytest.raises(InputError, match=r"image_size 256 \(now 128\)"):
        prepare_photos([more], out, detector, landmarker, 128, FILTERS)
    prepare_photos([more], out, detector, landmarker, 128, FILTERS, rebuild=True)
    assert read_photos(out).pixels.shape == (1, 3, 128, 128) and len(list(out.glob("*.jpg"))) == 1


def test_a_folder_with_other_pictures_is_left_alone(folder, detector, tmp_path):
    known = Known(tmp_path / "known.task")
    with pytest.raises(InputError, match="lies in .*, where the next run would take it for photographs"):
        prepare_photos([folder], folder / "more" / "out", detector, known, 256, FILTERS)
    (tmp_path / "000001.jpg").write_bytes(b"mine")
    with pytest.raises(InputError, match="holds 1 files, such as 000001.jpg"):
        prepare_photos([folder], tmp_path, detector, known, 256, FILTERS, rebuild=True)
    assert (tmp_path / "000001.jpg").read_bytes() == b"mine" and not (tmp_path / JOURNAL).exists()


# Who reads it


def test_a_picture_that_does_not_fit_is_named():
    whole, wide = (cv2.imencode(".png", np.zeros((8, width, 3), np.uint8))[1].tobytes() for width in (8, 9))
    assert read_squares([("a", whole), ("b", whole)]).shape == (2, 8, 8, 3)
    for files, side, said in (
        ([("a", wide)], None, "a is 9x8 px.*9 x 8 is not 9 x 9"),
        ([("a", whole), ("b", wide)], None, "9 x 8 is not 8 x 8"),
        ([("a", whole)], 16, "8 x 8 is not 16 x 16"),
        ([("a", whole), ("b", b"")], None, "b cannot be read"),
    ):
        with pytest.raises(InputError, match=said):
            read_squares(files, side)


@pytest.fixture(scope="module")
def canonical(tmp_path_factory) -> Path:
    return write_face(tmp_path_factory.mktemp("face") / "face.obj")


def test_a_pack_and_the_evaluation_read_it(prepared, canonical, tmp_path):
    out, file = prepared[0], tmp_path / "photos.zip"
    with zipfile.ZipFile(file, "w") as archive:
        pack.add_photos(archive, out, canonical)
    with zipfile.ZipFile(file) as archive:
        names = [name for name in archive.namelist() if name.endswith(".jpg")]
    assert names == [f"photos/{name}" for name in read_photos(out).names]
    cases = photo_cases(out, canonical, limit=1)
    assert len(cases) == 1 and cases[0].driver.shape == (16, 256, 256, 3)


def test_photographs_become_samples_once(prepared, canonical, tmp_path):
    run = RecipeRun(tmp_path, tmp_path / "cache", WEIGHTS, None, limit=2, device="cpu", photos=prepared[0], canonical=canonical)
    samples.photos(run)
    files = sorted((run.cache / "samples" / "photos").iterdir())
    assert [file.stem for file in files] == [Path(name).stem for name in read_photos(prepared[0]).names[:2]]
    kept, made = files[0].stat().st_mtime_ns, load_sample(files[1])
    files[1].unlink()
    samples.photos(run)
    assert files[0].stat().st_mtime_ns == kept
    assert len(made) == 2 and torch.equal(load_sample(files[1]).latents, made.latents)


def test_the_command_with_mediapipes_landmarker(folder, detector, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    arguments = [
        str(folder),
        "--out",
        str(tmp_path / "out"),
        "--landmarker",
        str(landmarker_file()),
        "--detector",
        str(yunet.onnx()),
    ]
    assert command.main(arguments) == 0 and "images 9: 4 kept" in caplog.text
    read, seen = read_photos(tmp_path / "out"), FaceLandmarker(landmarker_file())
    for picture, mesh, five in zip(read.pixels, read.mesh, read.five):
        again = seen.points(picture.movedim(0, -1), five)
        assert (again - mesh).norm(dim=1).mean() < 3
    assert float(photo_cases(tmp_path / "out", canonical_face(), limit=1)[0].valid.float().mean()) > 0.9
    assert command.main([*arguments, "--face-side", "300", "--rebuild"]) == 0
    assert command.main([*arguments, "--face-side", "3000", "--rebuild"]) == 1 and "No photograph was kept" in caplog.text


def test_the_command_says_what_does_not_go_together(folder, tmp_path, capsys, caplog):
    common = [str(folder), "--out", str(tmp_path / "out")]
    for more, said in (
        ([], "samples need --weights and --vae, photographs with their meshes --landmarker"),
        (["--landmarker", "x", "--posterior", "mean", "--pictures"], "--posterior, --pictures"),
    ):
        with pytest.raises(SystemExit):
            command.main([*common, *more])
        assert said in capsys.readouterr().err
    assert command.main([*common, "--landmarker", str(tmp_path / "none"), "--detector", str(yunet.onnx())]) == 1
    assert "face landmarker is missing" in caplog.text
    assert not (tmp_path / "out" / POINTS).exists()
