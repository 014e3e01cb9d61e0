"""Where a clip's successor starts, and how far clips drift, on the demo's driving video, whose head blinks."""

from dataclasses import replace

import bundled
import pytest
import torch
import torch.nn.functional as F
import toy

from benchmarks import long_drift
from realportrait_core.animation.extraction import extract_keypoints
from realportrait_core.animation.mapping import frame_portrait, motion_maps
from realportrait_core.animation.retargeting import drive_keypoints
from realportrait_core.errors import InputError
from realportrait_core.face.track import FaceTrack
from realportrait_core.long.drift import clip_figures, drift_report, trends, turned_by
from realportrait_core.long.tail import CLOSING, choose_tail, eye_closing
from realportrait_core.vid2vid.checkpoint import load_vid2vid
from realportrait_core.vid2vid.keypoints import rotation_matrix, transform

FRAMES = 24
SHUT = (19, 20, 21)  # frames of assets/driving.mp4 in which the eyes are shut
FPS = 12.5


@pytest.fixture(scope="module")
def vid2vid():
    return load_vid2vid(bundled.WEIGHTS / "realportrait" / "realportrait_mini_vid2vid.safetensors")


@pytest.fixture(scope="module")
def driven(vid2vid):
    points, (portrait, driving) = bundled.read_reference(), bundled.media()
    track = FaceTrack(points["driving_points"][:FRAMES], torch.ones(FRAMES, dtype=torch.bool), "")
    with torch.inference_mode():
        return drive_keypoints(
            extract_keypoints(vid2vid, portrait, driving[:FRAMES].float() / 255, points["portrait_points"], track)
        )


@pytest.fixture(scope="module")
def motion(vid2vid, driven):
    with torch.inference_mode():
        return motion_maps(vid2vid, driven, 256)


@pytest.fixture(scope="module")
def frames():
    """The driving frames themselves (FRAMES, 256, 256, 3) in [0, 1], in place of animated ones: sharp, and they blink."""
    return bundled.media()[1][:FRAMES].float() / 255


@pytest.fixture(scope="module")
def closing(driven):
    return eye_closing(driven.keypoints.driver, FPS)


def tail(frames, motion, closing, window, present=None):
    n = len(frames)
    return choose_tail(frames, motion, closing[:n], window, torch.ones(n, dtype=torch.bool) if present is None else present)


def blurred(frames, *numbers):
    """The frames, these of them blurred by a box of 5x5 px."""
    result = frames.clone()
    for number in numbers:
        picture = F.pad(frames[number].movedim(-1, 0), (2, 2, 2, 2), mode="replicate")
        result[number] = F.avg_pool2d(picture, 5, stride=1).movedim(0, -1)
    return result


def test_shut_eyes_are_seen_in_the_motion(closing):
    assert all(closing[number] > CLOSING for number in SHUT)
    assert closing[list(SHUT)].max() > 3 * closing[: SHUT[0]].max().clamp(min=1)


def test_eyes_of_unknown_keypoints_are_judged_by_the_whole_expression():
    torch.manual_seed(0)
    pose = toy.poses(20)  # 5 keypoints
    pose = replace(pose, expression=pose.expression[:1].expand(20, 5, 3) + torch.randn(20, 5, 3) / 1000)
    pose.expression[12] += 0.1
    assert eye_closing(replace(pose, rotation=pose.rotation[:1].expand(20, 3, 3)), FPS).argmax() == 12


def test_eyes_of_a_single_frame_are_usual(driven):
    assert eye_closing(driven.keypoints.driver[:1], FPS).tolist() == [0]


def test_the_next_clip_does_not_start_from_a_blink(frames, motion, closing):
    """With frame 20 as the last: taken as it is it warns; with a choice the last frame with open eyes is taken."""
    as_it_is = tail(frames[:21], motion, closing, 1)
    assert (as_it_is.index, as_it_is.blink, as_it_is.again) == (20, True, 0) and "eyes close" in as_it_is.report
    chosen = tail(frames[:21], motion, closing, 4)
    assert (chosen.index, chosen.poor, chosen.again, chosen.report) == (18, False, 2, "")


def test_the_next_clip_does_not_start_from_a_blurred_frame(frames, motion, closing):
    soft = blurred(frames[:16], 14, 15)
    as_it_is = tail(soft, motion, closing, 1)
    assert as_it_is.blurred and "blurred" in as_it_is.report
    assert tail(soft, motion, closing, 4).index == 13
    assert not tail(frames[:16], motion, closing, 1).poor  # the same frame as it was


def test_the_next_clip_starts_where_there_is_a_face(frames, motion, closing):
    present = torch.arange(16) < 15
    assert "no face" in tail(frames[:16], motion, closing, 1, present).report
    assert tail(frames[:16], motion, closing, 2, present).index == 14


def test_of_good_frames_the_last_is_taken(frames, motion, closing):
    assert tail(frames[:16], motion, closing, 8).index == 15


def test_of_poor_frames_the_best_is_taken_and_named(frames, motion, closing):
    """Frames 19 and 20 are shut, 20 is blurred besides."""
    chosen = tail(blurred(frames[:21], 20), motion, closing, 2)
    assert (chosen.index, chosen.blink, chosen.blurred) == (19, True, False) and chosen.report


@pytest.mark.parametrize("window", [0, 17])
def test_a_window_is_within_the_clip(frames, motion, closing, window):
    with pytest.raises(InputError, match=f"last {window} of 16 frames"):
        tail(frames[:16], motion, closing, window)


# Figures


def test_figures_of_a_clip_tell_what_was_done_to_it(vid2vid, frames, motion):
    square = frames[:1]
    plain = clip_figures(vid2vid, frames[:9], motion, square, overlap=1)
    light = clip_figures(vid2vid, frames[:9] + 8 / 255, motion, square, overlap=1)
    assert light["red_255"] - plain["red_255"] == pytest.approx(8, abs=0.01)
    soft = clip_figures(vid2vid, blurred(frames[:9], *range(9)), motion, square, overlap=1)
    assert soft["sharpness"] < 0.5 * plain["sharpness"] and plain["contrast"] == pytest.approx(1, abs=0.1)
    assert "identity" not in plain and "join" not in clip_figures(vid2vid, frames[:9], motion, square)
    seam = frames[:9].clone()
    seam[0] = seam[0] + 20 / 255
    assert clip_figures(vid2vid, seam, motion, square, overlap=1)["join"] > 3 * plain["join"]


def test_the_portrait_itself_has_no_distance(vid2vid, motion, driven):
    """Wanted keypoints that are the portrait's own, and frames that are the portrait."""
    square = frame_portrait(driven.keypoints.picture, motion)
    own = replace(motion, x_d=transform(driven.keypoints.portrait).expand(FRAMES, 26, 3))
    found = clip_figures(vid2vid, square.expand(4, -1, -1, -1), own, square, lambda shown: torch.full((len(shown),), 0.5), 1)
    assert found["red_255"] == pytest.approx(0, abs=1e-3) and found["sharpness"] == pytest.approx(1, abs=1e-3)
    assert found["keypoints_px"] < 0.3 and found["head_deg"] < 0.5 and found["identity"] == 0.5 and found["join"] == 1
    assert clip_figures(vid2vid, square.expand(4, -1, -1, -1), motion, square)["keypoints_px"] > 1  # the motion that was wanted


def test_the_turn_between_keypoints_is_exact():
    torch.manual_seed(0)
    wanted = torch.randn(2, 26, 3)
    turn = rotation_matrix(torch.tensor([0.0, 0]), torch.tensor([12.0, 0]), torch.tensor([0.0, 5]))
    torch.testing.assert_close(turned_by(1.3 * wanted @ turn + 0.2, wanted), torch.tensor([12.0, 5.0]), atol=1e-3, rtol=0)


def test_the_report_names_what_drifts_and_only_that():
    clips = [{"red_255": 0.5 * n, "sharpness": 0.8 + 0.01 * (-1) ** n, "keypoints_px": 3.0} for n in range(30)]
    report = drift_report(clips)
    assert "red +14.5" in report.splitlines()[-1] and "sharpness" not in report.splitlines()[-1]
    assert report.splitlines()[1].split() == ["0-2", "0.5", "0.80", "3.0"]  # means of three clips each: at most 10 lines
    assert len(report.splitlines()) == 14 and report.splitlines()[10].split()[0] == "27-29"
    assert trends(clips)["red_255"].slope == pytest.approx(0.5)
    steady = drift_report([{"red_255": float(n % 2), "keypoints_px": 3.0} for n in range(30)])
    assert "No drift over these 30 clips" in steady


def test_the_report_of_few_clips():
    assert drift_report([]) == "No drift was measured."
    assert "nothing to drift from" in drift_report([{"red_255": 1.0}])
    assert "+1.00" in drift_report([{"red_255": 1.0}, {"red_255": 2.0, "join": 1.0}])


# The command


def test_the_plot_shows_each_figure_and_form(tmp_path):
    clips = [{"contrast": 1.0, "sharpness": 0.2, "head_deg": 3.0 + n % 2} for n in range(4)]
    long_drift.draw({"1 frame": clips, "4 frames": clips}, tmp_path / "drift.svg")
    text = (tmp_path / "drift.svg").read_text()
    assert all(f">{title}<" in text for title in ("contrast", "sharpness", "head deg", "1 frame", "4 frames", "clip"))
    assert "identity" not in text


def test_the_summary_has_a_line_for_each_form():
    rising = [{"red_255": 2.0 * n, "contrast": 1.0} for n in range(6)]
    lines = long_drift.summary({"1 frame": rising, "corrected": [{"red_255": 1.0 + n % 2} for n in range(4)]}).splitlines()
    assert len({line.count("|") for line in lines}) == 1 and "| keypoints px |" in lines[0]
    assert lines[2].startswith("| 1 frame | 6 | 5.0 | - | - | 1.00 |") and lines[2].endswith("| red |")
    assert lines[3].startswith("| corrected | 4 | 1.5 | - |") and lines[3].endswith("| nothing |")


def test_single_frames_stand_side_by_side(tmp_path):
    from PIL import Image

    long_drift.write_frames(bundled.ROOT / "assets" / "driving.mp4", [0, 20], tmp_path / "frames.png")
    assert Image.open(tmp_path / "frames.png").size == (512, 256)


def test_one_clip_cannot_drift(tmp_path, caplog):
    assert long_drift.main(["--out", str(tmp_path), "--clips", "1"]) == 1 and "at least 2" in caplog.text
    with pytest.raises(SystemExit):
        long_drift.main([])
