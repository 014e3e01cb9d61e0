"""Everything about an identity that is not its body: hair, clothes, hat, glasses, earrings, with how each moves."""

from dataclasses import dataclass, replace

import torch

from .hair import STYLES, Surface, extras, scalp, shell
from .identity import Identity
from .labels import CLOTHES_LABEL, HAIR_LABEL, WORN_LABEL
from .paint import CLOTH, COLLAR, FLAT, FRAMES, HAIR, HAT, RINGS, TAIL, flat_uv, skin_uv
from .rig import HEAD, SKIN, TORSO, Rig
from .wear import clothe, collar, earrings, glasses, hat

HANGS_FROM, HANGS_TO = 6.6, 5.0  # dm: what is above follows the head, what is below the body
COLLAR_SHARE = 0.25  # of the head's turn that a collar takes
UNDER_HAIR = 0.50  # radians inside the hairline from which on no scalp is drawn under a shell
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
    hides: torch.Tensor  # (F,) bool: triangles of the rig that none can see
    strands: torch.Tensor  # (columns, rows, 4) of the hair: see hair.shell


def dress(rig: Rig, shape: torch.Tensor, normals: torch.Tensor, identity: Identity) -> Outfit:
    """What an identity of this neutral shape (W, 3) wears."""
    clothes, style, device = identity.clothes, STYLES[identity.hair.style], shape.device
    lower = (shape[rig.eyes] - rig.vertices[rig.eyes])[..., 1].mean()  # dm, this head than the template's

    def piece(surface: Surface, chart: int, label: int, head_share: float | None = None, colour: int | None = None) -> Piece:
        """head_share: the same for all vertices, or else what hangs from the head follows it the less the lower it is."""
        height = surface.vertices[:, 1]
        share = ((height - lower - HANGS_TO) / (HANGS_FROM - HANGS_TO)).clamp(0, 1)
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
        if style.top >= 0.05 and not style.bald:  # nobody sees the scalp under the shell
            under = scalp(rig.vertices, style, identity.hair.hairline)[rig.weld[rig.faces]] > UNDER_HAIR
            hides = hides | (under.all(1) & (rig.part == SKIN) & (rig.chart == HEAD))
    pieces += [piece(surface, HAT, WORN_LABEL) for surface in hat(rig, shape, clothes)]
    pieces += [piece(surface, FLAT, WORN_LABEL, 1.0, FRAMES) for surface in glasses(rig, shape, clothes)]
    if clothes.earrings:
        pieces += [piece(surface, FLAT, WORN_LABEL, 1.0, RINGS) for surface in earrings(rig, shape)]
    return Outfit(pieces, hides, strands)
