"""Keypoints, retargeting and smoothing: against the originals, and as equations."""

import math
from dataclasses import replace

import pytest
import torch
from golden import load

from realportrait_core.errors import InputError
from realportrait_core.vid2vid.keypoints import Pose, cat, headpose_from_bins, rotation_matrix, transform
from realportrait_core.vid2vid.motion import pose_from_raw
from realportrait_core.vid2vid.retarget import expression_region, retarget, rotation_power
from realportrait_core.vid2vid.smooth import kalman_smooth
from realportrait_core.vid2vid.stitching import eye_close_ratio, lip_close_ratio

HEADS = ("pitch", "yaw", "roll", "t", "exp", "scale", "kp")
MODES = ("relative", "absolute", "paper-absolute")
CLOSE = 5e-6  # of keypoints up to 2 or so: float32, a processor's own sine and order of sums


def error(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    return float((a - b).abs().max())


@pytest.fixture(scope="module")
def golden():
    tensors, _ = load("motion", "keypoint_transform_k21")
    source, driver = (pose_from_raw({name: tensors[f"in/{who}_{name}"] for name in HEADS}) for who in "sd")
    return tensors, source, driver


def random_pose(n: int, k: int = 21, seed: int = 0) -> Pose:
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=g)

    pitch, yaw, roll = (20 * normal(n) for _ in range(3))
    return Pose(
        0.4 * normal(n, k, 3),
        rotation_matrix(pitch, yaw, roll),
        pitch,
        yaw,
        roll,
        0.05 * normal(n, k, 3),
        1.2 + 0.1 * normal(n, 1),
        0.1 * normal(n, 3),
    )


# Parity


def test_keypoints_are_the_original(golden):
    tensors, source, driver = golden
    for who, pose in (("s", source), ("d", driver)):
        assert error(pose.rotation, tensors[f"out/R_{who}"]) < CLOSE
        assert error(transform(pose), tensors[f"out/x_{who}"]) < CLOSE
        for name in ("pitch", "yaw", "roll"):
            assert error(getattr(pose, name), tensors[f"out/{name}_{who}_deg"]) < 5e-5  # of up to 97.5 degrees


@pytest.mark.parametrize(
    "mode, name", [("relative", "relative"), ("absolute", "absolute_lp"), ("paper-absolute", "absolute_paper")]
)
def test_driving_keypoints_are_the_original(golden, mode, name):
    tensors, source, driver = golden
    assert error(retarget(source[:1], driver, driver[:1], mode), tensors[f"out/x_d_{name}"]) < CLOSE


def test_kalman_smoother_is_the_original():
    tensors, about = load("motion", "kalman_smooth")
    sequence = tensors["in/seq"].squeeze(1)
    for name, wanted in tensors.items():
        if name.startswith("out/obs_"):
            variance = float(name.removeprefix("out/obs_"))
            assert error(kalman_smooth(sequence, variance, about["process_variance"]), wanted) < CLOSE, name


def test_close_ratios_are_the_original():
    tensors, _ = load("motion", "close_ratios")
    assert error(eye_close_ratio(tensors["in/lmk"]), tensors["out/eye"]) < CLOSE
    assert error(lip_close_ratio(tensors["in/lmk"]), tensors["out/lip"]) < CLOSE


# Poses


def test_bins_are_three_degrees_apart_and_centred():
    certain = torch.full((66, 66), -1e4).fill_diagonal_(1e4)
    assert torch.allclose(headpose_from_bins(certain), torch.arange(66) * 3 - 97.5)
    assert error(headpose_from_bins(torch.zeros(1, 66)), torch.zeros(1)) < 1e-4


def test_rotations_are_rotations_about_the_named_axes():
    angle = torch.tensor([30.0])
    zero = torch.zeros(1)
    x, y, z = torch.eye(3)[:, None]
    c, s = math.cos(math.radians(30)), math.sin(math.radians(30))
    assert error((y @ rotation_matrix(angle, zero, zero))[0], torch.tensor([[0, c, s]])) < CLOSE  # pitch: y towards z
    assert error((z @ rotation_matrix(zero, angle, zero))[0], torch.tensor([[s, 0, c]])) < CLOSE  # yaw: z towards x
    assert error((x @ rotation_matrix(zero, zero, angle))[0], torch.tensor([[c, s, 0]])) < CLOSE  # roll: x towards y
    pose = random_pose(16)
    assert error(pose.rotation @ pose.rotation.mT, torch.eye(3).expand(16, 3, 3)) < CLOSE
    assert error(torch.linalg.det(pose.rotation), torch.ones(16)) < CLOSE


def test_pitch_turns_first_and_roll_last():
    pitch, yaw, roll = torch.tensor([[20.0], [-35.0], [10.0]])
    zero = torch.zeros(1)
    steps = rotation_matrix(pitch, zero, zero) @ rotation_matrix(zero, yaw, zero) @ rotation_matrix(zero, zero, roll)
    assert error(rotation_matrix(pitch, yaw, roll), steps) < CLOSE


def test_depth_translation_is_dropped_and_scale_reaches_the_expression():
    pose = random_pose(2)
    nearer = replace(pose, translation=pose.translation + torch.tensor([0.0, 0.0, 5.0]))
    assert torch.equal(transform(nearer), transform(pose))
    at_rest = replace(pose, canonical=0 * pose.canonical, translation=0 * pose.translation)
    assert error(transform(at_rest), pose.scale[:, :, None] * pose.expression) < 1e-7


def test_poses_slice_and_join():
    pose = random_pose(5)
    assert len(pose[1:3]) == 2
    assert torch.equal(transform(cat([pose[:2], pose[2:]])), transform(pose))


# Retargeting


def test_relative_motion_starts_on_the_portrait():
    portrait, driver = random_pose(1, seed=1), random_pose(4, seed=2)
    x_d = retarget(portrait, driver, driver[2:3], "relative")
    assert error(x_d[2:3], transform(portrait)) < CLOSE
    assert error(x_d[:1], transform(portrait)) > 0.05


def test_a_portrait_that_drives_itself_is_itself():
    driver = random_pose(4, seed=2)
    driver = replace(driver, canonical=driver.canonical[:1].expand_as(driver.canonical))
    portrait = driver[:1]
    assert error(retarget(portrait, driver, portrait, "relative"), transform(driver)) < CLOSE
    assert error(retarget(portrait, driver, portrait, "paper-absolute"), transform(driver)) < CLOSE
    assert error(retarget(portrait, portrait, portrait, "absolute"), transform(portrait)) < CLOSE


def test_relative_motion_forgets_the_drivers_own_pose_and_size():
    """Turning, shifting or resizing the whole driver, its neutral frame included, changes nothing."""
    portrait, driver = random_pose(1, seed=1), random_pose(4, seed=2)
    turn = rotation_matrix(*torch.tensor([[5.0], [40.0], [-12.0]]))
    other = replace(
        driver,
        canonical=driver.canonical * 2,
        rotation=driver.rotation @ turn,
        expression=driver.expression + 0.3,
        scale=driver.scale * 1.7,
        translation=driver.translation - 0.4,
    )
    assert error(retarget(portrait, driver, driver[:1]), retarget(portrait, other, other[:1])) < CLOSE


def test_absolute_keeps_the_portraits_skull_and_size():
    portrait, driver = random_pose(1, seed=1), random_pose(3, seed=2)
    region = expression_region(torch.device("cpu"))
    assert int(region.sum()) == 13 * 3 + 6
    assert not region[0].any() and not region[7].any() and not region[10].any()
    x_d = retarget(portrait, driver, driver[:1], "absolute")
    in_plane = driver.translation * torch.tensor([1.0, 1.0, 0.0])
    expression = (x_d - in_plane[:, None]) / portrait.scale - portrait.canonical @ driver.rotation
    assert error(expression[:, region], driver.expression[:, region]) < CLOSE
    assert error(expression[:, ~region], portrait.expression[:, ~region].expand(3, -1)) < CLOSE


@pytest.mark.parametrize("mode", MODES)
def test_zero_gains_keep_the_portrait(mode):
    portrait, driver = random_pose(1, seed=1), random_pose(3, seed=2)
    still = retarget(portrait, driver, driver[:1], mode, pose_gain=0.0, expression_gain=0.0)
    assert error(still, transform(portrait).expand_as(still)) < CLOSE


@pytest.mark.parametrize("mode", MODES)
def test_gains_next_to_one_are_next_to_no_gains(mode):
    portrait, driver = random_pose(1, seed=1), random_pose(3, seed=2)
    plain = retarget(portrait, driver, driver[:1], mode)
    assert error(retarget(portrait, driver, driver[:1], mode, 1 + 1e-6, 1 + 1e-6), plain) < 1e-5


def test_expression_gain_is_linear_and_leaves_the_pose():
    portrait, driver = random_pose(1, seed=1), random_pose(3, seed=2)
    none, full, double = (retarget(portrait, driver, driver[:1], "paper-absolute", expression_gain=g) for g in (0.0, 1.0, 2.0))
    assert error(double - full, full - none) < CLOSE
    wanted = driver.scale[:, :, None] * (driver.expression - portrait.expression)
    assert error(full - none, wanted) < CLOSE


def test_rotation_power_scales_the_angle():
    pose = random_pose(32, seed=3)
    half = rotation_power(pose.rotation, 0.5)
    assert error(half @ half, pose.rotation) < CLOSE
    assert error(rotation_power(pose.rotation, -1.0), pose.rotation.mT) < CLOSE
    assert error(half @ half.mT, torch.eye(3).expand(32, 3, 3)) < CLOSE
    still = torch.eye(3)[None]
    assert torch.equal(rotation_power(still, 0.7), still)


@pytest.mark.parametrize(
    "mode, counts, message",
    [
        ("relative", (2, 3, 1), "portrait holds 2 poses"),
        ("relative", (1, 3, 2), "neutral frame holds 2 poses"),
        ("relative", (1, 0, 1), "0 frames"),
        ("sideways", (1, 3, 1), "'sideways'"),
    ],
)
def test_wrong_counts_and_modes_are_refused(mode, counts, message):
    portrait, driver, neutral = (random_pose(n) for n in counts)
    with pytest.raises(InputError, match=message):
        retarget(portrait, driver, neutral, mode)


def test_motion_of_other_weights_is_refused_with_both_counts():
    with pytest.raises(InputError, match="portrait 21, driving video 15, neutral frame 15"):
        retarget(random_pose(1), random_pose(3, k=15), random_pose(1, k=15))
    with pytest.raises(InputError, match="21 keypoints of LivePortrait and these weights have 15"):
        retarget(random_pose(1, k=15), random_pose(3, k=15), random_pose(1, k=15), "absolute")


# Smoothing


def test_a_still_sequence_stays_and_order_in_time_does_not_matter_inside():
    still = torch.full((9, 2), 3.7)
    assert torch.equal(kalman_smooth(still, 1e-4), still)
    noise = torch.randn(200, generator=torch.Generator().manual_seed(0))
    smooth, backwards = kalman_smooth(noise, 1e-4), kalman_smooth(noise.flip(0), 1e-4).flip(0)
    assert error(smooth[60:-60], backwards[60:-60]) < 1e-4
    assert smooth.std() < 0.5 * noise.std()


def test_smoothing_follows_the_variances():
    noise = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    assert error(kalman_smooth(noise, 1e-12), noise) < 1e-5
    assert kalman_smooth(noise, 1.0).diff(dim=0).abs().mean() < 0.05 * noise.diff(dim=0).abs().mean()
    assert kalman_smooth(noise[:1]).equal(noise[:1])
    assert kalman_smooth(noise.half(), 1e-4).dtype == torch.float16
    with pytest.raises(InputError, match="empty"):
        kalman_smooth(noise[:0])
