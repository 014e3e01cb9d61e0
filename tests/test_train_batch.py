"""What a step draws of prepared samples: any frame as portrait, a new crop of a photograph, latents from the posterior."""

from dataclasses import replace

import pytest
import torch
from toy import CLIPS, FRAMES, TOY, sample

from realportrait_core.checkpoint import read_header
from realportrait_core.errors import InputError
from realportrait_core.train.batch import draw, encoders_for, load, read_index
from realportrait_core.train.data.images import crop_keypoints, crop_photo, draw_crops
from realportrait_core.train.data.packed import pack_jpeg, pack_lossless, unpack
from realportrait_core.train.data.prepare import weights_fingerprint
from realportrait_core.train.data.sample import Sample, load_sample, save_sample
from realportrait_core.train.encoders import Encoders
from realportrait_core.train.loading import batches
from realportrait_core.train.stages import Shape, Stage
from realportrait_core.vae import AutoencoderKL, TinyVAE
from realportrait_core.vid2vid import FaceVid2Vid

SINGLE = replace(FRAMES, shapes=(Shape(6, clips=2),))
MISSING = 4  # the frame of a clip in which no face was found


def noise_picture(seed: int, size: int) -> torch.Tensor:
    return torch.randint(256, (3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def with_faces(made: Sample) -> Sample:
    faces = tuple(pack_lossless(noise_picture(i, 32)) for i in range(len(made.portraits)))
    return replace(made, f=None, faces=faces)


def photo(seed: int, from_posterior: bool) -> Sample:
    points = torch.tensor([[[26.0, 28], [38, 28], [32, 33], [28, 38], [36, 38]]])  # with room around it for crops
    made = replace(with_faces(sample("image", 1, [0], seed)), points=points)
    return replace(made, photo=pack_jpeg(noise_picture(seed, 80)), smallest=0.75, from_posterior=from_posterior)


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    return FaceVid2Vid(TOY.vid2vid).eval(), AutoencoderKL(32).eval()


@pytest.fixture(scope="module")
def index(networks, tmp_path_factory):
    """Two clips of 9 frames, one of them without a face in a frame, and two photographs; latents are to be drawn."""
    folder = tmp_path_factory.mktemp("samples")
    note = {"vid2vid": weights_fingerprint(networks[0]), "vae": weights_fingerprint(networks[1])}
    for i, portraits in enumerate(([j for j in range(9) if j != MISSING], list(range(9)))):
        made = with_faces(sample("video", 9, portraits, i))
        made = replace(made, deviations=torch.full_like(made.latents, 0.25), from_posterior=True)
        save_sample(folder / f"clip {i}.safetensors", made, note)
    for i in range(2):
        save_sample(folder / f"photo {i}.safetensors", photo(i, from_posterior=True), note)
    return read_index(folder, 64)


@pytest.fixture(scope="module")
def encoders(networks) -> Encoders:
    return Encoders(networks[0].appearance, networks[1])


def draw_many(index, stage: Stage, steps: int = 120):
    return [item for step in range(steps) for item in draw(index, stage, 0, step, 1000)]


def test_every_frame_with_a_face_is_a_portrait_and_never_its_own_driving_frame(index):
    pairs = {0: set(), 1: set()}
    for item in draw_many(index, SINGLE):
        if index.video[item.sample]:
            own = index.portrait_frame(item.sample, item.portrait)
            assert own == int(load_sample(index.paths[item.sample]).portraits[item.portrait])
            driving = item.frames.flatten().tolist()
            assert own not in driving and len(set(driving)) == 2
            pairs[item.sample] |= {(own, frame) for frame in driving}
    assert pairs[1] == {(a, b) for a in range(9) for b in range(9) if a != b}
    assert {a for a, _ in pairs[0]} == set(range(9)) - {MISSING} and {b for _, b in pairs[0]} == set(range(9))


def test_files_of_before_never_drive_a_portrait_by_itself(tmp_path):
    save_sample(tmp_path / "clip.safetensors", sample("video", 9, [2, 5], 0), {})
    save_sample(tmp_path / "picture.safetensors", sample("image", 2, [0], 1), {})
    old = read_index(tmp_path, 64)
    drawn = draw_many(old, SINGLE, 60)
    portraits = {(item.sample, old.portrait_frame(item.sample, item.portrait)) for item in drawn}
    assert portraits == {(0, 2), (0, 5), (1, 0)}
    assert all(old.portrait_frame(item.sample, item.portrait) not in item.frames for item in drawn)
    assert load(old, drawn[:6]).f_r.shape == (6, 4, 2, 8, 8)  # features as they are kept, no encoder


def test_portraits_of_clips_lie_anywhere_in_the_sample(index):
    beside = {
        index.portrait_frame(item.sample, item.portrait) - int(item.frames[0, 0])
        for item in draw_many(index, replace(CLIPS, shapes=(Shape(4, frames=4),)))
    }
    assert min(beside) == -5 and max(beside) == 8 and 0 in beside


def test_features_are_those_of_the_portraits_face(index, encoders, networks):
    items = draw_many(index, SINGLE, 1)
    batch = load(index, items, encoders)
    for item, f_r in zip(items, batch.f_r):
        face = unpack(load_sample(index.paths[item.sample]).faces[item.portrait])
        torch.testing.assert_close(f_r, networks[0].appearance(face[None] / 255)[0], rtol=1e-4, atol=1e-5)


def photo_items(index, steps: int):
    return [item for item in draw_many(index, SINGLE, steps) if index.photo[item.sample]]


def test_a_photograph_is_cropped_anew_at_every_step(index, encoders):
    one = [item for item in photo_items(index, 40) if item.sample == 2]
    batch = load(index, one, encoders)
    crops = {tuple(face.flatten().tolist()) for face in batch.face.flatten(0, 1)}
    assert len(one) > 10 and len(crops) == 2 * len(one)  # two crops of every draw, all different
    again = load(index, one, encoders)
    assert torch.equal(batch.z, again.z) and torch.equal(batch.x_d, again.x_d)


def test_a_crops_latent_and_keypoints_are_those_of_its_picture(index, encoders, networks):
    """By the mean of the posterior, with files that do not draw."""
    item = photo_items(index, 10)[0]
    kept = replace(load_sample(index.paths[item.sample]), from_posterior=False)
    save_sample(index.paths[item.sample].parent / ".mean" / "photo.safetensors", kept, {})
    mean = load(read_index(index.paths[item.sample].parent / ".mean", 64), [replace(item, sample=0)], encoders)
    source = torch.Generator().manual_seed(item.seed)
    torch.randn(mean.noise.shape, generator=source)  # comes first
    crops = draw_crops(kept, 2, source)[item.frames.flatten() - 1]
    pictures = crop_photo(kept, crops)
    assert pictures.shape == (2, 3, 64, 64) and torch.equal(mean.pictures[:, 0], pictures)
    with torch.no_grad():
        posterior = networks[1].posterior(pictures / 255)
    torch.testing.assert_close(mean.z[:, 0], posterior.mean, rtol=1e-4, atol=1e-5)
    keypoints = crop_keypoints(kept, crops)
    assert len(keypoints.driver) == 3 and mean.x_d.shape == (1, 2, 5, 3)
    zoom = keypoints.driver.scale[1:, 0] / keypoints.driver.scale[0, 0]
    torch.testing.assert_close(zoom.double(), crops[:, 0, 0])
    drawn = load(index, [item], encoders)
    assert torch.equal(drawn.z_r, mean.z_r)  # of the portrait always the mean
    deviations = (drawn.z[:, 0] - posterior.mean) / posterior.deviation
    assert 0.8 < float(deviations.std()) < 1.2 and float(deviations.mean().abs()) < 0.2


def test_latents_of_a_clip_are_drawn_around_their_means(index, encoders):
    items = [item for item in draw_many(index, SINGLE, 30) if index.video[item.sample]]
    batch = load(index, items, encoders)
    means = torch.cat([load_sample(index.paths[item.sample]).latents[item.frames].float() for item in items])
    away = (batch.z - means) / 0.25
    assert 0.97 < float(away.std()) < 1.03 and float(away.mean().abs()) < 0.02
    assert torch.equal(batch.z, load(index, items, encoders).z)
    own = [load_sample(index.paths[item.sample]).latents[index.portrait_frame(item.sample, item.portrait)] for item in items]
    assert torch.equal(batch.z_r, torch.stack(own).float())


def test_processes_encode_together_what_one_would(index, encoders):
    whole = next(batches(index, SINGLE, 0, 1, 1000, 0, 1, encoders))
    halves = [next(batches(index, SINGLE, 0, 1, 1000, rank, 2, encoders)) for rank in (0, 1)]
    for name in ("f_r", "z_r", "x_d"):
        joined = torch.stack([getattr(half, name) for half in halves], 1).flatten(0, 1)
        torch.testing.assert_close(joined, getattr(whole, name))


def test_a_missing_or_another_vae_is_named(index, networks):
    vid2vid, vae = networks
    cpu = torch.device("cpu")
    assert encoders_for(index, SINGLE, vid2vid, vae, torch.float32, cpu).vae is vae
    assert encoders_for(index, CLIPS, vid2vid, None, torch.float32, cpu).vae is None  # clips come from videos alone
    with pytest.raises(InputError, match="2 of the samples are photographs.*--vae"):
        encoders_for(index, SINGLE, vid2vid, None, torch.float32, cpu)
    with pytest.raises(InputError, match="another VAE"):
        encoders_for(index, SINGLE, vid2vid, TinyVAE((4, 4, 4, 4)), torch.float32, cpu)
    with pytest.raises(InputError, match="keep pictures, which a step encodes"):
        load(index, photo_items(index, 10)[:1])


def test_samples_of_two_vaes_do_not_mix(index, tmp_path):
    for name, mark in (("a", "one"), ("b", "other")):
        save_sample(tmp_path / f"{name}.safetensors", load_sample(index.paths[0]), {"vid2vid": "", "vae": mark})
    with pytest.raises(InputError, match="2 different VAE"):
        read_index(tmp_path, 64)


def test_a_sample_comes_back_from_its_file(index):
    for path in index.paths:
        kept = load_sample(path)
        save_sample(path.with_name(f".{path.name}"), kept, {})
        again = load_sample(path.with_name(f".{path.name}"))
        assert all(torch.equal(*pair) for pair in zip(kept.faces, again.faces, strict=True))
        assert (kept.smallest, kept.from_posterior, kept.kind) == (again.smallest, again.from_posterior, again.kind)
        shapes = read_header(path).shapes
        assert ("photo" in shapes, "deviations" in shapes) == ((kept.kind == "image"), (kept.kind == "video"))
    picture = noise_picture(3, 40)
    assert torch.equal(unpack(pack_lossless(picture)), picture)
    with pytest.raises(InputError, match="damaged"):
        unpack(torch.zeros(30, dtype=torch.uint8))
