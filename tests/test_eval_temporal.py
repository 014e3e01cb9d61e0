"""Flicker, jitter, seams and drift on videos, points and figures whose answer is known."""

import json
import math
from pathlib import Path

import pytest
import torch

from realportrait_core.errors import InputError
from realportrait_core.eval import cases
from realportrait_core.eval.metrics.drift import by_clip, clip_ranges, colour_figures, drift_figures
from realportrait_core.eval.metrics.temporal import (
    LEAST_STEP,
    flicker,
    jitter,
    joins,
    over_truth,
    picture_steps,
    point_steps,
    seams,
    still_border,
    still_part,
    still_share,
    temporal_figures,
)
from realportrait_core.eval.values import mean
from realportrait_core.inspect.drift import drift, trend

SIZE = 64
CLIP = Path(__file__).parent / "data" / "800000.mp4"


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def constant(frames: int, value: float = 0.5) -> torch.Tensor:
    return torch.full((frames, 3, SIZE, SIZE), value)


def moving_square(frames: int, per_frame: int = 2) -> torch.Tensor:
    """A white square of 16 px that moves to the right over a black background, from column 8 on."""
    video = constant(frames, 0.0)
    for i, picture in enumerate(video):
        picture[:, 24:40, 8 + per_frame * i : 24 + per_frame * i] = 1
    return video


# The still part


def test_a_constant_video_is_still_and_has_no_flicker():
    video = constant(4)
    still = still_part(video)
    assert still.shape == (3, SIZE, SIZE) and still.all() and still_share(still) == 1
    assert flicker(video, still) == [None, 0, 0, 0]


def test_what_moves_is_not_still():
    video = moving_square(6)
    still = still_part(video)
    path = still[:, 24:40, 8 : 24 + 10]  # all places of the square, its middle too, which looks the same from frame to frame
    assert not path.any()
    assert still[:, :12].all() and still[:, 52:].all() and still[:, :, 50:].all()
    assert 0.3 < still_share(still) < 0.8


def test_what_moves_seldom_is_still_in_the_other_frames():
    video = constant(11)
    video[7, :, :, :16] = 0.9  # one flash: two of ten steps
    still = still_part(video)
    assert [bool(step[:, :8].any()) for step in still] == [True] * 6 + [False] * 2 + [True] * 2
    assert still[:, :, 32:].all()
    video[3, :, :, :16] = 0.9  # a second one: four of ten
    assert not still_part(video)[:, :, :8].any()


def test_noise_of_a_video_file_counts_as_still():
    """Noise of 3/255, which the blur averages; a change of the whole picture by 6/255 is none."""
    video = constant(6) + (3 / 255 * noise(6, 3, SIZE, SIZE)).float()
    assert still_share(still_part(video)) > 0.95
    fading = constant(6) + 6 / 255 * torch.arange(6.0)[:, None, None, None]
    assert still_share(still_part(fading)) == 0


def test_the_still_part_of_a_real_clip_is_its_background():
    """The rendered head moves in the middle; the background beside it stands still."""
    truth = cases.read_clip(CLIP)[:8].movedim(-1, 1).float() / 255
    still = still_part(truth)
    height, width = truth.shape[2:]
    middle = still[:, height // 3 : height // 2, 2 * width // 5 : 3 * width // 5]
    assert middle.float().mean() < 0.05
    assert 0.1 < still_share(still) < 0.7
    own = [value for value in flicker(truth, still) if value is not None]
    assert len(own) == len(truth) - 1 and 0 < mean(own) < 2


def test_unknown_pixels_are_not_still():
    valid = torch.ones(3, SIZE, SIZE, dtype=torch.bool)
    valid[1, :, :20] = False
    still = still_part(constant(3), valid)
    assert not still[:, :, :20].any() and still[:, :, 20:].all()


def test_without_truth_the_border_beside_the_head_is_still():
    """A mask of 20 px: 8 px more on either side, from the top to its lower edge, and nothing below."""
    faces = torch.zeros(3, SIZE, SIZE, dtype=torch.bool)
    faces[:, 20:40, 20:40] = True
    faces[2] = faces[1].roll(5, 1)  # columns 25 to 44
    expected = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    expected[:40, :12] = True
    expected[:40, 53:] = True
    torch.testing.assert_close(still_border(faces), expected)
    assert still_border(torch.zeros(2, SIZE, SIZE, dtype=torch.bool)).all()
    assert not still_border(torch.ones(2, SIZE, SIZE, dtype=torch.bool)).any()


# Flicker


def test_flicker_is_the_mean_difference_in_the_still_part():
    """Every second frame brighter by 2/255, and by 51/255 where nothing is still."""
    video = constant(5)
    video[1::2] += 2 / 255
    still = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    still[:32] = True
    video[1::2, :, 32:] += 49 / 255
    assert flicker(video, still)[1:] == pytest.approx([2] * 4, abs=1e-4)
    assert flicker(video, still.expand(4, -1, -1))[1:] == pytest.approx([2] * 4, abs=1e-4)
    assert picture_steps(video)[1:] == pytest.approx([26.5] * 4, abs=1e-3)


def test_flicker_of_noise():
    """Of independent noise sigma: 2 sigma / sqrt(pi), the mean absolute difference of two normal values."""
    video = constant(3) + (4 / 255 * noise(3, 3, SIZE, SIZE)).float()
    found = flicker(video, torch.ones(SIZE, SIZE, dtype=torch.bool))
    assert found[1:] == pytest.approx([8 / math.sqrt(math.pi)] * 2, rel=0.02)


def test_a_video_smoother_than_the_truth_is_below_it():
    truth = constant(4) + (1.5 / 255 * noise(4, 3, SIZE, SIZE)).float()
    still = still_part(truth)
    assert mean(flicker(truth[:1].expand_as(truth), still)) == 0 < mean(flicker(truth, still))


def test_without_a_still_part_there_is_no_flicker():
    video = torch.rand(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    still = still_part(video)
    assert not still.any() and flicker(video, still) == [None] * 3
    few = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    few.view(-1)[:40] = True  # below 1 %
    assert flicker(video, few) == [None] * 3
    few.view(-1)[:41] = True
    assert None not in flicker(video, few)[1:]


# Keypoints


def test_uniform_motion_has_no_jitter():
    time = torch.arange(6.0)[:, None, None]
    points = torch.rand(1, 5, 2) + time * torch.tensor([3.0, 4.0])
    assert jitter(points)[:2] == [None, None] and jitter(points)[2:] == pytest.approx([0] * 4, abs=1e-5)
    assert point_steps(points)[0] is None and point_steps(points)[1:] == pytest.approx([5] * 5, rel=1e-5)


def test_jitter_of_a_constant_acceleration_is_its_size():
    time = torch.arange(6.0)[:, None, None]
    points = torch.rand(1, 5, 2) + 7 * time + 0.5 * time**2 * torch.tensor([0.6, 0.8])
    assert jitter(points)[2:] == pytest.approx([1] * 4, abs=1e-4)


def test_jitter_of_noise_is_root_6_of_its_size():
    """Distances of sigma sqrt(2) in the plane, where each coordinate has sigma."""
    found = jitter(0.3 * noise(40, 500, 2))
    assert mean(found) == pytest.approx(math.sqrt(6) * 0.3 * math.sqrt(2), rel=0.01)


def test_slow_motion_cancels_against_the_truth():
    """A slow turn of 20 px in truth and row alike, and noise in the row: what is left is the noise's own."""
    time = torch.arange(60, dtype=torch.float64)[:, None, None]
    truth = (20 * torch.sin(2 * math.pi * time / 25)).expand(60, 200, 2)
    row = truth + 0.3 * noise(60, 200, 2)
    expected = math.sqrt(6) * 0.3 * math.sqrt(2)
    assert mean(jitter(row)) > 1.2 * expected
    assert over_truth(jitter(row), jitter(truth)) == pytest.approx(expected, rel=0.03)
    assert over_truth(jitter(truth), jitter(row)) == pytest.approx(-expected, rel=0.03)
    still = torch.zeros_like(truth)
    assert over_truth(jitter(still), jitter(truth)) < -1 and over_truth(jitter(truth), jitter(truth)) == 0
    assert over_truth([None, 1.0, None], [2.0, None, None]) is None and over_truth([None, 5.0], [1.0, 3.0]) == 4


def test_a_frame_without_a_face_has_no_jitter():
    points, found = torch.rand(7, 3, 2), torch.tensor([True, True, True, False, True, True, True])
    assert [value is None for value in point_steps(points, found)] == [True, False, False, True, True, False, False]
    points[3] = torch.nan
    assert [value is None for value in jitter(points, found)] == [True, True, False, True, True, True, False]


# Seams


def test_joins_are_where_a_clip_adds_its_first_frame():
    """16, then 15 frames a clip: frame 15 is still the first clip's."""
    assert joins(16, 16) == [] and joins(17, 16) == [16] and joins(46, 16) == [16, 31]
    assert len(joins(151, 16)) == 9 and joins(1, 16) == []


def test_an_even_video_has_no_seam():
    ramp = torch.arange(20.0)[:, None, None, None].expand(-1, 3, 8, 8) / 40
    assert seams(picture_steps(ramp), [16]) == pytest.approx([1], rel=1e-4)
    assert seams(picture_steps(constant(20)), [5, 16]) == [1, 1]
    assert seams([None, *[4.0] * 9], [5]) == [1]


def test_a_jump_at_a_join_is_a_seam():
    steps = [None] + [2.0] * 19
    steps[10] = 6.0
    assert seams(steps, [10]) == [3]
    assert seams(steps, [8, 10]) == [1, 3]  # the other join is in neither median
    assert seams(steps, [11]) == [1]
    # Only AROUND frames on either side count.
    steps[1:4], steps[17:] = [90.0] * 3, [90.0] * 3
    assert seams(steps, [10]) == [3]


def test_a_jump_in_a_still_video_is_finite():
    steps = [None] + [0.0] * 9
    steps[5] = 10.0
    assert seams(steps, [5]) == [10 / LEAST_STEP]


def test_a_seam_that_cannot_be_measured_is_none():
    assert seams([None, 3.0], [1]) == [None]  # nothing around it
    assert seams([None, 1.0, None, 1.0], [2]) == [None]  # no face beside the join
    assert seams([None] + [1.0] * 5, []) == []
    with pytest.raises(InputError, match=r"Joins at \[6\] of a video of 6 frames"):
        seams([None] + [1.0] * 5, [6])


# A row of a case


def test_all_figures_of_a_row():
    video = constant(20) + (2 / 255 * torch.arange(20.0) % 2)[:, None, None, None]
    video[16:] += 20 / 255
    points = torch.arange(20.0)[:, None, None].expand(20, 4, 2) * torch.tensor([0.6, 0.8])
    points = points + torch.tensor([3.0, 4.0]) * (torch.arange(20) >= 16)[:, None, None]
    frames, whole = temporal_figures(video, points, torch.ones(SIZE, SIZE, dtype=torch.bool), joins(20, 16))
    assert set(frames) == {"flicker_255", "step_255", "keypoint_step_px", "jitter_px"}
    assert {len(values) for values in frames.values()} == {20}
    assert frames["flicker_255"][1:] == pytest.approx(frames["step_255"][1:], rel=1e-5)
    assert whole["keypoint_seam"] == pytest.approx(6, rel=1e-4) and whole["still_share"] == 1
    assert whole["seam"] == pytest.approx(frames["step_255"][16] / frames["step_255"][15], rel=1e-4)
    assert frames["jitter_px"][16] == pytest.approx(5, rel=1e-4) and frames["jitter_px"][15] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("frames", [1, 2])
def test_one_and_two_frames(frames):
    video, points = constant(frames), torch.rand(frames, 4, 2)
    found, whole = temporal_figures(video, points, still_part(video), [])
    assert found["flicker_255"] == [None, 0][:frames] and found["jitter_px"] == [None] * frames
    assert whole["seam"] is None and whole["keypoint_seam"] is None
    assert whole["still_share"] == (None if frames == 1 else 1)
    json.dumps([found, whole], allow_nan=False)


@pytest.mark.parametrize(
    "call",
    [
        lambda: picture_steps(torch.rand(0, 3, 8, 8)),
        lambda: still_part(torch.rand(2, 8, 8, 3)),
        lambda: colour_figures(torch.full((2, 3, 8, 8), torch.nan)),
        lambda: flicker(torch.rand(3, 3, 8, 8), torch.ones(3, 8, 8, dtype=torch.bool)),
        lambda: jitter(torch.rand(3, 0, 2)),
        lambda: jitter(torch.rand(3, 5, 3)),
        lambda: jitter(torch.rand(3, 5, 2), torch.ones(2, dtype=torch.bool)),
        lambda: jitter(torch.full((3, 5, 2), torch.inf)),
    ],
)
def test_refusals(call):
    with pytest.raises(InputError, match=r"\(\d|NaN"):
        call()


# Drift


def test_figures_are_split_into_clips():
    """33 frames in clips of 16: 0-15, 16-30, 31-32; of frame 0 there is no value where it is the portrait."""
    assert clip_ranges(33, 16) == [range(1, 16), range(16, 31), range(31, 33)]
    assert clip_ranges(33, 16, first=0)[0] == range(0, 16)
    values = [1.0] * 15 + [2.0] * 15 + [3.0, 5.0]
    assert by_clip(values, 16) == [1, 2, 4]
    values[:15], values[31] = [None] * 15, None
    assert by_clip(values, 16) == [None, 2, 3]
    assert by_clip([7.0], 16) == [7] and by_clip([7.0, 9.0], 16, first=0) == [8]


def test_the_trend_of_a_line():
    found = trend([5.0, 4.5, 4.0, 3.5])
    assert (found.slope, found.first, found.last, found.used) == (pytest.approx(-0.5), 5, 3.5, 4)
    assert found.error == pytest.approx(0, abs=1e-9)
    gap = trend([None, 2.0, None, 8.0])
    assert (gap.slope, gap.error, gap.first, gap.last, gap.used) == (3, None, 2, 8, 2)
    assert trend([1.0]) is None and trend([None, 1.0, None]) is None and trend([]) is None
    flat = trend([2.0] * 5)
    assert flat.slope == pytest.approx(0, abs=1e-12)


def test_the_error_of_a_trend_is_that_of_least_squares():
    """Three points 0, 1, 0: no slope, residuals of sum of squares 2/3, one degree of freedom, spread of clips 2."""
    found = trend([0.0, 1.0, 0.0])
    assert found.slope == pytest.approx(0, abs=1e-12) and found.error == pytest.approx(math.sqrt(2 / 3 / 2))


def test_a_video_that_fades_drifts():
    """Each clip of 4 frames is 2/255 darker in red and has half the contrast of the one before."""
    pattern = (noise(1, 1, SIZE, SIZE) / 20).float()
    pattern -= pattern.mean()
    clip = torch.tensor([0] * 4 + [1] * 3 + [2] * 3)[:, None, None, None]
    video = 0.5 + 0.5**clip * pattern - 2 / 255 * clip * torch.tensor([1.0, 0, 0])[:, None, None]
    figures = colour_figures(video)
    slopes = drift_figures({name: values[1:] for name, values in figures.items()}, 4)
    assert slopes["red_255_drift"] == pytest.approx(-2, abs=1e-3) and slopes["blue_255_drift"] == pytest.approx(0, abs=1e-3)
    contrast, edges = (by_clip(figures[name], 4, first=0) for name in ("contrast_255", "laplacian_variance"))
    assert contrast[1] / contrast[0] == pytest.approx(0.5, rel=1e-3) and edges[2] / edges[0] == pytest.approx(1 / 16, rel=1e-3)
    # The node "Inspect RealPortrait" prints the same numbers.
    shown = drift(video.movedim(1, -1), 4)
    assert by_clip(figures["red_255"], 4, first=0) == pytest.approx([float(one.mean[0]) for one in shown], rel=1e-5)
    assert edges == pytest.approx([one.sharpness for one in shown], rel=1e-4)


def test_colours_and_sharpness_of_a_chequerboard():
    """Half of the pixels are (0.4, 0.6, 0.8), half black: the Laplacian of the luma is 4 lumas at each, in 1/255."""
    light = (torch.arange(8)[:, None] + torch.arange(8)) % 2
    figures = colour_figures(torch.tensor([0.4, 0.6, 0.8])[None, :, None, None] * light)
    assert [figures[f"{name}_255"][0] for name in ("red", "green", "blue")] == pytest.approx([51, 76.5, 102])
    assert figures["contrast_255"] == pytest.approx([(51 + 76.5 + 102) / 3])
    luma = 0.299 * 0.4 + 0.587 * 0.6 + 0.114 * 0.8
    assert figures["laplacian_variance"] == pytest.approx([(4 * 255 * luma) ** 2], rel=1e-4)
