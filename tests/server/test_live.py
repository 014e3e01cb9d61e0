"""Animate One Frame on the real server: one prompt for each camera frame, as clients in real time send them."""

import io

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def camera(client, media):
    """camera(3) queues the graph for the driving video's frame 3; it gives the animated picture (H, W, 3) and the run."""
    graph = {
        "portrait": {"class_type": "LoadImage", "inputs": {"image": media["portrait.png"]}},
        "video": {"class_type": "LoadVideo", "inputs": {"file": media["driving.mp4"]}},
        "frames": {"class_type": "GetVideoComponents", "inputs": {"video": ["video", 0]}},
        "frame": {"class_type": "ImageFromBatch", "inputs": {"image": ["frames", 0], "batch_index": 0, "length": 1}},
        "weights": {"class_type": "RealPortraitLoadVid2Vid", "inputs": {"weights": "realportrait_mini_vid2vid.safetensors"}},
        "live": {
            "class_type": "RealPortraitLive",
            "inputs": {
                "vid2vid": ["weights", 0],
                "portrait": ["portrait", 0],
                "frame": ["frame", 0],
                "reset": False,
                "result": "portrait",
                "detect_every": 1,
            },
        },
        "shown": {"class_type": "PreviewImage", "inputs": {"images": ["live", 0]}},
    }

    def run(frame: int, **changes):
        graph["frame"]["inputs"]["batch_index"] = frame
        graph["live"]["inputs"].update({"reset": False, **changes})
        done = client.queue(graph)
        assert done.status == "success", done.error
        (shown,) = done.outputs["shown"]["images"]
        return np.asarray(Image.open(io.BytesIO(client.download(shown))).convert("RGB")).astype(float), done

    return run


def test_the_neutral_pose_is_kept_from_prompt_to_prompt(client, camera):
    at_rest, _ = camera(0, reset=True)
    moved, done = camera(9)
    assert at_rest.shape == moved.shape == (256, 256, 3) and np.abs(moved - at_rest).mean() > 2
    assert done.seconds("weights") == 0 < done.seconds("live")  # the weights came out of the cache
    again, done = camera(9)
    assert done.seconds("live") > 0 and np.abs(again - moved).mean() < 1  # the graph is the same, and it ran
    restarted, _ = camera(9, reset=True)
    assert np.abs(restarted - at_rest).mean() < 1
    client.forget()  # the host frees the models, and with them what the node kept
    fresh, _ = camera(0)
    assert np.abs(fresh - at_rest).mean() < 1
