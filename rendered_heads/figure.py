"""One identity as a mesh that can be animated, with its texture atlas; and its vertex positions in every frame.

Shape legend: T frames, G welded vertices, C corners, F triangles. The first of G and C are the rig's own.
"""

import functools
from dataclasses import dataclass, fields, replace

import torch

from .atlas import EYE, FLAT, LASHES, SIZE, TEETH, TONGUE, flat_uv, skin_uv, to_atlas
from .camera import rotate
from .deform import blendshape_offsets, lower_arms, move_with_head, moved_joint, neutral_shape, triangles_around, vertex_normals
from .dress import Piece, dress
from .identity import Face, Identity
from .labels import EYE_LABEL, FACE_LABEL, MOUTH_LABEL
from .motion import HeadMotion, rotations
from .noise import smoothstep
from .paint import paint
from .paint_skin import beard_depth
from .rig import CHART_RECTS, HEAD, LASH, LOWER_TEETH, SKIN, TORSO, UPPER_TEETH, Rig, corners_of, vertices_of
from .rig import EYE as EYE_PART
from .rig import TONGUE as TONGUE_PART

TEETH_SHOW = 0.022  # dm by which the upper teeth are lowered and the lower ones raised, so that they show
LID_STRENGTH = (0.85, 1.6)  # limits of a blink's strength, which follows how wide an identity's eyes are open
BEARD_DEPTH = {"full": 0.06, "long": 0.17, "goatee": 0.05, "chin": 0.07}  # dm
MOUTH_HEIGHT, MOUTH_SIZE = 6.68, (0.38, 0.17)  # dm: an ellipse about the template's lips
FIRST_WORN = 102  # Figure.patch of the first piece that is worn
LABELS = (FACE_LABEL, EYE_LABEL, MOUTH_LABEL, MOUTH_LABEL, MOUTH_LABEL, EYE_LABEL)  # of the rig's parts


@dataclass(frozen=True)
class Figure:
    rest: torch.Tensor  # (G, 3) dm
    head_share: torch.Tensor  # (G,)
    units: torch.Tensor  # (52, W * 3) float64, blendshapes of the rig's W vertices, scaled for this identity
    weld: torch.Tensor  # (C,)
    faces: torch.Tensor  # (F, 3) into corners
    around: tuple[torch.Tensor, torch.Tensor]  # triangles about each vertex: see triangles_around
    uv: torch.Tensor  # (C, 2) texels
    keep: torch.Tensor  # (C,)
    two_sided: torch.Tensor  # (F,) bool
    shades: torch.Tensor  # (F,) bool: whether it casts shadows
    label: torch.Tensor  # (F,)
    patch: torch.Tensor  # (F,) number of the smooth surface, with one chart, that a triangle belongs to
    atlas: torch.Tensor  # (texels, CHANNELS)
    atlas_width: int
    eyes: torch.Tensor  # (2, E) vertices of the eyeballs
    pivot: torch.Tensor  # (3,)
    bare: torch.Tensor  # (128, 3) the surface points at rest
    bare_units: torch.Tensor  # (52, 128 * 3) float64
    bare_share: torch.Tensor  # (128,)


@dataclass(frozen=True)
class Part:
    """A mesh that becomes part of a figure; indices count its own G vertices and C corners."""

    rest: torch.Tensor  # (G, 3) dm
    arms: torch.Tensor  # (2, G) weights of the left and the right arm
    head_share: torch.Tensor  # (G,)
    weld: torch.Tensor  # (C,)
    faces: torch.Tensor  # (F, 3) into corners
    uv: torch.Tensor  # (C, 2) texels
    keep: torch.Tensor  # (C,)
    label: torch.Tensor  # (F,)
    patch: torch.Tensor  # (F,)
    two_sided: torch.Tensor  # (F,) bool
    shades: torch.Tensor  # (F,) bool


def build_figure(rig: Rig, identity: Identity, scale: float) -> Figure:
    """scale: of the atlas, 1 for pictures of 256 px."""
    shape = neutral_shape(rig, identity.face)
    welded = rig.weld[rig.faces]
    normals = vertex_normals(shape[None], welded, triangles_around(welded, len(shape)))[0]
    outfit = dress(rig, shape, normals, identity)
    own = rig_part(rig, drawn_shape(rig, shape, normals, identity.face), identity.face, ~outfit.hides, scale)
    body = joined([own, *(worn_part(piece, FIRST_WORN + i, scale) for i, piece in enumerate(outfit.pieces))])
    shoulders = torch.stack([moved_joint(rig, shape, joint) for joint in rig.shoulders])
    units = rig.units.clone()
    units[:, rig.eyes.reshape(-1)] = 0  # eyeballs rotate rigidly
    units = (units * lid_strength(rig, shape)).double()
    return Figure(
        rest=lower_arms(body.rest, body.arms, shoulders),
        head_share=body.head_share,
        units=units.reshape(len(units), -1),
        weld=body.weld,
        faces=body.faces,
        around=triangles_around(body.weld[body.faces], len(body.rest)),
        uv=body.uv,
        keep=body.keep,
        two_sided=body.two_sided,
        shades=body.shades,
        label=body.label,
        patch=body.patch,
        atlas=paint(rig, identity, outfit.strands, scale),
        atlas_width=round(SIZE[0] * scale),
        eyes=rig.eyes,
        pivot=moved_joint(rig, shape, rig.pivot),
        bare=shape[rig.surface],
        bare_units=units[:, rig.surface].reshape(len(units), -1),
        bare_share=rig.head_share[rig.surface],
    )


def rig_part(rig: Rig, rest: torch.Tensor, face: Face, shown: torch.Tensor, scale: float) -> Part:
    """The rig's own mesh with vertices rest (W, 3), of its triangles those that are shown (F,)."""
    uv, keep = rig_corners(rig, face, scale)
    parts = rig.part[shown]
    return Part(
        rest=rest,
        arms=rig.arms,
        head_share=rig.head_share,
        weld=rig.weld,
        faces=rig.faces[shown],
        uv=uv,
        keep=keep,
        label=torch.tensor(LABELS, device=rest.device)[parts],
        patch=torch.where(parts == SKIN, rig.chart[shown], len(CHART_RECTS) + parts),
        two_sided=parts == LASH,
        shades=(parts != LASH) & (parts != EYE_PART),
    )


def worn_part(piece: Piece, patch: int, scale: float) -> Part:
    """A piece that is worn. Coincident vertices (a grid's seam, a UV seam) are welded, so that the shading shows no seam."""
    surface, device = piece.surface, piece.surface.vertices.device
    found, weld = torch.unique((surface.vertices * 2e3).round().long(), dim=0, return_inverse=True)
    vertices, triangles = len(found), len(surface.faces)
    return Part(
        rest=weld_values(surface.vertices, weld, vertices),
        arms=weld_values(piece.arms, weld, vertices).T,
        head_share=weld_values(piece.head_share, weld, vertices),
        weld=weld,
        faces=surface.faces,
        uv=to_atlas(surface.uv, piece.chart, scale),
        keep=surface.keep,
        label=torch.full((triangles,), piece.label, device=device),
        patch=torch.full((triangles,), patch, device=device),
        two_sided=surface.open[surface.faces].any(1),
        shades=torch.full((triangles,), piece.chart != FLAT, device=device),
    )


def joined(parts: list[Part]) -> Part:
    """Parts as one, their vertices and corners numbered on."""
    vertices, corners, moved = 0, 0, []
    for part in parts:
        moved.append(replace(part, weld=part.weld + vertices, faces=part.faces + corners))
        vertices, corners = vertices + len(part.rest), corners + len(part.weld)
    return Part(
        **{
            field.name: torch.cat([getattr(part, field.name) for part in moved], 1 if field.name == "arms" else 0)
            for field in fields(Part)
        }
    )


def weld_values(values: torch.Tensor, weld: torch.Tensor, count: int) -> torch.Tensor:
    """values (V, ...) of vertices as values (count, ...) of welded vertices; weld (V,): the welded vertex of each."""
    return torch.zeros(count, *values.shape[1:], device=values.device).index_copy(0, weld, values)


def drawn_shape(rig: Rig, shape: torch.Tensor, normals: torch.Tensor, face: Face) -> torch.Tensor:
    """The shape (W, 3) as it is rendered: with the thickness of a beard, and visible teeth."""
    drawn = shape.clone()
    for part, lower in ((UPPER_TEETH, TEETH_SHOW), (LOWER_TEETH, -TEETH_SHOW)):
        drawn[vertices_of(rig, part), 1] -= lower
    if face.beard in BEARD_DEPTH:
        outer = torch.zeros(len(shape), device=shape.device)
        for chart in (TORSO, HEAD):
            outer[vertices_of(rig, SKIN, chart)] = 1
        # The lips stay where they are: thickness is added away from the mouth only.
        away = ((rig.vertices[:, 0] / MOUTH_SIZE[0]) ** 2 + ((rig.vertices[:, 1] - MOUTH_HEIGHT) / MOUTH_SIZE[1]) ** 2).sqrt()
        outer = outer * smoothstep(1.0, 1.9, away)
        depth = BEARD_DEPTH[face.beard] * outer * smoothstep(0.0, 0.16, beard_depth(rig.vertices, face.beard))
        hangs = torch.tensor([0.0, -0.6, 0.25] if face.beard == "long" else [0.0, 0.0, 0.0], device=shape.device)
        lower = smoothstep(6.55, 6.30, rig.vertices[:, 1:2])  # a long beard hangs below the mouth only
        drawn = drawn + (normals + hangs * lower) * depth[:, None]
    return drawn


def rig_corners(rig: Rig, face: Face, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Atlas coordinates (C, 2), texels, of the rig's own corners; and their cut (C,), see raster.rasterize."""
    device = rig.vertices.device
    uv = torch.zeros(len(rig.weld), 2, device=device)
    keep = torch.ones(len(rig.weld), device=device)
    for chart in range(len(CHART_RECTS)):
        corners = corners_of(rig, SKIN, chart)
        uv[corners] = to_atlas(skin_uv(rig, corners, chart), chart, scale)
    for part, chart in ((EYE_PART, EYE), (UPPER_TEETH, TEETH), (LOWER_TEETH, TEETH), (TONGUE_PART, TONGUE), (LASH, FLAT)):
        corners = corners_of(rig, part)
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
            keep[corners] = face.lashes - rig.lash_tip[rig.weld[corners]]
        uv[corners] = to_atlas(flat, chart, scale)
    return uv, keep


@functools.lru_cache(maxsize=2)
def lid_vertices(rig: Rig) -> tuple[tuple[int, int, int], ...]:
    """For the left and the right eye: the index of the blink blendshape, and the middle vertices of upper and lower lid."""
    found = []
    for side, name in enumerate(("eyeBlinkLeft", "eyeBlinkRight")):
        unit = rig.units[rig.unit_names.index(name)]
        lid = int(unit[:, 1].argmin())  # the vertex that moves down furthest: the middle of the upper lid
        sign = 1 if side == 0 else -1
        near = (rig.vertices[:, 0] * sign > 0) & (rig.vertices[:, 0] - rig.vertices[lid, 0]).abs().lt(0.03)
        near &= (
            (rig.vertices[:, 1] < rig.vertices[rig.eyes[side], 1].mean()) & (rig.vertices[:, 2] > 1.3) & (unit[:, 1].abs() < 0.06)
        )
        below = int((rig.vertices[:, 1] - rig.vertices[lid, 1]).masked_fill(~near, -9).argmax())
        found.append((rig.unit_names.index(name), lid, below))
    return tuple(found)


def lid_strength(rig: Rig, shape: torch.Tensor) -> torch.Tensor:
    """(52, 1, 1): factors that make an identity's blinks stronger where its eyes are open wider than the template's."""
    factor = torch.ones(len(rig.units), 1, 1, device=shape.device)
    for unit, lid, below in lid_vertices(rig):
        opening = (shape[lid, 1] - shape[below, 1]) / (rig.vertices[lid, 1] - rig.vertices[below, 1])
        factor[unit] = opening.clamp(*LID_STRENGTH)
    return factor


def posed_vertices(figure: Figure, motion: HeadMotion) -> torch.Tensor:
    """(T, G, 3) dm in body axes."""
    frames, own = len(motion), figure.units.shape[1] // 3
    points = figure.rest[None].repeat(frames, 1, 1)
    points[:, :own] += blendshape_offsets(motion, figure.units)
    look = rotations(torch.stack([-motion.gaze[:, 1], motion.gaze[:, 0], torch.zeros_like(motion.gaze[:, 0])], 1))
    for ball in figure.eyes:
        centre = figure.rest[ball].mean(0)
        points[:, ball] = rotate(figure.rest[ball] - centre, look[:, None]) + centre
    return move_with_head(points, figure.head_share, figure.pivot, motion)


def surface_points(figure: Figure, motion: HeadMotion) -> torch.Tensor:
    """The 128 surface points (T, 128, 3) in body axes, of the bare skin (no beard)."""
    return move_with_head(figure.bare + blendshape_offsets(motion, figure.bare_units), figure.bare_share, figure.pivot, motion)


def eye_centres(figure: Figure, motion: HeadMotion) -> torch.Tensor:
    """(T, 2, 3) in body axes, the subject's left and right."""
    centres = figure.rest[figure.eyes].mean(1)[None].expand(len(motion), -1, -1)
    return move_with_head(centres, torch.ones(2, device=centres.device), figure.pivot, motion)
