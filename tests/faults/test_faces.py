"""Faces that leave, are hidden, change places or are too small: rendered heads on a canvas, found by the real detector."""

import logging

import pytest
import torch
import toy
import yunet
from logged import said

from realportrait_core.animation.extraction import extract_keypoints
from realportrait_core.animation.mapping import motion_maps
from realportrait_core.animation.retargeting import drive_keypoints
from realportrait_core.errors import FaceError
from realportrait_core.face.detect import FaceDetector
from realportrait_core.face.resize import resize_levels
from realportrait_core.face.track import MIN_FACE, SMALL_FACE, follow, portrait_points, track
from realportrait_core.vid2vid import FaceVid2Vid

FRAMES = 14
GREY = 60


@pytest.fixture(scope="module")
def heads():
    """Two people of 24 frames each: (2, 24, 256, 256, 3) uint8."""
    av = pytest.importorskip("av")
    clips = []
    for seed in (800000, 810000):
        with av.open(str(yunet.ROOT / "tests" / "data" / f"{seed}.mp4")) as video:
            clips.append(torch.stack([torch.from_numpy(frame.to_ndarray(format="rgb24")) for frame in video.decode(video=0)]))
    return torch.stack(clips)


@pytest.fixture(scope="module")
def detector():
    return FaceDetector(yunet.onnx())


def passing(heads, drop: int, second_in_front: bool, side: int = 160) -> tuple[torch.Tensor, torch.Tensor]:
    """The first head goes from left to right, the second, `drop` px lower, from right to left; and the first's left edge (L,)."""
    left = torch.linspace(0, 640 - side, FRAMES).round().int()
    frames = torch.full((FRAMES, side + drop, 640, 3), GREY, dtype=torch.uint8)
    for i, x in enumerate(left.tolist()):
        places = [(0, x, 0), (1, 640 - side - x, drop)]
        for who, at, top in places if second_in_front else places[::-1]:
            frames[i, top : top + side, at : at + side] = resize_levels(heads[who, i], side, side).byte()
    return frames, left


# 4: several faces whose order changes


@pytest.mark.parametrize("drop, second_in_front", [(160, True), (20, True), (20, False), (0, True)])
def test_two_who_pass_each_other_are_not_mistaken(heads, detector, drop, second_in_front):
    """The detector lists the followed face first, then second: their order changes in the middle, where one may hide the other."""
    frames, left = passing(heads, drop, second_in_front)
    order = [[bool(abs(face.points[2, 0] - left[i] - 80) < 80) for face in detector.detect(frames[i])] for i in (0, -1)]
    assert order == [[True, False], [False, True]]
    found = track(frames, detector, choice=0)
    nose = found.points[:, 2, 0] - left - 80  # px off the middle of the first head's picture
    assert float(nose[found.present].abs().max()) < 50  # half of the picture is 80 px, and heads turn in it
    assert bool(found.present[[0, 1, 2, 3, -4, -3, -2, -1]].all())
    assert found.present.all() or "Missing in frames" in found.report


def test_two_who_swap_places_from_one_frame_to_the_next(heads, detector):
    """Where the followed face was, there is another one now."""
    together, swapped = torch.cat([heads[0], heads[1]], 2), torch.cat([heads[1], heads[0]], 2)
    found = track(torch.cat([together[:6], swapped[6:12]]), detector, choice=0)
    assert bool(found.present.all()) and found.cuts == (6,)
    assert bool((found.points[:6, 2, 0] < 256).all() and (found.points[6:, 2, 0] > 256).all())
    assert "A cut or a jump at frame 6" in found.report


def test_the_other_one_does_not_take_the_place_of_one_who_leaves(heads, detector):
    """Only the second person stays, for longer than a stranger would have to wait; then the first one is back."""
    frames = torch.nn.functional.pad(torch.cat([heads[0], heads[1]], 2)[:20], (0, 0, 0, 512, 0, 512)).clone()
    frames[5:15, :, :256] = 0
    assert len(detector.detect(frames[10])) == 1
    found = track(frames, detector, choice=0)
    assert found.present.tolist() == [not 5 <= i < 15 for i in range(20)]
    assert bool((found.points[..., 0] < 256).all()) and "Missing in frames 5-14" in found.report


# 5: the face leaves, comes back, is hidden, turns into profile


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    return FaceVid2Vid(toy.TOY.vid2vid).eval()


def maps_of(networks, heads, frames, found):
    points = torch.tensor([[100.0, 110], [150, 110], [125, 135], [105, 160], [145, 160]])
    keypoints = extract_keypoints(networks, heads[1, :1] / 255.0, frames / 255.0, points, found)
    return motion_maps(networks, drive_keypoints(keypoints, "relative"), 64).maps


def leaving(heads):
    """The head slides out of the picture to the right and comes back."""
    out = [0, 0, 0, 60, 130, 200, 256, 256, 256, 256, 256, 256, 256, 200, 130, 60, 0, 0, 0, 0]
    frames = torch.full((20, 256, 256, 3), GREY, dtype=torch.uint8)
    for i, x in enumerate(out):
        frames[i, :, x:] = heads[0, 0, :, : 256 - x]
    return frames


def hidden(heads):
    """A grey board before the face."""
    frames = heads[0, :1].repeat(20, 1, 1, 1)
    frames[5:16, :200, 40:220] = GREY
    return frames


@pytest.mark.parametrize("fault", [leaving, hidden])
def test_the_map_fades_to_zeros_while_the_face_is_away(heads, detector, networks, fault):
    frames = fault(heads)
    assert detector.detect(frames[10]) == [] and len(detector.detect(frames[0])) == len(detector.detect(frames[-1])) == 1
    found = track(frames, detector, missing_face="fade")
    assert found.present.tolist() == [bool(detector.detect(frame)) for frame in frames]
    assert "the motion fades out" in found.report and torch.isfinite(found.points).all()
    maps = maps_of(networks, heads, frames, found)
    strength = maps.f.detach().float().abs().amax((1, 2, 3))
    assert len(maps) == len(frames) and torch.isfinite(maps.f).all()
    away = [i for i in range(20) if not bool(found.present[max(0, i - 4) : i + 5].any())]
    assert away and all((float(strength[i]) == 0) == (i in away) for i in range(20)), "it fades, and is not cut off"
    held = maps_of(networks, heads, frames, track(frames, detector, missing_face="hold"))
    assert bool((held.f.float().abs().amax((1, 2, 3)) > 0).all())


def test_half_a_face_is_followed_or_named(heads, detector):
    """As of a profile, one eye and half of the mouth are there; no frame is lost, and those without a face are named."""
    frames = heads[1].clone()
    frames[8:16, :, 110:] = GREY  # one half of the face is gone
    found = track(frames, detector)
    assert len(found.points) == 24 and torch.isfinite(found.points).all()
    assert found.present[:8].all() and found.present[16:].all()
    assert found.present.all() or "Missing in" in found.report


# 7: tiny faces


def on_canvas(head: torch.Tensor, side: int) -> torch.Tensor:
    frame = torch.full((256, 256, 3), GREY, dtype=torch.uint8)
    frame[48 : 48 + side, 48 : 48 + side] = resize_levels(head, side, side).byte()
    return frame


def test_a_face_below_the_least_is_refused_and_one_below_twice_as_much_is_warned_of(heads, detector, caplog):
    caplog.set_level(logging.WARNING)
    assert SMALL_FACE == 2 * MIN_FACE
    tiny, small, large = (on_canvas(heads[0, 0], side) for side in (64, 112, 200))
    (side,) = [float(face.box[2:].min()) for face in detector.detect(tiny)]
    assert side < MIN_FACE
    with pytest.raises(FaceError, match=rf"The portrait's face is {side:.0f}x\d+ px; at least 32 px are needed. Crop or enlarge"):
        portrait_points(tiny, detector)
    assert MIN_FACE < float(detector.detect(small)[0].box[2:].min()) < SMALL_FACE
    portrait_points(small, detector)
    assert "The portrait's face is only" in caplog.text and "below 64 px" in caplog.text
    assert "smaller than 64 px in frames 0-2" in track(small.expand(3, -1, -1, -1), detector).report
    caplog.clear()
    portrait_points(large, detector)
    assert not said(caplog)
    assert "smaller" not in track(large[None], detector).report


# 1, 2, 3, 6 have their tests in tests/test_face.py. What the track promises whatever happens:


def test_every_frame_has_its_pose_whatever_happens(heads, detector):
    """A shot cut, a frame of black, a flash and a stranger in one video: as many points as frames, all finite."""
    frames = torch.cat([heads[0, :5], torch.zeros_like(heads[0, :2]), 255 - (255 - heads[0, 5:8]) // 3, heads[1, :5]])
    followed, _, cuts, _ = follow(frames, detector, "largest", None)
    found = track(frames, detector)
    assert len(found.points) == len(frames) and torch.isfinite(found.points).all()
    assert [i for i, face in enumerate(followed) if face is None] == [5, 6] and cuts
