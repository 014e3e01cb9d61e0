"""Pictures and truth of an identity's motion: deform, rasterise, shade each visible triangle of a pixel once, resolve, draw.

Shape legend: T frames, S pixels of a side, P pixels that show the figure, N fragments (a pixel and one of its triangles).
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from .camera import Camera, keep_inside, sample_camera
from .figure import Figure, HAIR_LABEL, build_figure, eye_centres, move, surface_points, vertex_normals
from .identity import BACKGROUND, Identity, generator
from .looks import Layers, draw
from .motion import INDEX, Motion, rotations
from .paint import HAIRY, RGB
from .raster import rasterize
from .rig import Rig
from .scene import background
from .shade import lit, shade, shadow_maps, tone

SAMPLES = 2             # samples along each side of a pixel
CHUNK = 4               # frames at once, of 256 px
OPENED_BY = {"jawOpen": 3.0, "mouthFunnel": 1.5, "mouthUpperUpLeft": 1.5, "mouthLowerDownLeft": 1.5, "mouthSmileLeft": 0.5}
CLOSED = 0.15           # light that reaches a closed mouth's inside
EVERY = 7               # of the head's vertices that must stay in the frame, one in so many


@dataclass(frozen=True)
class Heads:
    """T frames of a head and all that is known of them. Pixels: x right, y down; view axes: dm, y up, z toward the camera."""

    pixels: torch.Tensor        # (T, 3, S, S) in 0..1
    alpha: torch.Tensor         # (T, S, S) coverage of the foreground, 0..1
    segments: torch.Tensor      # (T, S, S) uint8: 0 background, 1 face and neck, 2 hair, 3 clothes, 4 eyes, 5 mouth, 6 hat, glasses
    points2d: torch.Tensor      # (T, 128, 2) px
    points3d: torch.Tensor      # (T, 128, 3) view axes
    neutral3d: torch.Tensor     # (128, 3) dm, this identity at rest
    template3d: torch.Tensor    # (128, 3) dm, the rig's
    rotation: torch.Tensor      # (T, 3, 3) of the head, for column vectors
    pose: torch.Tensor          # (T, 3) pitch, yaw, roll, rad
    expression: torch.Tensor    # (T, 52)
    gaze: torch.Tensor          # (T, 2) rad
    translation: torch.Tensor   # (T, 3) dm
    eyes2d: torch.Tensor        # (T, 2, 2) px
    camera: Camera

    def __len__(self) -> int:
        return len(self.pixels)


def choose_camera(rig: Rig, identity: Identity, motion: Motion, seed: int | None = None) -> Camera:
    """A framing that keeps the whole face inside for the whole motion. seed: another framing than the identity's own."""
    from .identity import neutral_shape

    shape = neutral_shape(rig, identity.face)
    eyes = shape[rig.eyes].mean((0, 1))
    head = torch.unique(rig.weld[rig.faces[rig.chart == 1]])
    camera = sample_camera(identity.seed if seed is None else seed, eyes.cpu().numpy(), float(shape[head, 1].max() - eyes[1]))
    return keep_inside(camera, head_extent(rig, identity, motion).cpu())


def head_extent(rig: Rig, identity: Identity, motion: Motion) -> torch.Tensor:
    """Points (T, V, 3) in body axes of the moving head: the surface points and some of the skull's."""
    from .figure import carry, express
    from .identity import neutral_shape

    motion = motion.to(rig.vertices.device)
    shape = neutral_shape(rig, identity.face)
    skull = torch.unique(rig.weld[rig.faces[rig.chart == 1]])
    chosen = torch.cat([rig.surface, skull[rig.vertices[skull, 1] > 6.1][::EVERY]])
    eyeballs = rig.eyes.reshape(-1)
    pivot = rig.pivot + (shape[eyeballs] - rig.vertices[eyeballs]).mean(0)
    moved = shape[chosen] + express(motion, rig.units[:, chosen].reshape(len(rig.units), -1))
    return carry(moved, rig.head_share[chosen], pivot, motion)


@torch.no_grad()
def render(rig: Rig, identity: Identity, motion: Motion, camera: Camera, size: int = 256, device: torch.device | str = "cpu") -> Heads:
    """All frames of a motion. A frame does not depend on which others are rendered with it."""
    rig, motion = rig.to(device) if rig.vertices.device != torch.device(device) else rig, motion.to(device)
    figure = build_figure(rig, identity, float(np.clip(size / 256, 0.5, 2.0)))
    behind = torch.from_numpy(background(identity, size)).to(device)
    chunk = max(1, round(CHUNK * (256 / size) ** 2))
    parts = [draw_frames(figure, identity, motion[start:start + chunk], camera, behind, size) for start in range(0, len(motion), chunk)]
    pixels, alpha, segments = (torch.cat(part) for part in zip(*parts))
    points = camera.view(surface_points(figure, motion))
    return Heads(
        pixels=pixels, alpha=alpha, segments=segments, points2d=camera.project(points, size)[..., :2], points3d=points,
        neutral3d=figure.bare, template3d=rig.vertices[rig.surface], rotation=rotations(motion.pose), pose=motion.pose,
        expression=motion.expression, gaze=motion.gaze, translation=motion.translation,
        eyes2d=camera.project(camera.view(eye_centres(figure, motion)), size)[..., :2], camera=camera,
    )


def draw_frames(figure: Figure, identity: Identity, motion: Motion, camera: Camera, behind: torch.Tensor, size: int) -> tuple[torch.Tensor, ...]:
    """Pixels (T, 3, S, S), alpha (T, S, S), segments (T, S, S) of a few frames."""
    frames, side, device = len(motion), size * SAMPLES, behind.device
    points = camera.view(move(figure, motion))                                          # (T, G, 3)
    normals = vertex_normals(points, figure.weld[figure.faces], figure.around)
    points = points[:, figure.weld]                                                     # (T, C, 3)
    flat = camera.project(points, side)
    hit, _ = rasterize(flat, figure.faces, figure.two_sided, side, side, figure.keep)   # (T, 2S, 2S)
    samples = hit.reshape(frames, size, SAMPLES, size, SAMPLES).transpose(2, 3).reshape(frames * size * size, SAMPLES ** 2)
    shown = (samples >= 0).any(1).nonzero()[:, 0]                                       # (P,)
    samples = samples[shown]                                                            # (P, 4)

    # One fragment for each triangle of a pixel, at the middle of its samples.
    same = samples[:, :, None] == samples[:, None, :]                                   # (P, 4, 4)
    first = ~(same & torch.ones(4, 4, dtype=torch.bool, device=device).tril(-1)).any(2) & (samples >= 0)
    pixel, sample = first.nonzero(as_tuple=True)                                        # (N,)
    members = same[pixel, sample].float()                                               # (N, 4)
    count = members.sum(1)
    offsets = (torch.arange(SAMPLES, device=device) + 0.5) / SAMPLES
    inside = torch.stack([offsets.repeat(SAMPLES), offsets.repeat_interleave(SAMPLES)], 1)      # (4, 2) of x, y
    middle = members @ inside / count[:, None]                                          # (N, 2)
    place = shown[pixel]                                                                # (N,) pixel of the batch
    frame_of, within = place // size ** 2, place % size ** 2
    at = torch.stack([within % size, within // size], 1) + middle
    face = samples[pixel, sample]
    normal, where, texels = attributes(figure, flat, normals, points, face, frame_of, at * SAMPLES)

    light = identity.light
    toward = torch.as_tensor(light.key_direction, dtype=torch.float32, device=device)
    maps, axes = shadow_maps(figure, points, toward, camera.frame)
    reached = lit(maps, axes, where, frame_of, camera.frame, light.softness)
    reached = 1 - (1 - reached) * (1 - 0.35 * light.softness)
    label = figure.label[face]
    colour = shade(texels, normal, where, label, reached, openness(motion)[frame_of], light, camera.distance)

    # Resolve: the fragments' colours by their share of the pixel, over the background.
    share = count / SAMPLES ** 2
    layers = [colour]
    if identity.look != "photo":
        layers += [texels[:, RGB], normal, where[:, 2:] + 10.0]
    layers = torch.cat([*layers, torch.ones_like(share[:, None])], 1) * share[:, None]
    total = torch.zeros(frames * size * size, layers.shape[1], device=device).index_add_(0, place, layers)
    alpha = total[:, -1:]
    picture = total[:, :3] + behind.reshape(-1, 3).repeat(frames, 1) * (1 - alpha)
    label = torch.where((texels[:, HAIRY] > 0.5) & (label == 1), HAIR_LABEL, label)
    votes = torch.zeros(frames * size * size, dtype=torch.long, device=device)
    votes.scatter_reduce_(0, place, count.long() * 16 + label, "amax")
    segments = torch.where(alpha[:, 0] >= 0.5, votes % 16, 0).reshape(frames, size, size)

    def image(values: torch.Tensor) -> torch.Tensor:
        return values.reshape(frames, size, size, -1).permute(0, 3, 1, 2)

    pixels = tone(image(picture))
    if identity.look != "photo":
        albedo = tone(image(total[:, 3:6] + behind.reshape(-1, 3).repeat(frames, 1) * (1 - alpha)))
        stack = Layers(pixels, albedo, image(total[:, 6:9]), image(total[:, 9:10]), segments[:, None], paper(identity, size).to(device))
        pixels = draw(identity.look, stack)
    return pixels.contiguous(), alpha.reshape(frames, size, size).clamp(0, 1), segments.to(torch.uint8)


def attributes(figure: Figure, flat: torch.Tensor, normals: torch.Tensor, points: torch.Tensor, face: torch.Tensor,
               frame_of: torch.Tensor, at: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Normal (N, 3), place (N, 3) and texels (N, CHANNELS) of fragments of triangles (N,) of frames (N,) at samples' px (N, 2)."""
    corners = figure.faces[face]                                                        # (N, 3)
    count = len(figure.weld)
    rows = corners + (frame_of * count)[:, None]
    table = torch.cat([flat[..., :2], flat[..., 2:]], -1).reshape(-1, 3)
    a, b, c = (table[rows[:, i]] for i in range(3))                                     # (N, 3)
    at = at - a[:, :2]
    ab, ac = b[:, :2] - a[:, :2], c[:, :2] - a[:, :2]
    area = ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]
    second = (at[:, 0] * ac[:, 1] - at[:, 1] * ac[:, 0]) / area
    third = (ab[:, 0] * at[:, 1] - ab[:, 1] * at[:, 0]) / area
    weights = torch.stack([1 - second - third, second, third], 1).clamp_min(0) * torch.stack([a[:, 2], b[:, 2], c[:, 2]], 1)
    weights = weights / weights.sum(1, keepdim=True)                                    # perspective-correct
    known = torch.cat([normals[:, figure.weld], points, figure.uv.expand(len(points), -1, -1)], -1).reshape(-1, 8)
    values = F.embedding_bag(rows, known, mode="sum", per_sample_weights=weights)       # (N, 8)
    normal, where, uv = values[:, :3], values[:, 3:6], values[:, 6:]
    return F.normalize(normal, dim=1), where, look_up(figure, uv)


def look_up(figure: Figure, uv: torch.Tensor) -> torch.Tensor:
    """The atlas at texels uv (N, 2), bilinear: (N, CHANNELS)."""
    height = len(figure.atlas) // figure.atlas_width
    corner = (uv - 0.5).floor()
    part = uv - 0.5 - corner
    column, row = corner.long().unbind(1)
    column, row = column.clamp(0, figure.atlas_width - 2), row.clamp(0, height - 2)
    index = row * figure.atlas_width + column
    index = torch.stack([index, index + 1, index + figure.atlas_width, index + figure.atlas_width + 1], 1)
    u, v = part.unbind(1)
    weights = torch.stack([(1 - u) * (1 - v), u * (1 - v), (1 - u) * v, u * v], 1)
    return F.embedding_bag(index, figure.atlas, mode="sum", per_sample_weights=weights)


def openness(motion: Motion) -> torch.Tensor:
    """How much light gets into the mouth (T,), 0..1."""
    total = sum(factor * motion.expression[:, INDEX[name]] for name, factor in OPENED_BY.items())
    return (CLOSED + total).clamp(0, 1)


def paper(identity: Identity, size: int) -> torch.Tensor:
    """Paper grain (1, 2, S, S) in 0..1: fine, and in blotches."""
    rng = generator(identity.seed, BACKGROUND)
    fine = rng.random((1, 1, size, size), np.float32)
    coarse = torch.from_numpy(rng.random((1, 1, max(4, size // 10), max(4, size // 10)), np.float32))
    coarse = F.interpolate(coarse, (size, size), mode="bicubic", align_corners=False).clamp(0, 1)
    return torch.cat([torch.from_numpy(fine), coarse], 1)
