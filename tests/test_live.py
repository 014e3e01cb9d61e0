"""A portrait that follows a camera, with the real detector and the bundled weights: it does frame by frame what the maps do."""

from pathlib import Path

import demo_media
import pytest
import torch
import yunet

from realportrait_core.animation.extraction import extract_keypoints
from realportrait_core.animation.keypoints import PUBLIC_KEYPOINT_PX, keypoints_to_crop
from realportrait_core.animation.live import Live, in_other_crop
from realportrait_core.animation.mapping import motion_maps
from realportrait_core.animation.retargeting import drive_keypoints
from realportrait_core.animation.vid2vid_frames import face_frames, frames_mask, picture_size
from realportrait_core.errors import InputError, WeightsError
from realportrait_core.face.crop import clip_crop
from realportrait_core.face.detect import FaceDetector
from realportrait_core.face.follow import FaceFollower
from realportrait_core.face.track import FaceTrack, portrait_points
from realportrait_core.vid2vid.checkpoint import load_vid2vid
from realportrait_core.vid2vid.keypoints import transform
from realportrait_core.vid2vid.stitching import Finish, KeypointMLP

ROOT = Path(__file__).resolve().parent.parent
NEVER = 10**6  # frames between two detections


@pytest.fixture(scope="module")
def vid2vid():
    return load_vid2vid(ROOT / "realportrait_core" / "weights" / "realportrait" / "realportrait_mini_vid2vid.safetensors")


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector(yunet.onnx())


@pytest.fixture(scope="module")
def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    """The portrait (1, 256, 256, 3) and driving frames (4, 256, 256, 3)."""
    return demo_media.pictures(4)


@pytest.fixture
def live(vid2vid, detector, pictures):
    def begin(portrait=pictures[0], every=NEVER, **given) -> Live:
        return Live(vid2vid, portrait, portrait_points(portrait[0], detector), FaceFollower(detector, every), **given)

    return begin


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    return float((a - b).abs().max())


@torch.inference_mode()
def test_frame_by_frame_it_is_the_driving_video(live, vid2vid, detector, pictures):
    """With the crop of the first frame held for all, and that frame as the neutral one."""
    portrait, driving = pictures
    running = live()
    found = torch.stack([running.face(frame) for frame in driving])
    first = portrait_points(driving[0], detector)
    track = FaceTrack(first.expand(len(driving), 5, 2), torch.ones(len(driving), dtype=torch.bool), "")
    keypoints = extract_keypoints(vid2vid, portrait, driving, portrait_points(portrait[0], detector), track)
    motion = motion_maps(vid2vid, drive_keypoints(keypoints), 256)
    wanted = torch.cat(list(face_frames(vid2vid, motion)))
    assert apart(found, wanted) < 5e-3 and apart(wanted[0], wanted[3]) > 0.1  # maps are kept in float16

    again = live()
    pasted, shown = again.frame(driving[0]), frames_mask(motion, picture_size(vid2vid))[0]
    assert pasted.shape == portrait.shape[1:] and torch.equal(pasted[shown == 0], portrait[0][shown == 0])
    assert apart(pasted, portrait[0]) > 0.05 and (shown == 0).any()


def test_the_first_frame_is_neutral_until_a_reset(live, pictures):
    portrait, driving = pictures
    running = live()
    noise = torch.rand(256, 256, 3, generator=torch.Generator().manual_seed(0))
    at_rest = running.face(noise)  # no face yet
    assert apart(running.face(driving[0]), at_rest) < 1e-4
    moved = running.face(driving[3])
    assert apart(moved, at_rest) > 0.1
    running.follower.every = 1
    assert apart(running.face(noise), moved) < 1e-6  # without the face, the last frame
    running.follower.every = NEVER
    running.reset()
    assert apart(running.face(driving[3]), at_rest) < 1e-4
    running.reset(neutral=driving[0])
    assert apart(running.face(driving[3]), moved) < 1e-4
    smaller = torch.nn.functional.avg_pool2d(driving.movedim(-1, 1), 2).movedim(1, -1)
    assert apart(running.face(smaller[1]), at_rest) < 1e-4  # another camera
    running.face(driving[0])
    running.reset(neutral=smaller[0])
    assert apart(running.face(smaller[3]), at_rest) > 0.05  # of the new camera
    with pytest.raises(InputError, match="camera frame must be"):
        running.reset(neutral=driving)


def test_a_pose_is_the_same_in_another_crop(vid2vid, pictures):
    points = torch.tensor([[100.0, 90], [150, 92], [125, 120], [105, 150], [146, 149]])
    crop, other = clip_crop(points[None]), clip_crop(1.2 * points[None] - 40)
    with torch.inference_mode():
        pose = vid2vid.motion(torch.rand(2, 3, vid2vid.cfg.crop_size, vid2vid.cfg.crop_size))

    def in_frame(pose, crop):
        return (keypoints_to_crop(transform(pose)[..., :2].double()) - crop[:2, 2]) / crop[0, 0]

    moved = in_other_crop(pose, crop, other)
    assert apart(in_frame(moved, other), in_frame(pose, crop)) < 1e-3
    assert torch.equal(moved.rotation, pose.rotation) and not torch.allclose(moved.scale, pose.scale)
    assert apart(transform(in_other_crop(moved, other, crop)), transform(pose)) < 1e-5


def shifted(picture: torch.Tensor, px: int) -> torch.Tensor:
    """On a wider canvas, so many px from its left."""
    canvas = picture[:, :1].expand(-1, 400, -1).clone()
    canvas[:, px : px + 256] = picture
    return canvas


def test_the_crop_is_held_and_follows_a_face_that_leaves(detector, pictures):
    follower = FaceFollower(detector, every=2)
    frame = pictures[1][0]
    first = follower.crop(shifted(frame, 60))
    assert torch.equal(follower.crop(shifted(frame, 144)), first)  # not looked for
    assert torch.equal(follower.crop(shifted(frame, 64)), first)  # near enough
    follower.crop(shifted(frame, 90))
    centres = [float((255.5 - follower.crop(shifted(frame, 90))[0, 2]) / first[0, 0]) for _ in range(12)]
    moved = torch.tensor(centres) - float((255.5 - first[0, 2]) / first[0, 0])
    assert moved[0] > 3 and (moved.diff() > -1e-6).all() and 15 < moved[-1] < 31


def test_a_lost_face_is_looked_for_in_every_frame(detector, pictures):
    """Where it was; elsewhere only after a while, since it may be another person's."""
    noise = torch.rand(256, 400, 3, generator=torch.Generator().manual_seed(0))
    here, there = (shifted(pictures[1][0], px) for px in (144, 0))
    follower = FaceFollower(detector, every=3)
    assert follower.crop(noise) is None
    first = follower.crop(here)
    assert [follower.crop(picture) is None for picture in (noise, noise, noise)] == [False, False, True]
    assert torch.equal(follower.crop(here), first)
    found = [follower.crop(there) for _ in range(9)]
    assert [crop is None for crop in found] == [False, False, *5 * [True], False, False]
    assert float((first - found[-1])[0, 2]) < -100
    follower.reset()
    assert torch.equal(follower.crop(there), found[-1])


def test_the_head_glides_as_far_as_the_face_in_the_frame(live, pictures):
    """While the crop moves with it. M alone, in a crop that is held, sees a quarter less of it in the end."""
    frame, starts = pictures[1][0], range(40, 100, 6)
    following, holding = live(every=1), live()
    with torch.inference_mode():
        for px in starts:
            for running in (following, holding):
                running._drive(shifted(frame, px))
    heads = float(following.portrait_pose.scale / following._neutral.scale)
    truth = heads * (starts[-1] - starts[0]) * float(following._neutral_crop[0, 0]) / PUBLIC_KEYPOINT_PX
    glided, seen = (float((running._x_d - running._x_s)[0, :, :2].mean(0).norm()) for running in (following, holding))
    assert glided == pytest.approx(truth, rel=0.05) and seen < 0.85 * truth


def test_stitching_holds_the_shoulders(live, vid2vid, pictures):
    k = vid2vid.cfg.num_kp
    torch.manual_seed(0)
    networks = {"stitching": KeypointMLP((6 * k, 8, 3 * k + 2))}
    plain, stitched = live(), live(finish=Finish(networks, True, None, None))
    for running in (plain, stitched):
        running.face(pictures[1][0])
    assert apart(plain.face(pictures[1][3]), stitched.face(pictures[1][3])) > 1e-2


def test_what_cannot_be(live, vid2vid, detector, pictures):
    with pytest.raises(InputError, match=r"camera frame must be \(height, width, 3\); this one is \(1, 256, 256, 3\)"):
        live().face(pictures[1][:1])
    without = load_vid2vid(ROOT / "realportrait_core" / "weights" / "realportrait" / "realportrait_mini_vid2vid.safetensors")
    without.generator = None
    with pytest.raises(WeightsError, match="no generator"):
        Live(without, pictures[0], portrait_points(pictures[0][0], detector), FaceFollower(detector))
