"""Crops: LivePortrait's rule against its golden vectors, the rule for five points, masks, and bad input."""

import math

import pytest
import torch
from golden import load

from realportrait_core.errors import InputError
from realportrait_core.face.crop import (
    EMPTY_FACE,
    Square,
    clip_crop,
    face_ellipse,
    face_square,
    landmark_square,
    mean_square,
    paste_crop,
    points_to_crop,
    rescale,
    sample_crop,
    square_to_crop,
    warp_affine,
    warp_ellipse,
)

FACE = torch.tensor([[95.2, 60.3], [144.5, 57.4], [120.2, 88.2], [102.4, 110.8], [146.3, 108.3]], dtype=torch.float64)


def picture(image: torch.Tensor) -> torch.Tensor:
    """(H, W, C) uint8 -> (1, C, H, W) float64, 0..255."""
    return image.double().permute(2, 0, 1)[None]


def apply(affine: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    return points @ affine[:2, :2].mT + affine[:2, 2]


def corners(square: Square) -> torch.Tensor:
    half = torch.tensor([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]], dtype=torch.float64)
    return square.center + square.size * (half[:, :1] * square.ux + half[:, 1:] * square.uy)


@pytest.mark.parametrize("case", range(12))
def test_rect_golden(case):
    golden, _ = load("motion", "parse_rect")
    out = {key.split("/")[2]: value.double() for key, value in golden.items() if key.startswith(f"out/{case}/")}
    points = golden[f"in/{case}/pts"]

    turned = landmark_square(points, 1.7, -0.2, vx=0.05, use_lip=False)
    torch.testing.assert_close(turned.center, out["center"], atol=1e-4, rtol=0)
    torch.testing.assert_close(turned.size.expand(2), out["size"], atol=1e-4, rtol=0)
    torch.testing.assert_close(turned.angle[None], out["angle"], atol=1e-6, rtol=0)

    square = landmark_square(points, 2.2, -0.1)
    torch.testing.assert_close(corners(square), out["bbox_rot"], atol=1e-4, rtol=0)
    upright = mean_square(Square(*(value[None] for value in vars(square).values())))
    torch.testing.assert_close(corners(upright), out["bbox"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("case", range(12))
def test_crop_golden(case):
    golden, description = load("motion", "crop_image")
    case = description["cases"][case]
    args, out = case["kwargs"], f"out/{case['case']}"
    points, image = golden[f"in/{case['case']}/pts"], golden[f"in/{case['image']}"]
    crop = square_to_crop(landmark_square(points, args["scale"], args["vy_ratio"]), args["dsize"], args["flag_do_rot"])
    torch.testing.assert_close(crop, golden[f"{out}/M_o2c"].double(), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(apply(crop, points.double()), golden[f"{out}/pt_crop"].double(), atol=1e-3, rtol=0)
    # OpenCV rounds to whole levels.
    sampled = warp_affine(picture(image), crop, args["dsize"], args["dsize"])
    torch.testing.assert_close(sampled, picture(golden[f"{out}/img_crop"]), atol=0.51, rtol=0)
    if case["n_points"] != 5 and args["flag_do_rot"]:
        assert torch.equal(points_to_crop(points, args["dsize"], args["scale"], args["vy_ratio"]), crop)


def test_driving_crop_golden():
    golden, _ = load("motion", "crop_driving_video")
    crop = square_to_crop(mean_square(landmark_square(golden["in/pts"], 2.2, -0.1)), 80)
    for frame in range(4):
        torch.testing.assert_close(crop, golden[f"out/{frame}/M_o2c"].double(), atol=1e-4, rtol=0)
        sampled = warp_affine(picture(golden[f"in/frame{frame}"]), crop, 80, 80)
        torch.testing.assert_close(sampled, picture(golden[f"out/{frame}/img_crop"]), atol=0.51, rtol=0)


def test_crop_512_to_256_golden():
    golden, _ = load("motion", "crop_512_to_256")
    crop = square_to_crop(landmark_square(golden["in/pts"], 2.3, -0.125), 512)
    sampled = sample_crop(picture(golden["in/image"]), crop, 256)
    # The original rounds twice, after the warp and after the area filter.
    torch.testing.assert_close(sampled, picture(golden["out/crop256"]), atol=1.01, rtol=0)


def test_paste_back_golden():
    golden, _ = load("motion", "paste_back")
    to_crop = torch.linalg.inv(golden["in/M_c2o"].double())
    mask = picture(golden["in/mask_crop"])[:, :1] / 255
    ours = paste_crop(picture(golden["in/image"]), picture(golden["in/img_crop"]), mask, to_crop)
    # The original rounds the warped crop and mask to whole levels and truncates the result.
    torch.testing.assert_close(ours, picture(golden["out/result"]), atol=1.6, rtol=0)


@pytest.mark.parametrize("nose, extent, aside", [(0.0, 91.8, 0.0), (12.0, 89.6 + 18.6, -17.52)])
def test_five_points_of_an_upright_face(nose, extent, aside):
    """Eyes 40 px apart, the mouth 45 px below: max(2.04 * 45, 2.24 * 40 + 1.55 |t|), frontal and with the nose 12 px aside."""
    points = torch.tensor([[80.0, 100.0], [120.0, 100.0], [100.0 + nose, 125.0], [85.0, 145.0], [115.0, 145.0]])
    square = face_square(points, scale=2.0, vy=-0.1)
    assert float(square.size) == pytest.approx(2 * extent)
    assert square.center.tolist() == pytest.approx([100 + aside, 100 + 0.626 * 45 - 0.1 * 2 * extent])
    assert float(square.angle) == 0


def test_crop_follows_the_face():
    """Turning, moving and enlarging the picture does the same to the crop: the crop of the points stays where it is."""
    turn, move = torch.tensor([[0.8, -0.6], [0.6, 0.8]], dtype=torch.float64), torch.tensor([40.0, -7.0], dtype=torch.float64)
    there = 1.7 * FACE @ turn.mT + move
    torch.testing.assert_close(apply(points_to_crop(there), there), apply(points_to_crop(FACE), FACE), atol=1e-9, rtol=0)


def test_clip_crop_is_upright_and_one_for_the_clip():
    clip = torch.stack([FACE, FACE + 4])
    crop = clip_crop(clip)
    assert crop.shape == (3, 3) and crop[0, 1] == crop[1, 0] == 0 and crop[0, 0] == crop[1, 1]
    torch.testing.assert_close(crop, clip_crop((FACE + 2)[None]), atol=1e-9, rtol=0)


def test_crop_of_nothing_but_resizing_is_exact():
    ramp = torch.arange(64.0, dtype=torch.float64)
    image = (ramp[:, None] + 100 * ramp)[None, None].expand(2, 3, 64, 64)
    whole = sample_crop(image, torch.eye(3), 32, units=64)
    torch.testing.assert_close(whole, torch.nn.functional.avg_pool2d(image, 2), atol=1e-9, rtol=0)
    # the same crop, stated in units of 512 px
    torch.testing.assert_close(sample_crop(image, rescale(8), 32), whole, atol=1e-9, rtol=0)


def test_a_large_portrait_does_not_alias():
    """Stripes finer than a crop pixel average to grey."""
    stripes = (torch.arange(1024) % 2).double().expand(1, 3, 1024, 1024)
    crop = sample_crop(stripes, torch.eye(3), 128, units=1024)
    torch.testing.assert_close(crop, torch.full_like(crop, 0.5), atol=1e-9, rtol=0)


def test_paste_undoes_crop_inside_the_mask():
    ramp = torch.arange(96.0, dtype=torch.float64)
    image = (0.3 * ramp[:, None] + 0.7 * ramp)[None, None].expand(1, 3, 96, 96)
    crop = points_to_crop(FACE * 0.4, 256)
    mask = torch.zeros(1, 1, 256, 256, dtype=torch.float64)
    mask[..., 90:166, 90:166] = 1
    back = paste_crop(image, warp_affine(image, crop, 256, 256), mask, crop)
    torch.testing.assert_close(back, image, atol=1e-9, rtol=0)


def disc(face: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    return (points @ face[:, :2].mT + face[:, 2]).norm(dim=-1)


def test_face_ellipse_holds_the_face_and_not_the_frame():
    face = face_ellipse(FACE)
    assert bool((disc(face, FACE) < 1).all())
    assert bool((disc(face, torch.tensor([[0.0, 0.0], [255.0, 0.0], [120.0, 200.0], [20.0, 88.0]]).double()) > 1).all())
    square = face_square(FACE, 1.0, 0.0)
    edge = torch.stack([square.center + 0.55 * square.size * square.ux, square.center - 0.47 * square.size * square.uy])
    torch.testing.assert_close(disc(face, edge), torch.ones(2, dtype=torch.float64))


def test_warp_ellipse():
    face = face_ellipse(torch.stack([FACE, FACE + 3]))
    still = torch.zeros(2, 2)
    driver, output = clip_crop(FACE[None]), points_to_crop(FACE * 0.5 + 30)
    torch.testing.assert_close(warp_ellipse(face, driver, driver, still), face)

    # A pixel of the driver and the output pixel at the same place of the crop, moved by the shift, are the same for the disc.
    shift = torch.tensor([[5.0, -8.0], [0.0, 2.0]], dtype=torch.float64)
    warped = warp_ellipse(face, driver, output.expand(2, 3, 3), shift)
    for frame in range(2):
        there = apply(torch.linalg.inv(output), apply(driver, FACE) + shift[frame])
        torch.testing.assert_close(disc(warped[frame], there), disc(face[frame], FACE))

    empty = torch.tensor(EMPTY_FACE).expand(2, 2, 3)
    assert torch.equal(warp_ellipse(empty, driver, output, shift).float(), empty)


@pytest.mark.parametrize(
    "points, message",
    [
        (torch.zeros(7, 2), r"N one of .*\(7, 2\)"),
        (torch.zeros(5, 3), r"\(5, 3\)"),
        (torch.full((5, 2), math.nan), "10 of 10 face coordinates are NaN"),
        (torch.ones(5, 2), "coincide"),
    ],
)
def test_bad_points_are_refused(points, message):
    with pytest.raises(InputError, match=message):
        points_to_crop(points)


def test_bad_clips_and_pictures_are_refused():
    with pytest.raises(InputError, match=r"at least one frame; these are \(0, 5, 2\)"):
        clip_crop(torch.zeros(0, 5, 2))
    with pytest.raises(InputError, match=r"\(3, 8, 8\)"):
        warp_affine(torch.zeros(3, 8, 8), torch.eye(3), 8, 8)
