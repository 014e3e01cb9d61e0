"""A portrait of 8192x4096 px from detection to paste-back, in a process of its own: prints peaks of memory and results as JSON."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import conftest  # noqa: F401, finds the packages
import torch
import torch.nn.functional as F
import toy
import yunet
from process_memory import memory, start_peak

from realportrait_core.animation.extraction import extract_keypoints
from realportrait_core.animation.mapping import frame_portrait, motion_maps
from realportrait_core.animation.retargeting import drive_keypoints
from realportrait_core.face.detect import FaceDetector
from realportrait_core.face.track import portrait_points, track
from realportrait_core.paste import paste
from realportrait_core.vid2vid import FaceVid2Vid

HEIGHT, WIDTH = 4096, 8192


def head() -> torch.Tensor:
    """(1, 256, 256, 3) in [0, 1]"""
    import av

    with av.open(str(yunet.ROOT / "tests" / "data" / "800000.mp4")) as video:
        return torch.from_numpy(next(video.decode(video=0)).to_ndarray(format="rgb24"))[None] / 255.0


@torch.inference_mode()
def main() -> None:
    small = head()
    torch.manual_seed(0)
    networks, detector = FaceVid2Vid(toy.TOY.vid2vid).eval(), FaceDetector(yunet.onnx())
    picture = torch.full((1, HEIGHT, WIDTH, 3), 0.2)
    for top in range(0, HEIGHT, 256):  # the head enlarged 16 times, row by row, so that making it holds no more than the picture
        rows = small.movedim(-1, 1)[:, :, top // 16 : top // 16 + 16]
        picture[:, top : top + 256, :HEIGHT] = F.interpolate(rows, (256, HEIGHT), mode="bilinear").movedim(1, -1)
    start_peak()
    before = memory("VmRSS")
    points = portrait_points(picture[0], detector)
    keypoints = extract_keypoints(networks, picture, small, points, track(small, detector))
    motion = motion_maps(networks, drive_keypoints(keypoints, "paper-absolute"), 64)
    square = frame_portrait(picture, motion)
    used = (memory("VmHWM") - before) / 2**20  # MB
    pasted, weight = paste(picture, square, motion.portrait_to_frame, 64)
    outside = weight[0] == 0
    print(
        json.dumps(
            {
                "picture": picture.numel() * 4 / 2**20,
                "used": used,
                "eyes": points[:2].tolist(),
                "shape": list(pasted.shape),
                "outside": int(outside.sum()),
                "kept": bool(torch.equal(pasted[0][outside], picture[0][outside])),
                "finite": bool(torch.isfinite(motion.maps.f).all()),
            }
        )
    )


if __name__ == "__main__":
    main()
