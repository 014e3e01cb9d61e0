"""Supervision of M by photographs: positions in the crop, the head's rotation, and what has no target."""

import pytest
import torch
from test_head_rotation import made_up_face, topology  # noqa: F401, topology is a fixture
from test_train import TOY

from realportrait_core.face.crop import clip_crop, points_to_crop
from realportrait_core.head_rotation.dataset import Photos, augmented
from realportrait_core.head_rotation.keypoints import KNOWN, NUM_KP, seen_keypoints
from realportrait_core.head_rotation.pairs import draw_pairs
from realportrait_core.head_rotation.sampling import pixels
from realportrait_core.head_rotation.topology import FIVE, Topology
from realportrait_core.train.mini.motion import Standardised, feature_weight, storable
from realportrait_core.train.mini.photo_supervision import (
    WIDER,
    PhotoSet,
    draw_turned,
    mesh_crops,
    photos_loss,
    weight_by_residual,
    widened,
)
from realportrait_core.train.mini.photos import photo_sample
from realportrait_core.vae import TinyVAE
from realportrait_core.vid2vid import FaceVid2Vid
from realportrait_core.vid2vid.keypoints import angle_between
from realportrait_core.vid2vid.motion import MotionExtractor, pose_from_raw

SIDE, SIZE = 128, 64  # px of photos and crops
PIXEL = 2 / SIZE  # of the crop
EYE = (3.2, 2.7)  # cm of the canonical face


def with_irises(topology: Topology) -> torch.Tensor:
    """The mesh (478, 3) px of a face at rest, half the picture high."""
    irises = torch.tensor([[side * EYE[0], EYE[1], 4.0] for side in (-1, 1) for _ in range(5)])
    unit = 0.5 * SIDE / 17.7
    return torch.cat([topology.rest, irises]) * torch.tensor([unit, -unit, -unit]) + torch.tensor([SIDE / 2, 0.5 * SIDE, 0.0])


def spotted(topology: Topology, keypoints: tuple[int, ...]) -> PhotoSet:
    """Black photos with a white spot where a keypoint is, one photo for each."""
    mesh = with_irises(topology).expand(len(keypoints), -1, -1)
    at = seen_keypoints(mesh)[0][torch.arange(len(keypoints)), list(keypoints), :2]
    away = pixels(SIDE, SIDE, torch.device("cpu")) - at[:, :, None, None]
    spot = torch.exp(-away.square().sum(1, keepdim=True) / 2 / 3.0**2)
    names = tuple(f"{k}.png" for k in keypoints)
    return PhotoSet(Photos(names, (255 * spot).round().byte().expand(-1, 3, -1, -1), mesh, None), topology)


def middle(images: torch.Tensor) -> torch.Tensor:
    """The centroid (B, 2) in -1..1 of what is bright in pictures (B, 3, S, S)."""
    light = images.mean(1)
    light = (light - 0.5 * light.amax((1, 2), keepdim=True)).clamp_min(0)
    x, y = ((2 * pixels(SIZE, SIZE, torch.device("cpu")) + 1) / SIZE - 1).unbind(0)
    return torch.stack([(light * axis).sum((1, 2)) / light.sum((1, 2)) for axis in (x, y)], 1)


def test_the_crop_shows_a_keypoint_where_it_is_said_to_be(topology):
    """A spot of the photo, mirrored, turned, cropped and rolled with it."""
    torch.manual_seed(0)
    photo_set = spotted(topology, (22, 23) + (1, 3, 10, 15, 16) * 4)
    images, places, _ = draw_turned(photo_set, torch.arange(len(photo_set.photos)), SIZE)
    assert images.shape == (44, 3, SIZE, SIZE) and places.shape == (44, NUM_KP, 2)
    seen = middle(images)
    irises = (seen[:4, None] - places[:4, (22, 23)]).norm(dim=-1)  # in a mirror an iris is at the other one's place
    assert irises.amin(1).max() < PIXEL
    named = torch.tensor([1, 3, 10, 15, 16] * 4).repeat_interleave(2)
    apart = (seen[4:] - places[torch.arange(4, 44), named]).norm(dim=-1)
    for k in named.unique():  # the other keypoints are not symmetrical: those of unmirrored photos
        assert apart[named == k].sort().values[1] < PIXEL


def test_the_turn_is_that_of_the_seen_head(topology):
    """The affine cameras that see the keypoints where a pair has them differ by the pair's turn."""
    torch.manual_seed(0)
    count = 24
    mesh = with_irises(topology)
    photos = Photos(("face.png",) * count, torch.zeros(count, 3, SIDE, SIDE, dtype=torch.uint8), mesh.expand(count, -1, -1), None)
    _, places, turned = draw_turned(PhotoSet(photos, topology), torch.arange(count), SIZE)
    known = list(KNOWN)
    at_rest = seen_keypoints(mesh[None])[0][0, known]
    at_rest = at_rest - at_rest.mean(0)
    seen = places[:, known] - places[:, known].mean(1, keepdim=True)
    camera = torch.linalg.lstsq(at_rest.expand(len(seen), -1, -1), seen).solution  # (2 N, 3, 2)
    x, y = camera.unbind(-1)
    z = torch.linalg.cross(x, y)
    u, _, vt = torch.linalg.svd(torch.stack([x, y, z / z.norm(dim=-1, keepdim=True) * x.norm(dim=-1, keepdim=True)], -1))
    rotation = u @ vt  # row vectors
    rigid = angle_between(rotation[::2] @ turned, rotation[1::2])
    unmoved = angle_between(rotation[::2], rotation[1::2])
    backwards = angle_between(rotation[::2] @ turned.mT, rotation[1::2])
    assert rigid.median() < 0.65 * unmoved.median() < 0.4 * backwards.median()


def test_samples_of_photos_have_the_crops_that_m_is_trained_on():
    """The pipeline's crops by widened points are those of mesh_crops, 7 % larger than by the mesh's points as they are."""
    torch.manual_seed(0)
    points = torch.tensor([[40.0, 50], [80, 48], [62, 70], [45, 92], [78, 90]]) + 4 * torch.randn(3, 2, 5, 2)
    portrait, clip = mesh_crops(points)
    torch.testing.assert_close(points_to_crop(widened(points)), portrait, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(torch.stack([clip_crop(each) for each in widened(points)]), clip, atol=1e-4, rtol=1e-5)
    zoom = torch.linalg.det(points_to_crop(points)[..., :2, :2]) / torch.linalg.det(portrait[..., :2, :2])
    torch.testing.assert_close(zoom.sqrt(), torch.full_like(zoom, WIDER), atol=1e-6, rtol=0)

    torch.manual_seed(0)
    face = made_up_face()
    photos = Photos(("face.png",), torch.full((1, 3, SIDE, SIDE), 128, dtype=torch.uint8), with_irises(face)[None], None)
    vid2vid, vae = FaceVid2Vid(TOY.vid2vid).eval(), TinyVAE((4, 4, 4, 4)).eval()
    sample = photo_sample(vid2vid, vae, photos, 0, face, torch.Generator().manual_seed(3))
    source = torch.Generator().manual_seed(3)
    pair = draw_pairs(*augmented(*photos.take(torch.tensor([0])), face, source), face, source, untouched=1.0)
    mesh = torch.stack([pair.portrait_mesh, pair.target_mesh], 1)[:, :, FIVE, :2]  # (1, 2, 5, 2)
    torch.testing.assert_close(sample.portrait_crops[0], mesh_crops(mesh)[0][0, 0], atol=1e-3, rtol=1e-4)


def test_what_the_mesh_does_not_know_has_no_target():
    torch.manual_seed(0)
    model = MotionExtractor(TOY.vid2vid)
    pose = pose_from_raw(model.raw(torch.rand(4, 3, TOY.vid2vid.crop_size, TOY.vid2vid.crop_size)))
    places, turned, weight = torch.rand(4, NUM_KP, 2), torch.eye(3).expand(2, 3, 3), weight_by_residual(torch.ones(NUM_KP, 1))
    value, _ = photos_loss(pose, places, turned, weight)
    for k, counts in ((2, False), (0, True)):
        moved = places.clone()
        moved[:, k] += 1.0
        assert (photos_loss(pose, moved, turned, weight)[0] != value) == counts
    # A shift of all places by which both of a pair are off is an error of points, and none of their change.
    before, after = (photos_loss(pose, places + shift, turned, weight)[1] for shift in (0.0, 5.0))
    assert after["points"] > before["points"] + 1 and after["change"] == pytest.approx(before["change"].item(), abs=1e-5)


def test_m_learns_the_positions_of_a_few_photos(topology):
    torch.manual_seed(0)
    images, places, turned = draw_turned(spotted(topology, (1, 3, 15, 16)), torch.arange(4), TOY.vid2vid.crop_size)
    model = Standardised(TOY.vid2vid, torch.zeros(NUM_KP, 3)).train()
    weight = weight_by_residual(feature_weight(NUM_KP, images.device))
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    errors = []
    for _ in range(60):
        value, parts = photos_loss(pose_from_raw(model.raw(images)), places, turned, weight)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        errors.append(parts["points"].item())
    assert errors[-1] < 0.4 * errors[0]


def test_a_rounded_m_is_the_same_function():
    """Features that differ by a ten thousandth of themselves, as a trained M's do, in a file of 16 bits."""
    torch.manual_seed(0)
    model = MotionExtractor(TOY.vid2vid).eval()
    pictures = torch.rand(16, 3, TOY.vid2vid.crop_size, TOY.vid2vid.crop_size)
    detector = model.detector
    with torch.inference_mode():
        spread = detector.trunk(pictures).std(0).mean()
        detector.norm.weight.mul_(5e-5 / spread)
        detector.norm.bias.copy_(0.5 + torch.rand_like(detector.norm.bias))
        for name, head in detector.named_children():
            if name.startswith("fc_"):
                head.weight.normal_(std=100.0)
                head.bias.copy_(-head.weight @ detector.norm.bias)
        before = model.raw(pictures)
        rounded = storable(model, pictures)
        plain = MotionExtractor(TOY.vid2vid).eval()
        plain.load_state_dict({name: value.half().float() for name, value in model.state_dict().items()})
        for name, value in rounded.state_dict().items():
            assert torch.equal(value, value.half().float()), name
        for name, value in before.items():
            error, naive = ((other.raw(pictures)[name] - value).abs().mean() for other in (rounded, plain))
            assert error < 0.05 * value.std() and error < 0.1 * naive, name
