"""Pictures and ground truth of an identity in motion: deform, rasterise, shade a pixel's visible triangles once, resolve, stylise.

Shape legend: T frames, S px of a side, P pixels that the figure covers, N fragments (a pixel and one of its triangles).
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from .atlas import HAIRY, RGB
from .camera import Camera, keep_inside, sample_camera
from .deform import blendshape_offsets, move_with_head, moved_joint, neutral_shape, vertex_normals
from .figure import Figure, build_figure, eye_centres, posed_vertices, surface_points
from .identity import Identity
from .identity_sampling import BACKGROUND, generator
from .labels import BACKGROUND_LABEL, FACE_LABEL, HAIR_LABEL
from .looks import Layers, stylise
from .motion import INDEX, HeadMotion, rotations
from .raster import EMPTY, rasterize
from .rig import HEAD, SKIN, Rig, vertices_of
from .scene import background
from .shade import key_light_visibility, shade, shadow_axes, shadow_maps, tone, unit

SAMPLES = 2  # samples along each side of a pixel
CHUNK = 2  # frames at once on a CPU, of 256 px: more do not fit into its caches
CHUNK_GPU = 48  # on a GPU, where the number of kernel launches does not depend on the number of frames
SMOOTH = 0.06  # dm of depth within which samples of one surface are shaded together
BEYOND = (-0.6, 1.6)  # limits of the barycentric coordinates of such a group's middle
OPENED_BY = {"jawOpen": 3.0, "mouthFunnel": 1.5, "mouthUpperUpLeft": 1.5, "mouthLowerDownLeft": 1.5, "mouthSmileLeft": 0.5}
CLOSED = 0.15  # light that reaches a closed mouth's inside
EVERY = 7  # every so many of the skull's vertices is kept inside the frame


@dataclass(frozen=True)
class RenderedHead:
    """T frames of a head with their ground truth. Pixels: x right, y down; view axes: dm, y up, z toward the camera."""

    pixels: torch.Tensor  # (T, 3, S, S) in 0..1
    alpha: torch.Tensor  # (T, S, S) coverage of the foreground, 0..1
    segments: torch.Tensor  # (T, S, S) uint8: 0 background, 1 face and neck, 2 hair, 3 clothes, 4 eyes, 5 mouth, 6 hat, glasses
    points2d: torch.Tensor  # (T, 128, 2) px
    points3d: torch.Tensor  # (T, 128, 3) view axes
    neutral3d: torch.Tensor  # (128, 3) dm, this identity at rest
    template3d: torch.Tensor  # (128, 3) dm, the template
    rotation: torch.Tensor  # (T, 3, 3) of the head, for column vectors
    pose: torch.Tensor  # (T, 3) pitch, yaw, roll, rad
    expression: torch.Tensor  # (T, 52)
    gaze: torch.Tensor  # (T, 2) rad
    translation: torch.Tensor  # (T, 3) dm
    eyes2d: torch.Tensor  # (T, 2, 2) px
    camera: Camera

    def __len__(self) -> int:
        return len(self.pixels)


def choose_camera(rig: Rig, identity: Identity, motion: HeadMotion, seed: int | None = None) -> Camera:
    """A framing that keeps the whole face inside for the whole motion. seed: of the framing; None: the identity's."""
    shape = neutral_shape(rig, identity.face)
    eyes = shape[rig.eyes].mean((0, 1))
    head = vertices_of(rig, SKIN, HEAD)
    camera = sample_camera(identity.seed if seed is None else seed, eyes.cpu().numpy(), float(shape[head, 1].max() - eyes[1]))
    return keep_inside(camera, head_extent(rig, identity, motion).cpu())


def head_extent(rig: Rig, identity: Identity, motion: HeadMotion) -> torch.Tensor:
    """Points (T, V, 3) in body axes that bound the moving head: the surface points and some of the skull's vertices."""
    motion = motion.to(rig.vertices.device)
    shape = neutral_shape(rig, identity.face)
    skull = vertices_of(rig, SKIN, HEAD)
    chosen = torch.cat([rig.surface, skull[rig.vertices[skull, 1] > 6.1][::EVERY]])
    moved = shape[chosen] + blendshape_offsets(motion, rig.units[:, chosen].reshape(len(rig.units), -1).double())
    return move_with_head(moved, rig.head_share[chosen], moved_joint(rig, shape, rig.pivot), motion)


@torch.no_grad()
def render(
    rig: Rig,
    identity: Identity,
    motion: HeadMotion,
    camera: Camera,
    size: int = 256,
    device: torch.device | str = "cpu",
    behind: np.ndarray | None = None,
) -> RenderedHead:
    """All frames of a motion, size px. A frame does not depend on the other frames rendered with it. behind (size, size, 3): the
    background in linear light; None: scene.background of the identity."""
    rig, motion = rig.to(device) if rig.vertices.device != torch.device(device) else rig, motion.to(device)
    figure = build_figure(rig, identity, float(np.clip(size / 256, 0.5, 2.0)))
    behind = torch.from_numpy(background(identity, size) if behind is None else behind).to(device)
    chunk = max(1, round((CHUNK if behind.device.type == "cpu" else CHUNK_GPU) * (256 / size) ** 2))
    parts = [
        render_frames(figure, identity, motion[start : start + chunk], camera, behind, size)
        for start in range(0, len(motion), chunk)
    ]
    pixels, alpha, segments = (torch.cat(part) for part in zip(*parts))
    points = camera.view(surface_points(figure, motion))
    return RenderedHead(
        pixels=pixels,
        alpha=alpha,
        segments=segments,
        points2d=camera.project(points, size)[..., :2],
        points3d=points,
        neutral3d=figure.bare,
        template3d=rig.vertices[rig.surface],
        rotation=rotations(motion.pose),
        pose=motion.pose,
        expression=motion.expression,
        gaze=motion.gaze,
        translation=motion.translation,
        eyes2d=camera.project(camera.view(eye_centres(figure, motion)), size)[..., :2],
        camera=camera,
    )


def render_frames(
    figure: Figure, identity: Identity, motion: HeadMotion, camera: Camera, behind: torch.Tensor, size: int
) -> tuple[torch.Tensor, ...]:
    """Pixels (T, 3, S, S), alpha (T, S, S), segments (T, S, S) of a chunk of frames."""
    frames, side, device = len(motion), size * SAMPLES, behind.device
    points = camera.view(posed_vertices(figure, motion))  # (T, G, 3)
    normals = vertex_normals(points, figure.weld[figure.faces], figure.around)
    points = points[:, figure.weld]  # (T, C, 3)
    flat = camera.project(points, side)
    hit, inverse = rasterize(flat, figure.faces, figure.two_sided, side, side, figure.keep)  # (T, 2S, 2S)
    shown = F.max_pool2d(inverse[:, None], SAMPLES).reshape(-1).nonzero()[:, 0]  # (P,)
    seen, nearness = (
        torch.stack(
            [
                layer[:, i // SAMPLES :: SAMPLES, i % SAMPLES :: SAMPLES].reshape(-1).index_select(0, shown)
                for i in range(SAMPLES**2)
            ]
        )
        for layer in (hit, inverse)
    )  # (4, P)
    pixel, sample, count, middle = distinct(figure, seen, nearness)  # (N,)
    pixel_index = shown[pixel]  # (N,) pixel in all frames, in a row
    frame_of, within = pixel_index // size**2, pixel_index % size**2
    face = seen[sample, pixel]
    at_x, at_y = (within % size + middle[0]) * SAMPLES, (within // size + middle[1]) * SAMPLES
    normal, where, texels = attributes(figure, flat, normals, points, face, frame_of, at_x, at_y)

    light = identity.light
    axes = shadow_axes(light.key_direction)
    maps = shadow_maps(figure, points, axes, camera.frame)
    visibility = key_light_visibility(maps, axes, where, frame_of, camera.frame, light.softness)
    label = figure.label[face]
    colour = shade(texels, normal, where, label, visibility, openness(motion)[frame_of], light, camera.distance)

    # Resolve: the fragments' colours by their share of the pixel, over the background.
    share = count / SAMPLES**2
    layers = [colour]
    if identity.look != "photo":
        layers += [texels[RGB], normal, where[2:] + 10.0]
    layers = (torch.cat([*layers, torch.ones_like(share[None])]) * share).T.contiguous()  # (N, 4 or 11)
    total = torch.zeros(frames * size * size, layers.shape[1], device=device).index_add_(0, pixel_index, layers)
    alpha = total[:, -1:]
    picture = total[:, :3] + behind.reshape(-1, 3).repeat(frames, 1) * (1 - alpha)
    label = torch.where((texels[HAIRY] > 0.5) & (label == FACE_LABEL), HAIR_LABEL, label)
    votes = torch.zeros(frames * size * size, dtype=torch.long, device=device)
    votes.scatter_reduce_(0, pixel_index, count.long() * 16 + label, "amax")
    segments = torch.where(alpha[:, 0] >= 0.5, votes % 16, BACKGROUND_LABEL).reshape(frames, size, size)

    def image(values: torch.Tensor) -> torch.Tensor:
        return values.reshape(frames, size, size, -1).permute(0, 3, 1, 2)

    pixels = tone(image(picture))
    if identity.look != "photo":
        albedo = tone(image(total[:, 3:6] + behind.reshape(-1, 3).repeat(frames, 1) * (1 - alpha)))
        stack = Layers(
            pixels, albedo, image(total[:, 6:9]), image(total[:, 9:10]), segments[:, None], paper(identity, size).to(device)
        )
        pixels = stylise(identity.look, stack)
    return pixels.contiguous(), alpha.reshape(frames, size, size).clamp(0, 1), segments.to(torch.uint8)


def distinct(figure: Figure, seen: torch.Tensor, nearness: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The fragments to shade: a pixel's samples on one smooth surface, close in depth, are shaded together.

    seen (4, P): the samples' triangles, EMPTY for none; nearness (4, P): their inverse distances.
    Returns the pixel (N,), the sample whose triangle represents its group (N,), the group's number of samples (N,), and their
    mean position x, y (2, N) in 0..1.
    """
    many = SAMPLES**2
    offsets = [((i % SAMPLES + 0.5) / SAMPLES, (i // SAMPLES + 0.5) / SAMPLES) for i in range(many)]
    patch = torch.where(seen >= 0, figure.patch[seen], EMPTY)
    distance = 1 / nearness.clamp_min(1e-6)
    free = [patch[i] >= 0 for i in range(many)]  # not in a group yet
    adds = torch.tensor([[1.0, x, y] for x, y in offsets], device=seen.device)[..., None]  # (4, 3, 1)
    leads, sums = [], []
    for i in range(many):
        lead = free[i]
        total = torch.stack(
            [torch.ones_like(distance[i]), torch.full_like(distance[i], offsets[i][0]), torch.full_like(distance[i], offsets[i][1])]
        )  # (3, P)
        for j in range(i + 1, many):
            joins = lead & free[j] & (patch[j] == patch[i]) & ((distance[j] - distance[i]).abs() < SMOOTH)
            free[j] = free[j] & ~joins
            total += joins.float() * adds[j]
        leads.append(lead)
        sums.append(total)
    index = torch.cat(leads).nonzero()[:, 0]
    count, x, y = torch.cat(sums, 1).index_select(1, index)
    return index % seen.shape[1], index // seen.shape[1], count, torch.stack([x, y]) / count


def attributes(
    figure: Figure,
    flat: torch.Tensor,
    normals: torch.Tensor,
    points: torch.Tensor,
    face: torch.Tensor,
    frame_of: torch.Tensor,
    at_x: torch.Tensor,
    at_y: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Normal (3, N), position (3, N) and texels (CHANNELS, N) of triangles (N,) of frames (N,), at px (N,), (N,)."""
    rows = figure.faces.index_select(0, face) + (frame_of * len(figure.weld))[:, None]  # (N, 3)
    table = flat.reshape(-1, 3)
    (ax, ay, aw), (bx, by, bw), (cx, cy, cw) = (table.index_select(0, rows[:, i]).T.contiguous() for i in range(3))
    bx, by, cx, cy, at_x, at_y = bx - ax, by - ay, cx - ax, cy - ay, at_x - ax, at_y - ay
    area = bx * cy - by * cx
    # A group's mean position may lie a little outside the triangle that represents it.
    second, third = (((at_x * cy - at_y * cx) / area).clamp(*BEYOND), ((bx * at_y - by * at_x) / area).clamp(*BEYOND))
    weights = torch.stack([(1 - second - third) * aw, second * bw, third * cw], 1)
    weights = weights / weights.sum(1, keepdim=True)  # perspective-correct
    known = torch.cat([normals[:, figure.weld], points, figure.uv.expand(len(points), -1, -1)], -1).reshape(-1, 8)
    values = F.embedding_bag(rows, known, mode="sum", per_sample_weights=weights).T.contiguous()  # (8, N)
    normal, where, uv = values[:3], values[3:6], values[6:]
    return unit(normal), where, look_up(figure, uv)


def look_up(figure: Figure, uv: torch.Tensor) -> torch.Tensor:
    """The atlas at texels uv (2, N), bilinear: (CHANNELS, N)."""
    height = len(figure.atlas) // figure.atlas_width
    corner = (uv - 0.5).floor()
    u, v = uv - 0.5 - corner
    column, row = corner.long()
    index = row.clamp(0, height - 2) * figure.atlas_width + column.clamp(0, figure.atlas_width - 2)
    index = torch.stack([index, index + 1, index + figure.atlas_width, index + figure.atlas_width + 1], 1)
    weights = torch.stack([(1 - u) * (1 - v), u * (1 - v), (1 - u) * v, u * v], 1)
    return F.embedding_bag(index, figure.atlas, mode="sum", per_sample_weights=weights).T.contiguous()


def openness(motion: HeadMotion) -> torch.Tensor:
    """How much light reaches the inside of the mouth (T,), 0..1."""
    total = sum(factor * motion.expression[:, INDEX[name]] for name, factor in OPENED_BY.items())
    return (CLOSED + total).clamp(0, 1)


def paper(identity: Identity, size: int) -> torch.Tensor:
    """Paper grain (1, 2, S, S) in 0..1: fine, and in blotches."""
    rng = generator(identity.seed, BACKGROUND)
    fine = rng.random((1, 1, size, size), np.float32)
    coarse = torch.from_numpy(rng.random((1, 1, max(4, size // 10), max(4, size // 10)), np.float32))
    coarse = F.interpolate(coarse, (size, size), mode="bicubic", align_corners=False).clamp(0, 1)
    return torch.cat([torch.from_numpy(fine), coarse], 1)
