"""A ComfyUI whose Python has no OpenCV: the template runs, face detector included, and so do Inspect and Judge Animation."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_the_template_runs(host_sources, no_opencv):
    """As test_first_click.py, by which every workflow runs there at its full length."""
    pytest.importorskip("aiohttp", reason="this Python has not the packages that ComfyUI needs: run python scripts/test.py")
    import demo
    from comfy_client import ComfyClient
    from environment import Environment
    from headless import HeadlessComfyUI

    made = json.loads((ROOT / "workflows" / "api" / "animate_portrait.json").read_text(encoding="utf-8"))
    demo.limit_frames(made, 3)
    node = {entry["class_type"]: number for number, entry in made.items()}
    keypoints, motion = node["RealPortraitExtractKeypoints"], node["RealPortraitMotionMaps"]
    pictures = {name: made[keypoints]["inputs"][name] for name in ("portrait", "driver")}
    made["sheets"] = {
        "class_type": "RealPortraitInspect",
        "inputs": {**pictures, "keypoints": [keypoints, 0], "motion": [motion, 0], "most": 2, "clip_frames": 16},
    }
    judged = {"portrait": pictures["portrait"], "driving_video": pictures["driver"], "result": pictures["driver"]}
    made["judge"] = {"class_type": "RealPortraitJudge", "inputs": {**judged, "vid2vid": made[keypoints]["inputs"]["vid2vid"]}}
    made["figures"] = {"class_type": "PreviewAny", "inputs": {"source": ["judge", 0]}}
    made["shown"] = {"class_type": "PreviewImage", "inputs": {"images": ["sheets", 0]}}
    with HeadlessComfyUI(Environment(Path(sys.executable), host_sources)) as server:
        done = ComfyClient(server.url).queue(made)
        assert done.status == "success", f"{made.get(done.error_node, {}).get('class_type')}: {done.error}"
        assert [entry["filename"] for entry in done.files() if entry["filename"].endswith(".mp4")]
        assert len(done.outputs["shown"]["images"]) == 2
        assert "result 3 of 3" in str(done.outputs["figures"])
        assert "cv2" not in server.log()
