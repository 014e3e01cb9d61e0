"""A real ComfyUI server without a window: a process on a port of its own, with this pack as its only custom node."""

import os
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from environment import BASE, ROOT, Environment

PACK = "realportrait"
START_LIMIT = 600  # s; about 10 on an idle machine
NOT_THE_PACK = (".git", ".venv", "__pycache__", "node_modules", "output", "runs", "tests")


class ServerError(RuntimeError):
    """ComfyUI did not start, or died; the message ends with its last output."""


class HeadlessComfyUI:
    """Context manager: the server runs inside the block, on folders of its own that are removed at its end.

    models: further files, as {"vae/my_vae.safetensors": path}; they are linked, never copied where links are allowed.
    pack: the folder of the custom node, such as an unpacked archive.
    $REALPORTRAIT_FRONTEND: a folder with another frontend than the environment's, such as static/ of comfyui-frontend-package.
    """

    def __init__(self, environment: Environment, models: dict[str, Path] | None = None, pack: Path = ROOT):
        self.environment = environment
        self.pack = pack
        self.models = models or {}
        self.process = None
        self.url = ""  # from its start on

    def __enter__(self) -> "HeadlessComfyUI":
        self.folder = Path(tempfile.mkdtemp(prefix="realportrait-"))
        try:
            self._furnish()
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def _furnish(self) -> None:
        for name in ("custom_nodes", "models", "input", "output", "temp", "user"):
            (self.folder / name).mkdir()
        link(self.pack, self.folder / "custom_nodes" / PACK)
        fetched = {str(file.relative_to(BASE / "models")): file for file in (BASE / "models").rglob("*") if file.is_file()}
        for name, source in (fetched | self.models).items():
            target = self.folder / "models" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            link(Path(source).resolve(), target)

    def _start(self) -> None:
        self.log_path = self.folder / "server.log"
        command = [
            self.environment.python,
            "-u",
            self.environment.comfyui / "main.py",
            "--port",
            "0",  # the system chooses it as the server binds it: one chosen here another process could take before
            "--base-directory",
            self.folder,
            "--database-url",
            "sqlite:///:memory:",
            "--disable-auto-launch",
            "--preview-method",
            "latent2rgb",
            *(() if has_accelerator() else ("--cpu",)),
            *(("--front-end-root", os.path.abspath(frontend)) if (frontend := os.environ.get("REALPORTRAIT_FRONTEND")) else ()),
        ]
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [str(part) for part in command], stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=self.folder
            )
        deadline = time.monotonic() + START_LIMIT
        while not self._answers():
            if self.process.poll() is not None:
                raise ServerError(f"ComfyUI ended with {self.process.returncode} while starting:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise ServerError(f"ComfyUI gave no answer within {START_LIMIT} s:\n{self.log_tail()}")
            time.sleep(0.2)
        if "IMPORT FAILED" in self.log():
            raise ServerError(f"ComfyUI could not import this pack:\n{self.log_tail(40)}")

    def _answers(self) -> bool:
        port = listening_port(self.process.pid)
        if port is None:
            return False
        self.url = f"http://127.0.0.1:{port}"
        try:
            with urllib.request.urlopen(f"{self.url}/system_stats", timeout=5) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def kill(self) -> None:
        """Ends the process as a power cut would; the folders stay."""
        self.process.kill()
        self.process.wait()

    def start_again(self) -> None:
        """A new process, at another address, on the folders of the one that was killed."""
        self._start()

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)  # links go, what they point at stays

    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def log_tail(self, lines: int = 25) -> str:
        return "\n".join(self.log().splitlines()[-lines:])


def link(source: Path, target: Path) -> None:
    """A symbolic link; a copy where the system allows none (Windows without developer mode)."""
    try:
        target.symlink_to(source, target_is_directory=source.is_dir())
    except OSError:
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns(*NOT_THE_PACK))
        else:
            shutil.copy2(source, target)


def listening_port(pid: int) -> int | None:
    """Where a process listens, or a child of it: on Windows the Python of a virtual environment only starts the real one."""
    import psutil  # ComfyUI needs it

    try:
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            for connection in one.net_connections("tcp4"):
                if connection.status == psutil.CONN_LISTEN:
                    return connection.laddr.port
    except psutil.Error:
        pass  # it has ended
    return None


def has_accelerator() -> bool:
    import torch

    return torch.cuda.is_available() or torch.backends.mps.is_available()
