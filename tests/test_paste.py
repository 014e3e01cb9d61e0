"""Pasting back: nothing changes outside, little inside, nothing at all where the square is the picture; lengths, masks, edges."""

import pytest
import torch

from realportrait_core.animation.framing import frame_square
from realportrait_core.animation.mapping import PortraitMotion, frame_portrait
from realportrait_core.errors import InputError
from realportrait_core.face.crop import rescale
from realportrait_core.motion_map import MotionMaps
from realportrait_core.paste import frames_out, paste, region

FACE = torch.tensor([[95.2, 60.3], [144.5, 57.4], [120.2, 88.2], [102.4, 110.8], [146.3, 108.3]], dtype=torch.float64)


def smooth(height: int, width: int, waves: float = 2.0, seed: int = 0) -> torch.Tensor:
    """(1, H, W, 3): a picture without fine detail."""
    y, x = torch.linspace(0, 1, height)[:, None, None], torch.linspace(0, 1, width)[None, :, None]
    phase = torch.arange(3) + seed
    return (0.5 + 0.45 * torch.sin(2 * torch.pi * waves * (x + 0.7 * y) + phase))[None]


def motion_of(points, height, width, size, framing) -> PortraitMotion:
    maps = MotionMaps(torch.zeros(1, 1, 1, 1), torch.eye(3)[None], torch.zeros(1, 2, 3), size, size)
    return PortraitMotion(maps, maps, frame_square(points, height, width, size, framing), (height, width))


def pasted(picture, frames, motion, **changes):
    return paste(picture, frames, motion.portrait_to_frame, motion.maps.height, **changes)


@pytest.mark.parametrize("factor, tolerance", [(1.0, 2e-3), (2.5, 2e-3), (0.6, 4e-3)])
@pytest.mark.parametrize("framing, border", [("auto", 1), ("whole", 4)])
def test_the_portraits_own_frame_changes_nothing_outside_and_little_inside(framing, border, factor, tolerance):
    """Portraits larger and smaller than the frame. On the picture's border half a px of the frame is guessed."""
    height, width = round(400 * factor), round(530 * factor)
    picture, points = smooth(height, width), factor * (FACE + torch.tensor([90.0, 60.0]))
    motion = motion_of(points, height, width, 192, framing)
    out, mask = pasted(picture, frame_portrait(picture, motion), motion)
    assert out.shape == picture.shape and mask.shape == (1, height, width)
    assert torch.equal(out[0][mask[0] == 0], picture[0][mask[0] == 0])
    assert (out - picture).abs().max() < border * tolerance
    assert mask.max() == 1 and 0 < (mask == 0).float().mean() < 0.9
    side = 192 / float(motion.portrait_to_frame[0, 0])
    assert float((mask > 0).sum()) == pytest.approx(side**2, rel=0.03)


def test_a_square_that_is_the_whole_picture_is_replaced_exactly():
    picture, frames = torch.rand(1, 128, 128, 3), torch.rand(3, 128, 128, 3)
    motion = motion_of(FACE, 128, 128, 128, "whole")
    out, mask = pasted(picture, frames, motion, feather=0.3)
    assert torch.equal(out, frames) and (mask == 1).all()
    out, _ = pasted(picture, picture, motion)
    assert torch.equal(out, picture)


def test_a_square_on_the_pixel_grid_is_copied():
    """1 to 1, but not the whole picture: what lies inside the soft edge is the frame, bit by bit."""
    forward = torch.eye(3, dtype=torch.float64)
    forward[:2, 2] = torch.tensor([-20.0, -10.0])
    picture, frames = torch.rand(1, 100, 120, 3), torch.rand(2, 64, 64, 3)
    out, mask = paste(picture, frames, forward, 64, feather=0.25)
    whole = mask[0] == 1
    assert torch.equal(out[:, whole], torch.nn.functional.pad(frames, (0, 0, 20, 36, 10, 26))[:, whole])
    assert whole.nonzero().aminmax() == (26, 67) or whole.sum() == 32 * 32
    hard, mask = paste(picture, frames, forward, 64, feather=0.0)
    assert torch.equal(hard[:, 10:74, 20:84], frames) and mask.sum() == 64 * 64


def test_the_soft_edge():
    """Rises from 0 to 1 over the feather's share of the side, and not where the square ends on the picture's border."""
    picture = torch.zeros(1, 300, 500, 3)
    motion = motion_of(FACE + 130, 300, 500, 128, "whole")
    out, mask = pasted(picture, torch.ones(1, 128, 128, 3), motion, feather=0.1)
    torch.testing.assert_close(out[0, ..., 0], mask[0])
    columns = mask[0, 150]
    inside = columns.nonzero()[:, 0]
    assert len(inside) == pytest.approx(300, abs=1) and (mask[0, 0] == columns).all() and (mask[0, -1] == columns).all()
    ramp = columns[inside[0] : inside[0] + 31]
    assert (ramp.diff() >= 0).all() and ramp[0] < 0.01 and ramp[15] == pytest.approx(0.5, abs=0.06) and ramp[30] == 1
    corner = motion_of(FACE - 50, 300, 500, 128, "whole")  # pressed into the left border
    assert (pasted(picture, torch.ones(1, 128, 128, 3), corner)[1][0, :, 0] == 1).all()


def test_enlarged_frames_lie_on_the_same_square():
    picture = smooth(400, 530)
    motion = motion_of(FACE + 90, 400, 530, 192, "auto")
    frame = frame_portrait(picture, motion)
    twice = torch.nn.functional.interpolate(frame.movedim(-1, 1), scale_factor=2, mode="bicubic").movedim(1, -1)
    small, large = pasted(picture, frame, motion), pasted(picture, twice, motion)
    assert (small[0] - large[0]).abs().max() < 5e-3 and torch.allclose(small[1], large[1], atol=1e-5)


@pytest.mark.parametrize(
    "pictures, frames, length, total",
    [
        (1, 5, "longest", 5),
        (1, 5, "shortest", 5),
        (5, 1, "longest", 5),
        (3, 5, "longest", 5),
        (3, 5, "shortest", 3),
        (20, 5, "longest", 20),
        (1, 1, "shortest", 1),
    ],
)
def test_lengths(pictures, frames, length, total):
    assert frames_out([pictures, frames], length) == total
    motion = motion_of(FACE + 20, 200, 260, 64, "auto")
    under, over = torch.rand(pictures, 200, 260, 3), torch.rand(frames, 64, 64, 3)
    ticks = []
    out, mask = pasted(under, over, motion, length=length, callback=lambda done, all: ticks.append((done, all)))
    assert len(out) == total and len(mask) == 1 and ticks[-1] == (total, total)
    for i in {0, total // 2, total - 1}:
        alone, _ = pasted(under[min(i, pictures - 1)][None], over[min(i, frames - 1)][None], motion)
        assert (out[i] - alone[0]).abs().max() < 1e-6  # of 0 to 1: a last digit may depend on the batch


def test_two_faces_of_one_picture():
    """Each paste leaves the other's square alone."""
    picture = smooth(256, 512)
    left, right = (motion_of(FACE + torch.tensor([shift, 20.0]), 256, 512, 64, "auto") for shift in (0.0, 260.0))
    first, over_left = pasted(picture, torch.zeros(3, 64, 64, 3), left)
    both, over_right = pasted(first, torch.ones(5, 64, 64, 3), right)
    assert both.shape == (5, 256, 512, 3) and not (over_left * over_right).any()
    assert (both[:, over_left[0] == 1] == 0).all() and (both[:, over_right[0] == 1] == 1).all()
    neither = (over_left + over_right)[0] == 0
    assert torch.equal(both[:, neither], picture.expand(5, -1, -1, -1)[:, neither])


def test_masks():
    motion = motion_of(FACE + 20, 200, 260, 64, "auto")
    picture, frames = torch.rand(1, 200, 260, 3), torch.rand(3, 64, 64, 3)
    out, edge = pasted(picture, frames, motion)
    assert torch.equal(pasted(picture, frames, motion, mask=torch.ones(1, 200, 260))[0], out)
    torch.testing.assert_close(pasted(picture, frames, motion, mask=torch.ones(32, 32))[0], out)
    assert torch.equal(pasted(picture, frames, motion, mask=torch.zeros(1, 64, 64))[0], picture.expand(3, -1, -1, -1))
    half = torch.zeros(200, 260)
    half[:, :130] = 1
    out, shown = pasted(picture, frames, motion, mask=half)
    assert torch.equal(shown, edge * half) and torch.equal(out[:, :, 130:], picture.expand(3, -1, -1, -1)[:, :, 130:])
    square = torch.zeros(1, 100, 100)
    square[..., :50] = 1  # the left half of the animated square
    middle = (-0.5 - float(motion.portrait_to_frame[0, 2]) + 32) / float(motion.portrait_to_frame[0, 0])
    shown = pasted(picture, frames, motion, mask=square)[1]
    assert not shown[..., int(middle) + 3 :].any() and torch.allclose(shown[..., : int(middle) - 3], edge[..., : int(middle) - 3])
    moving = torch.rand(2, 200, 260)
    out, shown = pasted(picture, frames, motion, mask=moving)
    assert len(shown) == 3 and torch.equal(shown[2], edge[0] * moving[1])


def test_refusals():
    motion = motion_of(FACE + 20, 200, 260, 64, "auto")
    picture, frames = torch.rand(1, 200, 260, 3), torch.rand(3, 64, 64, 3)
    for match, changes in (
        ("feather is 0.7", {"feather": 0.7}),
        ("length is 'middle'", {"length": "middle"}),
        ("mask is 30x20 px; it must be of the picture's 260x200 px", {"mask": torch.ones(1, 20, 30)}),
        (r"mask is \(1, 1, 20, 20\)", {"mask": torch.ones(1, 1, 20, 20)}),
    ):
        with pytest.raises(InputError, match=match):
            pasted(picture, frames, motion, **changes)
    with pytest.raises(InputError, match="frames are 64x60 px; they must be square"):
        pasted(picture, frames[:, :60], motion)
    with pytest.raises(InputError, match="turned or squeezed"):
        region(rescale(2) * torch.tensor([1.0, 1.2, 1.0], dtype=torch.float64), 64, 100, 100)
    with pytest.raises(InputError, match="beside the picture of 100x100 px"):
        region(torch.tensor([[1.0, 0, -200], [0, 1, 0], [0, 0, 1]], dtype=torch.float64), 64, 100, 100)
