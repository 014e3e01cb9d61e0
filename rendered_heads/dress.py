"""Everything an identity wears: hair, clothes, hat, glasses, earrings; and how each piece moves with head and body."""

from dataclasses import dataclass, replace

import torch

from .accessories import earrings, glasses
from .atlas import CLOTH, COLLAR, FLAT, FRAMES, HAIR, HAT, RINGS, TAIL, flat_uv, skin_uv
from .garments import clothe, collar
from .hair import extras, scalp, shell
from .hair_styles import STYLES
from .hats import hat
from .identity import Identity
from .labels import CLOTHES_LABEL, HAIR_LABEL, WORN_LABEL
from .rig import HEAD, SKIN, TORSO, Rig
from .surface import Surface

HANGS_FROM, HANGS_TO = 6.6, 5.0  # dm: above the first, vertices follow the head; below the second, the body
COLLAR_SHARE = 0.25  # of the head's motion that a collar follows
UNDER_HAIR = 0.50  # radians inside the hairline beyond which the scalp under the hair is not drawn
NO_HAIR_UNDER = ("scarf", "turban")


@dataclass(frozen=True)
class Piece:
    surface: Surface  # of V vertices, at rest
    chart: int  # of the atlas
    label: int
    head_share: torch.Tensor  # (V,)
    arms: torch.Tensor  # (V, 2) weights of the left and the right arm


@dataclass(frozen=True)
class Outfit:
    pieces: list[Piece]
    hides: torch.Tensor  # (F,) bool: triangles of the rig that are never visible
    strands: torch.Tensor  # (columns, rows, 4) of the hair: see hair.shell


def dress(rig: Rig, shape: torch.Tensor, normals: torch.Tensor, identity: Identity) -> Outfit:
    """What an identity of this neutral shape (W, 3) wears."""
    clothes, style, device = identity.clothes, STYLES[identity.hair.style], shape.device
    offset = (shape[rig.eyes] - rig.vertices[rig.eyes])[..., 1].mean()  # dm, height of this head above the template's

    def piece(surface: Surface, chart: int, label: int, head_share: float | None = None, colour: int | None = None) -> Piece:
        """head_share: one value for all vertices; None: it falls off from the head downwards."""
        height = surface.vertices[:, 1]
        share = ((height - offset - HANGS_TO) / (HANGS_FROM - HANGS_TO)).clamp(0, 1)
        share = share if head_share is None else torch.full_like(height, head_share)
        if colour is not None:
            surface = replace(surface, uv=flat_uv(colour, len(height), device))
        return Piece(surface, chart, label, share, torch.zeros(len(height), 2, device=device))

    cloth, hides = clothe(rig, shape, normals, clothes)
    on = rig.weld[cloth.corners]
    garment = replace(cloth.surface, uv=skin_uv(rig, cloth.corners, TORSO))
    pieces = [Piece(garment, CLOTH, CLOTHES_LABEL, rig.head_share[on], rig.arms.T[on])]
    pieces += [piece(surface, COLLAR, CLOTHES_LABEL, COLLAR_SHARE) for surface in collar(rig, shape, clothes)]
    hair, strands = shell(rig, shape, identity.hair, clothes.hat)
    if style.top and clothes.hat not in NO_HAIR_UNDER:
        pieces.append(piece(hair, HAIR, HAIR_LABEL))
        pieces += [piece(surface, TAIL, HAIR_LABEL) for surface in extras(rig, shape, identity.hair)]
        if style.top >= 0.05 and not style.bald:  # the shell hides the scalp
            under = scalp(rig.vertices, style, identity.hair.hairline)[rig.weld[rig.faces]] > UNDER_HAIR
            hides = hides | (under.all(1) & (rig.part == SKIN) & (rig.chart == HEAD))
    pieces += [piece(surface, HAT, WORN_LABEL) for surface in hat(rig, shape, clothes)]
    pieces += [piece(surface, FLAT, WORN_LABEL, 1.0, FRAMES) for surface in glasses(rig, shape, clothes)]
    if clothes.earrings:
        pieces += [piece(surface, FLAT, WORN_LABEL, 1.0, RINGS) for surface in earrings(rig, shape)]
    return Outfit(pieces, hides, strands)
