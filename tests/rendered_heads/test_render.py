"""Rendered pictures: reproducible, independent of the batch, varied, and equal to stored ones."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ROOT

from rendered_heads import LOOKS, STYLES, choose_camera, render, render_clip, sample_identity, sample_motion
from rendered_heads.renderer import head_extent

SMALL = 64  # px


def test_seeds_decide_everything(rig, clip):
    identity, motion, head = clip
    again = render(rig, sample_identity(rig, 3), sample_motion(7, 6, 4.0), head.camera, SMALL)
    assert torch.equal(again.pixels, head.pixels)
    assert torch.equal(again.points2d, head.points2d)


def test_a_frame_does_not_depend_on_its_batch(rig, clip):
    identity, motion, head = clip
    parts = [render(rig, identity, motion[part], head.camera, SMALL) for part in (slice(0, 1), slice(1, 6))]
    for name in ("points2d", "points3d", "eyes2d"):
        torch.testing.assert_close(torch.cat([getattr(part, name) for part in parts]), getattr(head, name), atol=1e-3, rtol=0)
    for name in ("pixels", "alpha", "segments"):  # a point's last digit may give an edge's pixel to its neighbour
        off = (torch.cat([getattr(part, name) for part in parts]).float() - getattr(head, name).float()).abs()
        assert (off > 1e-3).float().mean() < 1e-3, name


def test_two_identities_share_a_motion_exactly(rig):
    first, second = (render_clip(rig, seed, 11, frames=3, size=SMALL).head for seed in (20, 21))
    for name in ("rotation", "pose", "expression", "gaze", "translation"):
        assert torch.equal(getattr(first, name), getattr(second, name)), name
    assert (first.pixels - second.pixels).abs().mean() > 0.02


def test_no_face_point_leaves_the_frame(rig):
    for seed in range(30):
        identity, motion = sample_identity(rig, seed), sample_motion(seed, 24, 12.5)
        camera = choose_camera(rig, identity, motion)
        seen = camera.project(camera.view(head_extent(rig, identity, motion)), 256)[..., :2]
        assert seen.min() > 0 and seen.max() < 256, seed


def test_every_hair_style_is_finite_and_different(rig):
    assert len(STYLES) >= 16
    identity, motion = sample_identity(rig, 3), sample_motion(3, 1, 12.5)
    motion = replace(motion, pose=torch.tensor([[0.2, 0.8, 0.0]]))  # what is behind the head shows from aside
    identity = replace(identity, look="photo", clothes=replace(identity.clothes, hat=""))
    camera, pictures = choose_camera(rig, identity, motion), []
    for style in STYLES:
        head = render(rig, replace(identity, hair=replace(identity.hair, style=style)), motion, camera, SMALL)
        assert torch.isfinite(head.pixels).all(), style
        pictures.append(head.pixels.flatten())
    distance = torch.cdist(torch.stack(pictures), torch.stack(pictures)) + 99 * torch.eye(len(pictures))
    assert distance.min() > 0.1


def test_every_look_is_finite_and_different(rig, clip):
    identity, motion, head = clip
    pictures = [render(rig, replace(identity, look=look), motion[:1], head.camera, SMALL).pixels.flatten() for look in LOOKS]
    pictures = torch.stack(pictures)
    assert torch.isfinite(pictures).all() and pictures.min() >= 0 and pictures.max() <= 1
    assert (torch.cdist(pictures, pictures) + 99 * torch.eye(len(pictures))).min() > 1.0


def test_masks_show_a_face_in_a_foreground(clip):
    *_, head = clip
    assert head.alpha.min() >= 0 and head.alpha.max() <= 1
    face = (head.segments == 1).float().mean()
    assert 0.08 < face < 0.7
    assert torch.equal(head.segments > 0, head.alpha >= 0.5)
    # The middle of the face's points shows no background.
    column, row = head.points2d.mean(1).long().unbind(1)
    assert (head.segments[torch.arange(len(head)), row, column] > 0).all()


def test_pictures_equal_the_stored_ones(rig):
    """Two frames of several identities, as an earlier version rendered them."""
    with np.load(ROOT / "tests" / "golden" / "heads.npz") as file:
        for seed in file.files:
            drawn = render_clip(rig, int(seed), int(seed), 2, 2.0, SMALL).head.pixels
            assert np.abs((drawn.numpy() * 255).round() - file[seed]).mean() < 0.05, seed  # of 255


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_renders_the_same(rig, clip):
    identity, motion, head = clip
    other = render(rig, identity, motion, head.camera, SMALL, "cuda")
    assert (other.pixels.cpu() - head.pixels).abs().mean() < 2e-3
    torch.testing.assert_close(other.points2d.cpu(), head.points2d, atol=1e-2, rtol=0)
