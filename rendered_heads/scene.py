"""Backgrounds: the picture behind the head, in linear light, one per identity."""

import cv2
import numpy as np

from .colour import hsv
from .identity import Identity
from .identity_sampling import BACKGROUND, generator


def background(identity: Identity, size: int) -> np.ndarray:
    """(size, size, 3) float32 linear light."""
    rng = generator(identity.seed, BACKGROUND)
    rng.random()  # the draw that chose the scene
    draw = {
        "gradient": gradient,
        "bokeh": bokeh,
        "room": room,
        "window": window,
        "outdoors": outdoors,
        "skyline": skyline,
        "wall": wall,
        "texture": texture,
        "studio": studio,
        "stripes": stripes,
    }[identity.scene]
    picture = draw(rng, size)
    return np.clip(picture, 0.002, 1.5).astype(np.float32)


def axes(size: int) -> tuple[np.ndarray, np.ndarray]:
    """x, y (size, size) in 0..1."""
    line = (np.arange(size) + 0.5) / size
    return np.broadcast_to(line, (size, size)), np.broadcast_to(line[:, None], (size, size))


def blur(picture: np.ndarray, amount: float) -> np.ndarray:
    """amount: standard deviation as a fraction of the side."""
    return cv2.GaussianBlur(picture, (0, 0), max(amount * len(picture), 0.3), borderType=cv2.BORDER_REPLICATE)


def palette(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count, 3): related hues of different lightness."""
    hue, hue_range = rng.random(), rng.uniform(0.02, 0.25)
    return np.stack([hsv(hue + rng.normal(0, hue_range), rng.beta(1.3, 2.5), rng.uniform(0.25, 0.95)) for _ in range(count)])


def linear_gradient(rng: np.random.Generator, size: int, colours: np.ndarray) -> np.ndarray:
    x, y = axes(size)
    angle = rng.uniform(0, 2 * np.pi)
    t = np.clip((x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle) + 0.5, 0, 1)[..., None]
    return (colours[0] * (1 - t) + colours[1] * t).astype(np.float32)


def field(rng: np.random.Generator, size: int, octaves: tuple[int, ...]) -> np.ndarray:
    """Cloudy (size, size), about N(0, 1)."""
    total = np.zeros((size, size), np.float32)
    for cells in octaves:
        coarse = rng.normal(0, 1 / np.sqrt(cells), (cells, cells)).astype(np.float32)
        total += cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    return total / (total.std() + 1e-6)


def box(picture: np.ndarray, left: float, top: float, right: float, bottom: float, colour: np.ndarray) -> None:
    """A filled rectangle; lengths as fractions of the side."""
    size = len(picture)
    a, b = (round(left * size), round(top * size)), (round(right * size), round(bottom * size))
    cv2.rectangle(picture, a, b, tuple(float(v) for v in colour), -1)


def gradient(rng: np.random.Generator, size: int) -> np.ndarray:
    return linear_gradient(rng, size, palette(rng, 2))


def studio(rng: np.random.Generator, size: int) -> np.ndarray:
    x, y = axes(size)
    colour = palette(rng, 1)[0] * rng.uniform(0.3, 1.0)
    away = np.hypot(x - rng.uniform(0.3, 0.7), y - rng.uniform(0.3, 0.7))
    return colour * (0.35 + 1.1 * np.exp(-((away / rng.uniform(0.35, 0.7)) ** 2)))[..., None]


def bokeh(rng: np.random.Generator, size: int) -> np.ndarray:
    colours = palette(rng, 6)
    picture = linear_gradient(rng, size, colours * 0.35)
    for _ in range(int(rng.integers(18, 45))):
        layer = np.zeros_like(picture)
        middle = tuple(int(v) for v in rng.random(2) * size)
        colour = tuple(float(v) for v in colours[rng.integers(6)] * rng.uniform(0.15, 0.7))
        cv2.circle(layer, middle, max(2, round(rng.uniform(0.02, 0.09) * size)), colour, -1, cv2.LINE_AA)
        picture += layer
    return blur(picture, rng.uniform(0.004, 0.012))


def room(rng: np.random.Generator, size: int) -> np.ndarray:
    colours = palette(rng, 7)
    picture = linear_gradient(rng, size, colours[:1].repeat(2, 0) * np.array([[1.0], [0.7]]))
    floor = rng.uniform(0.7, 0.95)
    box(picture, 0, floor, 1, 1, colours[1] * 0.5)
    for _ in range(int(rng.integers(1, 4))):  # pictures on the wall
        left, top = rng.uniform(-0.1, 0.9), rng.uniform(0.0, 0.4)
        wide, high = rng.uniform(0.12, 0.3), rng.uniform(0.12, 0.3)
        box(picture, left, top, left + wide, top + high, colours[2] * 0.2)
        box(picture, left + 0.015, top + 0.015, left + wide - 0.015, top + high - 0.015, colours[rng.integers(2, 7)])
    if rng.random() < 0.6:  # a shelf with books
        left, top = rng.choice([-0.05, 0.68]), rng.uniform(0.1, 0.5)
        for shelf in range(3):
            y, x = top + 0.2 * shelf, left
            while x < left + 0.36:
                wide = rng.uniform(0.012, 0.03)
                box(
                    picture,
                    x,
                    y - rng.uniform(0.09, 0.15),
                    x + wide,
                    y,
                    hsv(rng.random(), rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.9)),
                )
                x += wide
            box(picture, left, y, left + 0.36, y + 0.015, colours[3] * 0.3)
    return blur(picture, rng.uniform(0.003, 0.02))


def window(rng: np.random.Generator, size: int) -> np.ndarray:
    colours = palette(rng, 3)
    picture = linear_gradient(rng, size, colours[:2] * 0.4)
    left, wide = rng.uniform(-0.1, 0.6), rng.uniform(0.35, 0.6)
    top, bottom = rng.uniform(-0.1, 0.15), rng.uniform(0.6, 0.95)
    sky = hsv(rng.uniform(0.5, 0.65), rng.uniform(0.05, 0.4), 1.0) * rng.uniform(0.9, 1.3)
    panes_x, panes_y = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    box(picture, left, top, left + wide, bottom, colours[2] * 0.8)
    for i in range(panes_x):
        for j in range(panes_y):
            a, b = left + wide * i / panes_x, top + (bottom - top) * j / panes_y
            box(
                picture,
                a + 0.015,
                b + 0.015,
                a + wide / panes_x - 0.015,
                b + (bottom - top) / panes_y - 0.015,
                sky * (1 - 0.15 * j),
            )
    return blur(picture, rng.uniform(0.004, 0.03))


def outdoors(rng: np.random.Generator, size: int) -> np.ndarray:
    x, y = axes(size)
    sky, haze = (
        hsv(rng.uniform(0.53, 0.62), rng.uniform(0.1, 0.6), rng.uniform(0.7, 1.0)),
        hsv(rng.uniform(0.05, 0.15), 0.2, 0.95),
    )
    t = np.clip(y / 0.6, 0, 1)[..., None]
    picture = sky * (1 - t) + haze * t
    clouds = np.clip(field(rng, size, (3, 6, 12, 24)) - 0.5, 0, 1)[..., None] * 0.6
    picture = picture * (1 - clouds) + 0.95 * clouds
    for layer in range(3):
        line = 0.45 + 0.15 * layer + 0.08 * rng.normal() + 0.08 * np.sin(x * rng.uniform(3, 9) + rng.uniform(0, 6))
        line = line + 0.02 * field(rng, size, (9, 18))[:1] * (layer > 0)
        green = hsv(rng.uniform(0.2, 0.38), rng.uniform(0.3, 0.7), 0.75 - 0.18 * layer)
        leaves = 1 + 0.35 * field(rng, size, (16, 40))[..., None]
        covered = np.clip((y - line) * 60, 0, 1)[..., None]
        picture = picture * (1 - covered) + green * np.clip(leaves, 0.3, 2) * covered
    return blur(picture.astype(np.float32), rng.uniform(0.003, 0.02))


def skyline(rng: np.random.Generator, size: int) -> np.ndarray:
    night = rng.random() < 0.5
    top, low = (
        hsv(rng.uniform(0.55, 0.75), rng.uniform(0.3, 0.7), 0.25 if night else 0.8),
        hsv(rng.uniform(0.0, 0.12), 0.5, 0.6 if night else 0.95),
    )
    picture = (top + (low - top) * axes(size)[1][..., None]).astype(np.float32)
    left = -0.05
    while left < 1:
        wide, high = rng.uniform(0.06, 0.2), rng.uniform(0.2, 0.75)
        colour = hsv(rng.uniform(0.5, 0.7), 0.2, rng.uniform(0.15, 0.3) if night else rng.uniform(0.35, 0.7))
        box(picture, left, high, left + wide, 1, colour)
        lit = hsv(0.12, 0.5, 1.0) if night else colour * 0.5
        for x in np.arange(left + 0.012, left + wide - 0.012, 0.022):
            for y in np.arange(high + 0.02, 1, 0.035):
                if rng.random() < 0.45:
                    box(picture, x, y, x + 0.009, y + 0.014, lit)
        left += wide
    return blur(picture, rng.uniform(0.003, 0.015))


def wall(rng: np.random.Generator, size: int) -> np.ndarray:
    brick, mortar = palette(rng, 2)
    rows = int(rng.integers(8, 20))
    x, y = axes(size)
    row = np.floor(y * rows)
    along = (x * rows / 2.2 + 0.5 * (row % 2)) % 1
    joint = np.minimum(np.minimum(along, 1 - along) * 2.2, np.minimum(y * rows % 1, 1 - y * rows % 1))
    cells = rng.uniform(0.7, 1.25, (rows + 1, 64))[row.astype(int), np.floor(x * rows / 2.2 + 0.5 * (row % 2)).astype(int)]
    solid = np.clip((joint - 0.05) * 20, 0, 1)[..., None]
    picture = brick * cells[..., None] * solid + mortar * 0.8 * (1 - solid)
    picture = picture * (1 + 0.10 * field(rng, size, (8, 32, 64))[..., None])
    return blur(picture.astype(np.float32), rng.uniform(0.002, 0.012))


def texture(rng: np.random.Generator, size: int) -> np.ndarray:
    a, b, c = palette(rng, 3)
    first, second = field(rng, size, (3, 6, 12)), field(rng, size, (5, 15, 45))
    t, s = 1 / (1 + np.exp(-2 * first))[..., None], 0.3 / (1 + np.exp(-3 * second))[..., None]
    return (a * (1 - t) + b * t) * (1 - s) + c * s


def stripes(rng: np.random.Generator, size: int) -> np.ndarray:
    colours = palette(rng, 2)
    x, y = axes(size)
    angle = rng.choice([0.0, np.pi / 2, rng.uniform(0, np.pi)])
    wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * rng.uniform(15, 60))
    t = (1 / (1 + np.exp(-8 * wave)))[..., None]
    curtain = (0.8 + 0.3 * np.sin(x * rng.uniform(20, 50)))[..., None]
    return blur(((colours[0] * (1 - t) + colours[1] * t) * curtain).astype(np.float32), rng.uniform(0.001, 0.01))
