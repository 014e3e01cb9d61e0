"""A photograph's head turned in 3-D: the same person in other poses, with the exact flow.

Every pixel of the photo has a depth and a share of the head's motion (`surface`), which give its forward motion; the picture is
the photo sampled by the inverse of that motion. The inverse is found by fixed-point iterations. Pixels where these do not converge,
where the photo is stretched by more than STRETCH, or which lie beyond its edges are marked as unknown. Convincing within about 12
degrees.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..vid2vid.keypoints import rotation_matrix
from .change import Change
from .expression import displacements
from .sampling import at_points, pixels, sample
from .surface import STEP, Surface, read_surface
from .topology import Topology, checked_mesh

COARSE, FINE = 12, 1  # iterations on the cells of STEP px, and on px before the last one
STRETCH = (1.6, 2.2)  # stretching at which `unknown` is 0 and 1
UNSETTLED = (0.1, 0.5)  # px of the last iteration's change at which `unknown` is 0 and 1
LARGEST = 1024  # px, side of a photo


@dataclass(frozen=True)
class Turned:
    """B photos of S px in N poses each; all px, x right and y down.

    pictures(p) = photo(p - flow(p)), bicubic, exactly; photo(p) appears at p + forward(p) of the picture. With the photo
    as portrait and the picture as target, `flow` is the flow of W; with the picture as portrait and the photo as target it is
    -forward, and `hidden` marks the target's pixels that the portrait does not show.
    """

    pictures: Tensor  # (B, N, 3, S, S) in 0..1
    flow: Tensor  # (B, N, 2, S, S)
    unknown: Tensor  # (B, N, S, S) in 0..1: uncovered, torn or beyond the photo's edge
    forward: Tensor  # (B, N, 2, S, S)
    hidden: Tensor  # (B, N, S, S) in 0..1: pixels of the photo that the picture does not show, or not faithfully
    mesh: Tensor  # (B, N, P, 3); x and y by `forward`, z by each point's own rotation
    share: Tensor  # (B, S, S) in 0..1, share of the head's motion that a pixel of the photo follows


def check(photos: Tensor, mesh: Tensor, change: Change) -> None:
    if photos.ndim != 4 or photos.shape[1] != 3 or photos.shape[2] != photos.shape[3]:
        raise InputError(f"Photos to be turned are (B, 3, S, S); these are {tuple(photos.shape)}.")
    side = photos.shape[2]
    if side % (2 * STEP) or not 16 <= side <= LARGEST:
        raise InputError(f"Photos to be turned have sides of 16 to {LARGEST} px, a multiple of {2 * STEP}; these have {side}.")
    checked_mesh(mesh, len(photos))
    if change.yaw.ndim != 2 or len(change.yaw) != len(photos):
        raise InputError(f"{len(photos)} photos need changes ({len(photos)}, N); these are {tuple(change.yaw.shape)}.")


@torch.no_grad()
def turn(photos: Tensor, mesh: Tensor, topology: Topology, change: Change) -> Turned:
    """photos (B, 3, S, S) in 0..1, mesh (B, 468 or 478, 3) px, changes (B, N), all on one device.

    Raises InputError for shapes that do not fit together.
    """
    check(photos, mesh, change)
    (photo_count, poses), side = change.yaw.shape, photos.shape[2]
    surface = read_surface(mesh.float(), topology, side)
    coarse = motion(surface, change, side).flatten(0, 1)  # (B N, 2, h, h)
    forward = finer(coarse, side)
    places = pixels(side, side, photos.device)
    cells = pixels(side // STEP, side // STEP, photos.device, STEP)
    flow = finer(inverse(coarse, torch.zeros_like(coarse), cells, side, COARSE), side)
    before = inverse(forward, flow, places, side, FINE)
    flow = inverse(forward, before, places, side, 1)
    missed = length(flow - before)  # (B N, S, S) px, in the last iteration

    source = places - flow
    pictures = sample(photos.float().repeat_interleave(poses, 0), source, side, "bicubic", "reflection").clamp(0, 1)
    unknown = torch.maximum(beyond(source, side), torch.maximum(ramp(missed, UNSETTLED), ramp(stretch(source), STRETCH)))

    seen_at = places + forward
    back = length(sample(flow, seen_at, side) - forward)
    there = sample(unknown[:, None], seen_at, side)[:, 0]
    hidden = torch.maximum(beyond(seen_at, side), torch.maximum(ramp(back, UNSETTLED), there))

    shape = (photo_count, poses)
    moved = moved_mesh(mesh.float(), surface, change, forward.unflatten(0, shape), side)
    share = F.interpolate(surface.share[:, None], size=(side, side), mode="bilinear", align_corners=False)[:, 0]
    pictures, flow, unknown, forward, hidden = (x.unflatten(0, shape) for x in (pictures, flow, unknown, forward, hidden))
    return Turned(pictures, flow, unknown, forward, hidden, moved, share)


def change_of_axes(change: Change) -> Tensor:
    """s R (B, N, 3, 3) for row vectors."""
    angles = (x.flatten() for x in (change.pitch, change.yaw, change.roll))
    return rotation_matrix(*angles).unflatten(0, change.yaw.shape) * change.scale[..., None, None]


def motion(surface: Surface, change: Change, side: int) -> Tensor:
    """Where the cells of the photo go: (B, N, 2, h, h) px."""
    cells = side // STEP
    flat = pixels(cells, cells, change.yaw.device, STEP).expand(len(surface.depth), -1, -1, -1)
    place = torch.cat([flat, surface.depth[:, None]], 1) - surface.pivot[..., None, None]  # (B, 3, h, h)
    # The displacement, not the displaced position, so that no change gives exactly 0.
    matrix = change_of_axes(change)
    matrix = matrix - torch.eye(3, device=matrix.device)
    moved = torch.einsum("bihw,bnij->bnjhw", place, matrix[..., :2]) + change.shift[..., None, None]
    deformed = displacements(surface.canonical, change.expression)  # (B, N, 2, h, h) cm, y up
    axes = surface.axes[:, :2, :2] * (surface.unit[:, None, None] * surface.unit.new_tensor([[1.0], [-1.0]]))
    moved = moved + torch.einsum("bnihw,bij->bnjhw", deformed, axes)
    return moved * surface.share[:, None, None]


def moved_mesh(mesh: Tensor, surface: Surface, change: Change, forward: Tensor, side: int) -> Tensor:
    """mesh (B, P, 3) as `forward` (B, N, 2, S, S) moves it: (B, N, P, 3)."""
    poses, points = forward.shape[1], mesh.shape[1]
    flat = mesh[:, None, :, :2].expand(-1, poses, -1, -1).flatten(0, 1)
    places = (flat + at_points(forward.flatten(0, 1), flat, side)).unflatten(0, (len(mesh), poses))
    matrix = change_of_axes(change)
    depth = torch.einsum("bpi,bni->bnp", mesh - surface.pivot[:, None], matrix[..., 2]) + surface.pivot[:, None, 2:]
    return torch.cat([places, depth.reshape(len(mesh), poses, points, 1)], -1)


def inverse(forward: Tensor, flow: Tensor, places: Tensor, side: int, iterations: int) -> Tensor:
    """The flow (B, 2, h, h) at places (2, h, h) for which flow(q) = forward(q - flow(q)), by iterations from a first guess."""
    for _ in range(iterations):
        flow = sample(forward, places - flow, side)
    return flow


def finer(field: Tensor, side: int) -> Tensor:
    return F.interpolate(field, size=(side, side), mode="bilinear", align_corners=False)


def length(field: Tensor) -> Tensor:
    """Lengths (B, h, w) of a field (B, 2, h, w). Several times as fast as torch's norm on a CPU."""
    return field.square().sum(1).sqrt()


def ramp(x: Tensor, over: tuple[float, float]) -> Tensor:
    """0 up to the first of two values, 1 from the second on."""
    return ((x - over[0]) / (over[1] - over[0])).clamp(0, 1)


def beyond(places: Tensor, side: int) -> Tensor:
    """1 where positions (B, 2, h, w) lie a px or more outside the picture, 0 inside: (B, h, w)."""
    return ramp(torch.maximum(-places, places - (side - 1)).amax(1), (0.0, 1.0))


def stretch(source: Tensor) -> Tensor:
    """The largest stretching of a picture that shows positions source (B, 2, h, w): (B, h, w), 1 for an unchanged one."""
    dy, dx = torch.gradient(source, dim=(2, 3))
    # The smaller singular value of [dx dy].
    total = dx.square().sum(1) + dy.square().sum(1)
    area = dx[:, 0] * dy[:, 1] - dx[:, 1] * dy[:, 0]
    smaller = ((total + 2 * area).clamp_min(0).sqrt() - (total - 2 * area).clamp_min(0).sqrt()) / 2
    return 1 / smaller.clamp_min(1e-3)
