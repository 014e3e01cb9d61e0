"""A z-buffer in plain torch: scanlines of all frames' triangles at once. CPU or CUDA.

Pixel (row r, column c) has its centre at (c + 0.5, r + 0.5). A triangle covers the centres with left <= x < right on rows with
top <= y < bottom, so triangles that share an edge neither overlap nor leave a gap.
"""

import torch

EMPTY = -1
FARTHEST = 1e-6     # 1 / dm


def rasterize(points: torch.Tensor, faces: torch.Tensor, two_sided: torch.Tensor, height: int, width: int,
              keep: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """The nearest triangle of every pixel (T, height, width) int64, EMPTY where there is none; and its inverse distance, else 0.

    points (T, V, 3): x and y px (right, down), and the inverse distance to the camera (bigger is nearer).
    faces (F, 3); two_sided (F,) bool: others are seen only where their corners run counter-clockwise in the picture's y-up view.
    keep (V,): triangles are cut along the line where this, interpolated, is 0; the negative side is left out.
    """
    frames, count = len(points), len(faces)
    a, b, c = (points[:, faces[:, i]] for i in range(3))                                # (T, F, 3) each
    area = (b[..., 0] - a[..., 0]) * (c[..., 1] - a[..., 1]) - (c[..., 0] - a[..., 0]) * (b[..., 1] - a[..., 1])
    y = torch.stack([a[..., 1], b[..., 1], c[..., 1]])                                  # (3, T, F)
    x = torch.stack([a[..., 0], b[..., 0], c[..., 0]])
    top, bottom = first_centre(y.amin(0)).clamp(0, height), first_centre(y.amax(0)).clamp(0, height)
    left, right = first_centre(x.amin(0)).clamp(0, width), first_centre(x.amax(0)).clamp(0, width)
    nearest = torch.minimum(torch.minimum(a[..., 2], b[..., 2]), c[..., 2])
    seen = (bottom > top) & (right > left) & ((area < 0) | (two_sided & (area > 0))) & (nearest > FARTHEST)
    if keep is not None:
        seen &= (keep[faces] >= 0).any(1)
    frame, face = seen.nonzero(as_tuple=True)                                           # (K,)
    corners = torch.stack([a[frame, face], b[frame, face], c[frame, face]])             # (3, K, 3)
    area, top, bottom = area[frame, face], top[frame, face], bottom[frame, face]

    # Planes over the picture: the inverse distance is affine in it.
    slope_x, slope_y = slopes(corners, area, corners[..., 2])                           # (K,)
    planes = [corners[0, :, 2], slope_x, slope_y]
    if keep is not None:
        values = keep[faces[face]].T                                                    # (3, K)
        planes += [values[0], *slopes(corners, area, values)]

    # One row of the table for each scanline of each triangle.
    order = corners[..., 1].argsort(0)
    low, mid, high = (corners.gather(0, order[i][None, :, None].expand(1, -1, 3))[0] for i in range(3))
    lines = (bottom - top).long()
    owner = torch.repeat_interleave(torch.arange(len(lines), device=points.device), lines)      # (R,)
    line = torch.arange(len(owner), device=points.device) - (lines.cumsum(0) - lines)[owner] + top.long()[owner]
    centre = line + 0.5
    edges = torch.cat([low[:, :2], slope(low, high)[:, None], mid[:, :2], slope(low, mid)[:, None], slope(mid, high)[:, None]], 1)
    low_x, low_y, long, mid_x, mid_y, upper, lower = edges[owner].unbind(1)
    one = low_x + (centre - low_y) * long
    other = torch.where(centre < mid_y, low_x + (centre - low_y) * upper, mid_x + (centre - mid_y) * lower)
    start = first_centre(torch.minimum(one, other)).clamp(0, width)
    lengths = (first_centre(torch.maximum(one, other)).clamp(0, width) - start).clamp_min(0).long()
    some = lengths > 0
    owner, line, centre, start, lengths = owner[some], line[some], centre[some], start[some], lengths[some]

    # One row for each covered pixel.
    origin_x, origin_y = corners[0, :, 0][owner], corners[0, :, 1][owner]
    across, down = start + 0.5 - origin_x, centre - origin_y
    columns = []
    for value, along_x, along_y in zip(planes[::3], planes[1::3], planes[2::3]):
        along = along_x[owner]
        columns += [value[owner] + across * along + down * along_y[owner], along]
    table = torch.stack(columns, 1)                                                     # (R', 2 or 4)
    base = (frame[owner] * height + line) * width + start.long()
    span = torch.repeat_interleave(torch.arange(len(lengths), device=points.device), lengths)   # (P,)
    first = lengths.cumsum(0) - lengths
    step = torch.arange(len(span), device=points.device) - first[span]
    row = table[span]
    steps = step.float()
    inverse = row[:, 0] + steps * row[:, 1]
    pixel = base[span] + step
    packed = face[owner][span]
    if keep is not None:
        inside = row[:, 2] + steps * row[:, 3] >= 0
        inverse, pixel, packed = inverse[inside], pixel[inside], packed[inside]
    # The bits of a positive float order as the float does; the triangle's number breaks ties.
    packed |= inverse.clamp_min(FARTHEST).view(torch.int32).long() << 32
    buffer = torch.full((frames * height * width,), EMPTY, device=points.device).scatter_reduce_(0, pixel, packed, "amax")
    shape = (frames, height, width)
    depth = torch.where(buffer >= 0, buffer >> 32, 0).int().view(torch.float32)
    return torch.where(buffer >= 0, buffer & 0xFFFFFFFF, EMPTY).reshape(shape), depth.reshape(shape)


def first_centre(edge: torch.Tensor) -> torch.Tensor:
    """The first pixel whose centre is not before an edge."""
    return torch.ceil(edge - 0.5)


def slope(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """dx / dy of the edge from a to b (K, 3); 0 for a level edge, which no scanline uses."""
    rise = b[:, 1] - a[:, 1]
    return torch.where(rise > 0, (b[:, 0] - a[:, 0]) / rise, 0)


def slopes(corners: torch.Tensor, area: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradient (K,), (K,) of values (3, K) given at corners (3, K, 2 or more) of triangles of twice this signed area (K,)."""
    ab, ac = corners[1] - corners[0], corners[2] - corners[0]
    vb, vc = values[1] - values[0], values[2] - values[0]
    return (vb * ac[:, 1] - vc * ab[:, 1]) / area, (vc * ab[:, 0] - vb * ac[:, 0]) / area
