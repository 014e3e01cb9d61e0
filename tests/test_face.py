"""Detection and tracking with the real YuNet on rendered clips whose eyes are known, and what happens without a face."""

import functools

import numpy as np
import pytest
import torch
import yunet

from realportrait_core.errors import FaceError, InputError, WeightsError
from realportrait_core.face.crop import face_square
from realportrait_core.face.detect import Face, FaceDetector
from realportrait_core.face.resize import resize_levels
from realportrait_core.face.track import NOMINAL, fading, fill, gaps, portrait_points, ranges, smooth, track

DATA = yunet.ROOT / "tests" / "data"


@functools.cache
def clip(seed: int) -> torch.Tensor:
    """(24, 256, 256, 3) uint8."""
    av = pytest.importorskip("av")
    with av.open(str(DATA / f"{seed}.mp4")) as video:
        return torch.stack([torch.from_numpy(frame.to_ndarray(format="rgb24")) for frame in video.decode(video=0)])


@functools.cache
def eyes(seed: int) -> torch.Tensor:
    """(24, 2, 2) px: the eyeballs' centres, image-left first."""
    return torch.from_numpy(np.load(DATA / f"{seed}.npz")["eyes2d"].astype(np.float32)).flip(1)


@pytest.fixture
def detector():
    return FaceDetector(yunet.onnx())


def scaled(frame: torch.Tensor, height: int, width: int) -> np.ndarray:
    return resize_levels(frame, height, width).byte().numpy()


def beside(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return torch.cat([left, right], dim=-2)


# Detection


@pytest.mark.parametrize("seed", [800000, 810000])
def test_eyes_are_where_they_were_rendered(detector, seed):
    # The truth is the eyeball's centre, YuNet marks the pupil: they agree in frontal views.
    frontal = np.flatnonzero(np.abs(np.load(DATA / f"{seed}.npz")["pose"][:, 1]) < 0.15)[::2]
    faces = [detector.detect(frame) for frame in clip(seed)[frontal]]
    assert len(faces) > 2 and {len(found) for found in faces} == {1}
    points = torch.stack([found[0].points for found in faces])
    assert float((points[:, :2] - eyes(seed)[frontal]).norm(dim=-1).mean()) < 5
    left_eye, right_eye, nose, left_mouth, right_mouth = points.unbind(1)
    assert bool((left_eye[:, 0] < right_eye[:, 0]).all() and (left_mouth[:, 0] < right_mouth[:, 0]).all())
    assert bool((nose[:, 1] > left_eye[:, 1]).all() and (nose[:, 1] < left_mouth[:, 1]).all())


def test_float_array_and_memory_layout_do_not_matter(detector):
    frame = clip(800000)[0]
    expected = detector.detect(frame)[0]
    for same in (frame.float() / 255, frame.numpy(), frame.permute(2, 0, 1).contiguous().permute(1, 2, 0).double() / 255):
        assert torch.equal(detector.detect(same)[0].points, expected.points)


@pytest.mark.parametrize("height, width", [(96, 96), (513, 511), (1600, 1600)])
def test_any_size_of_picture(detector, height, width):
    frame = scaled(clip(800000)[0], height, width)
    (face,) = detector.detect(frame)
    scale = torch.tensor([width, height]) / 256
    torch.testing.assert_close(face.points[:2], eyes(800000)[0] * scale, atol=0.03 * width, rtol=0)


def test_a_small_face_in_a_huge_picture(detector):
    """40 px of face in 2400: too small at 640 px, found at 1280."""
    picture = np.full((2400, 2400, 3), 90, np.uint8)
    picture[1700:1800, 300:400] = scaled(clip(800000)[0], 100, 100)
    (face,) = detector.detect(picture)
    torch.testing.assert_close(face.points[:2], eyes(800000)[0] * 100 / 256 + torch.tensor([300, 1700]), atol=5, rtol=0)


def test_faces_come_from_left_to_right(detector):
    faces = detector.detect(beside(clip(810000)[0], clip(800000)[0]))
    assert len(faces) == 2 and faces[0].box[0] < 256 < faces[1].box[0]


def test_the_same_file_in_bytes_is_read_whatever_its_path(tmp_path):
    odd = tmp_path / "Gesicht ä 顔"
    odd.mkdir()
    (odd / yunet.NAME).write_bytes(yunet.onnx().read_bytes())
    assert len(FaceDetector(odd / yunet.NAME).detect(clip(800000)[0])) == 1


def test_no_file_says_where_and_how(tmp_path):
    with pytest.raises(WeightsError, match=rf"{yunet.NAME} is missing.*{tmp_path}.*python install.py"):
        FaceDetector(tmp_path / yunet.NAME)


@pytest.mark.parametrize(
    "image, message",
    [
        (torch.zeros(1, 8, 8, 3), r"\(1, 8, 8, 3\)"),
        (torch.zeros(8, 8, 4), r"\(8, 8, 4\)"),
        (torch.zeros(0, 8, 3), r"\(0, 8, 3\)"),
        (torch.full((8, 8, 3), torch.nan), "192 values of 192 that are NaN"),
        (torch.zeros(8, 8, 3, dtype=torch.int64), "int64"),
    ],
)
def test_what_is_no_picture_is_refused(detector, image, message):
    with pytest.raises(InputError, match=message):
        detector.detect(image)


# Portrait


def test_portrait_points(detector):
    frame = clip(800000)[0]
    assert torch.equal(portrait_points(frame, detector), detector.detect(frame)[0].points)
    two = beside(frame, clip(810000)[0])
    assert portrait_points(two, detector, 1)[0, 0] > 256 > portrait_points(two, detector, 0)[0, 0]
    with pytest.raises(FaceError, match="portrait has 2 faces"):
        portrait_points(two, detector, "only")
    with pytest.raises(FaceError, match="Face number 2 .* the portrait has 2"):
        portrait_points(two, detector, 2)
    with pytest.raises(InputError, match="'biggest'"):
        portrait_points(two, detector, "biggest")


@pytest.mark.parametrize("picture", [torch.zeros(64, 48, 3), torch.ones(8, 8, 3), torch.full((300, 2, 3), 0.5)])
def test_no_face_in_the_portrait(detector, picture):
    with pytest.raises(FaceError, match=rf"No face was found in the portrait \({picture.shape[1]}x{picture.shape[0]} px\)"):
        portrait_points(picture, detector)


def test_a_tiny_face_is_refused_with_its_size(detector):
    small = torch.from_numpy(scaled(clip(800000)[0], 56, 56))
    with pytest.raises(FaceError, match=r"portrait's face is 2\dx\d\d px; at least 32 px"):
        portrait_points(small, detector)
    with pytest.raises(FaceError, match=r"driving video's face, at its largest, is 2\dx\d\d px"):
        track(small[None], detector)


def test_a_box_by_hand():
    picture = torch.zeros(200, 100, 3)
    points = portrait_points(picture, None, box=(10, 20, 50, 80))
    torch.testing.assert_close(points, torch.tensor([10.0, 20.0]) + NOMINAL * torch.tensor([50.0, 80.0]))
    with pytest.raises(FaceError, match="x 60, y 20, 50x80 px.*picture of 100x200 px"):
        portrait_points(picture, None, box=(60, 20, 50, 80))
    with pytest.raises(FaceError, match="50x20 px.*smaller than 32 px"):
        portrait_points(picture, None, box=(10, 20, 50, 20))
    with pytest.raises(InputError, match="four finite numbers"):
        portrait_points(picture, None, box=(10, 20, float("nan"), 20))
    clip_track = track(torch.zeros(3, 200, 100, 3), None, boxes=(10, 20, 50, 80))
    assert torch.equal(clip_track.points, points.expand(3, 5, 2)) and bool(clip_track.present.all())


def test_the_nominal_layout_fits_the_detector(detector):
    """A hand-drawn box around a frontal face gives nearly the crop of the detected points."""
    face = detector.detect(clip(800000)[0])[0]
    found, nominal = (face_square(points, 2.3, -0.125) for points in (face.points, face.box[:2] + NOMINAL * face.box[2:]))
    assert float(nominal.size / found.size) == pytest.approx(1, abs=0.15)
    assert float((nominal.center - found.center).norm() / found.size) < 0.1


# Tracking


def test_a_plain_clip(detector):
    calls = []
    whole = track(clip(800000), detector, callback=lambda done, total: calls.append((done, total)))
    assert whole.points.shape == (24, 5, 2) and bool(whole.present.all())
    assert whole.report == "Face found in 24 of 24 frames."
    assert calls == [(i + 1, 24) for i in range(24)]


def test_smoothing_brings_the_points_nearer_to_the_truth(detector):
    frames, truth = clip(810000), eyes(810000)
    raw = torch.stack([detector.detect(frame)[0].points for frame in frames])[:, :2] - truth
    smoothed = track(frames, detector).points[:, :2] - truth
    assert float(smoothed.diff(dim=0).square().mean()) < 0.5 * float(raw.diff(dim=0).square().mean())
    assert float((smoothed - smoothed.mean(0)).square().mean()) < float((raw - raw.mean(0)).square().mean())


@pytest.mark.parametrize("gone", [[0, 1], [5, 6, 9], [10, 11]])
def test_missing_frames_are_filled_and_named(detector, gone):
    frames = clip(800000)[:12].clone()
    frames[gone] = 0
    kept = [i for i in range(12) if i not in gone]
    for policy in ("hold", "interpolate", "fade"):
        followed = track(frames, detector, missing_face=policy)
        assert (followed.motion_weight is None) == (policy != "fade")
        assert followed.present.nonzero()[:, 0].tolist() == kept
        assert torch.isfinite(followed.points).all() and followed.points.shape == (12, 5, 2)
        assert f"Missing in {ranges(gone)}" in followed.report
    with pytest.raises(FaceError, match=f"missing in {len(gone)} of the 12 driving frames: {ranges(gone)} "):
        track(frames, detector, missing_face="stop")


def test_fading():
    present = torch.tensor([False] * 2 + [True] * 2 + [False] * 9 + [True])
    assert fading(present).tolist() == pytest.approx([0.6, 0.8, 1, 1, 0.8, 0.6, 0.4, 0.2, 0, 0.2, 0.4, 0.6, 0.8, 1])


def test_fill():
    points = torch.arange(6.0)[:, None, None].expand(6, 5, 2) * 10
    present = torch.tensor([False, True, False, False, True, False])
    assert fill(points, present, "hold")[:, 0, 0].tolist() == [10, 10, 10, 10, 40, 40]
    assert fill(points, present, "interpolate")[:, 0, 0].tolist() == pytest.approx([10, 10, 20, 30, 40, 40])


def test_gaps_are_filled_from_the_frames_around_them():
    present = torch.tensor([False, True, False, False, True, False])
    held, drawn, cut = gaps(present, "hold"), gaps(present, "interpolate"), gaps(present, "interpolate", [4])
    assert held.before.tolist() == held.after.tolist() == drawn.before.tolist() == [1, 1, 1, 1, 4, 4]
    assert drawn.after.tolist() == [1, 1, 4, 4, 4, 4] and not held.share.any() and not cut.share.any()
    assert drawn.share.tolist() == pytest.approx([0, 0, 1 / 3, 2 / 3, 0, 0])


def test_smooth_keeps_an_even_motion_and_one_frame():
    even = NOMINAL * 100 + torch.arange(7.0)[:, None, None] * torch.tensor([3.0, -2.0])
    torch.testing.assert_close(smooth(even), even)
    assert torch.equal(smooth(even[:1]), even[:1])
    shaken = even + 2 * (torch.arange(7) % 2)[:, None, None]
    assert float((smooth(shaken) - even - 1).abs().mean()) < 0.5


def test_identity_is_kept_when_the_other_face_grows(detector):
    """The face chosen in the first frame is followed although another becomes the largest."""
    frames = []
    for i in range(8):
        side = 160 + 24 * i
        other = np.full((352, 352, 3), 60, np.uint8)
        other[:side, :side] = scaled(clip(810000)[i], side, side)
        steady = np.full((352, 256, 3), 60, np.uint8)
        steady[:256] = clip(800000)[i].numpy()
        frames.append(np.concatenate([steady, other], 1))
    followed = track(torch.from_numpy(np.stack(frames)), detector)
    assert bool(followed.present.all())
    assert float((followed.points[:, :2] - eyes(800000)[:8]).norm(dim=-1).mean()) < 6
    assert "Several faces in frames 0-7: followed the one at" in followed.report


def test_a_cut_starts_a_new_track_and_is_not_smoothed_over(detector):
    left = torch.nn.functional.pad(clip(800000)[:6], (0, 0, 0, 256))
    right = torch.nn.functional.pad(255 - clip(810000)[:6], (0, 0, 256, 0))
    right = 255 - right  # the second scene is bright where the first was dark
    followed = track(torch.cat([left, right]), detector)
    assert "A cut or a jump at frame 6" in followed.report and bool(followed.present.all())
    assert followed.cuts == (6,)
    truth = torch.cat([eyes(800000)[:6], eyes(810000)[:6] + torch.tensor([256.0, 0.0])])
    assert float((followed.points[:, :2] - truth).norm(dim=-1).max()) < 15


def test_a_flash_of_light_is_no_other_shot(detector):
    """The picture changes as at a cut, the face stays where it is: there is no jump to make up for."""
    frames = clip(800000)[:6].clone()
    frames[3:] = 255 - (255 - frames[3:]) // 3
    followed = track(frames, detector)
    assert "A cut or a jump at frame 3" in followed.report and followed.cuts == ()


def test_another_face_is_not_taken_for_the_missing_one(detector):
    """For a few frames the followed face is gone and another one is in the picture."""
    frames = beside(clip(800000)[:10], clip(810000)[:10]).clone()
    frames[4:7, :, :256] = 0
    # a small scene in a large dark frame: no cut
    frames = torch.nn.functional.pad(frames, (0, 0, 0, 512, 0, 512))
    followed = track(frames, detector, choice=0)
    assert followed.present.tolist() == [not 4 <= i < 7 for i in range(10)]
    assert bool((followed.points[..., 0] < 256).all())


def test_no_face_in_any_frame(detector):
    with pytest.raises(FaceError, match=r"any of the 3 driving frames \(48x64 px\)"):
        track(torch.zeros(3, 64, 48, 3), detector)


def test_one_frame_is_a_clip(detector):
    followed = track(clip(800000)[:1], detector)
    assert torch.equal(followed.points[0], detector.detect(clip(800000)[0])[0].points)


@pytest.mark.parametrize(
    "frames, message",
    [
        (torch.zeros(0, 8, 8, 3), r"at least one frame; this one is \(0, 8, 8, 3\)"),
        (torch.zeros(8, 8, 3), r"\(8, 8, 3\)"),
        (torch.zeros(2, 8, 8, 1), r"Driving frame 0: .*\(8, 8, 1\)"),
        (torch.stack([torch.zeros(8, 8, 3), torch.full((8, 8, 3), torch.inf)]), "Driving frame 1: .*192 values"),
    ],
)
def test_what_is_no_clip_is_refused(detector, frames, message):
    with pytest.raises(InputError, match=message):
        track(frames, detector)


def test_bad_policy_and_boxes_are_refused():
    frames = torch.zeros(3, 64, 64, 3)
    with pytest.raises(InputError, match="'drop'.*'hold', 'interpolate', 'fade' or 'stop'"):
        track(frames, None, missing_face="drop")
    with pytest.raises(InputError, match=r"\(4,\) or \(3, 4\).*\(2, 4\)"):
        track(frames, None, boxes=torch.ones(2, 4))


def test_ranges():
    assert ranges([3]) == "frame 3"
    assert ranges([0, 1, 2, 5, 7, 8]) == "frames 0-2, 5, 7-8"
    assert ranges(list(range(0, 40, 2))).endswith(", 36, 38")
    assert ranges([*range(0, 10_000, 2), 10_000]).endswith(", 36, 38 and 4981 more")


def test_a_face_knows_its_area():
    assert Face(torch.tensor([0.0, 0.0, 4.0, 5.0]), NOMINAL, 1.0).area == 20
