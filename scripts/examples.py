"""Two examples of the loaders' menus, of assets/portrait.png and assets/driving.mp4: a picture of two faces, and a motion.

    .venv/bin/python scripts/examples.py

The motion holds the keypoints of the bundled weights: to be made again when these change.
"""

import sys

from environment import ROOT
from picture import frames_of

sys.path.insert(0, str(ROOT))
ASSETS = ROOT / "assets"
WEIGHTS = ROOT / "realportrait_core" / "weights"
FPS = 12.5  # of driving.mp4
QUALITY = 92  # of the JPEG


def two_faces():
    """The portrait, and beside it the first frame of the driving video."""
    from PIL import Image

    left, right = Image.open(ASSETS / "portrait.png").convert("RGB"), frames_of(ASSETS / "driving.mp4")[0].convert("RGB")
    picture = Image.new("RGB", (2 * left.width, left.height))
    picture.paste(left, (0, 0))
    picture.paste(right.resize(left.size), (left.width, 0))
    return picture


def motion():
    """What Extract Face Motion and Save RealPortrait Motion make of the driving video."""
    import numpy as np
    import torch

    from realportrait_core.animation.driving_motion import driving_motion
    from realportrait_core.animation.extraction import extract_keypoints
    from realportrait_core.face.detect import FaceDetector
    from realportrait_core.face.find import find_detector
    from realportrait_core.face.track import portrait_points, track
    from realportrait_core.vid2vid.checkpoint import load_vid2vid

    vid2vid = load_vid2vid(WEIGHTS / "realportrait" / "realportrait_mini_vid2vid.safetensors")
    detector = FaceDetector(find_detector())
    frames = np.stack([np.array(frame.convert("RGB")) for frame in frames_of(ASSETS / "driving.mp4")])
    driving = torch.from_numpy(frames)  # (L, H, W, 3) uint8
    with torch.inference_mode():
        pictures = driving.float() / 255
        points = portrait_points(pictures[0], detector)  # any portrait will do: nothing of it is saved
        return driving_motion(extract_keypoints(vid2vid, pictures[:1], pictures, points, track(driving, detector)), FPS)


def main() -> None:
    from realportrait_core.motion_file import save_motion

    two_faces().save(ASSETS / "two_faces.jpg", quality=QUALITY)
    save_motion(ASSETS / "motion.safetensors", motion())
    for name in ("two_faces.jpg", "motion.safetensors"):
        print(f"{ASSETS / name}: {(ASSETS / name).stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
