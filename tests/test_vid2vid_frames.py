"""Face Vid2vid's own frames: G's pictures chunk by chunk, their place in the portrait, fading, precision, and the original."""

import copy
from dataclasses import replace

import pytest
import torch
import toy_sizes
from full_size import filled, keypoint_change, picture
from golden import load

from realportrait_core.animation.extraction import extract_keypoints
from realportrait_core.animation.keypoints import Keypoints
from realportrait_core.animation.mapping import motion_maps
from realportrait_core.animation.retargeting import DrivenKeypoints, drive_keypoints
from realportrait_core.animation.vid2vid_frames import (
    check_rendering,
    face_frames,
    frames_mask,
    picture_size,
    portrait_frames,
    portrait_places,
)
from realportrait_core.config import PAPER, Vid2VidConfig
from realportrait_core.errors import InputError, WeightsError
from realportrait_core.face.blend import crop_place, paste_face, soft_square, whole_mask
from realportrait_core.face.crop import CROP, points_to_crop, rescale, warp_affine
from realportrait_core.face.track import FaceTrack
from realportrait_core.vid2vid import FaceVid2Vid
from realportrait_core.vid2vid.appearance import AppearanceExtractor
from realportrait_core.vid2vid.blocks import fold_norms
from realportrait_core.vid2vid.checkpoint import motion_fingerprint
from realportrait_core.vid2vid.generator import Generator
from realportrait_core.vid2vid.keypoints import transform
from realportrait_core.vid2vid.motion import MotionExtractor
from realportrait_core.vid2vid.precision import to_dtype
from realportrait_core.vid2vid.stitching import Finish, KeypointMLP
from realportrait_core.vid2vid.warp import WarpingNetwork

FACE = torch.tensor([[40.0, 45], [70, 47], [55, 60], [43, 75], [67, 76]])  # px, slightly rolled
FRAMES = 5


def random_vid2vid(**changes) -> FaceVid2Vid:
    torch.manual_seed(0)
    model = FaceVid2Vid(Vid2VidConfig(**toy_sizes.VID2VID | changes))
    for name, value in model.named_parameters():
        torch.nn.init.normal_(value, std=0.3 if value.ndim > 1 else 0.1)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def vid2vid() -> FaceVid2Vid:
    return random_vid2vid(upscale=2)


def motion_of(vid2vid: FaceVid2Vid, height=121, width=113, points=FACE, weight=None, **changes):
    """The motion of a portrait of odd sides under FRAMES random poses."""
    g = torch.Generator().manual_seed(1)
    track = FaceTrack(points + torch.arange(FRAMES)[:, None, None], torch.ones(FRAMES, dtype=torch.bool), "", motion_weight=weight)
    portrait, driver = torch.rand(1, height, width, 3, generator=g), torch.rand(FRAMES, 120, 110, 3, generator=g)
    keypoints = extract_keypoints(vid2vid, portrait, driver, points, track)
    moved = replace(keypoints.driver, expression=0.2 * torch.randn(keypoints.driver.expression.shape, generator=g))
    return motion_maps(vid2vid, drive_keypoints(replace(keypoints, driver=moved, **changes)), 64)


@pytest.fixture(scope="module")
def motion(vid2vid):
    return motion_of(vid2vid)


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    return float((a - b).abs().max())


# The place of a crop in its portrait


def test_pasting_back_is_the_original():
    """Mask and geometry, without our average: the original samples a crop that is finer than the portrait at single points."""
    golden, _ = load("motion", "paste_back")
    image, crop = (golden[name].float() for name in ("in/image", "in/img_crop"))
    mask = golden["in/mask_crop"][..., 0] / 255
    to_crop = rescale(CROP / len(mask)) @ torch.linalg.inv(golden["in/M_c2o"].double())
    place = crop_place(to_crop, len(mask), mask, *image.shape[:2])
    assert place.fine == 2
    place = replace(place, fine=1, weight=warp_affine(mask[None, None], place.to_window, *place.size)[0, 0])
    ours = image.clone()
    paste_face(ours, crop.movedim(-1, 0), place)
    # The original rounds the warped crop and mask to whole levels and truncates the result.
    assert apart(ours, golden["out/result"].float()) < 1.6
    assert apart(whole_mask(place, *image.shape[:2]), golden["out/mask_ori"][..., 0]) < 0.51 / 255


def test_the_mask_is_soft_at_its_border():
    mask = soft_square()
    assert mask.shape == (CROP, CROP) and (mask[0] == 0).all() and (mask[:, -1] == 0).all()
    assert (mask[16:-16, 16:-16] == 1).all() and mask[15, 256] < 1 and mask[8, 256] == pytest.approx(0.5)
    assert mask[4, 4] == 0 < mask[4, 256] and (mask[:17, 256].diff() > 0).all()
    assert torch.equal(mask, mask.T) and torch.equal(mask, mask.flip(0))
    assert apart(soft_square(128), torch.nn.functional.avg_pool2d(mask[None, None], 4)[0, 0]) < 0.04


@pytest.mark.parametrize("shift", [60.0, -20.0, 130.0])  # within the portrait, and over two of its borders
@pytest.mark.parametrize("side", [16, 64, 512])  # coarser and finer than the portrait
def test_outside_the_crop_the_portrait_keeps_its_bits(side, shift):
    height, width = 241, 227
    to_crop = points_to_crop(FACE + shift)
    place = crop_place(to_crop, side, soft_square(), height, width)
    picture = torch.rand(height, width, 3)
    pasted, shown = picture.clone(), whole_mask(place, height, width)
    paste_face(pasted, torch.ones(3, side, side), place)
    outside = shown == 0
    assert torch.equal(pasted[outside], picture[outside]) and 0.05 < outside.float().mean() < 0.9
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    at = torch.stack([x, y, torch.ones_like(x)], -1).double() @ to_crop[:2].T  # px of the crop
    inside, deep = ((at > -0.5) & (at < CROP - 0.5)).all(-1), ((at > 24) & (at < CROP - 24)).all(-1)
    assert not shown[~inside].any() and (shown[deep] == 1).all()
    assert apart(pasted[deep], torch.ones_like(picture)[deep]) < 1e-6


def test_the_portraits_own_crop_changes_nothing():
    """A smooth picture, cropped and pasted: crop and place are inverse to each other, rotation included."""
    y, x = torch.linspace(0, 6, 241)[:, None], torch.linspace(0, 6, 227)
    picture = (0.5 + 0.4 * torch.stack([torch.sin(x + y), torch.sin(x - 2 * y), torch.cos(2 * x + y)], -1)).float()
    to_crop = points_to_crop(FACE + 60)
    for side in (128, 512):
        crop = warp_affine(picture.movedim(-1, 0)[None], rescale(side / CROP) @ to_crop, side, side)[0]
        pasted = picture.clone()
        paste_face(pasted, crop, crop_place(to_crop, side, soft_square(), 241, 227))
        assert apart(pasted, picture) < 0.02


def test_a_picture_finer_than_the_portrait_is_averaged():
    stripes = (torch.arange(512) % 2).float().expand(3, 512, 512)
    place = crop_place(points_to_crop(FACE), 512, soft_square(), 131, 117)
    pasted = torch.full((131, 117, 3), 0.5)
    paste_face(pasted, stripes, place)
    assert place.fine >= 4 and apart(pasted, torch.full_like(pasted, 0.5)) < 0.1


def test_a_crop_beside_the_portrait_is_refused():
    with pytest.raises(InputError, match="beside the portrait of 117x131 px"):
        crop_place(points_to_crop(FACE + 900), 16, soft_square(), 131, 117)


# Frames


@torch.inference_mode()
def test_frames_are_those_of_g_in_any_chunks(vid2vid, motion):
    side = picture_size(vid2vid)
    wanted = vid2vid.generator(motion.maps.f.float())
    assert wanted.shape == (FRAMES, 3, side, side) and wanted.std(0).max() > 1e-3
    for chunk in (1, 2, FRAMES + 1):
        parts = list(face_frames(vid2vid, motion, chunk))
        assert [len(part) for part in parts] == [len(part) for part in wanted.split(chunk)]
        assert apart(torch.cat(parts), wanted) < 1e-5


@torch.inference_mode()
def test_they_lie_in_the_portrait_at_its_own_size(vid2vid, motion):
    portrait = motion.keypoints.picture
    frames, mask = torch.cat(list(portrait_frames(vid2vid, motion, chunk=2))), frames_mask(motion, picture_size(vid2vid))
    assert frames.shape == (FRAMES, 121, 113, 3) and mask.shape == (1, 121, 113)
    assert torch.equal(frames[:, mask[0] == 0], portrait[:, mask[0] == 0].expand(FRAMES, -1, -1))
    place, *_ = portrait_places(motion, picture_size(vid2vid))
    for frame, face in zip(frames, vid2vid.generator(motion.maps.f.float())):
        alone = portrait[0].clone()
        paste_face(alone, face, place)
        assert apart(frame, alone) < 1e-5


@torch.inference_mode()
def test_other_pictures_under_the_face(vid2vid, motion):
    """Frames of the portrait's size, say those with another face animated: the last one is held."""
    pictures = torch.rand(3, 121, 113, 3)
    before = pictures.clone(), motion.maps.f.clone()
    frames, mask = torch.cat(list(portrait_frames(vid2vid, motion, pictures))), frames_mask(motion, picture_size(vid2vid))[0]
    for i, frame in enumerate(frames):
        assert torch.equal(frame[mask == 0], pictures[min(i, 2)][mask == 0])
    assert torch.equal(pictures, before[0]) and torch.equal(motion.maps.f, before[1])
    with pytest.raises(InputError, match="portrait is 113x120 px; the motion was made for one of 113x121 px"):
        next(portrait_frames(vid2vid, motion, pictures[:, :120]))
    with pytest.raises(InputError, match="does not hold the picture of its portrait"):
        next(portrait_frames(vid2vid, replace(motion, keypoints=replace(motion.keypoints, picture=None))))


@torch.inference_mode()
def test_where_the_motion_fades_the_keypoints_fade(vid2vid):
    """The maps of these frames are multiplied by the weight; G gets f_{r->d} of x_s + w (x_d - x_s) instead."""
    weight = torch.tensor([1.0, 0.6, 0.0, 0.4, 1.0])
    fading, whole = motion_of(vid2vid, weight=weight), motion_of(vid2vid)
    keypoints = fading.keypoints
    x_s = transform(keypoints.portrait)
    x = x_s + weight[:, None, None] * (fading.x_d - x_s)
    wanted = vid2vid.generator(vid2vid.warping(keypoints.feature, x, x_s).out)
    before = fading.maps.f.clone()
    found = torch.cat(list(face_frames(vid2vid, fading, 3)))
    assert apart(found[[1, 2, 3]], wanted[[1, 2, 3]]) < 1e-4
    assert apart(found[[0, 4]], torch.cat(list(face_frames(vid2vid, whole)))[[0, 4]]) < 1e-5
    own = vid2vid.generator(vid2vid.warping(keypoints.feature, x_s, x_s).out)
    assert apart(found[2:3], own) < 1e-4 and apart(vid2vid.generator(before[2:3].float()), own) > 0.05
    assert torch.equal(fading.maps.f, before)


@torch.inference_mode()
def test_a_stitched_motion_is_rendered(vid2vid):
    k = vid2vid.cfg.num_kp
    torch.manual_seed(2)
    sizes = {"stitching": (6 * k, 8, 3 * k + 2), "lip": (3 * k + 2, 8, 3 * k), "eye": (3 * k + 3, 8, 3 * k)}
    networks = {name: KeypointMLP(widths) for name, widths in sizes.items()}
    stitched = motion_of(vid2vid, finish=Finish(networks, True, None, None))
    found = torch.cat(list(face_frames(vid2vid, stitched)))
    keypoints = stitched.keypoints
    wanted = vid2vid.generator(vid2vid.warping(keypoints.feature, stitched.x_d, transform(keypoints.portrait)).out)
    assert apart(found, wanted) < 2e-2  # maps are kept in float16
    assert apart(found, torch.cat(list(face_frames(vid2vid, motion_of(vid2vid))))) > 2e-2


def test_without_a_generator_its_file_is_named(motion):
    lacking = random_vid2vid(upscale=2)
    lacking.generator = None
    with pytest.raises(WeightsError, match="spade_generator.safetensors .222 MB., from Kijai.*put it beside"):
        check_rendering(lacking, motion)


def test_a_motion_of_other_weights_is_refused(vid2vid, motion):
    wider = random_vid2vid(upscale=2, warped_channels=8)
    with pytest.raises(InputError, match=r"Other Face Vid2vid weights made this motion \(6 channels.*8 channels"):
        check_rendering(wider, motion)
    other = copy.deepcopy(vid2vid)
    other.motion.detector.fc_kp.weight.add_(0.1)
    with pytest.raises(InputError, match=f"M {motion_fingerprint(vid2vid)}; .* M {motion_fingerprint(other)}"):
        check_rendering(other, motion)
    unknown = replace(motion, keypoints=replace(motion.keypoints, encoder=""))
    check_rendering(other, unknown)


# Precision


@pytest.mark.parametrize("dtype, bound", [(torch.float16, 0.02), (torch.bfloat16, 0.08)])
@torch.inference_mode()
def test_half_precision_is_near_float32(vid2vid, dtype, bound):
    """The whole chain with F, W and G in half precision: poses are equal bit by bit, pictures within `bound` of 0 to 1."""
    exact, low = fold_norms(copy.deepcopy(vid2vid)), to_dtype(fold_norms(copy.deepcopy(vid2vid)), dtype)
    motion, low_motion = motion_of(exact), motion_of(low)
    assert torch.equal(motion.x_d, low_motion.x_d) and low_motion.keypoints.feature.dtype == dtype
    assert motion_fingerprint(low) == motion_fingerprint(exact) == low_motion.keypoints.encoder
    wanted, found = (torch.cat(list(face_frames(*given))) for given in ((exact, motion), (low, low_motion)))
    assert found.dtype == torch.float32 and 1e-5 < apart(found, wanted) < bound
    mixed = torch.cat(list(face_frames(low, motion)))  # keypoints and maps of another precision
    assert apart(mixed, wanted) < bound
    faded = torch.cat(list(face_frames(low, motion_of(low, weight=torch.linspace(0, 1, FRAMES)))))
    assert apart(faded, torch.cat(list(face_frames(exact, motion_of(exact, weight=torch.linspace(0, 1, FRAMES)))))) < bound


# Parity


@pytest.mark.slow  # 130 M parameters
@torch.inference_mode()
def test_the_whole_chain_at_full_size_is_the_original():
    """5e-3 is 1.3 of 255 levels: the maps keep f_{r->d} in float16, which a G of random weights makes 2.5e-3 of. Without that
    rounding the networks agree to 1e-5, as test_vid2vid.py shows.
    """
    tensors, _ = load("motion", "full_size")
    vid2vid = FaceVid2Vid.__new__(FaceVid2Vid)
    torch.nn.Module.__init__(vid2vid)
    vid2vid.cfg = PAPER.vid2vid
    vid2vid.appearance = filled(AppearanceExtractor, "appearance_feature_extractor")
    vid2vid.motion = filled(MotionExtractor, "motion_extractor")
    vid2vid.warping = filled(WarpingNetwork, "warping_module")
    vid2vid.generator = filled(Generator, "spade_generator")
    source = picture("source")
    pose, crop = vid2vid.motion(source), points_to_crop(FACE)
    keypoints = Keypoints(
        portrait=pose,
        driver=pose,
        feature=vid2vid.appearance(source),
        portrait_crop=crop,
        driver_crop=crop,
        portrait_points=FACE,
        driver_points=FACE[None],
        present=torch.ones(1, dtype=torch.bool),
        portrait_size=(160, 150),
        driver_size=(160, 150),
        encoder=motion_fingerprint(vid2vid),
    )
    motion = motion_maps(vid2vid, DrivenKeypoints(transform(pose) + keypoint_change(), keypoints, 0), 512)
    image = next(face_frames(vid2vid, motion))
    assert image.shape == (1, 3, 512, 512) == (1, 3, picture_size(vid2vid), picture_size(vid2vid))
    assert apart(image[..., ::2, ::2], tensors["out/image_s2"]) < 5e-3
    assert apart(image[..., 192:320, 192:320], tensors["out/image_patch"]) < 5e-3
