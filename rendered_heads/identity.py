"""What a head looks like: everything about it that does not move. identity_sampling.sample_identity draws it from a seed.

Colours are linear light (0..1).
"""

from dataclasses import dataclass

import numpy as np

NECKLINES = ("crew", "v", "scoop", "turtle", "boat", "shirt", "jacket", "hoodie", "tank")
PATTERNS = ("plain", "stripes", "pinstripes", "checks", "tartan", "dots", "floral", "camouflage", "knit", "letters")
HATS = ("beanie", "cap", "brim", "headband", "scarf", "turban")
GLASSES = ("round", "square", "oval", "half", "cat")
BEARDS = ("stubble", "moustache", "goatee", "chin", "full", "long")
SCENES = ("gradient", "bokeh", "room", "window", "outdoors", "skyline", "wall", "texture", "studio", "stripes")


@dataclass(frozen=True)
class Face:
    """Shape and skin."""

    macros: np.ndarray  # (M,) weights of the rig's whole-body targets
    locals: np.ndarray  # (L,) weights of its face targets
    age: float  # years
    female: float  # 0..1
    skin: np.ndarray  # (3,)
    dark: float  # 0 fair .. 1 deep
    flush: float  # redness of cheeks and nose, 0..1
    freckles: float
    mole: np.ndarray  # (2,) dm, position on the face; outside the face: none
    iris: np.ndarray  # (3,)
    lips: np.ndarray  # (3,)
    lipstick: float
    shadow: np.ndarray  # (3,) eye shadow
    shadow_strength: float
    brow: tuple[float, float, float, float]  # thickness dm, height dm, arch dm, strength
    lashes: float  # length as a part of the rig's
    beard: str  # one of BEARDS or ""
    noise: float  # offset into the noise volume, for the skin's mottling


@dataclass(frozen=True)
class Hair:
    style: str  # of hair.STYLES
    colour: np.ndarray  # (3,)
    streaks: float  # contrast of the strands
    hairline: float  # degrees further back than usual
    part: float  # dm to the side
    volume: float  # factor of the style's thickness
    length: float  # factor of the style's length
    noise: float


@dataclass(frozen=True)
class Clothes:
    neckline: str
    pattern: str
    colours: np.ndarray  # (3, 3)
    scale: float  # of the pattern
    loose: float  # dm off the body
    hat: str  # one of HATS or ""
    hat_colours: np.ndarray  # (2, 3)
    glasses: str  # one of GLASSES or ""
    glasses_colour: np.ndarray  # (3,)
    glasses_size: float
    earrings: bool


@dataclass(frozen=True)
class Light:
    """A key light that casts shadows, a fill light, a rim light behind, and the sky and the ground."""

    key_direction: np.ndarray  # (3,) towards the light, in the camera's axes
    key: np.ndarray  # (3,)
    softness: float  # 0 hard .. 1 soft
    fill_direction: np.ndarray
    fill: np.ndarray
    rim_direction: np.ndarray
    rim: np.ndarray
    sky: np.ndarray
    ground: np.ndarray
    exposure: float


@dataclass(frozen=True)
class Identity:
    seed: int
    face: Face
    hair: Hair
    clothes: Clothes
    light: Light
    scene: str  # one of SCENES
    look: str  # of looks.LOOKS
