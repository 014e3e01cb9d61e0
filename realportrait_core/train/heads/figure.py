"""One identity made ready to move: its mesh, its textures, its weights; and the mesh's places in every frame.

Shape legend: T frames, G welded vertices, C corners, F triangles. The first of G and C are the rig's own.
"""

from dataclasses import dataclass

import torch

from .hair import STYLES, Surface, extras, scalp, shell
from .identity import Identity, neutral_shape
from .motion import Motion, rotations
from .camera import rotate
from .paint import (CLOTH, COLLAR, EYE, FLAT, FRAMES, HAIR, HAT, LASHES, RINGS, SIZE, TAIL, TEETH, TONGUE, beard_depth, flat_uv, paint,
                    skin_uv, to_atlas)
from .noise import step
from .rig import CHART_RECTS, HEAD, EYE as EYE_PART, LASH, LOWER_TEETH, SKIN, TONGUE as TONGUE_PART, UPPER_TEETH, Rig
from .wear import clothe, collar, earrings, glasses, hat

FACE_LABEL, HAIR_LABEL, CLOTHES_LABEL, EYE_LABEL, MOUTH_LABEL, WORN_LABEL = range(1, 7)
ARMS_DOWN = 0.62            # radians: the base mesh holds its arms out
JOINT_REACH = 0.8           # dm about a joint within which the skin says where the joint is
BODY_SHARE = 0.3            # of the head's translation that the body takes
HANGS_FROM, HANGS_TO = 6.6, 5.0     # dm: hair above follows the head, below the body
UNDER_HAIR = 0.50           # radians inside the hairline from which on no scalp is drawn under a shell
TEETH_SHOW = 0.022         # dm by which the teeth are nearer to each other than the base mesh has them
LID_STRENGTH = (0.85, 1.6)  # of the blink, by how wide an identity's eyes are open


@dataclass(frozen=True)
class Figure:
    rest: torch.Tensor          # (G, 3) dm
    head_share: torch.Tensor    # (G,)
    units: torch.Tensor         # (52, W * 3) float64, face units of the rig's W vertices as this identity makes them
    weld: torch.Tensor          # (C,)
    faces: torch.Tensor         # (F, 3) into corners
    around: tuple[torch.Tensor, torch.Tensor]   # triangles about each vertex: see triangles_around
    uv: torch.Tensor            # (C, 2) texels
    keep: torch.Tensor          # (C,)
    two_sided: torch.Tensor     # (F,) bool
    shades: torch.Tensor        # (F,) bool: casts shadows
    label: torch.Tensor         # (F,)
    patch: torch.Tensor         # (F,) which smooth surface with one chart a triangle is of
    atlas: torch.Tensor         # (texels, CHANNELS)
    atlas_width: int
    eyes: torch.Tensor          # (2, E) vertices of the eyeballs
    pivot: torch.Tensor         # (3,)
    bare: torch.Tensor          # (128, 3) the surface points at rest
    bare_units: torch.Tensor    # (52, 128 * 3) float64
    bare_share: torch.Tensor    # (128,)


def build_figure(rig: Rig, identity: Identity, scale: float) -> Figure:
    """scale: texels a pixel relative to pictures of 256 px."""
    device = rig.vertices.device
    shape = neutral_shape(rig, identity.face)
    normals = vertex_normals(shape[None], rig.weld[rig.faces], triangles_around(rig.weld[rig.faces], len(shape)))[0]
    clothes = identity.clothes
    cloth, hidden = clothe(rig, shape, normals, clothes)

    covered = shape.clone()
    for part, lower in ((UPPER_TEETH, TEETH_SHOW), (LOWER_TEETH, -TEETH_SHOW)):
        covered[torch.unique(rig.weld[rig.faces[rig.part == part]]), 1] -= lower
    if identity.face.beard in ("full", "long", "goatee", "chin"):
        thick = {"full": 0.06, "long": 0.22, "goatee": 0.05, "chin": 0.07}[identity.face.beard]
        depth = step(0.0, 0.16, beard_depth(rig.vertices, identity.face.beard))
        skin = torch.zeros(len(shape), device=device)
        skin[torch.unique(rig.weld[rig.faces[(rig.part == SKIN) & (rig.chart <= 1)]])] = 1
        down = torch.tensor([0.0, -0.6, 0.25], device=device)
        covered = covered + (normals + (down if identity.face.beard == "long" else 0)) * (thick * depth * skin)[:, None]

    # The rig's own corners: where they are in the atlas, and where they are cut.
    uv = torch.zeros(len(rig.weld), 2, device=device)
    keep = torch.ones(len(rig.weld), device=device)
    for chart in range(len(CHART_RECTS)):
        corners = torch.unique(rig.faces[(rig.part == SKIN) & (rig.chart == chart)])
        uv[corners] = to_atlas(skin_uv(rig, corners, chart), chart, scale)
    for part, chart in ((EYE_PART, EYE), (UPPER_TEETH, TEETH), (LOWER_TEETH, TEETH), (TONGUE_PART, TONGUE), (LASH, FLAT)):
        corners = torch.unique(rig.faces[rig.part == part])
        points = rig.vertices[rig.weld[corners]]
        if part == EYE_PART:
            centres = rig.vertices[rig.eyes].mean(1)
            centre = torch.where(points[:, :1] > 0, centres[0], centres[1])
            ahead = torch.nn.functional.normalize(points - centre, dim=1)
            flat = torch.stack([0.5 + 0.5 * ahead[:, 0], 0.5 - 0.5 * ahead[:, 1]], 1)
        elif part in (UPPER_TEETH, LOWER_TEETH):
            low, high = points[:, 1].min(), points[:, 1].max()
            down = (high - points[:, 1]) / (high - low)
            flat = torch.stack([0.25 + 0.7 * points[:, 0], down if part == UPPER_TEETH else 1 - down], 1)
        elif part == TONGUE_PART:
            flat = torch.full_like(points[:, :2], 0.5)
        else:
            flat = flat_uv(LASHES, len(points), device)
            keep[corners] = identity.face.lashes - rig.lash_tip[rig.weld[corners]]
        uv[corners] = to_atlas(flat, chart, scale)

    style = STYLES[identity.hair.style]
    hair, strands = shell(rig, shape, identity.hair, clothes.hat)
    pieces: list[tuple[Surface, int, int, torch.Tensor]] = []           # surface, chart, label, head share (V,)

    def rigid(surface: Surface) -> torch.Tensor:
        return torch.ones(len(surface.vertices), device=device)

    lower = (shape[rig.eyes] - rig.vertices[rig.eyes])[..., 1].mean()                   # than the template's, of this head

    def hanging(surface: Surface) -> torch.Tensor:
        return ((surface.vertices[:, 1] - lower - HANGS_TO) / (HANGS_FROM - HANGS_TO)).clamp(0, 1)

    pieces.append((cloth.surface, CLOTH, CLOTHES_LABEL, rig.head_share[rig.weld[cloth.corners]]))
    pieces += [(piece, COLLAR, CLOTHES_LABEL, 0.25 * rigid(piece)) for piece in collar(rig, shape, clothes)]
    if style.top and clothes.hat not in ("scarf", "turban"):
        pieces.append((hair, HAIR, HAIR_LABEL, hanging(hair)))
        pieces += [(piece, TAIL, HAIR_LABEL, hanging(piece)) for piece in extras(rig, shape, identity.hair)]
    pieces += [(piece, HAT, WORN_LABEL, hanging(piece)) for piece in hat(rig, shape, clothes)]
    pieces += [(piece, FLAT, WORN_LABEL, rigid(piece)) for piece in glasses(rig, shape, clothes)]
    if clothes.earrings:
        pieces += [(piece, FLAT, WORN_LABEL, rigid(piece)) for piece in earrings(rig, shape)]

    hairy = style.top >= 0.05 and not style.bald and clothes.hat not in ("scarf", "turban")
    if hairy:                                                                           # nobody sees the scalp under a shell
        hidden = hidden | (rig.part == SKIN) & (scalp(rig.vertices, style, identity.hair.hairline)[rig.weld[rig.faces]] > UNDER_HAIR).all(1) \
            & (rig.chart == HEAD)
    arms = rig.arms
    shoulders = torch.stack([moved_joint(rig, shape, joint) for joint in rig.shoulders])
    rest, share, faces, welds, uvs, keeps = [lower_arms(covered, arms, shoulders)], [rig.head_share], [rig.faces[~hidden]], [rig.weld], [uv], [keep]
    parts = rig.part[~hidden]
    labels = torch.tensor([FACE_LABEL, EYE_LABEL, MOUTH_LABEL, MOUTH_LABEL, MOUTH_LABEL, EYE_LABEL], device=device)[parts]
    patch = [torch.where(parts == SKIN, rig.chart[~hidden], len(CHART_RECTS) + parts)]
    label, two_sided, shades = [labels], [parts == LASH], [(parts != LASH) & (parts != EYE_PART)]
    welded, corners = len(shape), len(rig.weld)
    flat_colour = {FLAT: FRAMES}
    for surface, chart, name, on_head in pieces:
        # Vertices at one place (a grid's seam, a cloth's UV seam) are one, so that the shading does not show it.
        _, weld = torch.unique((surface.vertices * 2e3).round().long(), dim=0, return_inverse=True)
        count = int(weld.max()) + 1
        place = torch.zeros(count, 3, device=device)
        place[weld] = surface.vertices
        taken = torch.zeros(count, device=device)
        taken[weld] = on_head
        if chart == CLOTH:
            swing = torch.zeros(2, count, device=device)
            swing[:, weld] = arms[:, rig.weld[cloth.corners]]
            place = lower_arms(place, swing, shoulders)
        if chart == FLAT:
            ring = surface.vertices[:, 2].max() < 0.8
            flat = flat_uv(RINGS if ring else flat_colour[FLAT], len(weld), device)
        else:
            flat = skin_uv(rig, cloth.corners, 0) if chart == CLOTH else surface.uv
        rest.append(place)
        share.append(taken)
        welds.append(weld + welded)
        faces.append(surface.faces + corners)
        uvs.append(to_atlas(flat, chart, scale))
        keeps.append(surface.keep)
        many = len(surface.faces)
        label.append(torch.full((many,), name, device=device))
        patch.append(torch.full((many,), 100 + len(rest), device=device))
        two_sided.append(torch.full((many,), chart != HAIR, device=device) | surface.open[surface.faces].any(1))
        shades.append(torch.full((many,), chart != FLAT, device=device))
        welded, corners = welded + count, corners + len(weld)
    faces, weld = torch.cat(faces), torch.cat(welds)

    units = rig.units.clone()
    units[:, rig.eyes.reshape(-1)] = 0
    units = (units * lid_strength(rig, shape)).double()
    return Figure(
        rest=torch.cat(rest), head_share=torch.cat(share), units=units.reshape(len(units), -1), weld=weld, faces=faces,
        around=triangles_around(weld[faces], welded), uv=torch.cat(uvs), keep=torch.cat(keeps), two_sided=torch.cat(two_sided),
        shades=torch.cat(shades), label=torch.cat(label), patch=torch.cat(patch), atlas=paint(rig, identity, strands, hair_columns(hair), scale),
        atlas_width=round(SIZE[0] * scale), eyes=rig.eyes, pivot=moved_joint(rig, shape, rig.pivot), bare=shape[rig.surface],
        bare_units=units[:, rig.surface].reshape(len(units), -1), bare_share=rig.head_share[rig.surface],
    )


def hair_columns(hair: Surface) -> int:
    """Columns of the shell's grid: its u runs from 0 to 1 over them."""
    return int((hair.uv[:, 1] == 0).sum())


def lid_strength(rig: Rig, shape: torch.Tensor) -> torch.Tensor:
    """(52, 1, 1): the blinks of an identity, stronger where its eyes are open wider than the template's."""
    factor = torch.ones(len(rig.units), 1, 1, device=shape.device)
    for side, name in enumerate(("eyeBlinkLeft", "eyeBlinkRight")):
        unit = rig.units[rig.unit_names.index(name)]
        lid = unit[:, 1].argmin()                                                       # what falls furthest: the upper lid's middle
        sign = 1 if side == 0 else -1
        near = (rig.vertices[:, 0] * sign > 0) & (rig.vertices[:, 0] - rig.vertices[lid, 0]).abs().lt(0.03)
        near &= (rig.vertices[:, 1] < rig.vertices[rig.eyes[side], 1].mean()) & (rig.vertices[:, 2] > 1.3) & (unit[:, 1].abs() < 0.06)
        below = (rig.vertices[:, 1] - rig.vertices[lid, 1]).masked_fill(~near, -9).argmax()
        opening = (shape[lid, 1] - shape[below, 1]) / (rig.vertices[lid, 1] - rig.vertices[below, 1])
        factor[rig.unit_names.index(name)] = opening.clamp(*LID_STRENGTH)
    return factor


def moved_joint(rig: Rig, shape: torch.Tensor, joint: torch.Tensor) -> torch.Tensor:
    """Where a joint (3,) of the template is in an identity: moved as the skin about it."""
    near = (rig.vertices - joint).norm(dim=1) < JOINT_REACH
    return joint + (shape[near] - rig.vertices[near]).mean(0)


def lower_arms(points: torch.Tensor, arms: torch.Tensor, shoulders: torch.Tensor) -> torch.Tensor:
    """points (N, 3) with arms of weights (2, N) turned down at the shoulders (2, 3)."""
    for weight, shoulder, sign in zip(arms, shoulders, (-1, 1)):
        turn = torch.zeros_like(points)
        turn[:, 2] = sign * ARMS_DOWN * weight
        points = turn_by(points - shoulder, turn) + shoulder
    return points


def turn_by(points: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
    """points (..., 3) turned by rotation vectors (..., 3), Rodrigues' formula."""
    angle = turn.norm(dim=-1, keepdim=True)
    axis = turn / angle.clamp_min(1e-9)
    cosine, sine = angle.cos(), angle.sin()
    return points * cosine + torch.linalg.cross(axis, points) * sine + axis * (axis * points).sum(-1, keepdim=True) * (1 - cosine)


def rotation_vectors(rotation: torch.Tensor) -> torch.Tensor:
    """(T, 3) of rotations (T, 3, 3) of less than half a turn."""
    trace = rotation[:, 0, 0] + rotation[:, 1, 1] + rotation[:, 2, 2]
    angle = torch.acos(((trace - 1) / 2).clamp(-1, 1))
    axis = torch.stack([rotation[:, 2, 1] - rotation[:, 1, 2], rotation[:, 0, 2] - rotation[:, 2, 0], rotation[:, 1, 0] - rotation[:, 0, 1]], 1)
    return axis * torch.where(angle > 1e-4, angle / (2 * angle.sin()).clamp_min(1e-9), 0.5)[:, None]


def triangles_around(faces: torch.Tensor, vertices: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The triangles at each vertex, one vertex after another (F * 3,); and where each vertex's begin (vertices,)."""
    owner, order = faces.reshape(-1).sort(stable=True)
    counts = torch.bincount(owner, minlength=vertices)
    return order // 3, counts.cumsum(0) - counts


def vertex_normals(points: torch.Tensor, faces: torch.Tensor, around: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Unit normals (T, V, 3) of points (T, V, 3): the sums of their triangles' normals, weighted by area."""
    by_vertex = points.permute(1, 2, 0).reshape(points.shape[1], -1)                    # (V, 3 * T)
    a, b, c = (by_vertex.index_select(0, faces[:, i]).unflatten(1, (3, -1)).unbind(1) for i in range(3))
    a, b, c = (torch.stack(corner, 0) for corner in (a, b, c))                          # (3, F, T)
    ab, ac = b - a, c - a
    normal = torch.stack([ab[1] * ac[2] - ab[2] * ac[1], ab[2] * ac[0] - ab[0] * ac[2], ab[0] * ac[1] - ab[1] * ac[0]], 1)     # (F, 3, T)
    triangles, starts = around
    total = torch.nn.functional.embedding_bag(triangles, normal.flatten(1), starts, mode="sum").unflatten(1, (3, -1))   # (V, 3, T)
    total = total / total.square().sum(1, keepdim=True).sqrt().clamp_min(1e-12)
    return total.permute(2, 0, 1)


def move(figure: Figure, motion: Motion) -> torch.Tensor:
    """(T, G, 3) dm in body axes."""
    frames, own = len(motion), figure.units.shape[1] // 3
    points = figure.rest[None].repeat(frames, 1, 1)
    points[:, :own] += express(motion, figure.units)
    look = rotations(torch.stack([-motion.gaze[:, 1], motion.gaze[:, 0], torch.zeros_like(motion.gaze[:, 0])], 1))
    for ball in figure.eyes:
        centre = figure.rest[ball].mean(0)
        points[:, ball] = rotate(figure.rest[ball] - centre, look[:, None]) + centre
    return carry(points, figure.head_share, figure.pivot, motion)


def express(motion: Motion, units: torch.Tensor) -> torch.Tensor:
    """Displacements (T, V, 3) of face units (52, V * 3), float64."""
    # In double precision and rounded, so that a frame does not depend on the frames beside it.
    moved = motion.expression.double() @ units
    return ((moved * 2 ** 20).round() / 2 ** 20).float().reshape(len(motion), -1, 3)


def carry(points: torch.Tensor, head_share: torch.Tensor, pivot: torch.Tensor, motion: Motion) -> torch.Tensor:
    """points (T, V, 3) turned and moved with the head, each by its share (V,)."""
    share = head_share[None, :, None]
    turn = rotation_vectors(rotations(motion.pose))[:, None] * share
    return turn_by(points - pivot, turn) + pivot + motion.translation[:, None] * (BODY_SHARE + (1 - BODY_SHARE) * share)


def surface_points(figure: Figure, motion: Motion) -> torch.Tensor:
    """The 128 surface points (T, 128, 3) in body axes, of the bare skin."""
    return carry(figure.bare + express(motion, figure.bare_units), figure.bare_share, figure.pivot, motion)


def eye_centres(figure: Figure, motion: Motion) -> torch.Tensor:
    """(T, 2, 3) in body axes, the subject's left and right."""
    centres = figure.rest[figure.eyes].mean(1)[None].expand(len(motion), -1, -1)
    return carry(centres, torch.ones(2, device=centres.device), figure.pivot, motion)
