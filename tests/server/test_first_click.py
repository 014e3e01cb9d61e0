"""The workflows posted as they are to a host that has this pack and nothing else: no upload, no file in its
input folder, no OpenCV.
"""

import json
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # a server of its own, and every workflow at its full length

ROOT = Path(__file__).resolve().parents[2]
BRING_YOUR_OWN = {"animate_portrait_paper"}  # weights of the paper's size do not come with the pack


def test_every_workflow_runs_at_its_first_click(host_sources, no_opencv):
    pytest.importorskip("aiohttp", reason="this Python has not the packages that ComfyUI needs: run python scripts/test.py")
    from comfy_client import ComfyClient
    from environment import Environment
    from headless import HeadlessComfyUI

    with HeadlessComfyUI(Environment(Path(sys.executable), host_sources)) as server:
        client = ComfyClient(server.url)
        for file in sorted((ROOT / "workflows" / "api").glob("*.json")):
            if file.stem not in BRING_YOUR_OWN:
                made = json.loads(file.read_text(encoding="utf-8"))
                done = client.queue(made)
                assert done.status == "success", f"{file.stem}: {done.error}"
                wanted = ".mp4" if "SaveVideo" in {entry["class_type"] for entry in made.values()} else ".png"
                assert [entry["filename"] for entry in done.files() if entry["filename"].endswith(wanted)], file.stem
        assert not [path for path in (server.folder / "input").rglob("*") if path.is_file()]
