"""A ComfyUI whose Python has no OpenCV: the template runs as it is shipped, face detector included, and so does Inspect."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def no_opencv(tmp_path, monkeypatch):
    """Python processes started from here on find a cv2 that cannot be imported."""
    (tmp_path / "cv2.py").write_text("raise ModuleNotFoundError(\"No module named 'cv2'\", name='cv2')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = subprocess.run([sys.executable, "-c", "import cv2"], capture_output=True, text=True)
    assert "No module named 'cv2'" in done.stderr


def test_the_template_runs(host_sources, no_opencv):
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
    made["shown"] = {"class_type": "PreviewImage", "inputs": {"images": ["sheets", 0]}}
    with HeadlessComfyUI(Environment(Path(sys.executable), host_sources)) as server:
        client = ComfyClient(server.url)
        for kind, name in (("LoadImage", "portrait.png"), ("LoadVideo", "driving.mp4")):
            made[node[kind]]["inputs"]["image" if kind == "LoadImage" else "file"] = client.upload(ROOT / "assets" / name)
        done = client.queue(made)
        assert done.status == "success", f"{made.get(done.error_node, {}).get('class_type')}: {done.error}"
        assert [entry["filename"] for entry in done.files() if entry["filename"].endswith(".mp4")]
        assert len(done.outputs["shown"]["images"]) == 2
        assert "cv2" not in server.log()
