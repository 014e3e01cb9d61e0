"""The motion position map: golden construction, and both cheap orders against the literal warp, mask, convolution."""

import pytest
import torch
import torch.nn.functional as F
from golden import load

from realportrait_core.config import MOST_REACH
from realportrait_core.errors import InputError
from realportrait_core.face.crop import EMPTY_FACE, clip_crop, face_ellipse
from realportrait_core.motion_map import MotionMaps, dense, first_convolution

FACE = torch.tensor([[0.0, 0.0], [24.0, 2.0], [11.0, 14.0], [2.0, 26.0], [21.0, 27.0]], dtype=torch.float64)


def maps_at(places, channels=5, side=8, height=48, width=60, dtype=torch.float64) -> MotionMaps:
    """Maps of a face whose left eye stands at each of `places` (x, y) px, turned a little from frame to frame."""
    turn = torch.tensor([[1.0, 0.15], [-0.15, 1.0]], dtype=torch.float64)
    points = torch.stack(
        [torch.tensor(place, dtype=torch.float64) + FACE @ torch.linalg.matrix_power(turn, i) for i, place in enumerate(places)]
    )
    f = torch.randn(len(places), channels, side, side, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return MotionMaps(f.to(dtype), clip_crop(points).expand(len(places), 3, 3), face_ellipse(points), height, width)


def mapper(channels, out, dtype=torch.float64):
    random = torch.Generator().manual_seed(4)
    weight = torch.randn(out, channels, 3, 3, generator=random, dtype=torch.float64).to(dtype)
    return weight.requires_grad_(), torch.randn(out, generator=random, dtype=torch.float64).to(dtype).requires_grad_()


@pytest.mark.parametrize("case", ["inside", "edge"])
def test_position_map_golden(case):
    golden, _ = load("motion", "position_map_small")
    golden = {key.removeprefix(f"{case}/"): value for key, value in golden.items() if key.startswith(case)}
    last = torch.tensor([[[0.0, 0.0, 1.0]]], dtype=torch.float64).expand(2, 1, 3)
    everywhere = torch.zeros(2, 2, 3, dtype=torch.float64)  # every pixel is in the middle of the ellipse
    maps = MotionMaps(golden["in/feature"], torch.cat([golden["in/M_o2c"], last], 1), everywhere, 128, 128)
    x = dense(maps) * golden["in/mask"]

    # Every fourth channel is kept in the repository; the convolutions below read all of them.
    torch.testing.assert_close(x.float()[:, ::4], golden["out/warped_masked"], atol=1e-6, rtol=0)
    for layer in ("conv1", "conv2", "conv3"):
        x = x if layer == "conv1" else F.silu(x)
        x = F.conv2d(x, golden[f"w/{layer}.weight"], golden[f"w/{layer}.bias"], stride=2, padding=1)
    torch.testing.assert_close(x, golden["out/motion_latent"], atol=1e-12, rtol=0)


def test_a_mask_that_reaches_further_keeps_place_and_shape():
    """Radii grow by the factor: as many pixels hold it as a picture of the face enlarged about its middle."""
    maps = maps_at([(95, 80), (100, 90)], height=256, width=256)
    wide = maps.reaching(2.0)
    assert torch.equal(wide.f, maps.f) and torch.equal(wide.frame_to_crop, maps.frame_to_crop)
    for near, far in zip(maps.mask(), wide.mask()):
        assert abs(int(far.sum()) / int(near.sum()) - 4) < 0.05
        middles = [torch.nonzero(mask).double().mean(0) for mask in (near, far)]
        torch.testing.assert_close(*middles, atol=0.5, rtol=0)


def test_no_face_stays_no_face_however_far_the_mask_reaches():
    maps = maps_at([(20, 10)])
    nothing = MotionMaps(maps.f, maps.frame_to_crop, torch.tensor([EMPTY_FACE]).double(), maps.height, maps.width)
    assert not nothing.reaching(MOST_REACH).mask().any()


# 2 output channels of 5 take the commuted order, 7 the direct one.
@pytest.mark.parametrize("out_channels", [2, 7])
@pytest.mark.parametrize(
    "places",
    [
        [(18, 12), (20, 10), (15, 11)],  # inside the frame
        [(-14, -12), (-12, -10)],  # over the top left corner
        [(50, 38), (44, 30)],  # over the bottom right corner
        [(18, 12), (400, 400)],  # the second face out of the frame
    ],
)
@pytest.mark.parametrize("size", [(48, 60), (47, 59)])
def test_first_convolution_is_the_literal_one(places, size, out_channels):
    maps = maps_at(places, height=size[0], width=size[1])
    assert 0 < int(maps.mask()[0].sum()) < size[0] * size[1]
    weight, bias = mapper(5, out_channels)
    literal = F.conv2d(dense(maps), weight, bias, stride=2, padding=1)
    ours = first_convolution(maps, weight, bias)
    torch.testing.assert_close(ours, literal, atol=1e-12, rtol=0)

    pull = torch.linspace(-1, 1, literal.numel(), dtype=torch.float64).view_as(literal)
    for got, expected in zip(torch.autograd.grad(ours, (weight, bias), pull), torch.autograd.grad(literal, (weight, bias), pull)):
        torch.testing.assert_close(got, expected, atol=1e-11, rtol=0)


def test_empty_mask_gives_the_bias():
    maps = maps_at([(18, 12), (20, 10)])
    maps = MotionMaps(maps.f, maps.frame_to_crop, torch.tensor(EMPTY_FACE).double().expand(2, 2, 3), maps.height, maps.width)
    weight, bias = mapper(5, 7)
    assert not maps.mask().any()
    assert torch.equal(first_convolution(maps, weight, bias), bias[:, None, None].expand(2, 7, 24, 30))
    assert torch.equal(dense(maps), torch.zeros(2, 5, 48, 60, dtype=torch.float64))


def test_half_precision_maps_stay_close():
    maps = maps_at([(18, 12), (20, 10)], dtype=torch.float16)
    weight, bias = mapper(5, 2, torch.float32)
    literal = F.conv2d(dense(maps.to(dtype=torch.float32)), weight, bias, stride=2, padding=1)
    torch.testing.assert_close(first_convolution(maps, weight, bias), literal, atol=2e-5, rtol=0)


def test_moving_the_driver_moves_the_map():
    here, there = dense(maps_at([(8, 6)])), dense(maps_at([(16, 14)]))  # 8 px right and down
    torch.testing.assert_close(there[..., 8:, 8:], here[..., :-8, :-8], atol=1e-12, rtol=0)


def test_frames_are_independent():
    maps = maps_at([(18, 12), (2, 1), (25, 16)])
    weight, bias = mapper(5, 2)
    whole = first_convolution(maps, weight, bias)
    for frame in range(3):
        torch.testing.assert_close(first_convolution(maps[frame], weight, bias)[0], whole[frame], atol=1e-12, rtol=0)
    assert len(maps[1:]) == 2 and torch.equal(maps[[2, 2]].f[0], maps.f[2])


def test_bad_shapes_are_refused_with_numbers():
    maps = maps_at([(18, 12)])
    with pytest.raises(InputError, match=r"frame_to_crop .*\(2, 3, 3\)"):
        MotionMaps(maps.f, maps.frame_to_crop.expand(2, 3, 3), maps.face, 48, 60)
    with pytest.raises(InputError, match="48x0 px"):
        MotionMaps(maps.f, maps.frame_to_crop, maps.face, 48, 0)
    with pytest.raises(InputError, match="0 frames"):
        maps[:0]
    weight, bias = mapper(6, 7)
    with pytest.raises(InputError, match=r"\(7, 6, 3, 3\).*5 channels"):
        first_convolution(maps, weight, bias)


class OnMetal(torch.Tensor):
    """A tensor that refuses float64 until it is on the CPU, as those on Apple's Metal do."""

    @classmethod
    def __torch_function__(cls, function, types, arguments=(), named=None):
        if function is torch.Tensor.cpu:
            return arguments[0].as_subclass(torch.Tensor)
        asked = (*arguments, *(named or {}).values())
        if function is torch.Tensor.double or any(value is torch.float64 for value in asked):
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64.")
        return super().__torch_function__(function, types, arguments, named or {})


def test_nothing_is_made_double_on_metal():
    maps = maps_at([(10, 12), (14, 11)], dtype=torch.float32)
    single = MotionMaps(maps.f, maps.frame_to_crop.float(), maps.face.float(), maps.height, maps.width)
    weight, bias = mapper(5, 7, torch.float32)
    metal = [tensor.as_subclass(OnMetal) for tensor in (single.f, single.frame_to_crop, single.face)]
    with pytest.raises(TypeError, match="float64"):
        metal[0].double()
    out = first_convolution(MotionMaps(*metal, maps.height, maps.width), weight, bias)
    assert torch.equal(out.as_subclass(torch.Tensor), first_convolution(single, weight, bias))
