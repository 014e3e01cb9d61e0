"""A z-buffer in plain torch: scanlines of all frames' triangles at once. CPU or CUDA.

Pixel (row r, column c) has its centre at (c + 0.5, r + 0.5). A triangle covers the centres with left <= x < right on rows with
top <= y < bottom, so triangles that share an edge neither overlap nor leave a gap.
"""

import torch

EMPTY = -1
FARTHEST = 1e-6  # 1 / dm


def rasterize(
    points: torch.Tensor, faces: torch.Tensor, two_sided: torch.Tensor, height: int, width: int, keep: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The nearest triangle of every pixel (T, height, width) int64, EMPTY where there is none; and its inverse distance, else 0.

    points (T, V, 3): x and y px (right, down), and the inverse distance to the camera (larger is nearer).
    faces (F, 3); two_sided (F,) bool: others are seen only where their corners run counter-clockwise in the picture's y-up view.
    keep (V,): triangles are cut along the line where this, interpolated, is 0; the negative side is left out.
    """
    frames = len(points)
    buffer = torch.full((frames * height * width,), EMPTY, device=points.device)
    if keep is None:
        groups = [(torch.arange(len(faces), device=points.device), None)]
    else:  # only triangles on the line need the cut
        kept = keep[faces] >= 0
        groups = [(kept.all(1).nonzero()[:, 0], None), ((kept.any(1) & ~kept.all(1)).nonzero()[:, 0], keep)]
    owners, number = [], 0
    for chosen, cut in groups:
        pixel, packed, owner = fragments(points, faces, two_sided, height, width, chosen, cut, number)
        buffer.scatter_reduce_(0, pixel, packed, "amax")
        owners.append(owner)
        number += len(owner)
    owner = torch.cat([*owners, torch.full((1,), EMPTY, device=points.device)])
    shape = (frames, height, width)
    depth = torch.where(buffer >= 0, buffer >> 32, 0).int().view(torch.float32)
    face = owner.index_select(0, torch.where(buffer >= 0, buffer & 0xFFFFFFFF, number))
    return face.reshape(shape), depth.reshape(shape)


def fragments(
    points: torch.Tensor,
    faces: torch.Tensor,
    two_sided: torch.Tensor,
    height: int,
    width: int,
    chosen: torch.Tensor,
    keep: torch.Tensor | None,
    number: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """All pixels (P,) that the chosen triangles cover; (P,) the bits of the inverse distance above a scanline's number, counted
    from `number`; and the triangle of each scanline (R,)."""
    a, b, c = (points.index_select(1, faces[chosen, i]) for i in range(3))  # (T, F, 3) each
    area = (b[..., 0] - a[..., 0]) * (c[..., 1] - a[..., 1]) - (c[..., 0] - a[..., 0]) * (b[..., 1] - a[..., 1])
    lowest, highest = torch.minimum(torch.minimum(a, b), c), torch.maximum(torch.maximum(a, b), c)
    right, bottom, _ = first_centre(highest).unbind(-1)
    left, top, _ = first_centre(lowest).unbind(-1)
    seen = (bottom > top) & (right > left) & (bottom > 0) & (top < height) & (right > 0) & (left < width)
    seen &= ((area < 0) | (two_sided[chosen] & (area > 0))) & (lowest[..., 2] > FARTHEST)
    index = seen.reshape(-1).nonzero()[:, 0]  # (K,)
    frame, face = index // len(chosen), chosen[index % len(chosen)]
    corners = torch.stack([corner.reshape(-1, 3).index_select(0, index) for corner in (a, b, c)])  # (3, K, 3)
    area = area.reshape(-1)[index]
    top = top.reshape(-1)[index].clamp(0, height)
    lines = (bottom.reshape(-1)[index].clamp(0, height) - top).long()

    # What a scanline needs of its triangle. The inverse distance is affine in the picture.
    low, mid, high = by_height(corners)
    columns = [
        low[:, 0],
        low[:, 1],
        slope(low, high),
        mid[:, 0],
        mid[:, 1],
        slope(low, mid),
        slope(mid, high),
        corners[0, :, 0],
        corners[0, :, 1],
        corners[0, :, 2],
        *slopes(corners, area, corners[..., 2]),
    ]
    if keep is not None:
        values = keep[faces[face]].T  # (3, K)
        columns += [values[0], *slopes(corners, area, values)]
    table = torch.stack([*columns, top], 1)

    # One row for each scanline of each triangle.
    owner = torch.repeat_interleave(lines)  # (R,)
    first = lines.cumsum(0) - lines
    row = table.index_select(0, owner).T.contiguous()  # (12 or more, R)
    low_x, low_y, long, mid_x, mid_y, upper, lower, origin_x, origin_y, inverse, along, across, *cut, top = row
    line = torch.arange(len(owner), device=points.device) - first.index_select(0, owner) + top.long()
    centre = line + 0.5
    one = low_x + (centre - low_y) * long
    other = torch.where(centre < mid_y, low_x + (centre - low_y) * upper, mid_x + (centre - mid_y) * lower)
    start = first_centre(torch.minimum(one, other)).clamp(0, width)
    lengths = (first_centre(torch.maximum(one, other)).clamp(0, width) - start).clamp_min(0).long()
    down, right = centre - origin_y, start + 0.5 - origin_x
    planes = [inverse + right * along + down * across, along]
    if keep is not None:
        planes += [cut[0] + right * cut[1] + down * cut[2], cut[1]]
    base = (frame.index_select(0, owner) * height + line) * width + start.long()
    first = lengths.cumsum(0) - lengths

    # One row for each covered pixel.
    span = torch.repeat_interleave(lengths)  # (P,)
    row = torch.stack(planes, 1).index_select(0, span)
    step = torch.arange(len(span), device=points.device) - first.index_select(0, span)
    steps = step.float()
    inverse = torch.addcmul(row[:, 0], steps, row[:, 1]).clamp_min(FARTHEST)
    # The bits of a positive float order as the float does; the scanline's number, which grows with the triangle's, breaks ties.
    packed = (inverse.view(torch.int32).long() << 32) | (span + number)
    if keep is not None:
        packed = torch.where(row[:, 2] + steps * row[:, 3] >= 0, packed, EMPTY)
    return base.index_select(0, span) + step, packed, face.index_select(0, owner)


def by_height(corners: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The corners (3, K, 3) of each triangle from the picture's top to its bottom, (K, 3) each."""
    a, b, c = corners
    a, b = swap(a, b)
    b, c = swap(b, c)
    return *swap(a, b), c


def swap(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    later = (a[:, 1] > b[:, 1])[:, None]
    return torch.where(later, b, a), torch.where(later, a, b)


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
