"""docs/serving.md as written: its client against the real server, and what the two API servers hand to ComfyUI."""

import re
import subprocess
import sys
import uuid
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from videos import write

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
PORTRAIT, DRIVING = ROOT / "assets" / "portrait.png", ROOT / "assets" / "driving.mp4"


@pytest.fixture
def short(tmp_path) -> Path:
    """The first three frames of the driving video, with sound."""
    av = pytest.importorskip("av")
    with av.open(str(DRIVING)) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    return write(tmp_path / "short.mp4", np.stack(frames[:3]), seconds=1)


def shown(content: bytes, path: Path) -> tuple[int, Fraction, bool]:
    """Frames, frames a second, and whether there is sound."""
    import av

    path.write_bytes(content)
    with av.open(str(path)) as video:
        sound, rate = bool(video.streams.audio), video.streams.video[0].average_rate
        return sum(1 for _ in video.decode(video=0)), rate, sound


def test_the_pages_client_makes_the_video(server, short, tmp_path):
    (program,) = re.findall(r"```python\n(import .*?)```", PAGE, re.DOTALL)
    assert len([line for line in program.splitlines() if line.strip()]) <= 32
    client, out = tmp_path / "client.py", tmp_path / "result.mp4"
    client.write_text(program.replace("http://127.0.0.1:8188", server.url), encoding="utf-8")
    command = [sys.executable, client, PORTRAIT, short, out]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert shown(out.read_bytes(), tmp_path / "seen.mp4") == (3, Fraction(25, 2), True)

    nothing = tmp_path / "nothing.mp4"
    text = ROOT / "assets" / "README.md"
    refused = subprocess.run([*command[:3], text, nothing], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert refused.returncode and refused.stderr and not nothing.exists()


def test_absolute_paths_and_a_prefix_without_folder(client, server, workflow, short, tmp_path):
    """comfyui-api puts inputs into the input folder, gives their absolute paths, and PREPEND_FILENAMES=false the request's id."""
    graph, paths = workflow(steps=1), []
    for source in (PORTRAIT, short):
        paths.append(server.folder / "input" / f"{uuid.uuid4().hex}{source.suffix}")
        paths[-1].write_bytes(source.read_bytes())
    nodes = {node["class_type"]: node for node in graph.values()}
    nodes["RealPortraitLoadPortrait"].update(class_type="LoadImage", inputs={"image": str(paths[0])})
    graph["video"] = {"class_type": "LoadVideo", "inputs": {"file": str(paths[1])}}
    nodes["RealPortraitLoadDrivingVideo"]["inputs"].update(file="(the video input)", frames=0, video=["video", 0])
    nodes["SaveVideo"]["inputs"]["filename_prefix"] = identity = uuid.uuid4().hex
    done = client.queue(graph)
    assert done.status == "success", done.error
    (video,) = done.files()
    assert video["subfolder"] == "" and video["filename"].startswith(identity)
    assert (server.folder / "output" / video["filename"]).is_file()
    assert shown(client.download(video), tmp_path / "seen.mp4") == (3, Fraction(25, 2), True)


def test_a_video_uploaded_as_a_picture_and_returned_among_the_images(client, server, workflow, short, tmp_path):
    """worker-comfyui uploads all of its `images` as image/png, and returns what is in the outputs' "images" and not temporary."""
    import requests

    for name, source in (("portrait.png", PORTRAIT), ("driving.mp4", short)):
        form = {"image": (name, source.read_bytes(), "image/png"), "overwrite": (None, "true")}
        assert requests.post(f"{server.url}/upload/image", files=form, timeout=30).json()["name"] == name
    graph = workflow(steps=1)
    inputs = {node["class_type"]: node["inputs"] for node in graph.values()}
    inputs["RealPortraitLoadPortrait"]["image"], inputs["RealPortraitLoadDrivingVideo"]["file"] = "portrait.png", "driving.mp4"
    done = client.queue(graph)
    assert done.status == "success", done.error
    returned = [file for output in done.outputs.values() for file in output.get("images", []) if file["type"] != "temp"]
    assert [file["filename"][-4:] for file in returned] == [".mp4"]
    assert shown(client.download(returned[0]), tmp_path / "seen.mp4") == (3, Fraction(25, 2), True)
    restore = {"image": ("driving.mp4", DRIVING.read_bytes(), "video/mp4"), "overwrite": (None, "true")}
    assert requests.post(f"{server.url}/upload/image", files=restore, timeout=30).ok  # other tests use this name
