"""Pictures that are huge, of extreme shapes, or show nothing at all: through detection, motion maps and paste-back."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import toy

from realportrait_core.animation.extraction import extract_keypoints
from realportrait_core.animation.mapping import frame_portrait, motion_maps
from realportrait_core.animation.retargeting import drive_keypoints
from realportrait_core.face.crop import rescale, warp_affine, warp_averaged
from realportrait_core.face.detect import checked_image
from realportrait_core.face.resize import resize_levels
from realportrait_core.face.track import portrait_points, track
from realportrait_core.paste import paste
from realportrait_core.vid2vid import FaceVid2Vid


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    return FaceVid2Vid(toy.TOY.vid2vid).eval().requires_grad_(False)


# 8: huge pictures and extreme aspect ratios


@pytest.mark.slow
def test_a_picture_of_33_megapixels_costs_less_than_its_own_memory_again():
    """Detection, keypoints, maps and the animated square; what is pasted back is the picture itself at its own size."""
    run = subprocess.run([sys.executable, str(Path(__file__).with_name("huge_picture.py"))], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    figures = json.loads(run.stdout)
    assert figures["picture"] == 384  # MB
    assert figures["used"] < figures["picture"], figures
    assert figures["shape"] == [1, 4096, 8192, 3] and figures["kept"] and figures["outside"] > 4096 * 8192 / 4 and figures["finite"]
    (left, _), (right, _) = figures["eyes"]
    assert 4096 / 8 < left < right < 4096


def test_in_strips_the_values_are_the_same(monkeypatch):
    """Huge pictures are read and sampled a few rows at once: to the bit what all rows at once give."""
    picture = torch.rand(301, 407, 3, generator=torch.Generator().manual_seed(0))
    to_frame = torch.tensor([[0.11, 0.02, 3.0], [-0.02, 0.11, 5.0], [0, 0, 1]], dtype=torch.float64)
    levels = torch.from_numpy(checked_image(picture))
    warped = warp_averaged(picture.movedim(-1, 0)[None], to_frame, 40, 40, 9)
    one = warp_affine(picture.movedim(-1, 0)[None], rescale(9) @ to_frame, 360, 360)
    assert torch.equal(warped, torch.nn.functional.avg_pool2d(one, 9))
    small = resize_levels(levels, 30, 41)
    monkeypatch.setattr("realportrait_core.face.detect.STRIP", 5000)
    monkeypatch.setattr("realportrait_core.face.resize.STRIP", 5000)
    monkeypatch.setattr("realportrait_core.face.crop.SAMPLES", 20000)
    assert torch.equal(torch.from_numpy(checked_image(picture)), levels)
    assert torch.equal(warp_averaged(picture.movedim(-1, 0)[None], to_frame, 40, 40, 9), warped)
    assert torch.equal(resize_levels(levels, 30, 41), small)


@pytest.mark.parametrize("height, width", [(64, 8000), (8000, 64), (40, 4000)])
def test_extreme_aspect_ratios(networks, height, width):
    portrait = torch.rand(1, height, width, 3, generator=torch.Generator().manual_seed(1))
    short = min(height, width)
    points = portrait_points(portrait[0], None, box=(width // 2 - short // 2, height // 2 - short // 2, short - 4, short - 4))
    driving = torch.rand(3, 70, 90, 3, generator=torch.Generator().manual_seed(2))
    keypoints = extract_keypoints(networks, portrait, driving, points, track(driving, None, boxes=(20, 15, 45, 50)))
    motion = motion_maps(networks, drive_keypoints(keypoints), 64)
    square = frame_portrait(portrait, motion)
    assert square.shape == (1, 64, 64, 3) and torch.isfinite(motion.maps.f).all()
    pasted, _ = paste(portrait, square.expand(3, -1, -1, -1), motion.portrait_to_frame, 64)
    assert pasted.shape == (3, height, width, 3) and torch.isfinite(pasted).all()


# 12: frames in which there is nothing


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0], ids=["black", "grey", "white"])
@pytest.mark.parametrize("mode", ["relative", "paper-absolute"])
def test_constant_pictures_have_finite_keypoints_and_maps(networks, value, mode):
    """Everywhere one colour, and all driving frames equal: no division by a deviation of zero."""
    portrait, driving = torch.full((1, 96, 80, 3), value), torch.full((4, 70, 90, 3), value)
    assert float(driving.std()) == 0
    points = portrait_points(portrait[0], None, box=(10, 10, 60, 70))
    keypoints = extract_keypoints(networks, portrait, driving, points, track(driving, None, boxes=(20, 15, 45, 50)))
    motion = motion_maps(networks, drive_keypoints(keypoints, mode), 64)
    assert len(motion.maps) == 4
    assert torch.isfinite(motion.maps.f).all() and torch.isfinite(motion.x_d).all() and torch.isfinite(motion.maps.face).all()
    assert torch.equal(motion.maps.f, motion.maps.f[:1].expand_as(motion.maps.f))  # equal frames, equal maps
