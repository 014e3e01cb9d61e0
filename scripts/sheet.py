"""A sheet of what the bundled weights make of any portraits, as it is: above the driving frames, below them a row a portrait.

    .venv/bin/python scripts/sheet.py PORTRAIT... --out sheet.jpg

It runs the core without ComfyUI, by the settings of workflows/animate_portrait.json.
"""

import argparse
import sys
from pathlib import Path

from picture import ROOT, evenly_spaced, frames_of, sheet

sys.path.insert(0, str(ROOT))
WEIGHTS = ROOT / "realportrait_core" / "weights"


def main() -> None:
    import numpy as np
    import torch
    from PIL import Image

    from realportrait_core.diffusion.schedule import linear_schedule
    from realportrait_core.dit.checkpoint import load_dit
    from realportrait_core.face.detect import FaceDetector
    from realportrait_core.face.find import find_detector
    from realportrait_core.face.track import portrait_points, track
    from realportrait_core.generate import generate
    from realportrait_core.vae import load_vae
    from realportrait_core.vid2vid.checkpoint import load_vid2vid

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("portraits", type=Path, nargs="+")
    parser.add_argument("--driving", type=Path, default=ROOT / "assets" / "driving.mp4")
    parser.add_argument("--detector", type=Path, help="YuNet's file; by default where install.py puts it")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--columns", type=int, default=6, help="frames shown, evenly_spaced evenly (%(default)s)")
    parser.add_argument("--side", type=int, default=200, help="px of a frame (%(default)s)")
    options = parser.parse_args()

    vid2vid = load_vid2vid(WEIGHTS / "realportrait" / "realportrait_mini_vid2vid.safetensors")
    dit = load_dit(WEIGHTS / "realportrait" / "realportrait_mini.safetensors")
    vae = load_vae(WEIGHTS / "vae" / "realportrait_mini_vae.safetensors")
    detector = FaceDetector(options.detector or find_detector())

    def animate(path: Path) -> list:
        portrait = torch.from_numpy(np.array(Image.open(path).convert("RGB")))[None].float() / 255  # (1, H, W, 3)
        points = portrait_points(portrait[0], detector)
        frames, framed = generate(vid2vid, dit, vae, linear_schedule(), portrait, driver.float() / 255, points, followed)
        pictures = torch.cat([framed, frames])
        first, *made = (Image.fromarray((picture * 255).round().byte().numpy()) for picture in pictures)
        return [first, *evenly_spaced(made, options.columns)]

    shown = frames_of(options.driving)
    driver = torch.stack([torch.from_numpy(np.array(frame.convert("RGB"))) for frame in shown])  # (L, H, W, 3)
    with torch.inference_mode():
        followed = track(driver, detector)
        rows = [animate(path) for path in options.portraits]
    sheet([[None, *evenly_spaced(shown, options.columns)], *rows], options.side).save(options.out, quality=90)


if __name__ == "__main__":
    main()
