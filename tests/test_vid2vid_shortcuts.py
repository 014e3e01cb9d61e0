"""The shorter ways of W and G equal PyTorch's convolutions and sampling, follow the weights, and are taken only where they pay."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from realportrait_core.config import Vid2VidConfig
from realportrait_core.vid2vid.fourier import MaskAndOcclusion
from realportrait_core.vid2vid.sampling import sample_shifted
from realportrait_core.vid2vid.upsampled import convolve_upsampled
from realportrait_core.vid2vid.warp import DenseMotion, WarpingNetwork, axis

CLOSE = 1e-5  # of the largest value
SMALL = Vid2VidConfig(
    crop_size=64, num_kp=4, reshape_channel=4, reshape_depth=5, dense_width=8, dense_max=16, dense_blocks=2, compress=2,
    warped_channels=6,
)  # fmt: skip


def rounding(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and float(((a - b).abs().max() / b.abs().max()).detach()) < CLOSE


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def heads(channels: int, depth: int, motions: int, kernel: int) -> tuple[nn.Conv3d, nn.Conv2d]:
    torch.manual_seed(0)
    mask = nn.Conv3d(channels, motions, kernel, padding=kernel // 2)
    return mask, nn.Conv2d(channels * depth, 1, kernel, padding=kernel // 2)


# One tile, several, with and without a remainder, not square, flatter than the kernel, more channels than are transformed at once.
@pytest.mark.parametrize(
    "frames, channels, depth, height, width, motions, kernel",
    [(1, 3, 8, 16, 16, 2, 7), (2, 5, 4, 44, 32, 3, 7), (1, 40, 2, 24, 47, 4, 5), (3, 1, 1, 8, 8, 1, 7), (1, 2, 3, 32, 8, 2, 9)],
)
@torch.inference_mode()
def test_mask_and_occlusion_are_the_convolutions(frames, channels, depth, height, width, motions, kernel):
    mask, occlusion = heads(channels, depth, motions, kernel)
    x = random(frames, channels, depth, height, width)
    logits, covered = MaskAndOcclusion()(mask, occlusion, x)
    assert rounding(logits, mask(x))
    assert rounding(covered, occlusion(x.flatten(1, 2)))


@torch.inference_mode()
def test_the_spectrum_follows_weights_and_sizes():
    mask, occlusion = heads(3, 4, 2, 7)
    both, x = MaskAndOcclusion(), random(1, 3, 4, 16, 16)
    before = both(mask, occlusion, x)[0]
    kept = both.kernels
    both(mask, occlusion, x)
    assert both.kernels is kept  # computed once
    mask.weight[0, 0, 0, 0, 0] += 0.5
    assert not rounding(both(mask, occlusion, x)[0], before) and rounding(both(mask, occlusion, x)[0], mask(x))
    occlusion.load_state_dict({key: 2 * value for key, value in occlusion.state_dict().items()})
    assert rounding(both(mask, occlusion, x)[1], occlusion(x.flatten(1, 2)))
    mask.weight = nn.Parameter(random(*mask.weight.shape), requires_grad=False)
    assert rounding(both(mask, occlusion, x)[0], mask(x))
    larger = random(1, 3, 4, 32, 24)
    assert rounding(both(mask, occlusion, larger)[0], mask(larger))


def test_the_spectrum_is_no_state():
    dense = DenseMotion(SMALL).eval().requires_grad_(False)
    keys = dense.state_dict().keys()
    dense.heads(random(1, dense.hourglass.out_channels, SMALL.reshape_depth, 16, 16))
    assert dense.fourier.kernels is not None and dense.state_dict().keys() == keys


def test_elsewhere_the_plain_convolutions_run_and_the_spectrum_is_let_go():
    dense = DenseMotion(SMALL).eval().requires_grad_(False)
    x = random(1, dense.hourglass.out_channels, SMALL.reshape_depth, 16, 16)
    wanted = dense.heads(x)
    with_gradients = dense.heads(x.clone().requires_grad_())
    assert with_gradients[0].requires_grad and dense.fourier.kernels is None
    assert all(rounding(a, b) for a, b in zip(with_gradients, wanted))
    dense.heads(x)
    dense.mask.requires_grad_()
    assert dense.heads(x)[0].requires_grad and dense.fourier.kernels is None
    dense.requires_grad_(False).heads(x)
    dense.bfloat16()
    low = dense.heads(x.bfloat16())
    assert low[0].dtype == torch.bfloat16 and dense.fourier.kernels is None
    assert torch.equal(low[0], dense.mask(x.bfloat16()))


def test_a_small_mask_is_convolved_as_it_is():
    assert DenseMotion(replace(SMALL, mask_kernel=3)).fourier is None


def test_warping_with_gradients_equals_warping_without():
    torch.manual_seed(0)
    w = WarpingNetwork(SMALL).eval()
    f_r, x_s = random(1, 4, 5, 16, 16), 0.5 * random(1, 4, 3)
    x_d = x_s + 0.1 * random(3, 4, 3, seed=1)
    plain = w(f_r, x_d, x_s)
    assert plain.out.requires_grad
    with torch.inference_mode():
        short = w(f_r, x_d, x_s)
    assert rounding(short.out, plain.out) and rounding(short.deformation, plain.deformation)
    plain.out.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in w.parameters())


@pytest.mark.parametrize("size", [(8, 8), (16, 9), (4, 4)])
@pytest.mark.parametrize("dims", [2, 3])
@torch.inference_mode()
def test_convolution_of_an_upsampled_feature(dims, size):
    torch.manual_seed(0)
    conv = {2: nn.Conv2d, 3: nn.Conv3d}[dims](3, 5, 3, padding=1)
    x = random(2, 3, *(4,) * (dims - 2), *size)
    upsampled = x.repeat_interleave(2, -1).repeat_interleave(2, -2)
    assert rounding(convolve_upsampled(conv, x), conv(upsampled))


def test_convolution_of_an_upsampled_feature_has_gradients():
    conv = nn.Conv2d(3, 5, 3, padding=1)
    convolve_upsampled(conv, random(1, 3, 8, 8)).square().sum().backward()
    assert conv.weight.grad.any()


def test_shifted_sampling_is_sampling():
    """Inside, across every border, and outside."""
    volume, shifts = random(2, 3, 4, 6, 5), 0.8 * random(2, 7, 3, seed=1)
    shifts[:, 0] = 0
    shifts[:, 1] = 5
    z, y, x = (axis(n, volume.device) for n in volume.shape[2:])
    grid = torch.stack(torch.meshgrid(z, y, x, indexing="ij")[::-1], -1) + shifts[:, :, None, None, None]
    wanted = [F.grid_sample(volume, grid[:, k], align_corners=False) for k in range(7)]
    assert rounding(sample_shifted(volume, (z, y, x), shifts), torch.stack(wanted, 1))
