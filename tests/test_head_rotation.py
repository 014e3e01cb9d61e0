"""Photographs turned in 3-D, tested on made-up pictures with a made-up face, and the canonical one where it is at hand."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from judges import canonical_face

from realportrait_core.errors import InputError
from realportrait_core.head_rotation.change import Change, Limits, joined, pose_change, random_changes, smooth_path
from realportrait_core.head_rotation.dataset import Augmentation, augmented, mirrored, read_photos
from realportrait_core.head_rotation.expression import NAMES, displacements
from realportrait_core.head_rotation.keypoints import KNOWN, NUM_KP, residuals, seen_keypoints
from realportrait_core.head_rotation.pairs import draw_pairs
from realportrait_core.head_rotation.sampling import at_points, pixels, sample
from realportrait_core.head_rotation.surface import STEP, read_surface
from realportrait_core.head_rotation.topology import Topology, make_topology, read_topology
from realportrait_core.head_rotation.turning import change_of_axes, stretch, turn
from realportrait_core.vid2vid.regions import PAIRS

SIDE = 128
ROWS, COLUMNS = 36, 13  # of the made-up face's 468 vertices
NO_EXPRESSION = ((0.0, 0.0),) * len(NAMES)
POSES = Limits(expression=NO_EXPRESSION)


def made_up_face() -> Topology:
    """Half an ellipsoid as large as a face, with a nose; symmetrical, of 468 vertices in a grid."""
    up, across = np.linspace(-1, 1, ROWS)[:, None], np.linspace(-1, 1, COLUMNS)[None]
    y = 8.8 * up * (1.1 - 0.1 * across**2) - 0.6
    half = 7.6 * np.sqrt(1 - (0.85 * up) ** 2)
    x = half * across
    z = 7 * np.sqrt(1 - (0.8 * across) ** 2) * np.sqrt(1 - (0.7 * up) ** 2)
    z = z + 2.5 * np.exp(-((x / 1.2) ** 2) - ((y + 0.5) / 2) ** 2)
    rest = np.stack(np.broadcast_arrays(x, y, z), -1).reshape(-1, 3).astype(np.float32)
    low_left = (np.arange(ROWS - 1)[:, None] * COLUMNS + np.arange(COLUMNS - 1)).flatten()
    low_right, high_left, high_right = low_left + 1, low_left + COLUMNS, low_left + COLUMNS + 1
    triangles = np.concatenate([np.stack([low_left, low_right, high_right], 1), np.stack([low_left, high_right, high_left], 1)])
    return make_topology(rest, triangles)


def write_face(path: Path) -> Path:
    """The made-up face as MediaPipe's file has its own."""
    face = made_up_face()
    rows = [f"v {x} {y} {z}" for x, y, z in face.rest.tolist()]
    path.write_text("\n".join(rows + [f"f {a + 1} {b + 1} {c + 1}" for a, b, c in face.triangles.tolist()]))
    return path


@pytest.fixture(scope="module", params=["made up", "canonical"])
def topology(request) -> Topology:
    if request.param == "made up":
        return made_up_face()
    return read_topology(canonical_face())


def meshes(topology: Topology, count: int = 2, side: int = SIDE) -> torch.Tensor:
    """(count, 468, 3) px: the face at rest, half the picture high, each a little elsewhere."""
    unit = 0.5 * side / 17.7
    mesh = topology.rest * torch.tensor([unit, -unit, -unit]) + torch.tensor([side / 2, 0.47 * side, 0.0])
    return torch.stack([mesh + torch.tensor([1.7 * i, 0.9 * i, 0.0]) for i in range(count)])


def pictures(count: int = 2, side: int = SIDE) -> torch.Tensor:
    """(count, 3, side, side): smooth, with detail of 12 px."""
    x, y = pixels(side, side, torch.device("cpu"))
    waves = [torch.sin(x / 4 + i) * torch.cos(y / 5 - i) for i in range(count * 3)]
    return 0.5 + 0.3 * torch.stack(waves).unflatten(0, (count, 3)) + 0.1 * x / side


def repeated(change: Change, count: int) -> Change:
    return Change(*(x.expand(count, *x.shape[1:]) for x in vars(change).values()))


def inner(topology: Topology) -> torch.Tensor:
    """Vertices that no triangle joins to the outline."""
    at_outline = torch.isin(topology.triangles, topology.outline).any(1)
    return torch.tensor(sorted(set(range(468)) - set(topology.triangles[at_outline].flatten().tolist())))


# The topology


def test_the_mirror_is_an_involution_that_maps_the_face_onto_itself(topology):
    mirror = topology.mirror
    assert (mirror[mirror] == torch.arange(478)).all() and (mirror != torch.arange(478)).any()
    reflected = topology.rest[mirror[:468]] * torch.tensor([-1.0, 1.0, 1.0])
    assert (reflected - topology.rest).abs().max() < 0.05
    assert set(mirror[topology.outline].tolist()) == set(topology.outline.tolist())
    assert mirror[468] == 473 and mirror[470] == 475  # eye by eye, and a top stays a top


def test_the_outline_goes_around_once(topology):
    edges = {tuple(sorted(pair)) for row in topology.triangles.tolist() for pair in zip(row, row[1:] + row[:1])}
    around = topology.outline.tolist()
    assert len(set(around)) == len(around)
    assert all(tuple(sorted(pair)) in edges for pair in zip(around, around[1:] + around[:1]))
    left, right, top, bottom = topology.rest[topology.ends]
    assert left[0] < 0 < right[0] and bottom[1] < 0 < top[1]


def test_what_is_no_face_is_refused(tmp_path):
    with pytest.raises(InputError, match="canonical_face_model.obj"):
        read_topology(tmp_path / "face.obj")
    (tmp_path / "face.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    with pytest.raises(InputError, match=r"\(3, 3\)"):
        read_topology(tmp_path / "face.obj")
    face = made_up_face()
    lopsided = face.rest.numpy().copy()
    lopsided[5, 0] += 0.5
    with pytest.raises(InputError, match="0.4. cm|0.50 cm"):
        make_topology(lopsided, face.triangles.numpy())
    with pytest.raises(InputError, match="one outline"):  # a hole has another
        make_topology(face.rest.numpy(), np.delete(face.triangles.numpy(), 200, 0))


# The surface


def test_the_depth_is_the_meshs(topology):
    mesh = meshes(topology)
    surface = read_surface(mesh, topology, SIDE)
    found = at_points(surface.depth[:, None], mesh[..., :2], SIDE)[..., 0]
    seen = inner(topology)
    apart = (found - mesh[..., 2])[:, seen].abs()
    assert apart.mean() < 1.2 and apart.quantile(0.95) < 3.5  # px, of 50 from the nose to the ears
    assert surface.depth.shape == (2, SIDE // STEP, SIDE // STEP)
    # The head is far from the picture's corners, which stay.
    assert (surface.share[:, 0, 0] < 0.02).all()
    assert (at_points(surface.share[:, None], mesh[..., :2], SIDE) > 0.95).all()


def test_the_canonical_place_is_the_meshs(topology):
    mesh = meshes(topology)
    surface = read_surface(mesh, topology, SIDE)
    found = at_points(surface.canonical, mesh[..., :2], SIDE)
    assert (found - topology.rest[None, :, :2])[:, inner(topology)].norm(dim=-1).quantile(0.95) < 0.45  # cm, of 0.55 a cell


def test_around_the_face_its_places_go_on_where_the_outline_ends(topology):
    """Of a face with a chin to one side too, which a flat canonical face would miss."""
    mesh = meshes(topology, 1)
    down = (mesh[..., 1:2] - SIDE / 2).clamp_min(0)
    mesh = torch.cat([mesh[..., :1] + 0.4 * down, mesh[..., 1:]], -1)
    surface = read_surface(mesh, topology, SIDE)
    chin = topology.ends[3]
    below = mesh[:, chin : chin + 1, :2] + torch.tensor([0.0, 12.0])
    found = at_points(surface.canonical, below, SIDE)[0, 0]
    assert 1 < topology.rest[chin, 1] - found[1] < 4 and abs(found[0] - topology.rest[chin, 0]) < 1  # cm


# Turning


def no_change(shape: tuple[int, ...]) -> Change:
    none = torch.zeros(shape)
    return Change(none, none, none, none + 1, torch.zeros(*shape, 2), torch.zeros(*shape, len(NAMES)))


def test_no_change_is_the_photo(topology):
    photos = pictures()
    turned = turn(photos, meshes(topology), topology, no_change((2, 3)))
    assert (turned.pictures - photos[:, None]).abs().max() < 1e-5
    assert not turned.flow.any() and not turned.forward.any() and not turned.unknown.any() and not turned.hidden.any()
    torch.testing.assert_close(turned.mesh, meshes(topology)[:, None].expand(-1, 3, -1, -1), atol=1e-4, rtol=0)


def test_pictures_are_the_photo_by_the_flow(topology, seeded):
    photos = pictures()
    turned = turn(photos, meshes(topology), topology, random_changes((2, 2), Limits(), seeded))
    places = pixels(SIDE, SIDE, photos.device)
    for pose in range(2):
        expected = sample(photos, places - turned.flow[:, pose], SIDE, "bicubic", "reflection").clamp(0, 1)
        assert (turned.pictures[:, pose] - expected).abs().max() < 1e-5
    assert turned.flow.abs().amax((2, 3, 4)).min() > 1  # px: something moved


def test_the_flow_takes_moved_points_back(topology, seeded):
    mesh = meshes(topology)
    turned = turn(pictures(), mesh, topology, random_changes((2, 4), Limits(), seeded))
    places = turned.mesh.flatten(0, 1)[..., :2]
    back = places - at_points(turned.flow.flatten(0, 1), places, SIDE)
    start = mesh[:, None, :, :2].expand(-1, 4, -1, -1).flatten(0, 1)
    seen = at_points(turned.hidden.flatten(0, 1)[:, None], start, SIDE)[..., 0] < 0.1
    assert seen.float().mean() > 0.95
    assert (back - start).norm(dim=-1)[seen].max() < 0.2  # px


def test_the_mesh_turns_like_a_solid_body(topology):
    mesh = meshes(topology)
    change = repeated(joined([pose_change(yaw=10), pose_change(yaw=-6, pitch=7, roll=5), pose_change(pitch=-9, scale=1.04)]), 2)
    turned = turn(pictures(), mesh, topology, change)
    pivot = read_surface(mesh, topology, SIDE).pivot
    solid = torch.einsum("bpi,bnij->bnpj", mesh - pivot[:, None], change_of_axes(change)) + pivot[:, None, None]
    apart = (turned.mesh - solid).norm(dim=-1)[:, :, inner(topology)]
    assert apart.mean() < 0.25 and apart.max() < 2.5  # px, where the mesh's own points move by 10


def test_signs_are_those_of_m(topology):
    """Positive yaw takes the nose to the picture's left, positive pitch down, positive roll turns clockwise: as R does."""
    mesh = meshes(topology, 1)
    nose, left, right = topology.rest[:, 2].argmax(), topology.ends[0], topology.ends[1]
    moved = turn(pictures(1), mesh, topology, joined([pose_change(yaw=8), pose_change(pitch=8), pose_change(roll=8)])).mesh[0]
    shift = moved[:, nose] - mesh[0, nose]
    assert shift[0, 0] < -1 and abs(shift[0, 1]) < 0.5
    assert shift[1, 1] > 1 and abs(shift[1, 0]) < 0.5
    before, after = ((x[right] - x[left]) for x in (mesh[0], moved[2]))
    turned_by = torch.rad2deg(torch.atan2(after[1], after[0]) - torch.atan2(before[1], before[0]))
    assert 7 < float(turned_by) < 9


def test_there_and_back(topology):
    """Turned by 6 degrees, the turned picture with its moved mesh turned back is the photo, but for a second resampling."""
    photos, mesh = pictures(), meshes(topology)
    there = turn(photos, mesh, topology, repeated(pose_change(yaw=6), 2))
    back = turn(there.pictures[:, 0], there.mesh[:, 0], topology, repeated(pose_change(yaw=-6), 2))
    apart = (back.mesh[:, 0] - mesh)[..., :2].norm(dim=-1)[:, inner(topology)]
    assert apart.mean() < 0.2 and apart.max() < 1  # px, of up to 7 that it moved
    assert (there.mesh[:, 0] - mesh).norm(dim=-1).max() > 3
    flow = back.flow[:, 0] + sample(there.flow[:, 0], pixels(SIDE, SIDE, photos.device) - back.flow[:, 0], SIDE)
    assert flow.norm(dim=1).mean() < 0.25


def test_places_that_no_photo_shows_are_unknown(topology):
    """A head that comes down by 12 px leaves a strip at the top that the photo does not have; it ends sharply."""
    mesh = meshes(topology, 1) - torch.tensor([0.0, 20.0, 0.0])
    turned = turn(pictures(1), mesh, topology, pose_change(shift=(0, 12)))
    middle = slice(SIDE // 2 - 10, SIDE // 2 + 10)
    strip = turned.unknown[0, 0, :9, middle]
    assert (strip == 1).all()
    assert not turned.unknown[0, 0, 15:40, middle].any()
    between = (turned.unknown > 0.02) & (turned.unknown < 0.98)
    assert between.float().mean() < 0.02
    # And what has left the frame is hidden in the photo.
    upwards = turn(pictures(1), mesh, topology, pose_change(shift=(0, -12)))
    assert (upwards.hidden[0, 0, :9, middle] == 1).all() and not upwards.hidden[0, 0, 15:40, middle].any()


def test_a_fold_is_unknown(topology):
    """What the fixed point iterations cannot settle, or would have to stretch, is marked and never silently wrong."""
    mesh = meshes(topology, 1)
    turned = turn(pictures(1), mesh, topology, pose_change(yaw=45))
    places = pixels(SIDE, SIDE, mesh.device)
    source = places - turned.flow[:, 0]
    again = source + sample(turned.forward[:, 0], source, SIDE)
    known = turned.unknown[:, 0] < 0.5
    assert 0.2 < known.float().mean() < 0.98
    assert (again - places).norm(dim=1)[known].max() < 0.6  # px
    seen_at = places + turned.forward[:, 0]
    back = seen_at - sample(turned.flow[:, 0], seen_at, SIDE)
    shown = turned.hidden[:, 0] < 0.5
    assert 0.2 < shown.float().mean() < 0.98
    assert (back - places).norm(dim=1)[shown].max() < 0.6


def test_what_is_stretched_is_unknown(topology):
    places = pixels(20, 20, torch.device("cpu"))[None]
    torch.testing.assert_close(stretch(places * torch.tensor([0.4, 1.0])[:, None, None]), torch.full((1, 20, 20), 2.5))
    torch.testing.assert_close(stretch(places * 2), torch.full((1, 20, 20), 0.5))
    assert (stretch(places.flip(1)) > 100).all()  # what is turned inside out is no picture
    mesh = meshes(topology, 1)
    turned = turn(pictures(1), mesh, topology, joined([pose_change(scale=x) for x in (1.3, 1.75, 2.5)]))
    column, row = mesh[0, topology.ends[3], :2].long().tolist()
    chin = turned.unknown[0, :, row - 8 : row - 4, column - 4 : column + 4]
    # 1.75 is a quarter of the way from where it sets in.
    assert chin[0].max() < 0.01 and 0.1 < chin[1].mean() < 0.4 and chin[2].mean() > 0.8


def test_forward_and_flow_are_inverse(topology, seeded):
    turned = turn(pictures(), meshes(topology), topology, random_changes((2, 3), POSES, seeded))
    places = pixels(SIDE, SIDE, torch.device("cpu"))
    forward, flow = turned.forward.flatten(0, 1), turned.flow.flatten(0, 1)
    apart = (sample(flow, places + forward, SIDE) - forward).norm(dim=1)
    assert apart[turned.hidden.flatten(0, 1) < 0.1].max() < 0.2


def test_a_batch_is_its_items_one_by_one(topology, seeded):
    photos, mesh = pictures(3), meshes(topology, 3)
    change = random_changes((3, 2), Limits(), seeded)
    together = turn(photos, mesh, topology, change)
    for i in range(3):
        for n in range(2):
            alone = turn(photos[i : i + 1], mesh[i : i + 1], topology, change[i : i + 1, n : n + 1])
            for name, value in vars(alone).items():
                whole = getattr(together, name)
                chosen = whole[i : i + 1] if name == "share" else whole[i : i + 1, n : n + 1]
                assert (chosen - value).abs().max() < 2e-3, name  # pixels and px: float32 sums in another order


def test_irises_move_with_the_face(topology):
    mesh = meshes(topology, 1)
    irises = mesh[:, :10] * 0 + mesh[:, inner(topology)[100:110]]
    turned = turn(pictures(1), torch.cat([mesh, irises], 1), topology, pose_change(yaw=9))
    torch.testing.assert_close(turned.mesh[0, 0, 468:], turned.mesh[0, 0, inner(topology)[100:110]], atol=1e-3, rtol=0)


def test_wrong_shapes_are_refused(topology):
    photos, mesh = pictures(), meshes(topology)
    with pytest.raises(InputError, match=r"\(2, 3, 128, 100\)"):
        turn(photos[..., :100], mesh, topology, no_change((2, 1)))
    with pytest.raises(InputError, match="130"):
        turn(torch.zeros(2, 3, 130, 130), mesh, topology, no_change((2, 1)))
    with pytest.raises(InputError, match=r"\(2, 400, 3\)"):
        turn(photos, mesh[:, :400], topology, no_change((2, 1)))
    with pytest.raises(InputError, match=r"\(1, 1\)"):
        turn(photos, mesh, topology, no_change((1, 1)))
    with pytest.raises(InputError, match="frown"):
        pose_change(expression={"frown": 1.0})


def test_every_tensor_is_made_where_the_photos_are(topology):
    """On the meta device a tensor that was made on the CPU cannot be mixed in."""
    meta = torch.device("meta")
    source = torch.Generator().manual_seed(0)
    photos, mesh, there = pictures().to(meta), meshes(topology).to(meta), topology.to(meta)
    photos, mesh = augmented(photos, mesh, there, source)
    turned = turn(photos, mesh, there, random_changes((2, 3), Limits(), source, meta))
    shapes = {name: (tuple(value.shape), value.device.type) for name, value in vars(turned).items()}
    assert shapes["pictures"] == ((2, 3, 3, SIDE, SIDE), "meta") and shapes["unknown"] == ((2, 3, SIDE, SIDE), "meta")
    assert shapes["mesh"] == ((2, 3, 468, 3), "meta") and {device for _, device in shapes.values()} == {"meta"}
    pair = draw_pairs(photos, mesh, there, source)
    assert pair.flow.shape == (2, 2, SIDE, SIDE) and {value.device.type for value in vars(pair).values()} == {"meta"}
    points, known = seen_keypoints(torch.zeros(2, 478, 3, device=meta))
    assert points.device.type == known.device.type == "meta"


# Expressions


@pytest.mark.parametrize(
    "name, place, direction",
    [
        ("jaw", (0.0, -8.0), (0, -1)),
        ("lips", (0.0, -5.0), (0, -1)),
        ("lips", (0.0, -3.7), (0, 1)),
        ("smile", (2.46, -4.34), (1, 1)),
        ("smile", (-2.46, -4.34), (-1, 1)),
        ("brows", (3.4, 5.0), (0, 1)),
        ("lids", (-3.18, 2.95), (0, -1)),
    ],
)
def test_expressions_move_what_they_name(name, place, direction):
    amounts = torch.tensor([[[float(name == other) for other in NAMES]]])
    where = torch.tensor([place, (0.0, 8.0), (0.0, 0.5)]).T[None]  # and forehead and nose
    moved = displacements(where, amounts)[0, 0].T
    for value, sign in zip(moved[0].tolist(), direction):
        assert abs(value) < 1e-6 if sign == 0 else 0.05 < sign * value < 0.5  # cm
    assert moved[1:].abs().max() < 0.05
    assert displacements(where, 0 * amounts).abs().max() == 0


def test_parted_lips_uncover_what_is_unknown(topology):
    """Between the lips there is nothing to be shown; the rest of the face is known."""
    mesh = meshes(topology, 1)
    turned = turn(pictures(1), mesh, topology, pose_change(expression={"jaw": 1.0, "lips": 1.0}))
    unit = 0.5 * SIDE / 17.7
    column, row = SIDE // 2, round(0.47 * SIDE + 4.4 * unit)
    assert turned.unknown[0, 0, row - 2 : row + 4, column - 2 : column + 2].max() > 0.5
    assert turned.unknown[0, 0, : row - 12].max() < 0.01 and turned.unknown[0, 0, row + 12 :].max() < 0.01
    chin = topology.ends[3]
    assert 0.5 < (turned.mesh[0, 0, chin] - mesh[0, chin])[1] < 3  # px


# Draws


def test_draws_are_decided_by_their_seed():
    def draws(seed: int):
        source = torch.Generator().manual_seed(seed)
        return random_changes((2, 3), Limits(), source), smooth_path((2, 16), 12.5, Limits(), source)

    for a, b, other in zip(draws(3), draws(3), draws(4)):
        for name, value in vars(a).items():
            assert torch.equal(value, getattr(b, name)), name
            assert not torch.equal(value, getattr(other, name)), name


def test_draws_keep_to_the_limits(seeded):
    limits = Limits(yaw=7, pitch=3, roll=2, scale=0.02, shift=1.5, expression=((0, 0.5), (-0.2, 0.6), (0, 0), (0, 1), (-1, 0)))
    for change in (random_changes((40, 5), limits, seeded), smooth_path((40, 25), 12.5, limits, seeded)):
        assert 4 < change.yaw.abs().max() <= 7 and 1.5 < change.pitch.abs().max() <= 3 and change.roll.abs().max() <= 2
        assert (change.scale - 1).abs().max() <= 0.02 + 1e-6 and change.shift.abs().max() <= 1.5
        for i, (low, high) in enumerate(limits.expression):
            assert low - 1e-6 <= change.expression[..., i].min() and change.expression[..., i].max() <= high + 1e-6


def test_paths_are_smooth_and_start_anywhere(seeded):
    path = smooth_path((64, 100), 25.0, POSES, seeded)
    assert path.yaw.shape == (64, 100) and path.shift.shape == (64, 100, 2) and path.expression.shape == (64, 100, 5)
    assert path.yaw[:, 0].std() > 1  # degrees
    # Below 0.9 Hz a sinusoid of 12 degrees turns by 2.7 degrees a frame at most, and hardly any power is above 1.5 Hz.
    assert path.yaw.diff(dim=1).abs().max() < 12 * 2 * np.pi * 0.9 / 25
    window = torch.hann_window(100)
    power = torch.fft.rfft((path.yaw - path.yaw.mean(1, keepdim=True)) * window).abs().square().mean(0)
    assert power[8:].sum() < 0.01 * power.sum()  # bins of 0.25 Hz
    from_rest = smooth_path((4, 30), 12.5, Limits(), seeded, from_rest=True)
    for name, value in vars(no_change((4,))).items():
        assert torch.equal(getattr(from_rest, name)[:, 0], value), name
    assert from_rest.yaw.abs().max() > 2
    with pytest.raises(InputError, match="0 frames"):
        smooth_path((2, 0), 12.5, POSES, seeded)


def test_mirrored_twice_is_the_original(topology):
    photos, mesh = pictures(), meshes(topology)
    once = mirrored(photos, mesh, topology)
    twice = mirrored(*once, topology)
    assert torch.equal(twice[0], photos)
    torch.testing.assert_close(twice[1], mesh, atol=1e-4, rtol=0)
    # A symmetrical face in the middle is its own mirror image, point by point.
    centred = mesh[:1] - torch.tensor([0.5, 0.0, 0.0])
    torch.testing.assert_close(mirrored(photos[:1], centred, topology)[1], centred, atol=0.05 * 0.5 * SIDE / 17.7, rtol=0)


def test_turning_a_mirrored_photo_is_mirroring_a_turned_one(topology):
    photos, mesh = pictures(), meshes(topology)
    change = repeated(pose_change(yaw=7, roll=3), 2)
    opposite = repeated(pose_change(yaw=-7, roll=-3), 2)
    a = turn(*mirrored(photos, mesh, topology), topology, opposite)
    b = turn(photos, mesh, topology, change)
    apart = (a.flow[:, 0] * torch.tensor([-1.0, 1.0])[:, None, None] - b.flow[:, 0].flip(-1)).abs()
    assert apart.mean() < 0.05 and apart.max() < 0.6  # px


def test_augmentation_moves_the_mesh_with_the_picture(topology, seeded):
    """Two planes of the picture say where they come from: the mesh's points must read their own old place there."""
    x, y = pixels(SIDE, SIDE, torch.device("cpu"))
    photos = torch.stack([x / SIDE, y / SIDE, 0 * x]).expand(6, -1, -1, -1)
    mesh = meshes(topology, 6)
    plain = Augmentation(exposure=0, tint=0, contrast=0)
    cropped, moved = augmented(photos, mesh, topology, seeded, plain, size=96)
    assert cropped.shape == (6, 3, 96, 96)
    assert moved[..., :2].amin() > -1 and moved[..., :2].amax() < 96
    read = at_points(cropped, moved[..., :2], 96)[..., :2] * SIDE
    # A mirrored photo's planes show the old place of the point's counterpart.
    plain_error = (read - mesh[..., :2]).norm(dim=-1).amax(1)
    mirror_error = (read - mesh[:, topology.mirror[:468], :2]).norm(dim=-1).amax(1)
    assert torch.minimum(plain_error, mirror_error).max() < 0.6  # px
    assert (plain_error < 0.6).any() and (mirror_error < 0.6).any()
    size = (moved[..., 1].amax(1) - moved[..., 1].amin(1)) / (mesh[..., 1].amax(1) - mesh[..., 1].amin(1))
    depth = (moved[..., 2].amax(1) - moved[..., 2].amin(1)) / (mesh[..., 2].amax(1) - mesh[..., 2].amin(1))
    torch.testing.assert_close(size, depth)
    assert size.min() > 0.74 and size.max() < 1.05 and size.std() > 0.01


def test_augmentation_is_drawn_anew_and_by_its_seed(topology):
    photos, mesh = pictures(), meshes(topology)
    source = torch.Generator().manual_seed(5)
    first, second = augmented(photos, mesh, topology, source), augmented(photos, mesh, topology, source)
    again = augmented(photos, mesh, topology, torch.Generator().manual_seed(5))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1]) and not torch.equal(first[0], second[0])
    assert first[0].min() >= 0 and first[0].max() <= 1
    untouched = Augmentation(mirror=0, crop=(1.0, 1.0), exposure=0, tint=0, contrast=0)
    same = augmented(photos, mesh, topology, source, untouched)
    assert (same[0] - photos).abs().max() < 1e-4
    torch.testing.assert_close(same[1], mesh, atol=1e-4, rtol=0)


# Pairs


def test_pairs_say_which_is_the_photo(topology, seeded):
    photos, mesh = pictures(24, 64), meshes(topology, 24, 64)
    pair = draw_pairs(photos, mesh, topology, seeded, untouched=0.6)
    assert 8 < int(pair.untouched.sum()) < 21
    for i in range(24):
        photo_side, mesh_side = (pair.target, pair.target_mesh) if pair.untouched[i] else (pair.portrait, pair.portrait_mesh)
        assert torch.equal(photo_side[i], photos[i]) and torch.equal(mesh_side[i], mesh[i])
    for share, all_of in ((1.0, True), (0.0, False)):
        assert (draw_pairs(photos[:4], mesh[:4], topology, seeded, untouched=share).untouched == all_of).all()


@pytest.mark.parametrize("share", [1.0, 0.0])
def test_a_pairs_flow_reads_the_target_from_the_portrait(topology, seeded, share):
    photos, mesh = pictures(4), meshes(topology, 4) - torch.tensor([0.0, 16.0, 0.0])  # near the upper edge
    pair = draw_pairs(photos, mesh, topology, seeded, POSES, untouched=share)
    read = sample(pair.portrait, pixels(SIDE, SIDE, photos.device) - pair.flow, SIDE, "bicubic", "reflection")
    known = (pair.unknown < 0.1)[:, None].expand_as(read)
    apart = (read - pair.target).abs()
    assert known.float().mean() > 0.85
    # Detail of 12 px, read twice; without the flow it is several times as far.
    assert apart[known].mean() < 0.01 and (pair.portrait - pair.target).abs()[known].mean() > 0.05
    source = pixels(SIDE, SIDE, photos.device) - pair.flow
    outside = ((source < -1) | (source > SIDE)).any(1)
    assert outside.any() and (pair.unknown[outside] == 1).all()
    at_target = pair.target_mesh[..., :2]
    there = at_target - at_points(pair.flow, at_target, SIDE)
    seen = at_points(pair.unknown[:, None], at_target, SIDE)[..., 0] < 0.1
    assert (there - pair.portrait_mesh[..., :2]).norm(dim=-1)[seen].max() < 0.25  # px


# Folders


def write_folder(folder, mesh: torch.Tensor, names: list, side: int = SIDE) -> None:
    import cv2

    folder.mkdir(exist_ok=True)
    for i, name in enumerate(names):
        file = folder / (f"{name:06d}.jpg" if isinstance(name, int) else name)
        picture = (pictures(i + 1, side)[i].permute(1, 2, 0) * 255).byte().numpy()
        assert cv2.imwrite(str(file), np.ascontiguousarray(picture[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 98])
    np.savez(folder / "points.npz", names=np.array(names), mesh=mesh.numpy(), five=np.zeros((len(names), 5, 2), np.float32))


@pytest.mark.parametrize("names", [[3, 17], ["anna.png", "ben.jpg"]], ids=["numbers", "file names"])
def test_a_folder_of_photos_is_read(tmp_path, names):
    mesh = meshes(made_up_face())
    write_folder(tmp_path, mesh, names)
    photos = read_photos(tmp_path)
    assert len(photos) == 2 and photos.pixels.dtype == torch.uint8 and photos.five.shape == (2, 5, 2)
    assert photos.names == (("000003.jpg", "000017.jpg") if names[0] == 3 else ("anna.png", "ben.jpg"))
    picture, points = photos.take(torch.tensor([1]))
    assert torch.equal(points, mesh[1:]) and (picture - pictures(2)[1:]).abs().mean() < 0.02
    assert len(read_photos(tmp_path, 1)) == 1


def test_folders_that_do_not_fit_are_refused(tmp_path):
    mesh = meshes(made_up_face())
    with pytest.raises(InputError, match="points.npz is missing"):
        read_photos(tmp_path)
    write_folder(tmp_path, mesh, [3, 17])
    (tmp_path / "000017.jpg").unlink()
    with pytest.raises(InputError, match="000017.jpg cannot be read"):
        read_photos(tmp_path)
    write_folder(tmp_path, mesh[:, :400], [3, 17])
    with pytest.raises(InputError, match=r"\(2, 400, 3\)"):
        read_photos(tmp_path)
    mesh[1, 7, 0] = torch.nan
    write_folder(tmp_path, mesh, [3, 17])
    with pytest.raises(InputError, match="1 of 2 photos"):
        read_photos(tmp_path)
    write_folder(tmp_path, meshes(made_up_face()), [3, 17])
    write_folder(tmp_path / "other", meshes(made_up_face())[:1], [17], side=64)
    (tmp_path / "other" / "000017.jpg").replace(tmp_path / "000017.jpg")
    with pytest.raises(InputError, match="64 x 64"):
        read_photos(tmp_path)
    (tmp_path / "points.npz").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read"):
        read_photos(tmp_path)


def test_the_command_draws_a_sheet(tmp_path):
    import cv2

    topology = made_up_face()
    write_folder(tmp_path, meshes(topology), [0, 1])
    face = tmp_path / "face.obj"
    rows = [f"v {x} {y} {z}" for x, y, z in topology.rest.tolist()]
    rows += [f"f {a + 1}/1 {b + 1}/2 {c + 1}/3" for a, b, c in topology.triangles.tolist()]
    face.write_text("\n".join(rows))
    command = [
        sys.executable,
        "-m",
        "realportrait_core.head_rotation",
        str(tmp_path),
        str(tmp_path / "out.png"),
        "--face",
        str(face),
    ]
    done = subprocess.run([*command, "--count", "2"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and "2 photos in 9 poses" in done.stdout, done.stderr
    assert cv2.imread(str(tmp_path / "out.png")).shape == (4 * SIDE, 10 * SIDE, 3)
    done = subprocess.run([*command, "--count", "0"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1 and "--count is 0" in done.stderr and "Traceback" not in done.stderr


# Keypoints


def test_keypoints_read_the_mesh():
    """Each is a place of a triangle: all of them move with the mesh, and turn with it."""
    mesh = torch.rand(2, 478, 3)
    points, known = seen_keypoints(mesh)
    assert points.shape == (2, NUM_KP, 3) and torch.equal(known.nonzero()[:, 0], torch.tensor(KNOWN))
    assert not points[:, ~known].any() and torch.equal(torch.isfinite(residuals()), known)
    assert torch.equal(points[:, 22], mesh[:, 473]) and torch.equal(points[:, 23], mesh[:, 468])
    turn_of = torch.linalg.qr(torch.randn(3, 3))[0]
    torch.testing.assert_close(seen_keypoints(mesh @ turn_of + 5)[0][:, known], points[:, known] @ turn_of + 5)
    with pytest.raises(InputError, match=r"\(2, 478, 3\)"):
        seen_keypoints(mesh[:, :468])


def test_keypoints_lie_where_their_names_say():
    """On the canonical face: left of the right ones, above the lower ones, and mirror images within 1.6 cm."""
    topology = read_topology(canonical_face())
    eyes = [topology.rest[[33, 133]].mean(0), topology.rest[[263, 362]].mean(0)]
    rest = torch.cat([topology.rest, eyes[0].expand(5, 3), eyes[1].expand(5, 3)])
    points = seen_keypoints(rest[None])[0][0]
    for left, right in PAIRS[NUM_KP]:  # of the person: left is at the picture's right
        assert points[left, 0] > 1 and points[right, 0] < -1
        assert (points[left] * torch.tensor([-1.0, 1.0, 1.0]) - points[right]).norm() < 1.6
    forehead, bridge, nose, upper, lower, below, chin = points[[1, 3, 0, 4, 5, 8, 9], 1].tolist()
    assert forehead > bridge > nose > upper > lower > below > chin


@pytest.fixture
def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(11)
