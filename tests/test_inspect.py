"""The pictures of each stage, and the drift in numbers, on motions made by hand."""

from dataclasses import replace

import pytest
import torch
import toy_sizes

from realportrait_core.animation.extraction import crop_faces
from realportrait_core.animation.framing import frame_square
from realportrait_core.animation.keypoints import PUBLIC_KEYPOINT_PX, Keypoints
from realportrait_core.animation.mapping import PortraitMotion
from realportrait_core.config import Vid2VidConfig
from realportrait_core.errors import InputError
from realportrait_core.face.crop import clip_crop, face_ellipse, points_to_crop
from realportrait_core.inspect.components import components
from realportrait_core.inspect.drift import drift, drift_table, frame_statistics, keypoint_errors
from realportrait_core.inspect.sheets import AXES, BAR, BOX, MISSING, TILE, inspect
from realportrait_core.motion_map import MotionMaps
from realportrait_core.vid2vid import FaceVid2Vid
from realportrait_core.vid2vid.keypoints import Pose, rotation_matrix, transform

TINY = Vid2VidConfig(**toy_sizes.VID2VID)
FACE = torch.tensor([[95.2, 60.3], [144.5, 57.4], [120.2, 88.2], [102.4, 110.8], [146.3, 108.3]])
HEIGHT, WIDTH, SIZE = 200, 240, 128
TALL, WIDE = 420, 480  # of the driver


def poses(yaw: list[float]) -> Pose:
    count, turn = len(yaw), torch.tensor(yaw)
    still = torch.zeros(count)
    points = torch.tensor([[-0.2, -0.2, 0.0], [0.2, -0.2, 0.0], [0.0, 0.0, -0.2], [0.0, 0.3, 0.0]]).expand(count, 4, 3)
    return Pose(
        points,
        rotation_matrix(still, turn, still),
        still,
        turn,
        still,
        torch.zeros_like(points),
        torch.ones(count, 1),
        torch.zeros(count, 3),
    )


@pytest.fixture(scope="module")
def made():
    """keypoints and motion of 5 frames, the driver turning; the face is missing in frame 3."""
    points = (FACE + 120).expand(5, 5, 2).contiguous()
    portrait_crop, driver_crop = points_to_crop(FACE), clip_crop(points)
    keypoints = Keypoints(
        poses([0.0]),
        poses([-30.0, 0.0, 30.0, 0.0, 10.0]),
        torch.zeros(1, 2, 2, 8, 8),
        portrait_crop,
        driver_crop,
        FACE,
        points,
        torch.tensor([True, True, True, False, True]),
        (HEIGHT, WIDTH),
        (TALL, WIDE),
    )
    forward = frame_square(FACE, HEIGHT, WIDTH, SIZE, "whole")
    back = torch.linalg.inv(forward)
    disc = (face_ellipse(FACE) @ back)[None].expand(5, 2, 3)
    generator = torch.Generator().manual_seed(0)
    f = torch.randn(5, 6, 8, 8, generator=generator).half()
    maps = MotionMaps(f, (portrait_crop @ back).expand(5, 3, 3), disc, SIZE, SIZE)
    return keypoints, PortraitMotion(maps, maps[0], forward, (HEIGHT, WIDTH))


def grey(frames: int) -> torch.Tensor:
    """A portrait, if it is one frame; else the driver."""
    return torch.full((1, HEIGHT, WIDTH, 3) if frames == 1 else (frames, TALL, WIDE, 3), 0.5)


def tile(sheet: torch.Tensor, row: int, column: int) -> torch.Tensor:
    top = row * (TILE + BAR) + BAR
    return sheet[top : top + TILE, column * TILE : (column + 1) * TILE]


def has(picture: torch.Tensor, color) -> torch.Tensor:
    """(H, W) bool, where the picture is of a colour given in 0..255."""
    return (picture * 255 - torch.tensor(color)).abs().amax(-1) < 8


def test_sheets(made):
    keypoints, motion = made
    ticks = []
    sheets = inspect(keypoints, motion, grey(5), grey(1), None, [0, 3, 4], callback=lambda done, total: ticks.append((done, total)))
    assert sheets.shape == (3, 2 * (TILE + BAR), 3 * TILE, 3) and ticks == [(1, 3), (2, 3), (3, 3)]
    assert 0 <= sheets.min() and sheets.max() <= 1
    for sheet, present in zip(sheets, (True, False, True)):
        driver = tile(sheet, 0, 0)
        assert has(driver, BOX).any() == present and has(driver, MISSING).any() == (not present)
    # The crop's box is where the crop is.
    corner = torch.linalg.inv(keypoints.driver_crop) @ torch.tensor([-0.5, -0.5, 1.0], dtype=torch.float64)
    x, y = (corner[:2] + 0.5) * TILE / WIDE
    rows, columns = has(tile(sheets[0], 0, 0), BOX).nonzero().unbind(1)
    assert columns.min() == pytest.approx(float(x), abs=2) and float(x) > 10
    assert rows.min() == pytest.approx(float(y) + (TILE - TALL * TILE / WIDE) / 2, abs=2)


def test_pose_axes_turn_with_the_head(made):
    """A face that looks to the picture's left at positive yaw, x R with R = (Rz Ry Rx)^T: the blue axis lies on that side."""
    keypoints, motion = made
    sheets = inspect(keypoints, motion, grey(5), grey(1))

    def mean_x(sheet, n):
        return float(has(tile(sheet, 0, 1), AXES[n][0]).nonzero()[:, 1].double().mean())

    front = [mean_x(sheets[i], 2) for i in (0, 1, 2)]
    assert front[0] > front[1] + 5 and front[1] > front[2] + 5
    assert mean_x(sheets[1], 0) > front[1] + 20
    down = has(tile(sheets[1], 0, 1), AXES[1][0]).nonzero()[:, 0].double().mean()
    assert down > has(tile(sheets[1], 0, 1), AXES[2][0]).nonzero()[:, 0].double().mean()


def test_components_are_fixed_over_the_clip_and_find_the_directions():
    generator = torch.Generator().manual_seed(1)
    directions = torch.linalg.qr(torch.randn(10, 3, generator=generator))[0]
    values = torch.randn(6, 3, 8, 8, generator=generator) * torch.tensor([4.0, 2.0, 1.0])[:, None, None]
    f = torch.einsum("cn,lnhw->lchw", directions, values) + 7
    found = components(f)
    assert found.share == pytest.approx(1, abs=1e-4)
    assert (found.axes.mT @ directions).abs().diag().min() > 0.95
    colors = found.colors(f)
    assert colors.shape == (6, 3, 8, 8) and colors.mean() == pytest.approx(0.5, abs=0.02)
    torch.testing.assert_close(found.colors(f[2:3]), colors[2:3])
    few = components(f[:, :1])
    assert few.colors(f[:, :1]).shape == (6, 3, 8, 8)
    still = components(torch.ones(2, 4, 8, 8))
    assert torch.isfinite(still.colors(torch.ones(2, 4, 8, 8))).all()


def test_the_map_lies_where_the_mask_is(made):
    keypoints, motion = made
    sheet = inspect(keypoints, motion, grey(5), grey(1), chosen=[1])[0]
    shown = tile(sheet, 1, 1)[:, :-1]  # without the line between tiles
    changed = ((shown - 0.5).abs().amax(-1) > 0.02).float()
    mask = torch.nn.functional.interpolate(motion.maps.mask()[:1, None].float(), (TILE, TILE))[0, 0][:, :-1]
    assert (changed * (1 - mask)).sum() < 0.1 * mask.sum() and (changed * mask).sum() > 0.9 * mask.sum()


def test_animated_frames_are_shown_where_there_are_some(made):
    keypoints, motion = made
    frames = torch.full((4, 64, 64, 3), 0.9)
    sheets = inspect(keypoints, motion, grey(5), grey(1), frames)
    assert (tile(sheets[3], 1, 2)[:, :-1] - 0.9).abs().max() < 0.01 and tile(sheets[4], 1, 2).max() < 0.01


def test_a_part_of_the_driver_is_shown_beside_its_own_frames(made):
    """A motion from frame 2 on: its frame 1 is the driver's 3, in which the face is missing."""
    keypoints, motion = made
    frames = torch.linspace(0.1, 0.9, 3)[:, None, None, None].expand(3, 64, 64, 3)
    part = replace(motion, maps=motion.maps[2:5], first=2)
    sheets = inspect(keypoints, part, grey(5), grey(1), frames)
    assert [bool(has(tile(sheet, 0, 0), MISSING).any()) for sheet in sheets] == [False, True, False]
    assert [round(float(tile(sheet, 1, 2)[9, 9, 0]), 1) for sheet in sheets] == [0.1, 0.5, 0.9]
    whole = inspect(keypoints, motion, grey(5), grey(1))
    assert torch.equal(tile(sheets[1], 1, 1), tile(inspect(keypoints, part, grey(5), grey(1), chosen=[1])[0], 1, 1))
    assert torch.equal(tile(sheets[1], 0, 1), tile(whole[3], 0, 1))


def test_the_frames_that_a_clip_starts_with_are_framed(made):
    """5 frames in clips of 3: 0-2, 2-4. Frame 2 is the second clip's conditional one."""
    keypoints, motion = made
    frames = torch.full((5, 64, 64, 3), 0.9)
    sheets = inspect(keypoints, motion, grey(5), grey(1), frames, clip_frames=3)
    assert [bool(has(tile(sheet, 1, 2), BOX).any()) for sheet in sheets] == [False, False, True, False, False]


def test_refusals(made):
    keypoints, motion = made
    with pytest.raises(InputError, match="of 5 driving frames, the driving video has 4 and the motion 5"):
        inspect(keypoints, motion, grey(4), grey(1))
    with pytest.raises(InputError, match="the motion 2, from frame 4 on"):
        inspect(keypoints, replace(motion, maps=motion.maps[:2], first=4), grey(5), grey(1))
    with pytest.raises(InputError, match="6 animated frames for a motion of 5"):
        inspect(keypoints, motion, grey(5), grey(1), torch.zeros(6, 64, 64, 3))
    with pytest.raises(InputError, match="portrait is 240x100 px"):
        inspect(keypoints, motion, grey(5), grey(1)[:, :100])


def test_the_keypoints_are_measured_against_the_wanted_motion():
    """Of frames that show what was wanted the error is 0; of a motion that wants more, as many px as it wants more."""
    torch.manual_seed(0)
    vid2vid = FaceVid2Vid(TINY).eval().requires_grad_(False)
    size, frames = 64, torch.rand(3, 64, 64, 3, generator=torch.Generator().manual_seed(1))
    crop = points_to_crop(FACE / 4)
    wanted = transform(vid2vid.motion(crop_faces(vid2vid, frames, crop)))
    maps = MotionMaps(torch.zeros(3, 6, 8, 8), crop.expand(3, 3, 3), torch.zeros(3, 2, 3), size, size)
    motion = PortraitMotion(maps, maps[0], torch.eye(3), (size, size), wanted)
    assert keypoint_errors(vid2vid, frames, motion).max() < 1e-4
    shift = torch.tensor([0.3, 0.4, 9.0]) * torch.tensor([0.0, 1.0, 2.0])[:, None, None]  # z is no place in a picture
    px = 0.5 * PUBLIC_KEYPOINT_PX / float(torch.linalg.det(crop[:2, :2]).sqrt())
    further = replace(motion, x_d=wanted + shift)
    torch.testing.assert_close(keypoint_errors(vid2vid, frames, further), torch.tensor([0.0, px, 2 * px]), atol=1e-3, rtol=1e-3)
    # Frames that were enlarged since are measured in px of the square that was animated.
    enlarged = frames.repeat_interleave(2, 1).repeat_interleave(2, 2)
    torch.testing.assert_close(keypoint_errors(vid2vid, enlarged, further)[2:], torch.tensor([2 * px]), rtol=0.1, atol=0)
    found = drift(frames, 2, torch.tensor([1.0, 2.0, 5.0]))
    assert [one.keypoints for one in found] == [1.5, 5.0]
    text = drift_table(found, frame_statistics(frames[:1])).splitlines()
    assert text[0].endswith("keypoints px") and text[2].endswith(" 1.50") and "; keypoints +3.50 px off." in text[-1]


def test_drift_is_measured_clip_by_clip():
    """33 frames of clips of 16: 0-15, 16-30, 31-32; each clip is redder, flatter and softer than the one before."""
    noise = torch.rand(1, 32, 32, 1, generator=torch.Generator().manual_seed(2))
    noise -= noise.mean()
    strength = torch.tensor([0.4] * 16 + [0.2] * 15 + [0.1] * 2)[:, None, None, None]
    red = torch.tensor([0.0] * 16 + [0.05] * 15 + [0.1] * 2)[:, None, None, None] * torch.tensor([1.0, 0, 0])
    frames = 0.5 + strength * noise + red
    found = drift(frames, 16)
    assert [(one.first, one.last) for one in found] == [(0, 15), (16, 30), (31, 32)]
    torch.testing.assert_close(found[1].mean - found[0].mean, torch.tensor([12.75, 0, 0]), atol=1e-2, rtol=0)
    torch.testing.assert_close(found[0].deviation, 0.4 * 255 * noise.std(correction=0).expand(3), rtol=1e-4, atol=1e-3)
    assert found[0].sharpness == pytest.approx(16 * found[2].sharpness, rel=1e-3)
    text = drift_table(found, frame_statistics(frames[:1])).splitlines()
    assert len(text) == 6 and text[1].startswith("portrait") and text[3].startswith("1        16-30")
    assert "Clip 2 against clip 0: mean +25.5, " in text[-1] and "deviation x 0.25; sharpness x 0.06" in text[-1]
    assert "nothing to drift from" in drift_table(drift(frames[:5], 16))
