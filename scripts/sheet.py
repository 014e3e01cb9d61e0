"""A sheet of what the bundled weights make of any portraits, as it is: above the driver's frames, below them a row a portrait.

    .venv/bin/python scripts/sheet.py PORTRAIT... --out sheet.jpg

It runs the core without ComfyUI, by the settings of workflows/animate_portrait.json.
"""

import argparse
import sys
from pathlib import Path

from picture import ROOT, frames_of, sheet, spread

sys.path.insert(0, str(ROOT))
WEIGHTS = ROOT / "realportrait_core" / "weights"


def main() -> None:
    import numpy as np
    import torch
    from PIL import Image

    from realportrait_core.diffusion.schedule import linear_schedule
    from realportrait_core.dit.checkpoint import load_dit
    from realportrait_core.eval.rows import decode
    from realportrait_core.face.detect import FaceDetector
    from realportrait_core.face.find import find_detector
    from realportrait_core.face.track import portrait_points, track
    from realportrait_core.generate import extract_keypoints, frame_portrait, motion_maps, render
    from realportrait_core.speed import default_guidance, default_sampling
    from realportrait_core.vae import load_vae
    from realportrait_core.vid2vid.checkpoint import load_vid2vid

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("portraits", type=Path, nargs="+")
    parser.add_argument("--driving", type=Path, default=ROOT / "assets" / "driving.mp4")
    parser.add_argument("--detector", type=Path, help="YuNet's file; by default where install.py puts it")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--columns", type=int, default=6, help="frames shown, spread evenly (%(default)s)")
    parser.add_argument("--side", type=int, default=200, help="px of a frame (%(default)s)")
    said = parser.parse_args()

    vid2vid = load_vid2vid(WEIGHTS / "realportrait" / "realportrait_mini_vid2vid.safetensors")
    dit = load_dit(WEIGHTS / "realportrait" / "realportrait_mini.safetensors")
    vae = load_vae(WEIGHTS / "vae" / "realportrait_mini_vae.safetensors")
    detector = FaceDetector(said.detector or find_detector())
    speed = default_sampling(dit.cfg)

    def animate(path: Path) -> list:
        portrait = torch.from_numpy(np.array(Image.open(path).convert("RGB")))[None].float() / 255  # (1, H, W, 3)
        keypoints = extract_keypoints(vid2vid, portrait, driver.float() / 255, portrait_points(portrait[0], detector), followed)
        motion = motion_maps(vid2vid, keypoints, size=dit.cfg.input_sq_size)
        framed = frame_portrait(portrait, motion)  # (1, S, S, 3)
        latents = render(
            dit,
            linear_schedule(),
            vae.encode(framed.movedim(-1, 1)),
            motion,
            speed.steps,
            solver=speed.solver,
            guidance=default_guidance(dit.cfg),
        )
        pictures = torch.cat([framed, decode(vae, latents).movedim(1, -1)])
        first, *made = (Image.fromarray((picture * 255).round().byte().numpy()) for picture in pictures)
        return [first, *spread(made, said.columns)]

    shown = frames_of(said.driving)
    driver = torch.stack([torch.from_numpy(np.array(frame.convert("RGB"))) for frame in shown])  # (L, H, W, 3)
    with torch.inference_mode():
        followed = track(driver, detector)
        rows = [animate(path) for path in said.portraits]
    sheet([[None, *spread(shown, said.columns)], *rows], said.side).save(said.out, quality=90)


if __name__ == "__main__":
    main()
