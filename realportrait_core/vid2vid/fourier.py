"""W's two large convolutions by the Fourier transform: the mask (7 x 7 x 7) and the occlusion map (7 x 7 over all depths).

A convolution is a product of spectra, summed over the channels c:

    sum_c sum_q w[k, c, q] x[c, p + q]  =  F^-1( sum_c conj(F(w))[k, c] F(x)[c] )[p]                                       (1)

Both read the same features, so F(x) is computed once: the occlusion map is one more output channel k, whose kernel is as deep
as the volume. F is taken of tiles of the plane that overlap by the kernel's reach; (1) is circular, and the part of each tile
that does not wrap around is kept. For the public networks this is 1/40 of the arithmetic; the results differ by rounding.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

TILE = 22  # px of the result; larger tiles have a larger spectrum of kernels (240 MB), smaller ones overlap more
CHANNELS = 32  # transformed at once, so that they stay in the processor's cache


@dataclass(frozen=True)
class Tiles:
    """A volume (D, h, w) in tiles along h and w, for kernels of `kernel` cells."""

    kernel: int
    depth: int
    plane: tuple[int, int]  # h, w

    @property
    def count(self) -> tuple[int, int]:
        """Rows and columns of tiles."""
        height, width = self.plane
        return -(-height // TILE), -(-width // TILE)

    @property
    def side(self) -> tuple[int, int]:
        """Cells of the result in a tile."""
        (height, width), (rows, columns) = self.plane, self.count
        return -(-height // rows), -(-width // columns)

    @property
    def transformed(self) -> tuple[int, int, int]:
        """Cells of a tile with its margins: the size of the Fourier transform."""
        more, (height, width) = self.kernel - 1, self.side
        return self.depth + more, height + more, width + more

    def cut(self, x: Tensor) -> Tensor:
        """(C, D, h, w) -> (rows, columns, C, *transformed), with zeros around the volume."""
        margin = self.kernel // 2
        below, right = (n * count - whole for n, count, whole in zip(self.side, self.count, self.plane))
        x = F.pad(x, (margin, margin + right, margin, margin + below, margin, margin))
        for axis, step in zip((2, 3), self.side):
            x = x.unfold(axis, step + self.kernel - 1, step)
        return rearrange(x, "c d rows columns h w -> rows columns c d h w")

    def join(self, y: Tensor) -> Tensor:
        """(rows columns, K, *transformed) -> (K, D, h, w), without what wrapped around."""
        (below, right), (h, w) = self.side, self.plane
        y = y[..., : self.depth, :below, :right]
        return rearrange(y, "(rows columns) k d h w -> k d (rows h) (columns w)", rows=self.count[0])[..., :h, :w]


def spectrum(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """(..., d, h, w), padded with zeros to `size` -> (..., frequencies), of the last axis the non-negative ones."""
    return torch.fft.rfftn(x, size, dim=(-3, -2, -1)).flatten(-3)


def kernel_spectrum(mask: Tensor, occlusion: Tensor, tiles: Tiles) -> Tensor:
    """conj(F(w)) of mask (K, C, r, r, r) and occlusion (1, C D, r, r), as (frequencies, C, K + 1)."""
    # The occlusion map is the result at depth 0, whose window begins in the margin.
    deep = F.pad(rearrange(occlusion, "1 (c d) h w -> c d h w", d=tiles.depth), (0, 0, 0, 0, tiles.kernel // 2, 0))
    d, h, w = tiles.transformed
    kernels = mask.new_empty(d * h * (w // 2 + 1), mask.shape[1], len(mask) + 1, dtype=torch.complex64)
    for some, its, of_some in zip(mask.split(CHANNELS, 1), deep.split(CHANNELS), kernels.split(CHANNELS, 1)):
        of_some[..., :-1] = spectrum(some, tiles.transformed).permute(2, 1, 0).conj()
        of_some[..., -1] = spectrum(its, tiles.transformed).mT.conj()
    return kernels


def correlate(x: Tensor, kernels: Tensor, tiles: Tiles) -> Tensor:
    """(C, D, h, w), kernels (frequencies, C, K) -> (K, D, h, w): equation (1)."""
    frequencies, channels, _ = kernels.shape
    count = tiles.count[0] * tiles.count[1]
    spectra = kernels.new_empty(frequencies, count, channels)
    for some, of_some in zip(x.split(CHANNELS), spectra.split(CHANNELS, 2)):
        of_some.copy_(rearrange(spectrum(tiles.cut(some), tiles.transformed), "rows columns c f -> f (rows columns) c"))
    product = rearrange(spectra @ kernels, "f tiles k -> tiles k f")
    size = tiles.transformed
    product = product.unflatten(2, (*size[:2], size[2] // 2 + 1))
    return tiles.join(torch.fft.irfftn(product, size, dim=(-3, -2, -1)))


class MaskAndOcclusion:
    """Both convolutions, with the spectrum of their kernels: computed at the first call, and again when weights or sizes change."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self.made_from: tuple[Tiles, Tensor, Tensor] | None = None
        self.kernels: Tensor | None = None

    def __call__(self, mask: nn.Conv3d, occlusion: nn.Conv2d, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, D, h, w) -> mask(features) (B, K, D, h, w), occlusion(features) (B, 1, h, w)."""
        tiles = Tiles(mask.kernel_size[0], features.shape[2], features.shape[3:])
        if not self.fits(tiles, mask.weight, occlusion.weight):
            self.forget()
            self.kernels = kernel_spectrum(mask.weight, occlusion.weight, tiles)
            self.made_from = tiles, mask.weight.clone(), occlusion.weight.clone()
        both = torch.stack([correlate(x, self.kernels, tiles) for x in features])  # frame by frame, for the memory
        return both[:, :-1] + mask.bias[:, None, None, None], both[:, -1:, 0] + occlusion.bias[:, None, None]

    def fits(self, tiles: Tiles, mask: Tensor, occlusion: Tensor) -> bool:
        """Weights are compared by value: a millisecond."""
        return (
            self.made_from is not None
            and tiles == self.made_from[0]
            and torch.equal(mask, self.made_from[1])
            and torch.equal(occlusion, self.made_from[2])
        )
