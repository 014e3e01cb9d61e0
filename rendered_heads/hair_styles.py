"""Hair styles by name, as the numbers that hair.shell builds a surface from."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Style:
    """Thickness in dm, lengths in dm beyond the hairline (negative: receding)."""

    men: float  # how often
    women: float
    top: float
    side: float
    back: float
    front: float = 0.0  # length of a fringe
    temples: float = 0.0  # length beside the face, before the ears
    sides: float = 0.0  # length over the ears
    nape: float = 0.0  # length at the back
    flow: tuple[float, float, float] = (0.0, 0.9, -0.45)  # the pole the strands spring from
    opening: float = 58.0  # degrees of azimuth where hair beside the face begins
    curl: float = 0.0  # dm of lumps
    wave: float = 0.0  # dm of waves along hanging strands
    ragged: float = 0.06  # dm of unevenness at the tips
    flare: float = 0.0  # how much hanging hair widens, of its radius
    quiff: float = 0.0  # dm of extra height over the forehead
    ridge: float = 0.0  # dm of a mohawk's height
    bald: float = 0.0  # degrees about the crown without hair
    extra: str = ""  # bun, twin buns, ponytail, pigtails, plaits, topknot
    under_hat: bool = True


PART, BACK = (1.0, 0.0, 0.0), (0.0, 0.25, 0.97)
STYLES = {
    "bald": Style(0.5, 0.05, 0, 0, 0),
    "buzz": Style(1.2, 0.1, 0.03, 0.025, 0.03),
    "crop": Style(1.6, 0.3, 0.12, 0.07, 0.10, front=0.12, ragged=0.10),
    "crew": Style(1.4, 0.1, 0.08, 0.035, 0.05, quiff=0.05),
    "side part": Style(1.6, 0.2, 0.20, 0.08, 0.12, front=0.05, flow=PART),
    "slick back": Style(0.9, 0.3, 0.13, 0.07, 0.13, nape=0.2, flow=BACK),
    "quiff": Style(1.0, 0.2, 0.24, 0.05, 0.08, quiff=0.3, flow=BACK, under_hat=False),
    "curly short": Style(1.0, 0.6, 0.32, 0.18, 0.26, front=0.1, sides=0.1, nape=0.2, curl=0.07, ragged=0.12),
    "afro": Style(0.5, 0.6, 0.68, 0.58, 0.66, front=0.0, sides=0.25, nape=0.35, curl=0.05, ragged=0.05, under_hat=False),
    "mohawk": Style(0.25, 0.1, 0.03, 0.02, 0.03, ridge=0.5, flow=BACK, under_hat=False),
    "bowl": Style(0.4, 0.6, 0.22, 0.22, 0.22, front=0.42, temples=0.1, sides=0.45, nape=0.1, ragged=0.03),
    "receding": Style(0.8, 0.0, 0.06, 0.07, 0.10, front=-0.5, bald=0.0),
    "tonsure": Style(0.6, 0.0, 0.05, 0.09, 0.12, front=-0.9, bald=46.0),
    "pixie": Style(0.2, 0.9, 0.22, 0.10, 0.14, front=0.34, temples=0.08, sides=0.12, nape=0.05, ragged=0.14, flow=PART),
    "bob": Style(0.1, 1.2, 0.16, 0.27, 0.27, temples=1.0, sides=1.15, nape=0.55, flow=PART, ragged=0.05, flare=0.06),
    "bob with fringe": Style(0.0, 1.0, 0.16, 0.27, 0.27, front=0.42, temples=0.95, sides=1.05, nape=0.5, ragged=0.05, opening=52),
    "shoulder": Style(0.15, 1.2, 0.14, 0.27, 0.28, temples=1.7, sides=1.9, nape=1.4, flow=PART, ragged=0.14, wave=0.04, flare=0.05),
    "long straight": Style(0.15, 1.4, 0.12, 0.24, 0.26, temples=2.8, sides=3.0, nape=2.6, flow=PART, ragged=0.2, flare=0.05),
    "long wavy": Style(0.08, 1.4, 0.15, 0.30, 0.32, temples=2.4, sides=2.7, nape=2.4, flow=PART, wave=0.09, ragged=0.2, flare=0.1),
    "long curly": Style(
        0.08, 1.2, 0.24, 0.34, 0.34, front=0.1, temples=1.9, sides=2.1, nape=1.9, curl=0.09, wave=0.05, ragged=0.2, flare=0.16
    ),
    "long with fringe": Style(0.0, 1.0, 0.14, 0.25, 0.26, front=0.42, temples=2.3, sides=2.6, nape=2.4, ragged=0.16, opening=52),
    "ponytail": Style(0.1, 1.0, 0.07, 0.06, 0.08, flow=(0.0, 0.4, -0.92), extra="ponytail", under_hat=False),
    "bun": Style(0.15, 0.9, 0.07, 0.06, 0.08, flow=(0.0, 0.4, -0.92), extra="bun", under_hat=False),
    "topknot": Style(0.4, 0.5, 0.06, 0.03, 0.04, flow=(0.0, 1.0, 0.05), extra="topknot", under_hat=False),
    "twin buns": Style(0.0, 0.5, 0.08, 0.07, 0.08, front=0.3, flow=PART, extra="twin buns", under_hat=False),
    "pigtails": Style(0.0, 0.5, 0.08, 0.08, 0.08, front=0.3, flow=PART, extra="pigtails", under_hat=False),
    "plaits": Style(0.0, 0.6, 0.07, 0.07, 0.08, flow=PART, extra="plaits"),
}
