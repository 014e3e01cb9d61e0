"""The measures of what one sees: `spectrum` by pictures made for it; ST-LPIPS, identity and landmarks where their files are."""

import zipfile
from dataclasses import replace

import judges
import pytest
import torch
import torch.nn.functional as F
import toy_sizes
import yunet
from kornia.filters import gaussian_blur2d

from realportrait_core.config import Vid2VidConfig
from realportrait_core.errors import InputError, RealPortraitError, WeightsError
from realportrait_core.eval.cases import read_clip
from realportrait_core.eval.judges.identity import (
    ALIGNED,
    SIDE,
    FaceEmbedding,
    aligned_faces,
    alignment,
    identity_distance,
    load_embedding,
)
from realportrait_core.eval.judges.loading import HOW_TO_GET, Judges, find_points
from realportrait_core.eval.metrics.landmarks import PARTS, detect_landmarks, inner_lips_gap, landmark_errors
from realportrait_core.eval.metrics.spectrum import OCTAVES, octave_power, spectrum_db, window, worst_octave
from realportrait_core.eval.modes.score import Truth, fill_unknown, judge, score, spectrum
from realportrait_core.face.crop import warp_affine
from realportrait_core.face.detect import Face, FaceDetector
from realportrait_core.face.landmarks import FaceLandmarker, LandmarkRegion, region_of_five, region_of_points
from realportrait_core.stlpips import STLPIPS, Blurred, distances, load_stlpips
from realportrait_core.vid2vid import FaceVid2Vid

CLIPS = yunet.ROOT / "tests" / "data"
MIDDLE = (63.5, 63.5)
VID2VID = Vid2VidConfig(**toy_sizes.VID2VID)
JAW_OPEN = 24  # of the clips' ARKit coefficients, which are in alphabetical order


def noise(frames: int, size: int = 128, seed: int = 0) -> torch.Tensor:
    """(frames, 3, size, size) around 0.5, with power in every octave; alike in all colours."""
    generator = torch.Generator().manual_seed(seed)
    layers = [
        F.interpolate(torch.randn(frames, 1, size // step, size // step, generator=generator), size=size, mode="bicubic")
        for step in (1, 2, 4, 8, 16)
    ]
    return (0.5 + 0.04 * sum(layers)).expand(-1, 3, -1, -1)


def blurred(frames: torch.Tensor, sigma: float) -> torch.Tensor:
    return gaussian_blur2d(frames, (17, 17), (sigma, sigma))


# Spectrum


def test_spectrum_of_equal_pictures_is_0_db():
    frames = noise(3)
    assert spectrum_db(frames, frames, MIDDLE) == [0.0] * OCTAVES


def test_half_the_contrast_is_6_db_less_in_every_octave():
    frames = noise(3)
    assert spectrum_db(0.3 + 0.5 * frames, frames, MIDDLE) == pytest.approx([-6.02] * OCTAVES, abs=0.05)


def test_blur_falls_in_the_fine_octaves():
    frames = noise(4)
    octaves = spectrum_db(blurred(frames, 1.0), frames, MIDDLE)
    assert all(fine < coarse for coarse, fine in zip(octaves, octaves[1:]))
    assert octaves[0] > -1 and octaves[-1] < -12
    assert worst_octave(octaves) == octaves[-2]


@pytest.mark.parametrize("octave, periods", [(4, 0.36), (3, 0.18), (1, 0.045)])
def test_hatching_stands_up_in_its_octave(octave, periods):
    frames = noise(2)
    x = torch.arange(128.0)
    hatching = 0.2 * torch.sin(2 * torch.pi * periods * (x + x[:, None]) / 2**0.5)  # diagonal
    octaves = spectrum_db(frames + hatching, frames, MIDDLE)
    assert max(octaves) == octaves[octave] > 3
    assert all(abs(db) < 1 for k, db in enumerate(octaves) if abs(k - octave) > 1)
    assert octave == 4 or worst_octave(octaves) == octaves[octave]


def test_spectrum_is_one_figure_for_a_clip():
    """Powers are summed before the ratio: a frame without detail beside one with it is 3 dB, not minus infinity."""
    frames = noise(1).repeat(2, 1, 1, 1)
    flat = torch.cat([frames[:1], torch.full_like(frames[:1], 0.5)])
    assert spectrum_db(flat, frames, MIDDLE) == pytest.approx([-3.01] * OCTAVES, abs=0.05)
    assert octave_power(frames).shape == (OCTAVES,)
    black = torch.zeros(1, 3, 64, 64)
    assert spectrum_db(black, black + 0.5, (32, 32)) == pytest.approx([0.0] * OCTAVES, abs=1e-6)


def test_spectrum_looks_around_the_face():
    assert window(256, 256, (127.5, 127.5)) == (slice(64, 192), slice(64, 192))
    assert window(256, 256, (20.0, 250.0)) == (slice(128, 256), slice(0, 128))
    frames = noise(2, 256)
    changed = frames.clone()
    changed[..., :64, :] = 0.5
    assert spectrum_db(changed, frames, (127.5, 127.5)) == [0.0] * OCTAVES
    with pytest.raises(InputError, match="at least 32 px"):
        spectrum_db(frames[..., :20, :20], frames[..., :20, :20], (10, 10))


# ST-LPIPS


def pairs() -> tuple[torch.Tensor, torch.Tensor]:
    """Two pictures, and the same with noise; (2, 3, 64, 64)."""
    generator = torch.Generator().manual_seed(7)
    picture = F.interpolate(torch.rand(2, 3, 9, 9, generator=generator), size=(64, 64), mode="bicubic").clamp(0, 1)
    return picture, (picture + 0.1 * torch.randn(2, 3, 64, 64, generator=generator)).clamp(0, 1)


@pytest.mark.parametrize("net, expected", [("alex", [0.189638, 0.121286]), ("vgg", [0.595690, 0.557978])])
def test_st_lpips_is_that_of_its_authors(net, expected):
    """Recorded from stlpips-pytorch 0.0.2 itself, its `LPIPS(net=net, variant="shift_tolerant")`, on the same pictures."""
    model = load_stlpips(judges.stlpips_wheel(), net)
    picture, noisy = pairs()
    with torch.inference_mode():
        assert model(picture, noisy).tolist() == pytest.approx(expected, abs=2e-5)
        assert model(picture, picture).tolist() == [0, 0]


def test_st_lpips_of_rows_is_that_of_pairs(monkeypatch):
    monkeypatch.setattr("realportrait_core.stlpips.AT_ONCE", 2)
    torch.manual_seed(0)
    model = STLPIPS("alex")
    for weight in model.weight:
        torch.nn.init.uniform_(weight)
    rows = {"a": torch.rand(3, 3, 40, 48), "b": torch.rand(3, 3, 40, 48)}
    truth = torch.rand(3, 3, 40, 48)
    found = distances(model, rows, truth)
    for name, result in rows.items():
        torch.testing.assert_close(found[name], model(result, truth).detach())
    with pytest.raises(InputError, match="at least 32 px"):
        model(truth[..., :20, :], truth[..., :20, :])


def test_the_blur_keeps_what_is_even():
    assert torch.equal(Blurred()(torch.full((1, 2, 8, 9), 3.0)), torch.full((1, 2, 5, 6), 3.0))


def test_other_files_than_the_wheel_are_refused(tmp_path):
    advice = "pip download --no-deps stlpips-pytorch==0.0.2"
    text, other, broken = tmp_path / "a.txt", tmp_path / "other.whl", tmp_path / "broken.whl"
    text.write_text("no zip")
    for path, content in ((other, {"a": b"b"}), (broken, {"stlpips_pytorch/weights/vST0.0/alex_shift_tolerant.pth": b"cut"})):
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in content.items():
                archive.writestr(name, data)
    for path in (text, other, broken, tmp_path, tmp_path / "none.whl"):
        with pytest.raises(WeightsError, match=advice):
            load_stlpips(path)
    folder = tmp_path / "weights" / "vST0.0"
    folder.mkdir(parents=True)
    torch.save({"net.slice1.0.weight": torch.zeros(1)}, folder / "alex_shift_tolerant.pth")
    with pytest.raises(WeightsError, match="1 convolutions instead of 5"):
        load_stlpips(tmp_path)


# Identity


def test_faces_are_aligned_by_eyes_and_mouth():
    """A picture turned, scaled and shifted gives the same aligned face."""
    face = F.interpolate(torch.rand(1, 3, 8, 8), size=SIDE, mode="bicubic")
    forward = torch.tensor([[1.2, -0.5, 60.0], [0.5, 1.2, 10.0], [0, 0, 1]], dtype=torch.float64)
    picture = warp_affine(face, forward, 280, 280)
    nose = (75.0, 75.0)
    points = torch.tensor([[*ALIGNED[:2], nose, *ALIGNED[2:]]], dtype=torch.float64) @ forward[:2, :2].T + forward[:2, 2]
    torch.testing.assert_close(alignment(points)[0], torch.linalg.inv(forward), atol=1e-4, rtol=0)
    aligned = aligned_faces(picture, alignment(points))
    assert (aligned - face)[..., 8:-8, 8:-8].abs().mean() < 0.01
    with pytest.raises(InputError, match="coincide"):
        alignment(torch.zeros(1, 5, 2))


def test_the_embedding_is_the_one_in_the_package():
    """The first of 128 values, recorded from another reader of the same files."""
    model = load_embedding(judges.face_api())
    faces = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        found = model(faces)
    assert found.shape == (2, 128)
    assert found[0, :4].tolist() == pytest.approx([-0.08134, 0.08155, 0.03778, -0.0366], abs=1e-4)
    torch.testing.assert_close(identity_distance(found, found[:1])[0], torch.tensor(0.0))


def test_one_person_is_nearer_than_another():
    pytest.importorskip("av")
    model, detector = load_embedding(judges.face_api()), FaceDetector(yunet.onnx())
    person, other = (read_clip(CLIPS / f"{name}.mp4")[[0, 6, 12, 18]] for name in ("800000", "810000"))
    pictures = torch.cat([person, other]).movedim(-1, 1).float() / 255
    five, found = find_points(detector, pictures, torch.full((8, 5, 2), 128.0))
    assert found.all()
    with torch.inference_mode():
        apart = identity_distance(model.embed(pictures, five), model.embed(pictures[:1], five[:1]))
    assert apart[0] < 1e-3 and apart[1:4].max() < apart[4:].min()


def test_other_folders_than_the_packages_are_refused(tmp_path):
    with pytest.raises(WeightsError, match="npm pack @vladmandic/face-api"):
        load_embedding(tmp_path)
    (tmp_path / "face_recognition_model.bin").write_bytes(b"1234")
    (tmp_path / "face_recognition_model-weights_manifest.json").write_text(
        '[{"weights": [{"name": "fc", "shape": [9], "dtype": "float32"}]}]'
    )
    with pytest.raises(WeightsError, match="damaged"):
        load_embedding(tmp_path)
    (tmp_path / "face_recognition_model.bin").write_bytes(bytes(36))
    with pytest.raises(WeightsError, match="another network"):
        load_embedding(tmp_path)
    with pytest.raises(InputError, match="150"):
        FaceEmbedding()(torch.rand(1, 3, 96, 96))


# Landmarks


def test_the_landmarkers_square_is_mediapipes():
    """One and a half times the longer side of the points' box, turned as the eyes lie."""
    points = torch.rand(478, 3) * torch.tensor([40.0, 60.0, 0.0]) + torch.tensor([100.0, 50.0, 0.0])
    points[0], points[1] = torch.tensor([100.0, 50, 0]), torch.tensor([140.0, 110, 0])
    points[33], points[263] = torch.tensor([110.0, 60, 0]), torch.tensor([130.0, 80, 0])
    region = region_of_points(points)
    assert region.centre == pytest.approx((120, 80)) and region.side == pytest.approx(90)
    assert region.angle == pytest.approx(torch.pi / 4)
    centre = torch.tensor([120.0, 80.0, 1.0], dtype=torch.float64)
    matrix = torch.from_numpy(region.to_network())
    torch.testing.assert_close(matrix @ centre, torch.tensor([127.5, 127.5], dtype=torch.float64))
    # The eyes' line comes to lie level.
    assert (matrix @ torch.tensor([130.0, 90.0, 1.0], dtype=torch.float64))[1] == pytest.approx(127.5)
    assert LandmarkRegion((0.0, 0.0), 256.0, 0.0).to_network()[0].tolist() == pytest.approx([1, 0, 127.5])
    five = torch.tensor([[100.0, 100], [150, 100], [125, 130], [105, 160], [145, 160]])
    assert region_of_five(five).angle == pytest.approx(0) and 150 < region_of_five(five).side < 240


def test_landmark_errors_are_distances():
    truth = torch.rand(2, 478, 2)
    moved = truth.clone()
    moved[1, list(PARTS["lips"])] += torch.tensor([3.0, 4.0])
    errors = landmark_errors(moved, truth)
    torch.testing.assert_close(errors["lips"], torch.tensor([0.0, 5.0]))
    torch.testing.assert_close(errors["eyes"], torch.zeros(2))
    torch.testing.assert_close(errors["all"], torch.tensor([0.0, 5 * 40 / 92]))
    torch.testing.assert_close(inner_lips_gap(moved), inner_lips_gap(truth))
    with pytest.raises(InputError, match="478"):
        landmark_errors(truth[:, :468], truth[:, :468])


@pytest.fixture(scope="module")
def seen() -> tuple[FaceLandmarker, torch.Tensor, torch.Tensor]:
    """The landmarker, a clip (24, 3, 256, 256) and its faces' five points."""
    pytest.importorskip("av")
    landmarker, detector = FaceLandmarker(judges.landmarker()), FaceDetector(yunet.onnx())
    pictures = read_clip(CLIPS / "800000.mp4").movedim(-1, 1).float() / 255
    five, found = find_points(detector, pictures, torch.full((len(pictures), 5, 2), 128.0))
    assert found.all()
    return landmarker, pictures, five


def test_landmarks_go_with_the_picture(seen):
    landmarker, pictures, five = seen
    points = landmarker.points(pictures[0].movedim(0, -1), five[0])
    assert points.shape == (478, 3)
    # Eyes and mouth where the detector has them.
    for mine, theirs in ((PARTS["lips"], five[0, 3:].mean(0)), (PARTS["eyes"], five[0, :2].mean(0))):
        assert (points[list(mine), :2].mean(0) - theirs).norm() < 8
    moved = landmarker.points(pictures[0].roll((7, -9), (1, 2)).movedim(0, -1), five[0] + torch.tensor([-9.0, 7.0]))
    assert (moved[:, :2] - points[:, :2] - torch.tensor([-9.0, 7.0])).norm(dim=1).mean() < 0.5
    large = F.interpolate(pictures[:1], scale_factor=4, mode="bicubic").clamp(0, 1)[0].movedim(0, -1)
    larger = landmarker.points(large, 4 * five[0] + 1.5)
    assert ((larger[:, :2] - 1.5) / 4 - points[:, :2]).norm(dim=1).mean() < 0.7
    assert (larger[:, 2] / 4 - points[:, 2]).abs().mean() < 0.7


def test_the_lips_gap_goes_with_the_jaw(seen):
    """The clip's own coefficients say how far its mouth is open."""
    import numpy as np

    landmarker, pictures, five = seen
    jaw = torch.from_numpy(np.load(CLIPS / "800000.npz")["expr"][:, JAW_OPEN].astype("float32"))
    gap = inner_lips_gap(detect_landmarks(landmarker, pictures, five))
    assert torch.corrcoef(torch.stack([gap, jaw]))[0, 1] > 0.8


def test_other_files_than_the_landmarkers_are_refused(tmp_path, monkeypatch):
    cv2 = pytest.importorskip("cv2")
    with pytest.raises(WeightsError, match="missing.*model page"):
        FaceLandmarker(tmp_path / "none.task")
    path = tmp_path / "face_landmarker.task"
    path.write_text("no zip")
    with pytest.raises(WeightsError, match="is not MediaPipe's"):
        FaceLandmarker(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("face_landmarks_detector.tflite", b"no network")
    with pytest.raises(WeightsError, match="cannot run face_landmarks_detector.tflite"):
        FaceLandmarker(path)
    monkeypatch.setattr(cv2, "__version__", "4.7.0")
    with pytest.raises(RealPortraitError, match="OpenCV 4.7.0 is too old: at least 4.8"):
        FaceLandmarker(path)


# Together


class TwoFaces:
    """A detector that sees two faces in light pictures and none in dark ones."""

    def detect(self, picture):
        if picture.mean() < 0.5:
            return []
        return [Face(torch.zeros(4), torch.full((5, 2), place), 1.0) for place in (10.0, 90.0)]


def test_the_expected_face_is_taken_and_missed_ones_are_told():
    pictures = torch.stack([torch.ones(3, 8, 8), torch.zeros(3, 8, 8)])
    points, found = find_points(TwoFaces(), pictures, torch.full((2, 5, 2), 80.0))
    assert found.tolist() == [True, False]
    assert torch.equal(points, torch.stack([torch.full((5, 2), 90.0), torch.full((5, 2), 80.0)]))


def truth_of(frames: torch.Tensor) -> Truth:
    """Of a face in the middle of (L, 3, 64, 64)."""
    five = torch.tensor([[24.0, 24], [40, 24], [32, 34], [26, 44], [38, 44]]).expand(len(frames), 5, 2)
    return Truth(frames, torch.eye(3, dtype=torch.float64), torch.zeros(len(frames), 64, 64, dtype=torch.bool), five, frames[:1])


def test_without_their_files_judges_say_nothing():
    frames = torch.rand(3, 3, 64, 64)
    assert judge(Judges(), TwoFaces(), {"a": frames}, truth_of(frames)) == {"a": {}}
    assert Judges().missing == list(HOW_TO_GET)


def test_what_is_not_known_counts_for_nobody():
    """The same error everywhere, or where the truth is known and anything elsewhere: the same PSNR."""
    torch.manual_seed(0)
    frames = 0.2 + 0.5 * torch.rand(3, 3, 64, 64)
    truth = truth_of(frames)
    valid = torch.ones(3, 64, 64, dtype=torch.bool)
    valid[:, 40:] = False
    partly = replace(truth, valid=valid)
    everywhere = frames + 0.1
    broken = torch.where(valid[:, None], everywhere, torch.rand_like(frames))

    vid2vid = FaceVid2Vid(VID2VID).eval()
    with torch.inference_mode():
        whole = score(vid2vid, {"a": everywhere}, truth)["a"]
        found = score(vid2vid, {"a": broken}, partly)["a"]
    assert whole["psnr_db"] == pytest.approx([20, 20], abs=1e-3) and found["psnr_db"] == pytest.approx([20, 20], abs=1e-3)
    assert found["outside_error_255"] == pytest.approx([25.5, 25.5], abs=1e-3)
    assert torch.equal(fill_unknown(broken, partly)[:, :, 40:], frames[:, :, 40:])
    assert spectrum(torch.where(valid[:, None], frames, broken), partly) == [0.0] * OCTAVES
