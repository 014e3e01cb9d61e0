"""What a user of the nodes gets: the registry's archive, unpacked into a fresh ComfyUI, runs the quick start."""

import io
import json
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # a server of its own


@pytest.fixture
def installed(tmp_path) -> Path:
    """The pack's folder as the registry's archive unpacks it, without git, tests, training or anything else of the repository."""
    import archive

    packed, folder = tmp_path / "realportrait.zip", tmp_path / "realportrait"
    archive.write_archive(packed)
    print(archive.size_line(packed))
    with zipfile.ZipFile(packed) as opened:
        opened.extractall(folder)
    return folder


def test_the_quick_start_runs_from_the_archive(host_sources, installed):
    pytest.importorskip("aiohttp", reason="this Python has not the packages that ComfyUI needs: run python scripts/test.py")
    av = pytest.importorskip("av")
    import demo
    from comfy_client import ComfyClient
    from environment import Environment
    from headless import HeadlessComfyUI

    with HeadlessComfyUI(Environment(Path(sys.executable), host_sources), pack=installed) as server:
        client = ComfyClient(server.url)
        wanted = json.loads((installed / "workflows" / "api" / "animate_portrait.json").read_text(encoding="utf-8"))
        demo.limit_frames(wanted, 3)
        done = client.queue(wanted)
        assert done.status == "success", done.error
        (video,) = [entry for entry in done.files() if entry["filename"].endswith(".mp4")]
        with av.open(io.BytesIO(client.download(video))) as opened:
            frames = [frame.to_ndarray(format="rgb24") for frame in opened.decode(video=0)]
        assert len(frames) == 3 and frames[0].shape == (256, 256, 3) and min(frame.std() for frame in frames) > 20
        assert len(client.get("/api/workflow_templates")["realportrait"]) == len(list((installed / "workflows").glob("*.json")))
