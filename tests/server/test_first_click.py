"""A host that has this pack and nothing else: no upload, no file in its input folder, no OpenCV."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BRING_YOUR_OWN = {"animate_portrait_paper"}  # weights of the paper's size do not come with the pack
AS_IT_IS = {"animate_portrait_simple", "animate_portrait_continued"}  # two clips by each way to join them


@pytest.fixture(scope="module")
def bare(host_sources, tmp_path_factory):
    """The server, and its client."""
    pytest.importorskip("aiohttp", reason="this Python has not the packages that ComfyUI needs: run python scripts/test.py")
    from comfy_client import ComfyClient
    from environment import Environment
    from headless import HeadlessComfyUI

    hidden = tmp_path_factory.mktemp("no_opencv")
    (hidden / "cv2.py").write_text("raise ModuleNotFoundError(\"No module named 'cv2'\", name='cv2')\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(hidden))
        done = subprocess.run([sys.executable, "-c", "import cv2"], capture_output=True, text=True)
        assert "No module named 'cv2'" in done.stderr
        with HeadlessComfyUI(Environment(Path(sys.executable), host_sources)) as server:
            yield server, ComfyClient(server.url)


def test_the_template_runs(bare):
    """Face detector included, and so do Inspect and Judge Animation."""
    import demo

    server, client = bare
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
    done = client.queue(made)
    assert done.status == "success", f"{made.get(done.error_node, {}).get('class_type')}: {done.error}"
    assert [entry["filename"] for entry in done.files() if entry["filename"].endswith(".mp4")]
    assert len(done.outputs["shown"]["images"]) == 2
    assert "result 3 of 3" in str(done.outputs["figures"])
    assert "cv2" not in server.log()


@pytest.mark.slow  # every workflow on the bundled weights
def test_every_workflow_runs_at_its_first_click(bare):
    """Those AS_IT_IS at their full length, the others on three frames."""
    import demo

    server, client = bare
    for file in sorted((ROOT / "workflows" / "api").glob("*.json")):
        if file.stem not in BRING_YOUR_OWN:
            made = json.loads(file.read_text(encoding="utf-8"))
            if file.stem not in AS_IT_IS:
                demo.limit_frames(made, 3)
            done = client.queue(made)
            assert done.status == "success", f"{file.stem}: {done.error}"
            wanted = ".mp4" if "SaveVideo" in {entry["class_type"] for entry in made.values()} else ".png"
            assert [entry["filename"] for entry in done.files() if entry["filename"].endswith(wanted)], file.stem
    assert not [path for path in (server.folder / "input").rglob("*") if path.is_file()]
