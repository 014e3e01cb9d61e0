"""Two faces of one picture, each by its own driver, on the real server."""

import json
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]


def test_both_faces_move(client, media, tmp_path):
    """The example is 512x256 px: the portrait, and beside it the driving video's first frame."""
    import av

    made = json.loads((ROOT / "workflows" / "api" / "animate_two_faces.json").read_text(encoding="utf-8"))
    made["3"]["inputs"].update(start=4.0, start_in="frames", frames=3)
    made["5"]["inputs"].update(file=media["with_sound.mp4"])  # of 5 frames
    for entry in made.values():
        if entry["class_type"] == "RealPortraitSampler":
            entry["inputs"]["steps"] = 2
    done = client.queue(made)
    assert done.status == "success", f"{made.get(done.error_node, {}).get('class_type')}: {done.error}"
    path = tmp_path / "two.mp4"
    path.write_bytes(client.download(next(entry for entry in done.files() if entry["filename"].endswith(".mp4"))))
    with av.open(str(path)) as video:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)])
    assert frames.shape == (5, 256, 512, 3)  # the longer driver's; the left face holds its last frame
    change = np.abs(frames[1:].astype(float) - frames[0]).mean((0, 3))  # (256, 512)
    assert change[60:200, 60:200].mean() > 1 and change[60:200, 316:456].mean() > 1
