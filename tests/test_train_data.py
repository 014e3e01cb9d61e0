"""A folder of videos and images becomes training samples: the real detector, the bundled MINI weights, clips made here."""

import io
import json
import logging
import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import fields, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
import yunet
from safetensors.torch import save_file
from videos import write

from realportrait_core.animation.extraction import extract_keypoints
from realportrait_core.animation.framing import frame_square, sample_frame
from realportrait_core.animation.keypoints import keypoints_to_crop
from realportrait_core.animation.mapping import motion_maps
from realportrait_core.animation.retargeting import drive_keypoints, driven_keypoints
from realportrait_core.checkpoint import read_header
from realportrait_core.config import MINI, PAPER
from realportrait_core.errors import InputError
from realportrait_core.face.crop import face_square, rescale
from realportrait_core.face.detect import Face, FaceDetector
from realportrait_core.face.track import FaceTrack, track
from realportrait_core.train.data import __main__ as command
from realportrait_core.train.data import prepare
from realportrait_core.train.data.filters import BackgroundMotion, Filters, light, plausible
from realportrait_core.train.data.frozen import freeze_photo, to_bytes
from realportrait_core.train.data.images import (
    crop_keypoints,
    crop_photo,
    draw_crops,
    photo_side,
    random_crop,
    smallest_crop,
    transform_points,
)
from realportrait_core.train.data.journal import JOURNAL, REPORT
from realportrait_core.train.data.packed import unpack
from realportrait_core.train.data.prepare import prepare_samples, to_batch
from realportrait_core.train.data.sample import OPTIONAL, TENSORS, load_sample
from realportrait_core.train.data.segments import LONGEST, Block, Segment, cut_run, find_segments, read_frames, segment_square
from realportrait_core.train.data.sources import File, list_files, open_sources
from realportrait_core.train.encoders import Encoders
from realportrait_core.vae import AutoencoderKL, load_vae
from realportrait_core.vid2vid.checkpoint import load_vid2vid
from realportrait_core.vid2vid.keypoints import transform

av, cv2 = pytest.importorskip("av"), pytest.importorskip("cv2")

CLIPS = yunet.ROOT / "tests" / "data"
ASSETS = yunet.ROOT / "assets"
WEIGHTS = yunet.ROOT / "realportrait_core" / "weights"
VID2VID = WEIGHTS / "realportrait" / "realportrait_mini_vid2vid.safetensors"
VAE = WEIGHTS / "vae" / "realportrait_mini_vae.safetensors"
FILTERS = Filters.for_size(MINI.image_size, {})
CLIP = replace(MINI, dit=replace(MINI.dit, clip_frames=8))  # clips of 8 frames suffice, and take a third of the time


def frames_of(path: Path, count: int | None = None) -> np.ndarray:
    with av.open(str(path)) as video:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)][:count])


def texture(height: int, width: int) -> np.ndarray:
    noise = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8), (0, 0), 2)
    return cv2.normalize(noise, None, 0, 255, cv2.NORM_MINMAX)


def before_texture(step: float, count: int) -> np.ndarray:
    """The head of tests/data before a wall that the camera passes by at `step` px a frame."""
    heads, wall = frames_of(CLIPS / "800000.mp4", count), texture(300, 900)
    with np.load(CLIPS / "800000.npz") as file:
        alphas = file["alpha"].astype(np.float32)
    made = []
    for i, head in enumerate(heads):
        alpha = cv2.resize(alphas[i], (256, 256))[..., None]
        seen = cv2.warpAffine(wall, np.float32([[1, 0, -step * i], [0, 1, 0]]), (256, 256))
        made.append((seen * (1 - alpha) + head * alpha).astype(np.uint8))
    return np.stack(made)


def source_of(path: Path):
    return next(open_sources([File(path.name, path, path.stat().st_size)], pytest.fail))


def said(report, name: str) -> list[str]:
    """The reasons for which pieces of a source were left out."""
    return [piece.reason for entry in report.entries if entry.name == name for piece in entry.dropped]


def files_of(report, name: str) -> list[str]:
    return [kept.file for entry in report.entries if entry.name == name for kept in entry.kept]


def same(a: Path, b: Path) -> bool:
    """Whether two samples hold the same bits; the order of the metadata in the file is safetensors' own."""
    one, other = load_sample(a), load_sample(b)
    poses = all(
        torch.equal(getattr(getattr(one, role), field.name), getattr(getattr(other, role), field.name))
        for role in ("poses", "portrait_poses")
        for field in fields(one.poses)
    )
    faces = all(torch.equal(*pair) for pair in zip(one.faces, other.faces, strict=True))
    kept = [name for name in (*TENSORS, *OPTIONAL) if getattr(one, name) is not None]
    return (
        poses
        and faces
        and all(torch.equal(getattr(one, name), getattr(other, name)) for name in kept)
        and (read_header(a).metadata == read_header(b).metadata)
    )


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector(yunet.onnx())


@pytest.fixture(scope="module")
def networks():
    return load_vid2vid(VID2VID), load_vae(VAE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What a user's folder may hold."""
    root = tmp_path_factory.mktemp("mine")
    driving = frames_of(ASSETS / "driving.mp4")
    still = driving[3]
    write(root / "good.mp4", driving[:10])
    shutil.copy(ASSETS / "portrait.png", root / "portrait.png")
    write(root / "small.mp4", [cv2.resize(frame, (96, 96), interpolation=cv2.INTER_AREA) for frame in driving[:8]])
    write(root / "dark.mp4", driving[:8] // 12)
    write(root / "pan.mp4", before_texture(4.0, 8))
    write(root / "wall.mp4", np.stack([np.roll(texture(256, 256), i, 0) for i in range(8)]))
    other = frames_of(CLIPS / "810000.mp4", 8)
    write(root / "cut.mp4", np.concatenate([driving[:9], 255 - other[:3], other]))
    write(root / "one frame.mp4", driving[:1])
    (root / "text.mp4").write_text("#EXTM3U\nhttp://localhost/other.ts\n")
    whole = (root / "good.mp4").read_bytes()
    (root / "cut short.mp4").write_bytes(whole[: len(whole) // 2])
    (root / "notes.txt").write_text("not a source")
    deep = root / "día ☃" / "deep er"
    deep.mkdir(parents=True)
    write(deep / "good.mp4", driving[10:18])  # another video of the same name
    shutil.copy(root / "good.mp4", deep / "copy of good.mp4")
    cv2.imwrite(str(deep / "naïve face.jpg"), np.ascontiguousarray(still[..., ::-1]))
    jpeg = (deep / "naïve face.jpg").read_bytes()
    (deep / "half.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (deep / "page.png").write_bytes(b"<html>")
    (deep / "loop").symlink_to(root, target_is_directory=True)
    (deep / "gone.mp4").symlink_to(root / "nowhere.mp4")
    return root


@pytest.fixture(scope="module")
def prepared(folder, detector, networks, tmp_path_factory):
    out = tmp_path_factory.mktemp("samples")
    return out, prepare_samples([folder], out, *networks, detector, CLIP, FILTERS)


# The folder as a whole


def test_good_videos_and_images_become_samples(folder, prepared):
    out, report = prepared
    name = folder.name
    deep = f"{name}/día ☃/deep er"
    for video, frames in ((f"{name}/good.mp4", 10), (f"{deep}/good.mp4", 8)):
        (file,) = files_of(report, video)
        sample = load_sample(out / file)
        assert (sample.kind, sample.size, len(sample), len(sample.portraits)) == ("video", 256, frames, frames)
        assert sample.latents.shape == (frames, 4, 32, 32) and sample.latents.dtype == torch.float16
        assert sample.f is None and unpack(sample.faces[-1]).shape == (3, 128, 128) and not sample.from_posterior
        assert read_header(out / file).metadata["source"] == video
    for picture in (f"{name}/portrait.png", f"{deep}/naïve face.jpg"):
        sample = load_sample(out / files_of(report, picture)[0])
        assert (sample.kind, len(sample), sample.portraits.tolist()) == ("image", 1, [0])
        assert unpack(sample.photo).shape[1] in (256, 366) and sample.f is None
    assert sorted(path.name for path in out.glob("*.safetensors")) == sorted(
        kept.file for kind in ("video", "image") for kept in report.kept(kind)
    )
    assert all(path.name.isascii() for path in out.iterdir())
    assert not list(out.glob(".*"))


def test_everything_else_is_named_with_its_reason(folder, prepared):
    _, report = prepared
    name = folder.name
    deep = f"{name}/día ☃/deep er"
    expected = {
        "small.mp4": "low resolution",
        "dark.mp4": "low lighting",
        "pan.mp4": "moving background",
        "wall.mp4": "no face",
        "one frame.mp4": "too short",
        "text.mp4": "unreadable file",
        "cut short.mp4": "unreadable file",
        "día ☃/deep er/half.jpg": "unreadable file",
        "día ☃/deep er/page.png": "unreadable file",
        "día ☃/deep er/gone.mp4": "unreadable file",
    }
    assert {key: said(report, f"{name}/{key}") for key in expected} == {key: [reason] for key, reason in expected.items()}
    # Of two files of the same content the second is left out; in order of names that is the one at the top.
    assert said(report, f"{deep}/copy of good.mp4") == ["duplicate"] or said(report, f"{name}/good.mp4") == ["duplicate"]
    assert len(report.entries) == 16  # the link back to the top did not bring anything twice


def test_measured_numbers_are_in_report_and_sample(prepared):
    out, report = prepared
    written = json.loads((out / REPORT).read_text(encoding="utf-8"))
    assert written["summary"] == report.summary()
    assert written["summary"]["left_out"]["unreadable file"] == 5
    assert written["summary"]["clips_kept"] == len(report.kept("video")) == 4
    assert written["summary"]["hours_kept"] == pytest.approx(sum(kept.frames for kept in report.kept("video")) / 12.5 / 3600)
    for entry in report.entries:
        for kept in entry.kept:
            measured = json.loads(read_header(out / kept.file).metadata["measured"])
            assert measured == kept.measured and FILTERS.refuse(measured) is None
        for piece in entry.dropped:
            assert FILTERS.refuse(piece.measured) == ((piece.reason, piece.detail) if piece.measured else None)
    table = report.table()
    assert all(entry.name in table for entry in report.entries if entry.dropped)


def test_the_frames_are_kept_where_that_is_asked_for(folder, prepared, detector, networks, tmp_path):
    out, report = prepared
    assert load_sample(out / files_of(report, f"{folder.name}/good.mp4")[0]).pictures is None
    made = prepare_samples(
        [folder / "good.mp4", folder / "portrait.png"], tmp_path, *networks, detector, CLIP, FILTERS, pictures=True
    )
    sample = load_sample(tmp_path / made.kept("video")[0].file)
    assert torch.equal(sample.pictures.movedim(1, -1), torch.from_numpy(frames_of(folder / "good.mp4")))
    with pytest.raises(InputError, match="other settings: pictures True .now None"):
        prepare_samples([folder / "good.mp4"], tmp_path, *networks, detector, CLIP, FILTERS)


def test_a_cut_ends_a_segment(folder, prepared):
    out, report = prepared
    (entry,) = [entry for entry in report.entries if entry.name.endswith("/cut.mp4")]
    assert [(kept.frames, round(kept.time * 12.5)) for kept in entry.kept] == [(9, 0), (8, 12)]
    assert [(piece.reason, round(piece.time * 12.5)) for piece in entry.dropped] in ([("no face", 9)], [("too short", 9)])


# What is cached is what is live


def test_maps_from_a_sample_are_those_of_the_live_path(networks, folder, detector, prepared):
    """The same frames through extract_keypoints and motion_maps: only the rounding of the face crop that F takes lies between."""
    vid2vid, vae = networks
    out, report = prepared
    sample = load_sample(out / files_of(report, f"{folder.name}/día ☃/deep er/good.mp4")[0])
    pictures = torch.from_numpy(frames_of(folder / "día ☃" / "deep er" / "good.mp4")).float() / 255
    points = track(pictures, detector).points
    assert torch.equal(points, sample.points)
    with torch.inference_mode():
        torch.testing.assert_close(vae.encode(pictures.movedim(-1, 1)).half(), sample.latents, rtol=1e-3, atol=2e-3)
        for portrait in (0, 5):
            own = int(sample.portraits[portrait])
            live = extract_keypoints(
                vid2vid, pictures[own : own + 1], pictures, points[own], FaceTrack(points, torch.ones(8, dtype=torch.bool), "")
            )
            cached = sample.keypoints(portrait, torch.arange(8))
            for field in fields(live.driver):
                assert torch.equal(getattr(cached.driver, field.name)[1:], getattr(live.driver, field.name))
                portrait_pose, expected = getattr(cached.portrait, field.name), getattr(live.portrait, field.name)
                torch.testing.assert_close(portrait_pose, expected, rtol=1e-4, atol=2e-3)  # of another batch; angles are in degrees
            feature = Encoders(vid2vid.appearance).features(unpack(sample.faces[portrait])[None])
            assert (feature - live.feature).norm() < 5e-3 * live.feature.norm()  # of whole grey values
        some = torch.tensor([1, 6])
        keypoints = replace(sample.keypoints(5, some), feature=feature)
        found = motion_maps(vid2vid, drive_keypoints(keypoints, neutral=0), 256, framing="whole").maps[1:]
        exact = motion_maps(vid2vid, drive_keypoints(live, neutral=own), 256, framing="whole").maps[some]
        torch.testing.assert_close(found.frame_to_crop, exact.frame_to_crop, rtol=0, atol=1e-9)
        torch.testing.assert_close(found.face, exact.face, rtol=0, atol=5e-5)  # of x_d in float32, two batches
        deviation, scale = (found.f.float() - exact.f.float()).abs(), float(exact.f.float().std())
        assert float(deviation.mean()) < 5e-3 * scale and float(deviation.max()) < 0.2 * scale


def test_latents_of_an_sd_vae_are_drawn_or_means(folder, detector, networks, tmp_path):
    """The VAE from a file with diffusers' or LDM's names; the paper's is of four times the width."""
    torch.manual_seed(0)
    save_file(AutoencoderKL(32).state_dict(), tmp_path / "sd15.safetensors")
    vae, sources = load_vae(tmp_path / "sd15.safetensors"), [folder / "good.mp4", folder / "portrait.png"]
    made = prepare_samples(sources, tmp_path / "draw", networks[0], vae, detector, CLIP, FILTERS)
    clip, photo = (load_sample(tmp_path / "draw" / made.kept(kind)[0].file) for kind in ("video", "image"))
    pictures = torch.from_numpy(frames_of(folder / "good.mp4")).movedim(-1, 1)[[0, 9]]
    with torch.inference_mode():
        posterior = vae.posterior(pictures / 255)
    torch.testing.assert_close(clip.latents[[0, 9]].float(), posterior.mean, rtol=2e-3, atol=1e-3)
    torch.testing.assert_close(clip.deviations[[0, 9]].float(), posterior.deviation, rtol=2e-3, atol=1e-3)
    assert clip.from_posterior and photo.from_posterior and photo.deviations is None

    made = prepare_samples(sources[1:], tmp_path / "mean", networks[0], vae, detector, CLIP, FILTERS, from_posterior=False)
    photo = load_sample(tmp_path / "mean" / made.kept("image")[0].file)
    assert not photo.from_posterior
    with pytest.raises(InputError, match="draws False .now True"):
        prepare_samples(sources, tmp_path / "mean", networks[0], vae, detector, CLIP, FILTERS)
    with pytest.raises(InputError, match="no posterior"):
        prepare_samples(sources, tmp_path / "tiny", *networks, detector, CLIP, FILTERS, from_posterior=True)


# Images and their crops


def photo_case(index: int, vid2vid, vae):
    """A rendered head as a photograph's sample, a crop of it, and its true surface points in px of the crop."""
    clip = ("800000", "810000")[index % 2]
    picture = frames_of(CLIPS / f"{clip}.mp4")[0]
    face = max(FaceDetector(yunet.onnx()).detect(picture), key=lambda face: face.area)
    square = frame_square(face.points, 256, 256, 256, "auto")
    native = 256 / float(square[0, 0])
    side = photo_side(native, 256)
    portrait = sample_frame(to_batch(picture), square, 256)
    photo = sample_frame(to_batch(picture), rescale(side / 256) @ square, side)
    points = transform_points(face.points, square)
    sample = freeze_photo(vid2vid, vae, to_bytes(portrait), points, to_bytes(photo), smallest_crop(native, 256, 1.45))
    (crop,) = draw_crops(sample, 1, torch.Generator().manual_seed(index))
    forward = crop @ square
    with np.load(CLIPS / f"{clip}.npz") as file:
        surface = torch.from_numpy(file["verts2d"][0].astype(np.float64)) - 0.5
    live = sample_frame(to_batch(picture), forward, 256)
    return sample, crop, live, surface @ forward[:2, :2].T + forward[:2, 2]


def test_driven_keypoints_lie_on_the_face_of_the_crop(networks):
    """Relative motion from the picture to its crop puts the portrait's keypoints where the crop shows them: the moved own
    ones to 1 % of the frame, and the surface points they stand for as well as M finds those in the picture itself."""
    from realportrait_core.train.mini.head_truth import SURFACE

    vid2vid, vae = networks
    for index in range(4):
        sample, crop, live, truth = photo_case(index, vid2vid, vae)
        assert 1 / 0.95 <= float(crop[0, 0]) <= 1 / 0.7 + 1e-9
        shown = crop_photo(sample, crop[None]).float() / 255
        assert float((shown - live).abs().mean()) < 0.012  # a JPEG between
        keypoints = crop_keypoints(sample, crop[None])
        to_frame = torch.linalg.inv(keypoints.portrait_crop)

        def in_frame(x: torch.Tensor) -> torch.Tensor:
            return transform_points(keypoints_to_crop(x[..., :2]), to_frame).double()

        driven = in_frame(driven_keypoints(keypoints, "relative", 1.0, 1.0, 0)[1])
        own = in_frame(transform(keypoints.portrait)[0])
        off = (driven - transform_points(own, crop).double()).norm(dim=-1)
        assert float(off.mean()) < 2.56, f"{index}: {off.mean():.2f} px"
        here = (driven[: len(SURFACE)] - truth[list(SURFACE)]).norm(dim=-1).mean()
        before = torch.linalg.inv(crop)
        there = (own[: len(SURFACE)] - transform_points(truth[list(SURFACE)], before).double()).norm(dim=-1).mean()
        assert float(here) < float(crop[0, 0]) * float(there) + 2.0, f"{index}: {here:.2f} px against {there:.2f} px"

        feature = Encoders(vid2vid.appearance).features(unpack(sample.faces[0])[None])
        motion = motion_maps(vid2vid, drive_keypoints(replace(keypoints, feature=feature), neutral=0), 256, framing="whole")
        inside = motion.maps.mask()[1]
        centre = inside.nonzero().double().mean(0).flip(0)  # x, y
        wanted = face_square(keypoints.driver_points[1], scale=1.0, vy=0.0)
        assert float((centre - wanted.center).norm()) < 0.1 * float(wanted.size)
        assert inside.sum() > 1.05 * motion.maps.mask()[0].sum()  # nearer, so larger


def test_crop_keeps_the_face_and_repeats_itself():
    size, points = 256, torch.tensor([[76.0, 83], [114, 84], [95, 107], [80, 126], [110, 127]])
    smallest = smallest_crop(300.0, size, 1.4)

    def crop(seed: int, points=points, smallest=smallest):
        return random_crop(points, size, smallest, torch.Generator().manual_seed(seed))

    crops = [crop(seed) for seed in range(50)]
    face = face_square(points, scale=1.4, vy=-0.1)
    edges = torch.tensor([[-0.5, -0.5], [255.5, 255.5]])
    for each in crops:
        for sign in (-1, 1):
            corner = transform_points(face.center + sign * face.size / 2, each)
            assert -0.51 < float(corner.min()) and float(corner.max()) < 255.51
        seen = transform_points(edges, torch.linalg.inv(each))  # in the frame
        assert float(seen.min()) >= -0.51 and float(seen.max()) <= 255.51
    zooms = torch.stack([each[0, 0] for each in crops])
    assert float(zooms.min()) < 1.12 and float(zooms.max()) > 1.35
    assert torch.equal(crops[7], crop(7)) and len({tuple(each.flatten().tolist()) for each in crops}) == 50
    assert crop(7, smallest=smallest_crop(300.0, size, 0.85)) is None  # it would have to be enlarged
    assert crop(7, points=(points - 95) * 2.5 + 128) is None  # the face fills the picture


def test_a_photograph_is_kept_at_the_resolution_that_its_crops_need():
    assert photo_side(200.3, 256) == 201 and photo_side(3000.0, 256) == 366 and photo_side(3000.0, 512) == 732
    assert smallest_crop(3000.0, 256, 1.4) == 0.7  # 366 px are at most 256 / 0.7
    assert smallest_crop(200.0, 256, 1.4) == pytest.approx(256 / 280)  # pixels of the photograph 1.4 times as large


# Filters


def test_background_motion_is_that_of_the_camera(detector):
    """The head moves by up to some px a frame throughout; only the wall behind it counts."""
    for step in (0.0, 0.5, 2.0, 6.0):
        frames = before_texture(step, 8)
        points = track(frames, detector).points
        motion = BackgroundMotion(torch.eye(3, dtype=torch.float64), 256, 256, 256)
        for frame, at in zip(frames, points):
            motion.add(frame, at, True)
        assert len(motion.steps) >= 6
        assert motion.value() == pytest.approx(step, abs=0.1)
        # The same in units of a frame twice as large, seen through a square of half the picture's side.
        zoomed = BackgroundMotion(torch.diag(torch.tensor([4.0, 4.0, 1.0], dtype=torch.float64)), 512, 256, 256)
        for frame, at in zip(frames[:3], points):
            zoomed.add(frame, at, True)
        assert zoomed.value() == pytest.approx(4 * step, abs=0.4)


def test_light_and_shape_of_a_face():
    points = torch.tensor([[100.0, 100.0], [140.0, 100.0], [120.0, 125.0], [104.0, 145.0], [136.0, 145.0]])
    frame = torch.full((1, 256, 256, 3), 51, dtype=torch.uint8)
    frame[:, 60:180, 60:180] = 153
    measured = light(frame, points[None])
    assert measured["face_light"] == pytest.approx(0.6, abs=0.03)
    assert measured["frame_light"] == pytest.approx(0.2 + 0.4 * (120 / 256) ** 2, abs=1e-3)
    assert plausible(points)
    for wrong in ([1, 0, 2, 3, 4], [0, 1, 2, 4, 3]):  # eyes, then mouth corners, swapped
        assert not plausible(points[wrong])
    lost = points.clone()
    lost[2] = torch.tensor([120.0, 190.0])  # the nose below the mouth
    assert not plausible(lost)


@pytest.mark.parametrize("name", [field.name for field in fields(Filters)])
def test_each_threshold_decides(name):
    least = Filters.__dataclass_fields__[name].metadata["least"]
    bound = getattr(FILTERS, name)
    assert FILTERS.refuse({name: bound}) is None
    reason, sentence = FILTERS.refuse({name: bound * (0.9 if least else 1.1)})
    assert name in sentence and f"{bound:g}" in sentence and reason
    with pytest.raises(InputError, match=name):
        replace(FILTERS, **{name: float("nan")})


# Frames by their timestamps


def grey_ramp(values) -> list[np.ndarray]:
    return [np.full((64, 64, 3), value, np.uint8) for value in values]


@pytest.mark.parametrize("fps", [25, 30, 60, 24000 / 1001])
def test_any_frame_rate_becomes_the_configs(tmp_path, fps):
    """Brightness tells the time, so it must be right at every frame to half a frame of the source."""
    count = round(2 * fps)
    path = write(tmp_path / "ramp.mp4", grey_ramp(40 + 160 * i / count for i in range(count)), fps)
    frames = list(read_frames(source_of(path), 12.5))
    assert len(frames) == pytest.approx(25, abs=1)
    assert [frame.time for frame in frames] == pytest.approx([i / 12.5 for i in range(len(frames))], abs=1e-3)
    shown = [(float(frame.picture.mean()) - 40) / 160 * count / fps for frame in frames]
    assert shown == pytest.approx([frame.time for frame in frames], abs=0.5 / fps + 0.03)
    assert all(frame.fresh for frame in frames) and [frame.joined for frame in frames] == [False] + [True] * (len(frames) - 1)


def test_variable_rate_gaps_and_too_few_frames(tmp_path):
    times = np.cumsum([0.0, *np.random.default_rng(0).uniform(0.02, 0.06, 40)])
    times = np.concatenate([times, times[-1] + 5 + np.arange(10) / 25])  # a pause of 5 s
    path = write(tmp_path / "rate.mp4", grey_ramp(40 + 30 * time for time in np.minimum(times, 5)), 25, times)
    frames = list(read_frames(source_of(path), 12.5))
    starts = [i for i, frame in enumerate(frames) if not frame.joined]
    assert len(starts) == 2 and frames[starts[1]].time == pytest.approx(times[41], abs=2e-3)
    before = frames[: starts[1]]
    shown = [(float(frame.picture.mean()) - 40) / 30 for frame in before]
    assert shown == pytest.approx([frame.time for frame in before], abs=0.1)
    assert len(frames) < 1.05 * (times[40] + 0.4) * 12.5 + 2  # the pause is not filled with 60 copies
    slow = list(read_frames(source_of(write(tmp_path / "slow.mp4", grey_ramp(range(40, 90, 5)), 10)), 25))
    assert sum(frame.fresh for frame in slow) == 10 and len(slow) == pytest.approx(23, abs=1)


def test_turned_squeezed_and_hdr_videos(tmp_path):
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:32, :48] = 255  # white at the top left, as it is stored
    corner = {0: (0, 0), 90: (1, 0), 180: (1, 1), -90: (0, 1)}  # row, column of it once it is turned counterclockwise
    for rotation, (row, column) in corner.items():
        path = write(tmp_path / f"{rotation}.mov", [picture] * 3, rotation=rotation)
        shown = next(read_frames(source_of(path), 12.5)).picture
        assert shown.shape[:2] == ((96, 64) if rotation in (90, -90) else (64, 96))
        quarters = shown.reshape(2, shown.shape[0] // 2, 2, shown.shape[1] // 2, 3).mean((1, 3, 4))
        assert np.unravel_index(quarters.argmax(), (2, 2)) == (row, column)
    wide = write(tmp_path / "wide.mkv", [picture] * 3, sample_aspect_ratio=Fraction(2, 1))
    assert next(read_frames(source_of(wide), 12.5)).picture.shape == (64, 192, 3)
    with pytest.raises(InputError, match="HDR"):
        next(read_frames(source_of(write(tmp_path / "hdr.mp4", [picture] * 3, color_trc=16)), 12.5))


def test_what_comes_before_the_damage_is_used(tmp_path, detector):
    """A file with its index at the front that breaks off."""
    path = write(tmp_path / "front.mp4", frames_of(ASSETS / "driving.mp4"), options={"movflags": "faststart"})
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 3 // 4])
    pieces = list(find_segments(source_of(path), detector, 12.5, 8))
    assert len(pieces[0]) >= 12 and pieces[-1].reason == "damaged file" and path.name in pieces[-1].detail


def test_tracks_and_parts():
    """600 frames: the face is away for 3 frames, which are filled in, and for 8, which end the segment."""
    at = [torch.tensor([[0.0, 0.0], [40.0, 0.0], [20.0, 25.0], [4.0, 45.0], [36.0, 45.0]]) + 100 + i for i in range(600)]
    faces = [Face(torch.tensor([80.0, 80.0, 80.0, 90.0]), points, 0.9) for points in at]
    faces[20:23], faces[582:590] = [None] * 3, [None] * 8
    block = Block([i / 12.5 for i in range(600)], [True] * 600, [(400, 400)] * 600, [0])
    *whole, short = cut_run(block, faces, 0, 600, 1000, 12.5, 16)
    assert [(part.start, len(part)) for part in whole] == [(1000, 291), (1291, 291)]
    assert (short.reason, short.frames, short.time) == ("too short", 10, 590 / 12.5)
    assert whole[0].present.logical_not().nonzero()[:, 0].tolist() == [20, 21, 22]
    torch.testing.assert_close(whole[0].points, torch.stack(at[:291]), rtol=0, atol=1e-3)
    assert len(whole[0]) <= LONGEST
    (nothing,) = cut_run(block, faces, 582, 590, 0, 12.5, 16)
    assert (nothing.reason, nothing.frames) == ("no face", 8)


def test_square_holds_the_face_wherever_it_goes():
    points = torch.tensor([[0.0, 0.0], [40.0, 0.0], [20.0, 25.0], [4.0, 45.0], [36.0, 45.0]])

    def square(shifts, size=(400, 700)):
        at = torch.stack([points + torch.tensor(shift) for shift in shifts])
        segment = Segment(0, 0.0, size, [None] * len(at), [True] * len(at), at)
        return segment_square(segment, 256), at

    near, _ = square([(100.0, 150.0), (110.0, 150.0)])
    far, at = square([(100.0, 150.0), (330.0, 150.0)])
    out, _ = square([(100.0, 150.0), (600.0, 150.0)])
    assert float(near[0, 0]) > float(far[0, 0]) == 256 / 400 and out is None
    faces = face_square(at, scale=1.0, vy=0.0)
    for sign in (-1, 1):
        corner = transform_points(faces.center + sign * faces.size[:, None] / 2, far)
        assert -0.5 <= float(corner.min()) and float(corner.max()) <= 255.5


# Going on, and not


def test_a_killed_run_goes_on_and_makes_the_same(folder, prepared, detector, networks, tmp_path, monkeypatch):
    done, report = prepared
    out = tmp_path / "killed"

    class Killed(BaseException):
        """The machine went down."""

    written = []

    def save_and_die(path, sample, note):
        if len(written) == 2:
            path.with_name(f".{path.name}.1.part").write_bytes(b"half")
            raise Killed
        written.append(path)
        prepare_save(path, sample, note)

    prepare_save = prepare.save_sample
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "save_sample", save_and_die)
        with pytest.raises(Killed):
            prepare_samples([folder], out, *networks, detector, CLIP, FILTERS)
    with (out / JOURNAL).open("a") as file:
        file.write('{"name": "half a li')  # a line that was being written
    times = {path: path.stat().st_mtime_ns for path in written}
    again = prepare_samples([folder], out, *networks, detector, CLIP, FILTERS)
    assert {path: path.stat().st_mtime_ns for path in written} == times  # not made again
    assert again.summary() == report.summary() | {"reused": again.reused} and again.reused >= 1
    names = sorted(path.name for path in out.iterdir())
    assert names == sorted(path.name for path in done.iterdir())
    assert all(same(out / name, done / name) for name in names if name.endswith(".safetensors"))


def test_a_finished_run_is_not_repeated_and_a_lost_sample_is(folder, prepared, networks, tmp_path):
    out = shutil.copytree(prepared[0], tmp_path / "copy")
    gone = files_of(prepared[1], f"{folder.name}/portrait.png")[0]
    (out / gone).unlink()

    class Asked(FaceDetector):
        asked = 0

        def detect(self, image):
            Asked.asked += 1
            return super().detect(image)

    again = prepare_samples([folder], out, *networks, Asked(yunet.onnx()), CLIP, FILTERS)
    assert Asked.asked == 1 and same(out / gone, prepared[0] / gone)
    fewer = prepare_samples([folder / "portrait.png"], out, *networks, Asked(yunet.onnx()), CLIP, FILTERS)
    assert len(fewer.entries) == 1 and len(fewer.not_given) == again.reused
    assert fewer.summary()["images_kept"] == 1 and fewer.reused == 1


def test_other_weights_or_settings_are_refused_or_rebuilt(folder, prepared, detector, networks, tmp_path):
    out = shutil.copytree(prepared[0], tmp_path / "copy")
    vid2vid, vae = networks
    mine = out / "mine.safetensors"
    shutil.copy(next(out.glob("*.safetensors")), mine)
    one = [folder / "portrait.png"]
    with pytest.raises(InputError, match=r"face_side 76.8 \(now 90.0\)"):
        prepare_samples(one, out, vid2vid, vae, detector, CLIP, replace(FILTERS, face_side=90.0))
    other = load_vae(VAE)
    with torch.no_grad():
        next(other.parameters())[0, 0, 0, 0] += 1e-3
    with pytest.raises(InputError, match="other weights.*--rebuild"):
        prepare_samples(one, out, vid2vid, other, detector, CLIP, FILTERS)
    report = prepare_samples(one, out, vid2vid, other, detector, CLIP, FILTERS, rebuild=True)
    (file,) = files_of(report, "portrait.png")
    assert {path.name for path in out.glob("*.safetensors")} == {file, mine.name}
    (before,) = files_of(prepared[1], f"{folder.name}/portrait.png")
    assert not torch.equal(load_sample(out / file).latents, load_sample(prepared[0] / before).latents)
    with pytest.raises(InputError, match="channels"):
        prepare_samples(one, out, vid2vid, vae, detector, PAPER, FILTERS)


FULL = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)                   # so that a write beyond the limit fails, as on a full disk
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
from realportrait_core.train.data.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def test_command_on_a_full_disk_then_with_room(folder, tmp_path):
    """The command in a process of its own: no sample fits, then all does."""
    out = tmp_path / "out"
    arguments = [
        str(folder / "portrait.png"),
        "--out",
        str(out),
        "--weights",
        str(VID2VID),
        "--vae",
        str(VAE),
        "--detector",
        str(yunet.onnx()),
        "--device",
        "cpu",
    ]
    environment = {**os.environ, "PYTHONPATH": str(yunet.ROOT)}
    full = subprocess.run([sys.executable, "-c", FULL, *arguments], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert full.returncode == 1, full.stderr
    assert "Traceback" not in full.stderr and "Free some space" in full.stderr and str(out) in full.stderr
    assert [path.name for path in out.iterdir()] == [JOURNAL]
    assert command.main(arguments) == 0
    assert len(list(out.glob("*.safetensors"))) == 1 and (out / REPORT).is_file()


def test_command_says_what_is_wrong(tmp_path, folder, caplog):
    caplog.set_level(logging.INFO)
    common = ["--out", str(tmp_path / "out"), "--weights", str(VID2VID), "--vae", str(VAE), "--detector", str(yunet.onnx())]
    assert command.main([str(tmp_path / "nothing"), *common]) == 1
    assert "neither a folder nor a file" in caplog.text
    (tmp_path / "empty").mkdir()
    assert command.main([str(tmp_path / "empty"), *common]) == 1
    assert "no video, image or tar shard" in caplog.text
    assert command.main([str(folder / "portrait.png"), "--face-side", "1000", *common]) == 1
    assert "low resolution: face_side" in caplog.text and "No sample was made" in caplog.text


def test_fingerprint_of_a_long_file_sees_size_and_ends(tmp_path):
    path, seen = tmp_path / "long.mp4", set()
    for size, last in ((70 << 20, b"a"), (70 << 20, b"b"), ((70 << 20) + 1, b"b")):
        with path.open("wb") as file:
            file.truncate(size - 1)
            file.seek(size - 1)
            file.write(last)
        seen.add(source_of(path).fingerprint)
    assert len(seen) == 3


# Shards


def test_shard_without_the_package_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "a.tar").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "webdataset", None)
    monkeypatch.setitem(sys.modules, "webdataset.tariterators", None)
    with pytest.raises(InputError, match="-m pip install webdataset"):
        list_files([tmp_path], pytest.fail)


def test_shards(tmp_path, folder, prepared, detector, networks):
    """Members become what the same files in a folder do; what is pickled is left alone; a shard may break off."""
    pytest.importorskip("webdataset")
    picture = (folder / "portrait.png").read_bytes()
    poison = b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR."  # what pickle would run

    def shard(name: str, members: dict[str, bytes]) -> Path:
        with tarfile.open(tmp_path / name, "w") as tar:
            for member, data in members.items():
                entry = tarfile.TarInfo(member)
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
        return tmp_path / name

    still = cv2.imencode(".png", frames_of(ASSETS / "driving.mp4")[0][..., ::-1])[1].tobytes()
    first = shard("000.tar", {"a.b.PNG": picture, "a.b.json": b"{}", "c.pkl": poison, "c.pyd": poison, "d.jpg": poison})
    second = shard("001.tar", {"a.b.png": still, "sub/a.b.png": picture, "last.mp4": bytes(50_000)})
    second.write_bytes(second.read_bytes()[:-40_000])  # in the midst of last.mp4
    out = tmp_path / "out"
    report = prepare_samples([first, second], out, *networks, detector, CLIP, FILTERS)
    (one,), (two,) = files_of(report, "000.tar/a.b.PNG"), files_of(report, "001.tar/a.b.png")
    assert one != two and len(list(out.glob("*.safetensors"))) == 2
    assert said(report, "000.tar/d.jpg") == ["unreadable file"] and said(report, "001.tar/sub/a.b.png") == ["duplicate"]
    assert said(report, "001.tar") == ["unreadable file"] and len(report.entries) == 5
    assert not (tmp_path / "ran").exists()
    (folder_file,) = files_of(prepared[1], f"{folder.name}/portrait.png")
    assert torch.equal(load_sample(out / one).photo, load_sample(prepared[0] / folder_file).photo)
    again = prepare_samples([first, second], out, *networks, detector, CLIP, FILTERS)
    assert again.reused == 3
