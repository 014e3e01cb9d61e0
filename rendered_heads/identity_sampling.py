"""Identities drawn from a seed.

Each part has a random generator of its own, so that a change to the sampling of one part leaves the others as they were.
"""

import numpy as np

from .colour import hsv, linear
from .hair_styles import STYLES
from .identity import BEARDS, GLASSES, HATS, NECKLINES, PATTERNS, SCENES, Clothes, Face, Hair, Identity, Light
from .looks import LOOKS
from .rig import Rig

SHAPE, SKIN, HAIR, CLOTHES, LIGHT, BACKGROUND, LOOK = range(7)  # the parts that have generators
SKIN_TONES = ("f6d7c3", "f0c6a8", "e8b793", "d8a27a", "bf8a61", "a06f49", "7d5236", "5c3a27", "432a1f")  # fair .. deep
HAIR_COLOURS = (
    "14100e",
    "241a15",
    "3b281c",
    "5a3b24",
    "8a5f38",
    "bd9055",
    "d9bd86",
    "74321a",
    "a24a22",
    "8f8f91",
    "d6d3cf",
    "3a4690",
    "a83a6c",
    "2f7a6a",
)
IRIS_COLOURS = ("3a2314", "5d3c1e", "6f5b33", "53714a", "5a82a0", "3f6397", "7d8790")
LIP_COLOURS = ("bb3f49", "a73560", "c45f5a", "922034", "b0606a")


def sample_identity(rig: Rig, seed: int) -> Identity:
    """The identity of a seed."""
    face = sample_face(rig, generator(seed, SHAPE), generator(seed, SKIN))
    clothes = sample_clothes(face, generator(seed, CLOTHES))
    rng = generator(seed, LOOK)
    look = "photo" if rng.random() < 0.78 else str(rng.choice([name for name in LOOKS if name != "photo"]))
    return Identity(
        seed=seed,
        face=face,
        hair=sample_hair(face, clothes, generator(seed, HAIR)),
        clothes=clothes,
        light=sample_light(generator(seed, LIGHT)),
        scene=str(generator(seed, BACKGROUND).choice(SCENES)),
        look=look,
    )


def generator(seed: int, part: int) -> np.random.Generator:
    return np.random.default_rng((seed, 0x1D, part))


def pick_colour(rng: np.random.Generator, codes: tuple[str, ...], weights: list[float]) -> np.ndarray:
    return linear(codes[rng.choice(len(codes), p=np.array(weights) / sum(weights))])


def sample_face(rig: Rig, rng: np.random.Generator, paint: np.random.Generator) -> Face:
    female = float(rng.beta(0.35, 0.35))
    age = float(
        rng.choice([rng.uniform(9, 16), rng.uniform(17, 35), rng.uniform(35, 60), rng.uniform(60, 85)], p=[0.12, 0.46, 0.26, 0.16])
    )
    ancestry = rng.dirichlet([0.45, 0.45, 0.45])
    macros = macro_weights(rig, female, age, ancestry, rng.normal(0, 0.5), rng.normal(0, 0.65))
    local = local_weights(rig, rng)

    dark = float(np.clip(0.95 * ancestry[0] + 0.32 * ancestry[1] + 0.12 * ancestry[2] + paint.normal(0, 0.1), 0, 1))
    tones = np.stack([linear(code) for code in SKIN_TONES])
    skin = np.stack([np.interp(dark * (len(tones) - 1), np.arange(len(tones)), tones[:, i]) for i in range(3)])
    brown = [0.4, 0.2, 0.1, 0.1, 0.1, 0.05, 0.05] if dark < 0.45 else [0.75, 0.2, 0.05, 0, 0, 0, 0]
    made_up = female > 0.5 and age > 15
    lips = skin * (0.85, 0.52, 0.52) if not made_up else linear(str(paint.choice(LIP_COLOURS))) * (1 - 0.45 * dark)
    drawn_shape = female < 0.5 and age > 18
    return Face(
        macros=macros,
        locals=local,
        age=age,
        female=female,
        skin=skin * (1 + paint.normal(0, 0.04, 3)),
        dark=dark,
        flush=float(paint.uniform(0.2, 1.0)),
        freckles=float((paint.random() < 0.2) * (dark < 0.4) * paint.uniform(0.4, 1.0)),
        mole=paint.uniform((-0.42, 6.4), (0.42, 7.7)) if paint.random() < 0.25 else np.array([9.0, 9.0]),
        iris=pick_colour(paint, IRIS_COLOURS, brown),
        lips=lips,
        lipstick=float(paint.uniform(0.3, 1.0) if made_up else paint.uniform(0.5, 0.9)),
        shadow=hsv(paint.random(), paint.uniform(0.2, 0.8), paint.uniform(0.2, 0.6)),
        shadow_strength=float(made_up * (paint.random() < 0.4) * paint.uniform(0.3, 0.8)),
        brow=(
            float(paint.uniform(0.028, 0.05) if female > 0.5 else paint.uniform(0.04, 0.075)),
            float(paint.normal(7.475, 0.015)),
            float(paint.uniform(0, 0.04)),
            float(paint.uniform(0.55, 0.95)),
        ),
        lashes=float(paint.uniform(0.5, 0.9) if female > 0.5 else paint.uniform(0.3, 0.5)),
        beard=str(paint.choice(BEARDS, p=[0.3, 0.12, 0.14, 0.1, 0.24, 0.1])) if drawn_shape and paint.random() < 0.5 else "",
        noise=float(paint.uniform(0, 2)),
    )


def macro_weights(rig: Rig, female: float, age: float, ancestry: np.ndarray, muscle: float, weight: float) -> np.ndarray:
    """MakeHuman's scheme: products of the shares of ancestry, sex, age, muscle and weight."""
    child, old = np.clip((24 - age) / 16, 0, 1), np.clip((age - 28) / 50, 0, 1)
    ages = {"child": child, "young": 1 - child - old, "old": old}
    sexes = {"female": female, "male": 1 - female}

    def split(value: float) -> dict[str, float]:
        value = float(np.clip(value, -1, 1))
        return {"max" if value > 0 else "min": abs(value), "average": 1 - abs(value)}

    shares = {}
    for age_name, age_share in ages.items():
        for sex, sex_share in sexes.items():
            for name, share in zip(("african", "asian", "caucasian"), ancestry):
                shares[f"{name}-{sex}-{age_name}"] = share * sex_share * age_share
            for muscles, muscle_share in split(muscle).items():
                for weights, weight_share in split(weight).items():
                    name = f"universal-{sex}-{age_name}-{muscles}muscle-{weights}weight"
                    shares[name] = sex_share * age_share * muscle_share * weight_share
    return np.array([shares.get(name, 0.0) for name in rig.macro_names], np.float32)


def local_weights(rig: Rig, rng: np.random.Generator) -> np.ndarray:
    """Opposed targets (in and out, up and down) share one bell-shaped value; the two sides of a face differ a little."""
    deviation = {
        "head": 0.22,
        "neck": 0.12,
        "eyebrows": 0.3,
        "ear": 0.4,
        "mouth": 0.34,
        "nose": 0.42,
        "chin": 0.42,
        "cheek": 0.42,
        "forehead": 0.4,
        "eye": 0.28,
        "asym": 0.14,
    }
    families: dict[str, list[str]] = {}
    for name in rig.local_names:
        plain = name[2:] if name.startswith(("l-", "r-")) else name
        if not name.startswith(("measure", "neck-trans", "head-trans", "head-angle", "head-age")):
            families.setdefault(plain.rsplit("-", 1)[0], []).append(name)
    weights = {}
    for stem, names in families.items():
        ends = sorted({name.rsplit("-", 1)[1] for name in names})
        chosen, size = str(rng.choice(ends)), abs(rng.normal())
        size *= deviation.get(stem.split("-")[0], 0.3) * (rng.random() < 0.8)
        for name in names:
            if name.rsplit("-", 1)[1] == chosen:
                weights[name] = min(size * rng.uniform(0.85, 1.15), 0.9)
    return np.array([weights.get(name, 0.0) for name in rig.local_names], np.float32)


def sample_hair(face: Face, clothes: Clothes, rng: np.random.Generator) -> Hair:
    names = [name for name, style in STYLES.items() if not (clothes.hat and style.under_hat is False)]
    weights = np.array([STYLES[name].women if face.female > 0.5 else STYLES[name].men for name in names])
    likely = np.array([4, 4, 3, 2, 2, 2, 1, 0.7, 0.7, 0.2, 0.1, 0.15, 0.15, 0.15])
    if face.dark > 0.45:
        likely *= [3, 2, 1, 0.4, 0.3, 0.2, 0.1, 0.3, 0.1, 1, 1, 1, 1, 1]
    if face.age > 58:
        likely[9:11] += 12
    return Hair(
        style=str(rng.choice(names, p=weights / weights.sum())),
        colour=pick_colour(rng, HAIR_COLOURS, list(likely)) * rng.uniform(0.8, 1.25),
        streaks=float(rng.uniform(0.15, 0.4)),
        hairline=float(rng.normal(0, 2.5) + max(face.age - 40, 0) * 0.12 * (face.female < 0.5)),
        part=float(rng.choice([-1, 1]) * rng.uniform(0.15, 0.45)),
        volume=float(rng.uniform(0.75, 1.3)),
        length=float(rng.uniform(0.88, 1.15)),
        noise=float(rng.uniform(0, 2)),
    )


def sample_clothes(face: Face, rng: np.random.Generator) -> Clothes:
    first = hsv(rng.random(), rng.beta(1.3, 2), rng.beta(2.2, 1.6))
    second = (
        np.clip(first * rng.uniform(0.2, 0.7) + 0.02, 0, 1)
        if rng.random() < 0.5
        else hsv(rng.random(), rng.beta(1.3, 2), rng.uniform(0.3, 1))
    )
    colours = np.stack([first, second, hsv(rng.random(), rng.beta(1.2, 3), rng.uniform(0.5, 1))])
    hat = hsv(rng.random(), rng.beta(1.3, 1.6), rng.uniform(0.15, 0.95))
    metal = linear("8c8478") if rng.random() < 0.3 else hsv(rng.random(), rng.uniform(0, 0.6), rng.uniform(0.05, 0.5))
    wears_hat = rng.random() < 0.16
    return Clothes(
        neckline=str(rng.choice(NECKLINES)),
        pattern=str(rng.choice(PATTERNS)) if rng.random() < 0.75 else "plain",
        colours=colours,
        scale=float(rng.uniform(0.75, 1.4)),
        loose=float(rng.uniform(0.05, 0.11)),
        hat=str(rng.choice(HATS)) if wears_hat else "",
        hat_colours=np.stack([hat, np.clip(hat * rng.uniform(0.2, 1.8), 0, 1)]),
        glasses=str(rng.choice(GLASSES)) if rng.random() < 0.24 else "",
        glasses_colour=metal,
        glasses_size=float(rng.uniform(0.9, 1.15)),
        earrings=bool(face.female > 0.5 and rng.random() < 0.25),
    )


def sample_light(rng: np.random.Generator) -> Light:
    def direction(side: float, height: float) -> np.ndarray:
        return np.array([np.sin(side) * np.cos(height), np.sin(height), np.cos(side) * np.cos(height)])

    kind = str(rng.choice(["soft", "hard", "side", "coloured", "backlit"], p=[0.36, 0.22, 0.16, 0.12, 0.14]))
    warm = rng.normal(0, 0.07)
    tint = np.array([1 + warm, 1.0, 1 - warm])
    key = tint * rng.uniform(0.8, 1.25)
    sky, ground = (2 - tint) * rng.uniform(0.3, 0.5), np.array([0.9, 0.8, 0.7]) * rng.uniform(0.1, 0.28)
    side, height, softness = rng.uniform(-1.1, 1.1), rng.uniform(0.15, 1.0), rng.uniform(0.2, 0.7)
    fill, rim = np.full(3, rng.uniform(0.0, 0.25)), np.full(3, rng.uniform(0, 0.5) * (rng.random() < 0.5))
    if kind == "soft":
        softness, sky, key = rng.uniform(0.7, 1.0), sky * 1.5, key * 0.8
    elif kind == "hard":
        softness, sky, key = rng.uniform(0.0, 0.15), sky * 0.75, key * 1.15
    elif kind == "side":
        side = float(rng.choice([-1, 1])) * rng.uniform(1.1, 1.6)
    elif kind == "coloured":
        hue = rng.random()
        key, fill = (
            key * (0.6 + 0.4 * hsv(hue, 0.5, 1.0)) * 1.15,
            hsv(hue + rng.uniform(0.3, 0.7), 0.7, 1.0) * rng.uniform(0.2, 0.5),
        )
    elif kind == "backlit":
        rim, key = np.array([1.0, 0.93, 0.85]) * rng.uniform(0.9, 1.8), key * 0.75
    rim_side = float(rng.choice([-1, 1]))
    return Light(
        key_direction=direction(side, height),
        key=key,
        softness=float(softness),
        fill_direction=direction(-np.sign(side) * rng.uniform(0.7, 1.4), rng.uniform(-0.2, 0.5)),
        fill=fill,
        rim_direction=direction(rim_side * rng.uniform(2.0, 2.7), rng.uniform(0.1, 0.8)),
        rim=rim,
        sky=sky,
        ground=ground,
        exposure=float(rng.uniform(0.75, 1.0)),
    )
