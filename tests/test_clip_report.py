"""A clip in figures: known motions, known pictures, and what is said where something cannot be measured."""

import json
from dataclasses import replace

import demo_media
import judges
import pytest
import torch
import toy_sizes
import yunet

from realportrait_core.animation.extraction import CHUNK
from realportrait_core.config import Vid2VidConfig
from realportrait_core.errors import InputError
from realportrait_core.eval.clip.frames import Clip, ClipFaces, clip_of
from realportrait_core.eval.clip.report import (
    ClipFigure,
    ClipJudges,
    ClipReport,
    correlation,
    judge_clip,
    motion_errors,
    picture_figures,
)
from realportrait_core.eval.clip.table import figures_json, table, worst, worst_frames
from realportrait_core.eval.judges.estimators import load_estimator
from realportrait_core.eval.metrics.temporal import flicker, still_part
from realportrait_core.face.detect import FaceDetector
from realportrait_core.inspect.strip import strip
from realportrait_core.vid2vid import FaceVid2Vid
from realportrait_core.vid2vid.keypoints import Pose, rotation_matrix

FRAMES = 4


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector(yunet.onnx())


@pytest.fixture(scope="module")
def vid2vid() -> FaceVid2Vid:
    torch.manual_seed(0)
    return FaceVid2Vid(Vid2VidConfig(**toy_sizes.VID2VID)).eval()


@pytest.fixture(scope="module")
def driving() -> torch.Tensor:
    return demo_media.pictures(FRAMES)[1]


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


def poses(yaw: torch.Tensor, expression: torch.Tensor) -> Pose:
    """Of frames whose heads are turned by yaw (L,) degrees; expression (L, K, 3) in the head's axes."""
    nothing = torch.zeros_like(yaw)
    rotation = rotation_matrix(nothing, yaw, nothing)
    one = torch.ones(len(yaw), 1)
    flat = torch.zeros(len(yaw), 3)
    return Pose(torch.zeros_like(expression), rotation, nothing, yaw, nothing, expression @ rotation, one, flat)


# Motion


def test_a_constant_difference_is_no_relative_error():
    """A head that is 10 degrees off throughout, with another resting face: 0.02 of M's unit is 2.56 px of a crop of 256."""
    yaw, present = torch.tensor([0.0, 5, -8, 12]), torch.ones(4, dtype=torch.bool)
    smile = torch.rand(4, 5, 3, generator=torch.Generator().manual_seed(0)) / 10
    found = motion_errors(poses(yaw + 10, smile + torch.tensor([0.02, 0, 0])), poses(yaw, smile), present)
    assert found["head_deg"] == pytest.approx([10] * 4, abs=1e-2)
    assert found["expression_px"] == pytest.approx([2.56] * 4, abs=1e-3)
    assert found["head_change_deg"][0] is None and found["head_change_deg"][1:] == pytest.approx([0] * 3, abs=0.1)
    assert found["expression_change_px"][0] is None and found["expression_change_px"][1:] == pytest.approx([0] * 3, abs=1e-3)


def test_half_the_motion_is_half_the_change_off():
    yaw, present = torch.tensor([0.0, 10, -20, 30]), torch.ones(4, dtype=torch.bool)
    found = motion_errors(poses(yaw / 2, torch.zeros(4, 5, 3)), poses(yaw, torch.zeros(4, 5, 3)), present)
    assert found["head_change_deg"][1:] == pytest.approx([5, 10, 15], abs=1e-2)


def test_frames_without_a_face_do_not_count():
    """The first one with a face is what changes are measured from."""
    yaw, present = torch.tensor([90.0, 0, 45, 10]), torch.tensor([False, True, False, True])
    found = motion_errors(poses(2 * yaw, torch.zeros(4, 5, 3)), poses(yaw, torch.zeros(4, 5, 3)), present)
    assert [value is None for value in found["head_deg"]] == [True, False, True, False]
    assert found["head_change_deg"][:3] == [None] * 3 and found["head_change_deg"][3] == pytest.approx(10, abs=1e-2)


def test_mouths():
    """Of two videos in which it opens alike, against each other, and not at all."""
    opens, all_of_them = torch.tensor([0.0, 3, 1, 4, 2]), torch.ones(5, dtype=torch.bool)
    assert correlation(2 * opens + 7, opens, all_of_them) == ClipFigure(pytest.approx(1.0), 5, 5)
    assert correlation(-opens, opens, all_of_them).value == pytest.approx(-1.0)
    assert correlation(torch.ones(5), opens, all_of_them).value == 0
    assert correlation(opens, torch.ones(5), all_of_them) == ClipFigure(None, 5, 5)
    last = torch.tensor([False, False, False, False, True])
    assert correlation(opens, opens, last) == ClipFigure(None, 1, 5)


# A clip


def test_the_driving_video_itself_is_without_fault(detector, vid2vid, driving):
    """As portrait, result and truth at once."""
    ticks = []
    report = judge_clip(clip_of(driving[:1], driving, driving, driving), vid2vid, detector, callback=lambda *at: ticks.append(at))
    assert report.found == {"portrait": (1, 1), **{name: (4, 4) for name in ("driving video", "result", "truth")}}
    for name in ("head_deg", "head_change_deg", "expression_px", "expression_change_px"):
        assert max(value for value in report.frames[name] if value is not None) < 0.1, name
    assert report.frames["psnr_db"] == [100.0] * 4 and report.frames["ssim"] == pytest.approx([1.0] * 4)
    assert report.frames["sharp"][0] == pytest.approx(1.0, abs=0.1)  # by other, smoothed points
    assert report.frames["flicker_255"] == report.frames["truth_flicker_255"]
    assert report.frames["jitter_px"] == report.frames["driving_jitter_px"]
    assert report.whole["spectrum_worst_db"].value == 0
    assert ticks == sorted(ticks) and ticks[-1] == (7 * 4, 7 * 4)
    assert report.notes == ("Which keypoints of this M are the lips is not known: the mouth's correlation by M is left out.",)


def test_sharpness_is_told_whatever_the_portraits_size(detector, vid2vid, driving):
    """The portrait as it is, and twice as large; a blurred result is far below both."""
    from kornia.filters import gaussian_blur2d

    result = driving[:1].expand(2, -1, -1, -1)
    large = torch.nn.functional.interpolate(driving[:1].movedim(-1, 1), scale_factor=2, mode="nearest").movedim(1, -1)
    for portrait in (driving[:1], large):
        report = judge_clip(clip_of(portrait, driving, result), vid2vid, detector)
        assert report.frames["sharp"] == pytest.approx([1.0] * 2, abs=0.2)
    blurred = gaussian_blur2d(result.movedim(-1, 1), (9, 9), (1.5, 1.5)).movedim(1, -1)
    report = judge_clip(clip_of(driving[:1], driving, blurred), vid2vid, detector)
    assert max(report.frames["sharp"]) < 0.5


def test_flicker_of_the_still_part_is_what_was_added(detector, vid2vid, driving):
    """8/255 more in every second frame of a video that does not move."""
    truth = driving[:1].expand(4, -1, -1, -1)
    result = (truth * 0.9).clone()
    result[1::2] += 8 / 255
    report = judge_clip(clip_of(driving[:1], driving, result, truth), vid2vid, detector)
    assert report.frames["flicker_255"][0] is None
    assert report.frames["flicker_255"][1:] == pytest.approx([8.0] * 3, abs=1e-3)
    assert report.frames["truth_flicker_255"][1:] == [0.0] * 3


def test_flicker_does_not_depend_on_how_frames_go_through():
    """A square that moves in a few frames at the start only is still later on, whatever a chunk of frames shows of it."""
    frames = 3 * CHUNK
    truth = torch.full((frames, 64, 64, 3), 0.5)
    for frame in (2, 4):
        truth[frame, 16:48, 16:48] = 1.0
    result = truth + 0.02 * torch.rand(truth.shape, generator=torch.Generator().manual_seed(0))
    found = picture_figures(Clip(truth[:1], truth, result, truth), ClipFaces(None, None, None, None), lambda done, total: None)
    still = still_part(truth.movedim(-1, 1))
    expected = flicker(result.movedim(-1, 1), still)
    assert expected[0] is None and None not in expected[1:]
    assert found["flicker_255"][0] is None and found["flicker_255"][1:] == pytest.approx(expected[1:])
    assert not torch.equal(still_part(truth[:CHUNK].movedim(-1, 1)), still[: CHUNK - 1]), "a chunk alone shows the same"


def test_landmarks_measure_what_m_does_not(detector, vid2vid, driving):
    """Of the video itself nothing is off; against its first frame, held still, the errors are those of the estimator."""
    estimator = load_estimator(judges.landmarker())
    same = judge_clip(clip_of(driving[:1], driving, driving), vid2vid, detector, ClipJudges(estimator=estimator))
    held = clip_of(driving[:1], driving, driving[:1].expand(4, -1, -1, -1))
    still = judge_clip(held, vid2vid, detector, ClipJudges(estimator=estimator))
    for name in ("expression_l1", "pose_l1", "expression_change_l1", "pose_change_l1"):
        assert max(same.frames[name]) < 0.02 < max(still.frames[name]), name
    assert same.whole["landmark_mouth_correlation"].value > 0.99
    assert still.whole["landmark_mouth_correlation"] == ClipFigure(0.0, 4, 4)
    assert "nothing to correlate" not in " ".join(still.notes)


def test_without_any_face_the_pictures_are_measured(detector, vid2vid):
    noise = torch.rand(3, 256, 256, 3, generator=torch.Generator().manual_seed(0))
    report = judge_clip(clip_of(noise[:1], noise, noise, noise), vid2vid, detector)
    assert report.found == {"portrait": (0, 1), "driving video": (0, 3), "result": (0, 3), "truth": (0, 3)}
    assert "head_deg" not in report.frames and "sharp" not in report.frames and report.frames["ssim"] == pytest.approx([1.0] * 3)
    assert sum("the figures that need it are left out" in note for note in report.notes) == 4
    assert not any("by hand" in note for note in report.notes), "advice for those who animate"


def test_what_is_common_is_judged(driving):
    clip = clip_of(driving[:3], driving, driving[:2])
    assert len(clip) == 2 and len(clip.driving) == 2 and clip.portrait.shape[0] == 1
    assert clip.notes == (
        "The portrait is a batch of 3 pictures: the first is taken.",
        "Of frames the driving video has 4, the result has 2: the first 2 are judged.",
    )


def test_other_sizes_are_resized(driving):
    large = torch.nn.functional.interpolate(driving.movedim(-1, 1), size=(512, 640)).movedim(1, -1)
    clip = clip_of(driving[:1], driving, large)
    assert clip.result.shape == (4, 256, 320, 3)
    assert clip.notes == ("The result's 640x512 px are resized to 320x256, as in the paper's tables.",)
    assert clip_of(driving[:1], driving, driving).result is not None and torch.equal(
        clip_of(driving, driving, driving).result, driving
    )
    with pytest.raises(InputError, match="The truth is 256x256 px and the result 640x512 px: they show different parts"):
        clip_of(driving[:1], driving, large, driving)


def test_a_truth_that_is_framed_otherwise_is_told(detector, vid2vid, driving):
    shifted = driving.roll(80, 2)
    report = judge_clip(clip_of(driving[:1], driving, shifted, driving), vid2vid, detector)
    assert any("they are not framed alike" in note for note in report.notes)


def test_one_frame(detector, vid2vid, driving):
    report = judge_clip(clip_of(driving[:1], driving[:1], driving[:1]), vid2vid, detector, clip_frames=16)
    assert report.notes == ("One frame: flicker, jitter, seams, the mouth's correlation and relative errors need several.",)
    assert report.frames["head_change_deg"] == report.frames["jitter_px"] == [None] and report.frames["head_deg"][0] < 0.1
    assert "| head pose error, relative, degrees ↓ |    - |     - |     - | 0 of 1 |" in table(report, {})


# Text and picture

REPORT = ClipReport(
    4,
    {"portrait": (1, 1), "result": (3, 4)},
    {"identity_similarity": [0.9, None, 0.5, 0.7], "head_deg": [1.0, 2.0, 9.0, 4.0], "red_255": [100.0, 110.0, 120.0, 130.0]},
    {"seam": ClipFigure(2.5, 1, 1), "mouth_correlation": ClipFigure(None, 3, 4)},
    clip_frames=3,
    recognition="SFace",
    notes=("A note.",),
)


def test_the_table_can_be_read():
    text = table(REPORT, {"ST-LPIPS": "get it."}).splitlines()
    assert text[:4] == ["Frames that are judged: 4. With a face: portrait 1 of 1, result 3 of 4.", "", "- A note.", ""]
    assert [line.replace(" ", "") for line in text[4:10]] == [
        "|figure|mean|worst|frame|used|",
        "|" + text[5][1:-1].replace(" ", "") + "|",
        "|identitysimilarity↑(SFace)|0.700|0.500|2|3of4|",
        "|headposeerror,degrees↓|4.00|9.00|2|4of4|",
        "|mouthcorrelation,byM↑|-|-|-|3of4|",
        "|seambetweenclips,picture↓|2.50|-|-|1of1|",
    ]
    assert len({len(line) for line in text[4:10]}) == 1, "the columns stand below one another"
    clips = text[text.index("By clips of the network, colours in 1/255:") + 2 :]
    assert [line.replace(" ", "") for line in clips[:4:2]] == ["|frames|identity|red|", "|0-2|0.700|110.0|"]
    assert clips[3].replace(" ", "") == "|3-3|0.700|130.0|" and text[-2:] == ["", "- Left out, ST-LPIPS: get it."]


def test_one_clip_has_no_second_table():
    assert "By clips" not in table(replace(REPORT, clip_frames=4), {}) + table(replace(REPORT, clip_frames=0), {})


def test_the_worst_is_the_least_or_the_most():
    assert worst([0.9, None, 0.5], 1) == (0.5, 2) and worst([0.9, None, 0.5], -1) == (0.9, 0)
    assert worst([None], 1) is None and worst([1.0], 0) is None
    assert worst_frames(REPORT, 3) == [(2, "worst identity similarity")], "one frame is the worst in both"


def test_figures_are_json():
    told = json.loads(figures_json(REPORT, {"ST-LPIPS": "get it."}))
    assert told["frames"]["identity_similarity"] == [0.9, None, 0.5, 0.7] and told["mean"]["head_deg"] == 4.0
    assert told["whole"]["seam"] == {"value": 2.5, "used": 1, "of": 1} and told["left_out"] == {"ST-LPIPS": "get it."}
    assert [clip["frames"] for clip in told["clips"]] == ["0-2", "3-3"]


def test_a_strip_marks_the_worst():
    """Three columns of two rows; the border is in the last row alone."""
    grey = torch.full((3, 20, 30, 3), 0.5)
    picture = strip(grey[:1], {"driving video": grey, "result": grey}, [(0, ""), (2, "worst PSNR")])
    assert picture.shape == (1, 2 * 344, 3 * 320, 3) and 0 <= picture.min() and picture.max() <= 1
    red = (picture[0] - torch.tensor([255.0, 80, 80]) / 255).abs().amax(-1) < 1e-3
    rows, columns = red.nonzero().unbind(1)
    assert rows.min() == 344 + 24 and columns.min() == 640
    assert red.sum() == 2 * 4 * 319 + (4 + 3) * 312, "4 px on every side, the last column below the line between tiles"
