"""Edits, gains, the neutral frame, the range of frames, the mirror: on poses that are made up, and once with M on a video."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yunet
from PIL import Image

from realportrait_core.animation.driving_motion import apply_to_portrait, driving_motion
from realportrait_core.animation.extraction import extract_keypoints
from realportrait_core.animation.keypoints import Keypoints, keypoints_to_crop, without_cuts
from realportrait_core.animation.mapping import map_geometry, motion_maps
from realportrait_core.animation.retargeting import drive_keypoints, driven_keypoints, find_neutral, frame_range
from realportrait_core.edit import Edit, edit_driver, mirror_driver
from realportrait_core.errors import InputError
from realportrait_core.face.detect import FaceDetector
from realportrait_core.face.track import portrait_points, track
from realportrait_core.vid2vid.checkpoint import load_vid2vid
from realportrait_core.vid2vid.edit import hold_size, mirror, nearest_rotation, smooth_expression, smooth_head, with_rotation
from realportrait_core.vid2vid.interpolation import interpolate_poses
from realportrait_core.vid2vid.keypoints import Pose, angle_between, cat, rotation_angles, rotation_matrix, transform
from realportrait_core.vid2vid.neutral import distance_to_portrait, head_angle, neutral_frame
from realportrait_core.vid2vid.regions import EYES, EYES_AND_MOUTH, MOUTH, PAIRS, partners
from realportrait_core.vid2vid.retarget import Gains, retarget
from realportrait_core.vid2vid.shots import EASE, join_shots

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = ROOT / "realportrait_core" / "weights" / "realportrait" / "realportrait_mini_vid2vid.safetensors"
STILL = Gains()
CLOSE = 5e-6  # of numbers up to 2 or so: float32, a processor's own sine and order of sums
FIVE = torch.tensor([[100.0, 100], [160, 102], [130, 140], [108, 170], [154, 171]])


def error(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    return float((a - b).abs().max())


def symmetric_face(k: int = 26, seed: int = 0) -> torch.Tensor:
    """(K, 3) canonical keypoints with exact mirror partners: PAIRS, the others on the middle line."""
    g = torch.Generator().manual_seed(seed)
    face = torch.randn(k, 3, generator=g) * 0.3
    face[:, 0] = 0
    for left, right in PAIRS.get(k, ((1, 2), (3, 7), (11, 14), (12, 13))):
        face[left, 0] = 0.1 + torch.rand((), generator=g)
        face[right] = face[left] * torch.tensor([-1.0, 1, 1])
    return face


def clip(frames: int, k: int = 26, seed: int = 1, swing: float = 1.0) -> Pose:
    """A driver of one head: random angles up to some 20 degrees, expressions, sizes and places."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=g) * swing

    angles = 10 * normal(3, frames)
    face = symmetric_face(k).expand(frames, k, 3)
    return Pose(
        face,
        rotation_matrix(*angles),
        *angles,
        0.05 * normal(frames, k, 3),
        (0.1 * normal(frames, 1)).exp(),
        0.1 * normal(frames, 3),
    )


def keypoints(driver: Pose, portrait: Pose | None = None, seed: int = 2) -> Keypoints:
    g = torch.Generator().manual_seed(seed)
    crop = torch.diag(torch.tensor([2.0, 2.0, 1.0], dtype=torch.float64))
    crop[:2, 2] = torch.tensor([-40.0, -30.0])
    return Keypoints(
        portrait=clip(1, driver.canonical.shape[1], seed=9) if portrait is None else portrait,
        driver=driver,
        feature=torch.zeros(1, 1, 1, 1, 1),
        portrait_crop=crop,
        driver_crop=crop,
        portrait_points=FIVE,
        driver_points=FIVE + 3 * torch.randn(len(driver), 1, 2, generator=g),
        present=torch.ones(len(driver), dtype=torch.bool),
        portrait_size=(256, 256),
        driver_size=(240, 300),
    )


def trembling(x: torch.Tensor) -> float:
    """The mean second difference along the frames."""
    return float(x.diff(dim=0).diff(dim=0).abs().mean())


# Cuts


def in_two_shots(half: Pose) -> Pose:
    """The same motion twice, the second time filmed from half as far and beside."""
    both = cat([half, replace(half, scale=2 * half.scale, translation=2 * half.translation + torch.tensor([0.4, -0.3, 0.0]))])
    return with_rotation(both, torch.cat([half.rotation, half.rotation @ rotation_matrix(*torch.tensor([[0.0], [25.0], [5.0]]))]))


def test_a_cut_is_no_motion():
    """The first frame after it is the last one before; within EASE frames the new shot moves on its own, in the first's frame."""
    half = clip(2 * EASE)
    joined, cut_at = join_shots(in_two_shots(half), (2 * EASE,)), 2 * EASE
    before, at = joined[cut_at - 1 : cut_at], joined[cut_at : cut_at + 1]
    for name in ("rotation", "scale", "translation", "expression"):
        assert error(getattr(joined[:cut_at], name), getattr(half, name)) < CLOSE
        assert error(getattr(at, name), getattr(before, name)) < 1e-5
    later = slice(cut_at + EASE, None)
    assert error(joined[later].scale, half[EASE:].scale) < 1e-5
    assert error(joined[later].translation, half[EASE:].translation) < 1e-5
    assert error(joined[later].expression, half[EASE:].expression) < CLOSE
    assert error(joined[later].rotation, in_two_shots(half)[later].rotation) < 1e-5
    angles = torch.stack(rotation_angles(joined.rotation))
    assert error(torch.stack([joined.pitch, joined.yaw, joined.roll]), angles) < 1e-4  # degrees
    rest = joined.rotation[cut_at : cut_at + EASE] @ in_two_shots(half).rotation[cut_at : cut_at + EASE].mT
    degrees = angle_between(rest, torch.eye(3))
    assert error(degrees, degrees[0] * (1 - torch.arange(EASE) / EASE)) < 0.1 and degrees[0] > 5


def test_a_driver_without_cuts_stays_as_it_is():
    given = keypoints(clip(5))
    assert without_cuts(given) is given


def test_many_short_shots():
    """Of one or two frames: finite, and none jumps."""
    joined = join_shots(clip(6), (1, 2, 4))
    x = transform(joined)
    assert torch.isfinite(x).all()
    for frame in (1, 2, 4):
        assert error(x[frame], x[frame - 1]) < 1e-5


def test_the_face_points_go_along_with_the_shot():
    """So the facial mask lies on the face, and is of its size."""
    half = replace(clip(EASE, swing=0.2), rotation=torch.eye(3).expand(EASE, 3, 3))
    given = keypoints(cat([half, replace(half, scale=2 * half.scale, translation=2 * half.translation + 0.3)]))
    crop = given.driver_crop
    eye = (keypoints_to_crop(transform(given.driver)[:, :5, :2]).double() - crop[:2, 2]) / crop[0, 0]
    joined = without_cuts(replace(given, driver_points=eye.float(), cuts=(EASE,)))
    wanted = (keypoints_to_crop(transform(joined.driver)[:, :5, :2]).double() - crop[:2, 2]) / crop[0, 0]
    eased = slice(EASE, 2 * EASE)  # where the expression is still the other shot's
    assert joined.cuts == () and error(joined.driver_points[:EASE].double(), wanted[:EASE]) < 1e-2
    off = (joined.driver_points[eased].double() - wanted[eased]).norm(dim=-1).mean()
    assert off < 0.2 * (eye[eased] - wanted[eased]).norm(dim=-1).mean()


def test_relative_motion_goes_on_across_a_cut():
    """And a part of the driver keeps the cuts that lie in it."""
    given = replace(keypoints(in_two_shots(clip(10))), cuts=(10,))
    x = driven_keypoints(without_cuts(given), "relative", 1.0, 1.0, 0)
    raw = driven_keypoints(given, "relative", 1.0, 1.0, 0)
    assert error(x[10], x[9]) < 1e-5 and error(raw[10], raw[9]) > 0.3
    assert given[4:12].cuts == (6,) and given[10:].cuts == given[:10].cuts == ()
    assert edit_driver(given, Edit()).cuts == (10,)
    assert edit_driver(given, Edit(smooth_track=1.0)).cuts == ()
    assert error(driving_motion(given, 25.0).motion.scale, without_cuts(given).driver.scale) == 0


# Regions and partners


def test_one_definition_of_the_regions():
    from realportrait_core.eval.metrics import frames as metrics
    from realportrait_core.train.mini import head_truth

    assert head_truth.MOUTH_AND_EYES == EYES_AND_MOUTH[26] == (4, 5, 6, 7, 8, 9, 14, 15, 16, 17, 22, 23, 24, 25)
    assert EYES_AND_MOUTH[21] == (6, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20)
    assert metrics.EYES_AND_MOUTH is EYES_AND_MOUTH
    for k in EYES:
        assert not set(EYES[k]) & set(MOUTH[k]) and max(EYES_AND_MOUTH[k]) < k


@pytest.mark.parametrize("k", [26, 21])
def test_partners_are_an_involution_that_mirrors_the_face(k):
    face = symmetric_face(k)[None]
    partner = partners(face)
    assert torch.equal(partner[partner], torch.arange(k)) and (partner != torch.arange(k)).any()
    assert error(face[:, partner] * torch.tensor([-1.0, 1, 1]), face) == 0


def test_a_face_that_does_not_stand_in_the_middle_has_the_same_partners():
    assert torch.equal(partners(symmetric_face(21)[None] + 0.3), partners(symmetric_face(21)[None]))


def test_keypoints_without_partners_are_refused():
    line = torch.zeros(1, 5, 3)
    line[0, :, 0] = torch.tensor([0.0, 0.1, 0.5, 1.9, 2.0])
    with pytest.raises(InputError, match="of these 5 keypoints have no partner.*Flip the driving frames"):
        partners(line)


def test_a_lopsided_face_has_no_partners():
    face = symmetric_face(21)[None].clone()
    face[0, 0, 0] += 0.4
    with pytest.raises(InputError, match="have no partner"):
        partners(face)


# Mirror


def test_mirroring_twice_is_the_identity():
    once = keypoints(clip(6))
    twice = mirror_driver(mirror_driver(once))
    for field in fields(Pose):
        assert torch.equal(getattr(twice.driver, field.name), getattr(once.driver, field.name)), field.name
    assert error(twice.driver_points, once.driver_points) < 1e-4
    assert error(twice.driver_crop, once.driver_crop) < 1e-9
    assert not torch.equal(mirror_driver(once).driver.expression, once.driver.expression)


@pytest.mark.parametrize("k", [26, 21])
def test_mirrored_poses_place_the_mirrored_keypoints(k):
    """x' = P x F exactly, and the angles are those of the mirrored rotation."""
    poses = clip(6, k)
    partner = partners(poses.canonical)
    mirrored = mirror(poses, partner)
    assert error(transform(mirrored), transform(poses)[:, partner] * torch.tensor([-1.0, 1, 1])) < CLOSE
    assert error(rotation_matrix(mirrored.pitch, mirrored.yaw, mirrored.roll), mirrored.rotation) < CLOSE
    assert error(mirrored.canonical, poses.canonical) == 0  # a symmetric face stays what it is


@pytest.mark.parametrize("mode", ["relative", "paper-absolute"])
def test_a_mirrored_driver_moves_the_mirrored_portrait_as_in_a_mirror(mode):
    given = keypoints(clip(6))
    partner = partners(given.driver.canonical)
    both = replace(mirror_driver(given), portrait=mirror(given.portrait, partner))
    x_d = driven_keypoints(given, mode, 1.0, 1.0, 0)
    assert error(driven_keypoints(both, mode, 1.0, 1.0, 0), x_d[:, partner] * torch.tensor([-1.0, 1, 1])) < CLOSE


def test_mirrored_points_and_crop_are_those_of_the_mirrored_picture():
    given = keypoints(clip(3))
    mirrored = mirror_driver(given)
    x, y = given.driver_points[:, 1].unbind(-1)
    assert error(mirrored.driver_points[:, 0], torch.stack([299 - x, y], -1)) == 0
    corner = torch.tensor([10.0, 20, 1], dtype=torch.float64)
    seen = given.driver_crop @ corner
    seen_mirrored = mirrored.driver_crop @ torch.tensor([289.0, 20, 1], dtype=torch.float64)
    assert error(seen_mirrored, torch.stack([511 - seen[0], seen[1], seen[2]])) < 1e-9


# Size of the head


def wobbling(frames: int = 40) -> Pose:
    """A driver whose head keeps its size, read with jitter."""
    poses = clip(frames)
    jitter = 0.02 * torch.randn(frames, 1, generator=torch.Generator().manual_seed(5))
    return replace(poses, scale=1.1 * jitter.exp())


def test_a_head_of_constant_size_does_not_wobble():
    given = keypoints(wobbling())
    sizes = {}
    for how in ("driven", "steady", "constant"):
        edited = edit_driver(given, Edit(head_size=how))
        still = replace(edited.driver, expression=0 * edited.driver.expression, rotation=torch.eye(3).expand(40, 3, 3))
        x = retarget(given.portrait, still, still[:1], "relative")
        sizes[how] = (x - x.mean(1, keepdim=True)).norm(dim=-1).mean(1)
        assert torch.equal(edited.driver.rotation, given.driver.rotation)
    assert sizes["constant"].std() < CLOSE * sizes["constant"].mean()
    assert sizes["steady"].std() < 0.35 * sizes["driven"].std()
    assert trembling(sizes["steady"]) < 0.02 * trembling(sizes["driven"])


def test_a_steady_head_still_grows_with_a_driver_who_comes_closer():
    poses = wobbling(120)
    closer = torch.linspace(0, 1, 120)[:, None] * 0.7
    steady = hold_size(replace(poses, scale=poses.scale * closer.exp()), "steady")
    assert float((steady.scale[-20:].mean() / steady.scale[:20].mean()).log()) > 0.5


def test_head_size_is_one_of_three():
    with pytest.raises(InputError, match="'driven', 'steady' or 'constant'"):
        hold_size(clip(2), "big")


# Smoothing


def test_smoothing_reaches_what_it_names_and_nothing_else():
    given = keypoints(clip(40))
    head = edit_driver(given, Edit(smooth_head=2.0))
    face = edit_driver(given, Edit(smooth_expression=2.0))
    track = edit_driver(given, Edit(smooth_track=2.0))
    for name in ("rotation", "scale", "translation"):
        before = getattr(given.driver, name)
        assert trembling(getattr(head.driver, name)) < 0.3 * trembling(before), name
        assert torch.equal(getattr(face.driver, name), before) and torch.equal(getattr(track.driver, name), before)
    assert trembling(face.driver.expression) < 0.3 * trembling(given.driver.expression)
    assert torch.equal(head.driver.expression, given.driver.expression)
    assert trembling(track.driver_points) < 0.3 * trembling(given.driver_points)
    x_d = driven_keypoints(given, "relative", 1.0, 1.0, 0)
    masks = [map_geometry(part, x_d, 256, "whole").face[..., 2] for part in (given, track)]
    assert trembling(masks[1]) < trembling(masks[0])


def test_no_smoothing_is_no_change():
    given = keypoints(clip(5))
    same = edit_driver(given, Edit())
    assert all(torch.equal(getattr(same.driver, f.name), getattr(given.driver, f.name)) for f in fields(Pose))
    assert torch.equal(same.driver_points, given.driver_points)


def test_the_time_constant_is_in_frames():
    """A bump of one frame falls off by e in so many frames."""
    bump = torch.zeros(81, 26, 3)
    bump[40] = 1
    poses = replace(clip(81), expression=bump)
    for frames in (2.0, 6.0):
        spread = smooth_expression(poses, frames).expression[:, 0, 0]
        assert float(spread[40 + int(frames)] / spread[40]) == pytest.approx(1 / torch.e, rel=0.05)
        assert float(spread.sum()) == pytest.approx(1, abs=1e-3) and error(spread, spread.flip(0)) < 1e-3


def test_smoothed_rotations_rotate():
    poses = smooth_head(clip(20, swing=4.0), 3.0)
    assert error(poses.rotation @ poses.rotation.mT, torch.eye(3).expand(20, 3, 3)) < 1e-5
    assert error(rotation_matrix(poses.pitch, poses.yaw, poses.roll), poses.rotation) < 1e-5
    assert error(nearest_rotation(poses.rotation * 0.7), poses.rotation) < 1e-5


@pytest.mark.parametrize(
    "edit, match",
    [
        (Edit(smooth_head=-1.0), "smoothing of the head is -1.0; it must be from 0"),
        (Edit(smooth_expression=float("nan")), "smoothing of the expression is nan"),
        (Edit(smooth_track=31.0), "smoothing of the track is 31.0"),
    ],
)
def test_smoothing_that_cannot_be(edit, match):
    with pytest.raises(InputError, match=match):
        edit_driver(keypoints(clip(3)), edit)


def test_one_frame_can_be_edited():
    edited = edit_driver(keypoints(clip(1)), Edit("steady", 2.0, 2.0, 2.0, True))
    assert len(edited.driver) == 1 and torch.isfinite(transform(edited.driver)).all()


# Gains


def test_each_gain_keeps_its_part_of_the_portrait():
    portrait, driver = clip(1, seed=9), clip(4)
    full = retarget(portrait, driver, driver[:1], "paper-absolute")

    def with_parts(**parts):
        return transform(replace(driver, canonical=portrait.canonical.expand_as(driver.canonical), **parts))

    own = {name: getattr(portrait, name).expand_as(getattr(driver, name)) for name in ("rotation", "translation", "scale")}
    for name in own:
        none = retarget(portrait, driver, driver[:1], "paper-absolute", gains=Gains(**{name: 0.0}))
        assert error(none, with_parts(**{name: own[name]})) < CLOSE, name
        assert error(none, full) > 0.01
    all_three = Gains(rotation=0.5, translation=0.5, scale=0.5)
    half = retarget(portrait, driver, driver[:1], "relative", pose_gain=0.5)
    assert torch.equal(retarget(portrait, driver, driver[:1], "relative", gains=all_three), half)
    assert torch.equal(retarget(portrait, driver, driver[:1], "relative", 0.25, gains=Gains(2.0, 2.0, 2.0)), half)


@pytest.mark.parametrize("k", [21, 26])
@pytest.mark.parametrize("part, regions", [("eyes", EYES), ("mouth", MOUTH)])
def test_eye_and_mouth_gains_reach_their_keypoints(k, part, regions):
    portrait, driver = clip(1, k, seed=9), clip(4, k)
    full = retarget(portrait, driver, driver[:1], "relative")
    none = retarget(portrait, driver, driver[:1], "relative", gains=Gains(**{part: 0.0}))
    changed = (full - none).abs().amax((0, 2)) > 1e-5
    assert changed.nonzero()[:, 0].tolist() == sorted(regions[k])
    still = retarget(portrait, driver, driver[:1], "relative", expression_gain=0.0)
    chosen = list(regions[k])
    assert error(none[:, chosen], still[:, chosen]) < CLOSE
    louder = retarget(portrait, driver, driver[:1], "relative", expression_gain=0.5, gains=Gains(**{part: 2.0}))
    assert error(louder[:, chosen], full[:, chosen]) < CLOSE


def test_eye_gain_needs_known_keypoints():
    portrait, driver = clip(1, 15, seed=9), clip(2, 15)
    with pytest.raises(InputError, match="Of 15 keypoints .* a gain of the eyes or the mouth needs it"):
        retarget(portrait, driver, driver[:1], gains=Gains(eyes=1.2))


# The neutral frame


def test_the_neutral_frame_is_the_one_like_the_portrait():
    portrait, driver = clip(1, seed=9), clip(12)
    driver = replace(driver, translation=0 * driver.translation, scale=torch.ones_like(driver.scale))
    rotation, expression = driver.rotation.clone(), driver.expression.clone()
    for frame in (6, 7, 8):  # calm, and the portrait's
        rotation[frame], expression[frame] = portrait.rotation[0], portrait.expression[0]
    driver = replace(driver, rotation=rotation, expression=expression)
    everywhere = torch.ones(12, dtype=torch.bool)
    assert neutral_frame(portrait, driver, everywhere) == 7
    assert float(head_angle(portrait, driver)[7]) < 0.1 and distance_to_portrait(portrait, driver)[7] < 1e-5
    assert neutral_frame(portrait, driver, everywhere & (torch.arange(12) != 7)) in (6, 8)
    assert neutral_frame(portrait, driver, ~everywhere) == 7


def test_a_frame_in_motion_a_lean_and_a_grimace_are_not_neutral():
    rest = clip(1, seed=9)
    driver = Pose(*(getattr(rest, f.name).repeat(9, *[1] * (getattr(rest, f.name).ndim - 1)) for f in fields(Pose)))
    scale, expression, translation = driver.scale.clone(), driver.expression.clone(), driver.translation.clone()
    scale[0] *= 1.2
    translation[1] += 0.2
    expression[2] += 0.1 * torch.randn(26, 3, generator=torch.Generator().manual_seed(0))
    moved = replace(driver, scale=scale, expression=expression, translation=translation)
    distance = distance_to_portrait(rest, moved)
    assert (distance[:3] > 0.05).all()
    assert neutral_frame(rest, moved, torch.ones(9, dtype=torch.bool)) == 4  # 3 still lies beside a moving frame


def test_a_turned_head_is_more_neutral_than_an_open_mouth():
    rest = clip(1, seed=9)
    driver = Pose(*(getattr(rest, f.name).repeat(8, *[1] * (getattr(rest, f.name).ndim - 1)) for f in fields(Pose)))
    rotation, expression = driver.rotation.clone(), driver.expression.clone()
    rotation[:4] = rotation[:4] @ rotation_matrix(*torch.tensor([[0.0], [15.0], [0.0]]))
    expression[4:, [5, 8, 9], 1] += 0.1  # lower lip and chin
    moved = replace(driver, rotation=rotation, expression=expression)
    assert neutral_frame(rest, moved, torch.ones(8, dtype=torch.bool)) < 4


def test_the_first_frame_is_taken_where_it_is_about_as_near():
    """An animation that is measured from it starts on the portrait itself."""
    rest = clip(1, seed=9)
    driver = Pose(*(getattr(rest, f.name).repeat(8, *[1] * (getattr(rest, f.name).ndim - 1)) for f in fields(Pose)))
    everywhere = torch.ones(8, dtype=torch.bool)

    def chosen(degrees: float) -> int:
        """The neutral frame where the head is turned in the first four frames."""
        rotation = driver.rotation.clone()
        rotation[:4] = rotation[:4] @ rotation_matrix(*torch.tensor([[0.0], [degrees], [0.0]]))
        return neutral_frame(rest, replace(driver, rotation=rotation), everywhere)

    assert chosen(4.0) == 0 and chosen(30.0) > 3


def test_the_portraits_turned_crop_does_not_mislead():
    """A portrait with its head on one side: in the picture the driver tilts as much, in the crop neither does."""
    driver = clip(8)
    spin = rotation_matrix(torch.zeros(1), torch.zeros(1), torch.tensor([30.0]))
    own = driver[5:6]
    given = keypoints(driver, portrait=replace(own, rotation=own.rotation @ spin, expression=own.expression @ spin))
    turn = torch.eye(3, dtype=torch.float64)
    turn[:2, :2] = spin[0, :2, :2].T.double()
    given = replace(given, portrait_crop=turn @ given.portrait_crop)
    calm = replace(given, driver=replace(driver, translation=0 * driver.translation, scale=torch.ones_like(driver.scale)))
    assert find_neutral(calm) == 5


# Frames without the face


def test_between_two_poses():
    """At the ends they are the poses themselves; half-way the turn, the size and the place are half changed."""
    first, second = clip(6, seed=3), clip(6, seed=4)
    for share, end in ((0.0, first), (1.0, second)):
        at = interpolate_poses(first, second, torch.full((6,), share))
        assert all(error(getattr(at, f.name), getattr(end, f.name)) < 1e-4 for f in fields(Pose))
    middle = interpolate_poses(first, second, torch.full((6,), 0.5))
    whole = angle_between(first.rotation, second.rotation)
    for end in (first, second):
        assert error(angle_between(middle.rotation, end.rotation), whole / 2) < 0.05 and float(whole.max()) > 10
    assert error(middle.scale**2, first.scale * second.scale) < CLOSE
    assert error(middle.translation, (first.translation + second.translation) / 2) < CLOSE


# The range of frames


def test_a_range_is_the_same_frames_of_the_whole():
    given = keypoints(clip(9))
    some = frame_range(given, 3, 4)
    assert (some.start, some.stop) == (3, 7)
    whole, part = (driven_keypoints(given, "relative", 1.0, 1.0, 0, STILL, frames) for frames in (slice(None), some))
    assert error(part, whole[3:7]) < CLOSE  # the neutral frame lies before
    shorter = given[some]
    assert len(shorter.driver) == len(shorter.driver_points) == len(shorter.present) == 4
    assert frame_range(given, 0, 0) == slice(0, 9) and frame_range(given, 7, 10) == slice(7, 9)


@pytest.mark.parametrize("first, count", [(9, 0), (-1, 2), (0, -1)])
def test_a_range_outside_is_refused(first, count):
    with pytest.raises(InputError, match="not within the 9 driving frames"):
        frame_range(keypoints(clip(9)), first, count)


def test_angles_are_read_back():
    angles = 25 * torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    assert error(torch.stack(rotation_angles(rotation_matrix(*angles))), angles) < 1e-3


# With the bundled M, on the demonstration's driver


@pytest.fixture(scope="module")
def seen():
    """Face Vid2vid, the portrait, frames of the driver, their keypoints, and a function from other frames to theirs."""
    av = pytest.importorskip("av")
    pytest.importorskip("cv2")
    detector = FaceDetector(yunet.onnx())
    with av.open(str(ROOT / "assets" / "driving.mp4")) as file:
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    driver = torch.from_numpy(np.stack(frames[::3])).float() / 255
    portrait = torch.from_numpy(np.array(Image.open(ROOT / "assets" / "portrait.png").convert("RGB"))).float()[None] / 255
    vid2vid = load_vid2vid(WEIGHTS)
    own = portrait_points(portrait[0], detector)

    def read(pictures):
        return extract_keypoints(vid2vid, portrait, pictures, own, track(pictures, detector))

    with torch.inference_mode():
        return vid2vid, portrait, driver, read(driver), read


def test_mirrored_motion_is_the_motion_of_the_mirrored_video(seen):
    """As well as M is symmetric: what the mirror does not explain is far less than what it does."""
    vid2vid, _, driver, given, read = seen
    with torch.inference_mode():
        filmed = read(driver.flip(2))
        ours = mirror_driver(given)

    def change(keypoints):
        return driven_keypoints(keypoints, "relative", 1.0, 1.0, 0) - transform(keypoints.portrait)

    wanted, found, unmirrored = change(filmed), change(ours), change(given)
    off, without = (found - wanted).norm(dim=-1).mean(), (unmirrored - wanted).norm(dim=-1).mean()
    print(f"mirror: off {off:.4f}, without {without:.4f}, motion {wanted.norm(dim=-1).mean():.4f}")
    assert off < 0.35 * without and off < 0.5 * wanted.norm(dim=-1).mean()


def test_a_driver_without_points_gets_its_mask_where_its_face_is(seen):
    """As for LivePortrait's templates: within a seventh of the frame of where the face points put it."""
    vid2vid, portrait, _, given, _ = seen
    with torch.inference_mode():
        bare = replace(driving_motion(given, 25.0), points=None, canonical=None)
        joined = apply_to_portrait(vid2vid, portrait, given.portrait_points, bare)
    x_d = driven_keypoints(given, "relative", 1.0, 1.0, 0)
    assert error(driven_keypoints(joined, "relative", 1.0, 1.0, 0), x_d) < 1e-5
    centres = []
    for keypoints in (given, joined):
        face = map_geometry(keypoints, x_d, 256, "whole").face
        centres.append(-torch.linalg.solve(face[:, :, :2], face[:, :, 2:])[..., 0])
    apart = (centres[0] - centres[1]).norm(dim=-1)
    assert apart.mean() < 20 and apart.max() < 256 / 7


def test_maps_of_a_range(seen):
    vid2vid, _, _, given, _ = seen
    with torch.inference_mode():
        whole = motion_maps(vid2vid, drive_keypoints(given[0:4], neutral=0), 256)
        part = motion_maps(vid2vid, drive_keypoints(given, neutral=0, frames=slice(2, 4)), 256)
    assert len(part.maps) == 2
    assert error(part.maps.f.float(), whole.maps.f[2:4].float()) < 1e-2 and error(part.maps.face, whole.maps.face[2:4]) < CLOSE


def test_a_missing_face_holds_its_pose_or_goes_on_to_the_next(seen):
    """M reads nothing in frames without the face: the last pose is held, or the way to the next one is gone evenly."""
    vid2vid, portrait, driver, given, _ = seen
    gone, rest = [4, 5], [0, 1, 2, 3, 6, 7]
    torn = driver[:8].clone()
    coarse = torch.nn.functional.adaptive_avg_pool2d(torn[gone].movedim(-1, 1), 6)  # no face is seen in it, and no cut
    torn[gone] = torch.nn.functional.interpolate(coarse, torn.shape[1:3], mode="bilinear").movedim(1, -1)
    detector = FaceDetector(yunet.onnx())
    ticks, poses = [], {}
    for policy in ("hold", "fade", "interpolate"):
        ticks.clear()
        followed = track(torn, detector, missing_face=policy)
        assert followed.present.logical_not().nonzero()[:, 0].tolist() == gone
        with torch.inference_mode():
            poses[policy] = extract_keypoints(
                vid2vid, portrait, torn, given.portrait_points, followed, lambda done, total: ticks.append((done, total))
            ).driver
        assert ticks[-1] == (8, 8)
    for policy in ("hold", "fade"):
        for f in fields(Pose):
            values = getattr(poses[policy], f.name)
            assert torch.equal(values[gone], values[[3, 3]])
    drawn = poses["interpolate"]
    turn = angle_between(drawn.rotation[3:6], drawn.rotation[4:7])
    assert error(turn, angle_between(drawn.rotation[3:4], drawn.rotation[6:7]).expand(3) / 3) < 0.1
    assert error(drawn.expression[4], torch.lerp(drawn.expression[3], drawn.expression[6], 1 / 3)) < CLOSE
    assert error(drawn.expression[rest], poses["hold"].expression[rest]) < 0.02  # the crop moves with the track
