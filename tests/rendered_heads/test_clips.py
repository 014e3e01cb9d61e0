"""Clips: seeds, the stored arrays, an endless stream of them."""

import numpy as np

from rendered_heads import fresh_clips, render_clip
from rendered_heads.clips import arrays, motion_seed_of

SMALL = 64  # px


def test_cross_seeds_perform_the_motion_of_other_clips():
    assert motion_seed_of(12) == 12
    assert motion_seed_of(810003) == 800003


def test_points_project_as_the_stored_camera_says(clip):
    *_, head = clip
    stored = arrays(head)
    focal = SMALL / 2 / np.tan(np.radians(stored["fov"]) / 2)
    distance = stored["frame"] / 2 / np.tan(np.radians(stored["fov"]) / 2)
    x, y, z = head.points3d.numpy().transpose(2, 0, 1)
    flat = np.stack([SMALL / 2 + focal * x / (distance - z), SMALL / 2 - focal * y / (distance - z)], -1)
    np.testing.assert_allclose(flat, head.points2d.numpy(), atol=1e-3)


def test_a_written_clip_has_the_arrays_of_the_readme(rig):
    stored = arrays(render_clip(rig, 2, 2, frames=3, size=SMALL).head)
    shapes = {name: (array.shape, array.dtype.str[1:]) for name, array in stored.items()}
    assert shapes == {
        "verts2d": ((3, 128, 2), "f2"),
        "verts3d": ((3, 128, 3), "f2"),
        "neutral3d": ((128, 3), "f4"),
        "template3d": ((128, 3), "f4"),
        "R": ((3, 3, 3), "f4"),
        "pose": ((3, 3), "f4"),
        "expr": ((3, 52), "f2"),
        "gaze": ((3, 2), "f4"),
        "trans": ((3, 3), "f4"),
        "fov": ((), "f4"),
        "frame": ((), "f4"),
        "center": ((3,), "f4"),
        "camyaw": ((), "f4"),
        "bodyyaw": ((), "f4"),
        "eyes2d": ((3, 2, 2), "f4"),
        "alpha": ((3, 64, 64), "b1"),
    }


def test_fresh_clips_go_on(rig):
    clips = fresh_clips(rig, 30, frames=1, size=32, cross=1.0)
    first, crossed, second = (next(clips) for _ in range(3))
    assert (first.seed, first.motion_seed) == (30, 30)
    assert (crossed.seed, crossed.motion_seed) == (31, 30)
    assert second.seed == 32
