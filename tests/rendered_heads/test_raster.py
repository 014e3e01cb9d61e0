"""The rasteriser against trying every triangle at every pixel; needs no rig."""

import numpy as np
import pytest
import torch

from rendered_heads.raster import EMPTY, rasterize


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
