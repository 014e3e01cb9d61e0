"""A video as the portrait: each frame has its own pose, crop and appearance, and the driving video's change is added."""

from dataclasses import fields, replace

import pytest
import torch
import toy_sizes

from realportrait_core.animation.driving_motion import apply_to_portrait, driving_motion
from realportrait_core.animation.extraction import extract_keypoints, portrait_features
from realportrait_core.animation.keypoints import Keypoints
from realportrait_core.animation.mapping import frame_portrait, motion_maps
from realportrait_core.animation.retargeting import drive_keypoints, find_neutral
from realportrait_core.animation.vid2vid_frames import frames_mask, portrait_frames
from realportrait_core.config import Vid2VidConfig
from realportrait_core.edit import Edit, edit_driver
from realportrait_core.errors import InputError
from realportrait_core.face.track import track
from realportrait_core.vid2vid import FaceVid2Vid
from realportrait_core.vid2vid.keypoints import Pose, angle_between, rotation_matrix, transform
from realportrait_core.vid2vid.neutral import calm_frame
from realportrait_core.vid2vid.regions import EYES, MOUTH
from realportrait_core.vid2vid.retarget import Gains, relative
from realportrait_core.vid2vid.stitching import Finish, KeypointMLP, Opening

FRAMES, K = 5, 26
LIPS_ALONE = dict(pose_gain=0.0, gains=Gains(eyes=0.0, elsewhere=0.0))


@pytest.fixture(scope="module")
def vid2vid() -> FaceVid2Vid:
    torch.manual_seed(0)
    return FaceVid2Vid(Vid2VidConfig(**toy_sizes.VID2VID | dict(num_kp=K))).eval().requires_grad_(False)


def noise(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def moving(poses: Pose, seed: int) -> Pose:
    """As many poses of a head that moves: a random M sees hardly any difference between frames."""
    angles = 12 * noise(3, len(poses), seed=seed)
    return replace(
        poses,
        rotation=rotation_matrix(*angles),
        expression=0.1 * noise(len(poses), K, 3, seed=seed + 1),
        scale=poses.scale * (0.1 * noise(len(poses), 1, seed=seed + 2)).exp(),
        translation=0.1 * noise(len(poses), 3, seed=seed + 3),
    )


@pytest.fixture(scope="module")
def video() -> torch.Tensor:
    return torch.rand(FRAMES, 190, 180, 3, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def driver() -> torch.Tensor:
    return torch.rand(FRAMES, 120, 110, 3, generator=torch.Generator().manual_seed(4))


@pytest.fixture(scope="module")
def keypoints(vid2vid, video, driver) -> Keypoints:
    """Of a portrait that goes to the right by 3 px a frame, both heads given motion."""
    boxes = torch.tensor([60.0, 55, 50, 60]) + 3 * torch.arange(FRAMES)[:, None] * torch.tensor([1.0, 0, 0, 0])
    found = extract_keypoints(
        vid2vid, video, driver, track(video, None, boxes=boxes), track(driver, None, boxes=torch.tensor([30.0, 30, 50, 60]))
    )
    return replace(found, portrait=moving(found.portrait, 10), driver=moving(found.driver, 20))


def still(keypoints: Keypoints, frame: int) -> Keypoints:
    """One frame of the portrait video as a still portrait under the same driving video."""
    return replace(
        keypoints,
        portrait=keypoints.portrait[frame : frame + 1],
        portrait_crop=keypoints.portrait_crop[frame],
        portrait_points=keypoints.portrait_points[frame],
        picture=keypoints.picture[frame : frame + 1],
    )


def of_frame(vid2vid, keypoints: Keypoints, frame: int) -> Keypoints:
    """The same, with the frame's own appearance."""
    return replace(still(keypoints, frame), feature=portrait_features(vid2vid, keypoints, slice(frame, frame + 1)))


def test_every_frame_is_extracted_in_its_own_crop(vid2vid, video, keypoints):
    assert keypoints.of_video and len(keypoints.portrait) == len(keypoints) == FRAMES
    assert keypoints.portrait_crop.shape == (FRAMES, 3, 3) and keypoints.portrait_points.shape == (FRAMES, 5, 2)
    middles = torch.linalg.inv(keypoints.portrait_crop) @ torch.tensor([255.5, 255.5, 1.0], dtype=torch.float64)
    assert torch.allclose(middles[:, 0].diff(), torch.full((FRAMES - 1,), 3.0, dtype=torch.float64), atol=1e-4)
    features = portrait_features(vid2vid, keypoints, slice(0, FRAMES))
    assert len(keypoints.feature) == 1 and torch.allclose(features[:1], keypoints.feature, atol=1e-6)
    assert len(features) == FRAMES and float((features[1] - features[0]).abs().max()) > 1e-3


@pytest.mark.parametrize("mode", ["relative", "paper-absolute"])
def test_each_frame_is_that_of_a_still_portrait_under_its_driving_frame(vid2vid, keypoints, mode):
    """x_d, maps and the picture: the video is nothing but its frames."""
    driven = drive_keypoints(keypoints, mode, neutral=2)
    motion = motion_maps(vid2vid, driven, 64)
    pictures = torch.cat(list(portrait_frames(vid2vid, motion)))
    mask = frames_mask(motion, 32)
    assert len(motion.maps) == len(pictures) == FRAMES and mask.shape == (FRAMES, 190, 180)
    for i in range(FRAMES):
        alone = drive_keypoints(of_frame(vid2vid, keypoints, i), mode, neutral=2, frames=slice(i, i + 1))
        assert torch.allclose(alone.x_d, driven.x_d[i : i + 1], atol=1e-5)
        made = motion_maps(vid2vid, alone, 64)
        assert float((made.maps.f.float() - motion.maps.f[i : i + 1].float()).abs().max()) < 2e-3
        (picture,) = torch.cat(list(portrait_frames(vid2vid, made)))
        assert float((picture - pictures[i]).abs().max()) < 2e-3
        assert torch.equal(pictures[i][mask[i] == 0], keypoints.picture[i][mask[i] == 0])


def test_the_formula_of_relative_motion(keypoints):
    """R_d,i R_d,0^T R_s,i and the rest alike; upright crops here, so that the driving pose is the same in both."""
    motion = relative(keypoints.portrait, keypoints.driver, keypoints.driver[:1])
    i = 3
    portrait, driving, first = keypoints.portrait[i], keypoints.driver[i], keypoints.driver[0]
    assert torch.allclose(motion.rotation[i], driving.rotation @ first.rotation.T @ portrait.rotation, atol=1e-6)
    assert torch.allclose(motion.expression[i], portrait.expression + driving.expression - first.expression, atol=1e-6)
    assert torch.allclose(motion.scale[i], portrait.scale * driving.scale / first.scale, atol=1e-6)
    assert torch.allclose(motion.translation[i], portrait.translation + driving.translation - first.translation, atol=1e-6)


def test_without_gains_the_video_stays_what_it_is(keypoints):
    x_d = drive_keypoints(keypoints, pose_gain=0.0, expression_gain=0.0).x_d
    assert torch.allclose(x_d, transform(keypoints.portrait), atol=1e-5)


def test_lips_alone(keypoints):
    """Pose, eyes and the rest at 0: nothing but the keypoints of the mouth moves, in every frame."""
    moved = (drive_keypoints(keypoints, **LIPS_ALONE).x_d - transform(keypoints.portrait)).abs().amax((0, 2))
    mouth = torch.zeros(K, dtype=torch.bool)
    mouth[list(MOUTH[K])] = True
    assert moved[mouth].min() > 0.01 and moved[~mouth].max() < 1e-5
    eyes = drive_keypoints(keypoints, pose_gain=0.0, gains=Gains(mouth=0.0, elsewhere=0.0)).x_d - transform(keypoints.portrait)
    moving_ones = (eyes.abs().amax((0, 2)) > 1e-5).nonzero()[:, 0].tolist()
    assert moving_ones == sorted(EYES[K])


def test_a_range_of_frames_takes_the_portraits_frames_too(vid2vid, keypoints):
    """The neutral frame may lie before it."""
    whole = motion_maps(vid2vid, drive_keypoints(keypoints, neutral=1), 64)
    part = motion_maps(vid2vid, drive_keypoints(keypoints, neutral=1, frames=slice(2, 4)), 64)
    assert part.first == 2 and torch.equal(part.keypoints.picture, keypoints.picture[2:4])
    assert torch.allclose(part.x_d, whole.x_d[2:4], atol=1e-6)
    assert float((part.maps.f.float() - whole.maps.f[2:4].float()).abs().max()) < 2e-3
    last = keypoints[4:]
    assert last.of_video and len(last) == len(last.portrait) == 1


def test_the_neutral_frame_is_chosen_for_the_calm_portrait(keypoints):
    """The driving frame of the pose and expression that the portrait has most of the time."""
    delta = keypoints.portrait.expression.clone()
    delta[1:4] = delta[1] + 1e-3 * noise(3, K, 3, seed=7)
    upright = rotation_matrix(*torch.zeros(3, FRAMES))
    resting = replace(keypoints, portrait=replace(keypoints.portrait, expression=delta, rotation=upright))
    assert calm_frame(resting.portrait) in (1, 2, 3)
    at_rest = resting.at_rest()
    assert not at_rest.of_video and len(at_rest.portrait) == 1 and at_rest.portrait_crop.ndim == 2
    driver = replace(resting.driver, rotation=upright, expression=resting.driver.expression.clone())
    driver.expression[4] = delta[2]
    assert find_neutral(replace(resting, driver=driver)) == find_neutral(replace(at_rest, driver=driver))
    one = still(keypoints, 0)
    assert one.at_rest() is one


def test_edits_and_saved_motions_are_of_the_driving_video(vid2vid, video, keypoints):
    """And a motion from a file moves a portrait video as its driving video does."""
    edited = edit_driver(keypoints, Edit("constant", 1.0, 1.0, mirror=True))
    for name in (field.name for field in fields(Pose)):
        assert torch.equal(getattr(edited.portrait, name), getattr(keypoints.portrait, name))
    saved = driving_motion(keypoints, 25.0)
    given = track(
        video, None, boxes=torch.tensor([60.0, 55, 50, 60]) + 3 * torch.arange(FRAMES)[:, None] * torch.tensor([1.0, 0, 0, 0])
    )
    applied = replace(apply_to_portrait(vid2vid, video, given, saved), portrait=keypoints.portrait)
    assert torch.allclose(drive_keypoints(applied).x_d, drive_keypoints(keypoints).x_d, atol=1e-5)
    template = replace(saved, points=None, canonical=None)
    assert apply_to_portrait(vid2vid, video, given, template).driver_points.shape == (FRAMES, 5, 2)
    with pytest.raises(InputError, match="portrait video has 5 frames and the driving video 3"):
        apply_to_portrait(vid2vid, video, given, saved[:3])


def test_stitching_of_every_frame(keypoints):
    """The networks see each frame's own keypoints."""
    torch.manual_seed(1)
    sizes = {"stitching": (6 * K, 8, 3 * K + 2), "lip": (3 * K + 2, 8, 3 * K), "eye": (3 * K + 3, 8, 3 * K)}
    networks = {name: KeypointMLP(size) for name, size in sizes.items()}
    ending = Finish(networks, True, Opening(0.3, 0.0), Opening(0.1, 0.4))
    with torch.no_grad():
        whole = drive_keypoints(replace(keypoints, finish=ending), neutral=0).x_d
        for i in range(FRAMES):
            alone = drive_keypoints(replace(still(keypoints, i), finish=ending), neutral=0, frames=slice(i, i + 1)).x_d
            assert torch.allclose(alone, whole[i : i + 1], atol=1e-5)


def test_the_motion_fades_where_either_face_is_missing(vid2vid, video, driver, keypoints):
    """Then G draws the portrait's frame as it is, with its own appearance."""
    weight = torch.tensor([1.0, 0.5, 0.0, 1.0, 1.0])
    tracks = [track(frames, None, boxes=torch.tensor([35.0, 35, 50, 60])) for frames in (video, driver)]
    tracks[0] = replace(tracks[0], motion_weight=weight)
    found = extract_keypoints(vid2vid, video, driver, *tracks)
    assert torch.equal(found.motion_weight, weight)
    faded = replace(keypoints, motion_weight=weight)
    shown = torch.cat(list(portrait_frames(vid2vid, motion_maps(vid2vid, drive_keypoints(faded), 64))))
    own = motion_maps(vid2vid, drive_keypoints(keypoints, pose_gain=0.0, expression_gain=0.0), 64)
    kept = torch.cat(list(portrait_frames(vid2vid, own)))
    assert float((shown[2] - kept[2]).abs().max()) < 2e-3 < float((shown[3] - kept[3]).abs().max())


def test_lengths_that_differ_are_refused(vid2vid, video, driver):
    box = torch.tensor([35.0, 35, 50, 60])
    with pytest.raises(InputError, match="portrait video has 5 frames and the driving video 3"):
        extract_keypoints(vid2vid, video, driver[:3], track(video, None, boxes=box), track(driver[:3], None, boxes=box))


def test_realportrait_animates_a_still_portrait(vid2vid, video, keypoints):
    motion = motion_maps(vid2vid, drive_keypoints(keypoints), 64)
    with pytest.raises(InputError, match="of a portrait video of 5 frames.*Render it with Render Face Vid2vid"):
        frame_portrait(video[:1], motion)


def test_progress_counts_both_videos(vid2vid, video, driver):
    box, told = torch.tensor([35.0, 35, 50, 60]), []
    tracks = [track(frames, None, boxes=box) for frames in (video, driver)]
    extract_keypoints(vid2vid, video, driver, *tracks, callback=lambda done, total: told.append((done, total)))
    assert told == sorted(told) and told[-1] == (2 * FRAMES, 2 * FRAMES) and told[0][0] <= FRAMES


def test_heads_keep_their_turn_between_the_portraits_frames(keypoints):
    """Relative motion turns every frame's head by the same angle as the driving head since its neutral frame."""
    upright = replace(keypoints, portrait_crop=torch.eye(3, dtype=torch.float64).expand(FRAMES, 3, 3))
    motion = relative(upright.portrait, upright.driver, upright.driver[:1])
    turned = angle_between(motion.rotation, upright.portrait.rotation)
    assert torch.allclose(turned, angle_between(upright.driver.rotation, upright.driver.rotation[:1]), atol=0.1)
