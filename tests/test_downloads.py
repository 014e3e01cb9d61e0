"""What the set-up scripts download is what it was: by its digest or by a commit's id. docs/security.md."""

import ast
import base64
import functools
import hashlib
import http.server
import importlib.metadata
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = [*sorted((ROOT / "scripts").glob("*.py")), ROOT / "install.py"]
# What looks at an address without keeping anything of it, and what talks to the server that it has started itself.
KEEP_NOTHING = {"environment.py": {"reachable"}, "headless.py": {"_answers"}}
CHECKS = {"refuse_other", "take"}  # they compare a digest, and raise


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """scripts/environment.py with an empty .venv/."""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    import environment

    monkeypatch.setattr(environment, "VENV", tmp_path / "venv")
    monkeypatch.setattr(environment, "LOG", tmp_path / "venv" / "setup.log")
    (tmp_path / "venv").mkdir()
    return environment


# Read off the sources


def downloads(function: ast.AST) -> set[str]:
    """The ways in which a function fetches something."""
    texts = {node.value for node in ast.walk(function) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    called = {ast.unparse(node.func).rpartition(".")[2] for node in ast.walk(function) if isinstance(node, ast.Call)}
    ways = {name for name in ("urlopen", "urlretrieve", "download_url_to_file") if name in called}
    ways |= {f"pip {word}" for word in ("download", "install") if "pip" in called and word in texts}
    ways |= {f"npm {word}" for word in ("pack", "ci", "install", "exec") if {"npm", word} <= texts}
    return ways | {f"git {word}" for word in ("clone", "fetch", "pull") if {"git", word} <= texts}


def test_every_download_is_compared_with_what_it_must_be():
    found, wrong = set(), []
    for file in SCRIPTS:
        for function in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(function, ast.FunctionDef) or function.name in KEEP_NOTHING.get(file.name, ()):
                continue
            called = {ast.unparse(node.func) for node in ast.walk(function) if isinstance(node, ast.Call)}
            text = ast.unparse(function)
            held = {
                "pip download": "refuse_other" in called,
                "npm pack": "refuse_other" in called and "--ignore-scripts" in text,
                "npm ci": "--ignore-scripts" in text,  # with the lock file's SHA-512
                "git fetch": "HOST_GIT" in text,
                "pip install": {"install_locked"} & called
                or "--require-hashes" in text
                or "--dry-run" in text,  # with a lock: below
                "download_url_to_file": "WHEEL_SHA256" in text,
            }
            ways = downloads(function)
            found |= ways
            wrong += [f"{file.name}: {function.name} does {way} and compares nothing" for way in ways if not held.get(way)]
    assert not wrong
    assert found >= {"pip download", "npm pack", "npm ci", "git fetch", "pip install", "download_url_to_file"}


def test_the_digests_are_digests(environment):
    """A commit's whole id, SHA-256 of single files, SHA-512 of everything that npm installs."""
    assert re.fullmatch(r"[0-9a-f]{40}", environment.HOST_GIT[1])
    wheels = ("HOST_WHEEL", "DETECTOR_WHEEL", "HEADS_WHEEL", "STLPIPS_WHEEL", "FACE_API")
    for package, digest, *_ in (getattr(environment, name) for name in wheels):
        assert re.fullmatch(r"[0-9a-f]{64}", digest) and re.search(r"(==|.@)\d+\.\d+", package)
    lock = json.loads((environment.BROWSER_LOCK / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    assert all(re.fullmatch(r"sha512-[\w+/]{86}==", entry["integrity"]) for name, entry in lock.items() if name)
    wanted = json.loads((environment.BROWSER_LOCK / "package.json").read_text(encoding="utf-8"))["dependencies"]
    assert {name: lock[f"node_modules/{name}"]["version"] for name in wanted} == wanted


def locked(folder: Path) -> dict[str, dict[str, str]]:
    """The version of each package in each lock of a folder."""
    return {file.stem: dict(re.findall(r"^([\w-]+)==(\S+) --hash", file.read_text(), re.MULTILINE)) for file in folder.iterdir()}


LOCKS = sorted((ROOT / "scripts" / "locks").iterdir())


@pytest.mark.parametrize("folder", LOCKS, ids=lambda folder: folder.name)
def test_every_package_of_a_lock_has_its_digest(environment, folder):
    """What environment.py names has the version that it names, and docs/security.md says for which Pythons there is a lock."""
    _, version, system = folder.name.split("-", 2)
    promised = re.search(r"with CPython (.*) on Linux x86_64", (ROOT / "docs" / "security.md").read_text(encoding="utf-8"))[1]
    assert f"{version[0]}.{version[1:]}" in promised and system == "x86_64-linux-gnu"
    for file in folder.iterdir():
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
        assert lines == sorted(set(lines))
        wrong = [line for line in lines if not re.fullmatch(r"[a-z0-9-]+==[\w.+]+ --hash=sha256:[0-9a-f]{64}", line)]
        assert not wrong, file
    locks = locked(folder)
    pins = {"packages": environment.EXTRA, "torch": environment.TORCH, "checkers": environment.CHECKERS}
    assert pins.keys() <= locks.keys() <= {*pins, "torch-cpu"}
    for name, wanted in pins.items():
        named = [re.split(r"[\[=>;]", package)[0] for package in wanted]
        assert [package for package in named if package not in locks[name]] == []
        exact = dict(re.fullmatch(r"([\w-]+)(?:\[\w+\])?==([\w.]+).*", package).groups() for package in wanted if "==" in package)
        assert {package: locks[name][package] for package in exact} == exact
    cpu = {name: version.removesuffix("+cpu") for name, version in locks.get("torch-cpu", {}).items()}
    assert cpu in ({}, {package: locks["torch"][package] for package in (pin.partition("==")[0] for pin in environment.TORCH)})


def test_the_lock_of_this_python_has_all_that_is_needed(environment, host_sources):
    """With what the packages need in turn, in versions that all of them take."""
    folder = environment.lock_folder(Path(sys.executable))
    if not folder.is_dir() or environment.host_version(host_sources) != environment.HOST_MIN:
        pytest.skip("no lock for this Python and system, or another ComfyUI than the lock's")
    requirements = pytest.importorskip("packaging.requirements")
    versions = {name: version for lock in locked(folder).values() for name, version in lock.items()}
    lists = [host_sources / "requirements.txt", ROOT / "requirements.txt"]
    lines = [line for file in lists for line in file.read_text().splitlines() if line and not line.startswith("#")]
    todo, done, wrong = [*lines, *environment.EXTRA, *environment.TORCH, *environment.CHECKERS], set(), []
    while todo:
        need = requirements.Requirement(todo.pop())
        name = re.sub(r"[-_.]+", "-", need.name).lower()
        if str(need) in done or need.marker and not need.marker.evaluate({"extra": ""}):
            continue
        done.add(str(need))
        if name not in versions or not need.specifier.contains(versions[name], prereleases=True):
            wrong.append(f"{need}, locked {versions.get(name)}")
            continue
        for line in importlib.metadata.requires(name) or []:
            further = requirements.Requirement(line)
            if not further.marker or any(further.marker.evaluate({"extra": extra}) for extra in need.extras | {""}):
                further.marker = None
                todo.append(str(further))
    assert not wrong
    assert len({line.partition("=")[0] for line in done}) > 50


# Another file is refused


def make_wheel(folder: Path, name: str, version: str = "1.0", needs: str = "", value: int = 1) -> Path:
    """A package of one module with one line; `needs` is what pip must install with it."""
    path, info = folder / f"{name}-{version}-py3-none-any.whl", f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}.py", f"VALUE = {value}\n")
        needed = f"Requires-Dist: {needs}\n" if needs else ""
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needed}")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_wheel_with_one_other_byte_is_refused(environment, tmp_path, monkeypatch):
    """pip takes it, as from an index that was tampered with; the digest does not fit, and nothing is kept."""
    folder = tmp_path / "index"
    folder.mkdir()
    file = make_wheel(folder, "harmless")
    whole, digest = file.read_bytes(), sha256(file)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))

    file.write_bytes(whole.replace(b"VALUE = 1", b"VALUE = 2"))
    said = []
    monkeypatch.setattr(environment, "say", said.append)
    environment.fetch_wheel(Path(sys.executable), "harmless==1.0", digest, "a test")
    assert not list(environment.VENV.glob("*.whl"))
    assert said[-1].startswith("Left out: ") and digest in said[-1]

    file.write_bytes(whole)
    environment.fetch_wheel(Path(sys.executable), "harmless==1.0", digest, "a test")
    assert [path.read_bytes() for path in environment.VENV.glob("*.whl")] == [whole]


@pytest.fixture(scope="module")
def own_python(tmp_path_factory) -> Path:
    """A Python with pip and nothing else, for all tests of this file."""
    folder = tmp_path_factory.mktemp("own")
    venv.create(folder, with_pip=True)
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


@pytest.fixture
def lock(environment, own_python, tmp_path, monkeypatch):
    """lock(text) writes the lock for own_python. The host needs `first`, the pack `second`, torch is `third`; pip takes them from
    tmp_path / "index" alone."""
    for folder in ("index", "venv/comfyui", "pack"):
        (tmp_path / folder).mkdir(exist_ok=True)
    (tmp_path / "venv" / "comfyui" / "requirements.txt").write_text("first>=1\n")
    (tmp_path / "pack" / "requirements.txt").write_text("second\n")
    changed = {"ROOT": tmp_path / "pack", "STAMP": tmp_path / "stamp", "LOCKS": tmp_path / "locks", "TORCH": ("third==1.0",)}
    for name, value in {**changed, "EXTRA": (), "CHECKERS": ("third",), "TORCH_CPU_INDEX": "http://127.0.0.1:1"}.items():
        monkeypatch.setattr(environment, name, value)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))

    def write(name: str, *files: Path) -> None:
        folder = environment.lock_folder(own_python)
        folder.mkdir(parents=True, exist_ok=True)
        pins = ["==".join(file.name.split("-")[:2]).removesuffix(".tar.gz") for file in files]
        (folder / f"{name}.txt").write_text("".join(f"{pin} --hash=sha256:{sha256(file)}\n" for pin, file in zip(pins, files)))

    yield write
    remove(own_python)


def site_packages(python: Path) -> Path:
    return next(python.parent.parent.glob("lib/python*/site-packages"), python.parent.parent / "Lib" / "site-packages")


def installed(python: Path) -> dict[str, str]:
    """The versions of all but pip and setuptools."""
    found = importlib.metadata.distributions(path=[str(site_packages(python))])
    return {package.name: package.version for package in found if package.name not in {"pip", "setuptools"}}


def remove(python: Path) -> None:
    """What pip does in half a second for each."""
    for name, version in installed(python).items():
        shutil.rmtree(site_packages(python) / f"{name}-{version}.dist-info")
        (site_packages(python) / f"{name}.py").unlink()


def test_pip_refuses_what_the_lock_does_not_name(environment, own_python, lock, tmp_path):
    """An altered wheel and a source package; what is there already is left alone, without an index."""
    index, host = tmp_path / "index", tmp_path / "venv" / "comfyui"
    first, second, third = (make_wheel(index, name) for name in ("first", "second", "third"))
    lock("packages", first, second)
    lock("torch", third)
    whole = second.read_bytes()

    second.write_bytes(whole.replace(b"VALUE = 1", b"VALUE = 2"))
    with pytest.raises(environment.SetupError, match=f"(?s)Got +{sha256(second)}.*gave a file with another SHA-256, which was not"):
        environment.install_packages(own_python, host)
    assert set(installed(own_python)) == {"third"} and not environment.STAMP.exists()

    second.write_bytes(whole)
    assert environment.install_packages(own_python, host) and not environment.install_packages(own_python, host)
    assert set(installed(own_python)) == {"first", "second", "third"}

    environment.STAMP.unlink()  # as in an environment that an earlier version of the script has made
    for file in (first, second, third):
        file.unlink()
    assert environment.install_packages(own_python, host)


def test_a_source_package_is_not_built(environment, own_python, lock, tmp_path, capsys):
    """Not even one that the lock names: what builds it would have no hash."""
    archive = tmp_path / "index" / "first-1.0.tar.gz"
    with tarfile.open(archive, "w:gz") as sources:
        for name, text in (("setup.py", f"open({str(tmp_path / 'ran')!r}, 'w')"), ("PKG-INFO", "Name: first\nVersion: 1.0\n")):
            entry = tarfile.TarInfo(f"first-1.0/{name}")
            entry.size = len(text)
            sources.addfile(entry, io.BytesIO(text.encode()))
    lock("packages", archive)
    lock("torch", make_wheel(tmp_path / "index", "third"))
    with pytest.raises(environment.SetupError, match="No matching distribution found for first"):
        environment.install_packages(own_python, tmp_path / "venv" / "comfyui")
    environment.fetch_wheel(own_python, "first==1.0", sha256(archive), "a test")
    assert "No matching distribution found for first" in capsys.readouterr().out
    assert not (tmp_path / "ran").exists()


def test_a_package_that_the_lock_lacks_is_not_installed(environment, own_python, lock, tmp_path):
    """It is there, and would be taken without a lock: another Python, or a ComfyUI of one's own."""
    index, host = tmp_path / "index", tmp_path / "venv" / "comfyui"
    wheels = make_wheel(index, "first", needs="fourth"), make_wheel(index, "second")
    make_wheel(index, "fourth")
    lock("packages", *wheels)
    lock("torch", make_wheel(index, "third"))
    with pytest.raises(environment.SetupError, match="(?s)fourth.*packages.txt lacks what is named above; `python scripts/lock"):
        environment.install_packages(own_python, host)
    assert set(installed(own_python)) == {"first", "second", "third"}

    own = tmp_path / "own"
    shutil.copytree(host, own)
    assert environment.install_packages(own_python, own)
    assert set(installed(own_python)) == {"first", "second", "third", "fourth"}


@pytest.mark.slow
def test_the_cpu_build_of_torch_has_a_lock_of_its_own(environment, own_python, lock, tmp_path, monkeypatch):
    """Without it the other build is installed, by its lock, even where PyTorch's index can be reached."""
    pages = tmp_path / "pages"
    for name in ("torch", "third"):
        (pages / name).mkdir(parents=True)
        (pages / name / "index.html").write_text("<a href='third-1.0+cpu-py3-none-any.whl'>third-1.0+cpu-py3-none-any.whl</a>")
    build = make_wheel(pages / "third", "third", "1.0+cpu")
    lock("torch", make_wheel(tmp_path / "index", "third"))
    monkeypatch.setattr(environment, "has_nvidia", lambda: False)
    monkeypatch.setattr(sys, "platform", "linux")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=pages)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(environment, "TORCH_CPU_INDEX", f"http://127.0.0.1:{server.server_port}")

        environment.install_torch(own_python)
        assert installed(own_python) == {"third": "1.0"}
        remove(own_python)
        lock("torch-cpu", build)
        monkeypatch.delenv("PIP_NO_INDEX")
        environment.install_torch(own_python)
        assert installed(own_python) == {"third": "1.0+cpu"}
        remove(own_python)
        make_wheel(pages / "third", "third", "1.0+cpu", value=2)
        with pytest.raises(environment.SetupError, match="another SHA-256"):
            environment.install_torch(own_python)
        assert not installed(own_python)
        server.shutdown()


@pytest.mark.slow
def test_a_lock_is_made_by_pip(environment, own_python, lock, tmp_path):
    """Versions stay, except of what is named; what it writes is what installs."""
    import lock as script

    index, host = tmp_path / "index", tmp_path / "venv" / "comfyui"
    first, third = make_wheel(index, "first", needs="fourth"), make_wheel(index, "third", needs="fourth")
    second, fourth = make_wheel(index, "second"), make_wheel(index, "fourth")
    folder = environment.lock_folder(own_python)

    def made(*free: str) -> dict[str, dict[str, str]]:
        script.write_locks(own_python, host, folder, script.kept(folder, set(free)))
        return locked(folder)

    old = made()
    assert old["packages"] == {"first": "1.0", "second": "1.0", "fourth": "1.0"}
    assert old["torch"] == {"third": "1.0"} and old["checkers"] == {"third": "1.0", "fourth": "1.0"}
    text = "".join(file.read_text() for file in folder.iterdir())
    assert all(sha256(file) in text for file in (first, second, third, fourth))
    make_wheel(index, "first", "2.0", needs="fourth")
    make_wheel(index, "second", "2.0")
    assert made("first")["packages"] == {"first": "2.0", "second": "1.0", "fourth": "1.0"}
    assert environment.install_packages(own_python, host)
    assert set(installed(own_python)) == {"first", "second", "third", "fourth"}


def test_another_commit_is_not_taken(environment, tmp_path, monkeypatch):
    """From a repository whose tag was moved: the commit is fetched as long as it is there, and never what the tag names now."""
    if not shutil.which("git"):
        pytest.skip("no git")
    source = tmp_path / "source"
    run = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", "-C", str(source)]
    subprocess.run(["git", "init", "-q", str(source)], check=True)

    def commit(text: str) -> str:
        (source / "main.py").write_text(text)
        subprocess.run([*run, "add", "."], check=True)
        subprocess.run([*run, "commit", "-q", "-m", text], check=True)
        subprocess.run([*run, "tag", "-f", "v0.3.75"], check=True, capture_output=True)
        return subprocess.run([*run, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()

    wanted = commit("pinned")
    commit("moved")
    for number, (pinned, content) in enumerate({wanted: "pinned", "0" * 40: None}.items()):
        monkeypatch.setattr(environment, "HOST_GIT", (source.as_uri(), pinned))
        work = tmp_path / str(number)
        work.mkdir()
        fetched = environment.clone_host(work)
        assert (fetched and (fetched / "main.py").read_text()) == content


@pytest.fixture
def registry(tmp_path):
    """An npm registry with one package, toy 1.0.0: (address, bytes of its archive, which may be changed)."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        text = json.dumps(
            {"name": "toy", "version": "1.0.0", "scripts": {"install": "node -e \"require('fs').writeFileSync('ran','')\""}}
        )
        entry = tarfile.TarInfo("package/package.json")
        entry.size = len(text)
        archive.addfile(entry, io.BytesIO(text.encode()))
    content = {"/toy.tgz": packed.getvalue()}

    class Registry(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            listed = {
                "name": "toy",
                "versions": {"1.0.0": {"name": "toy", "version": "1.0.0", "dist": {"tarball": f"{url}/toy.tgz"}}},
            }
            body = content.get(self.path, json.dumps(listed).encode())
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry) as server:
        url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield url, content
        server.shutdown()


def test_an_npm_package_with_one_other_byte_is_refused(environment, registry, tmp_path, monkeypatch):
    """And scripts of a package do not run."""
    if not shutil.which("npm") or sys.platform != "linux":
        pytest.skip("no npm, or not Linux")
    url, content = registry
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(content["/toy.tgz"]).digest()).decode()
    lock = {
        "": {"name": "test", "dependencies": {"toy": "1.0.0"}},
        "node_modules/toy": {"version": "1.0.0", "integrity": integrity},
    }
    folder = tmp_path / "lock"
    folder.mkdir()
    (folder / "package.json").write_text(json.dumps({"name": "test", "dependencies": {"toy": "1.0.0"}}))
    (folder / "package-lock.json").write_text(json.dumps({"name": "test", "lockfileVersion": 3, "packages": lock}))
    monkeypatch.setattr(environment, "BROWSER_LOCK", folder)
    monkeypatch.setenv("npm_config_registry", url)
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "cache"))
    said = []
    monkeypatch.setattr(environment, "say", said.append)
    placed = environment.VENV / "browser" / "node_modules" / "toy"

    whole = content["/toy.tgz"]
    content["/toy.tgz"] = whole[:9] + bytes([whole[9] ^ 1]) + whole[10:]  # of the gzip header: it unpacks all the same
    environment.fetch_browser()
    assert said[-1].startswith("Left out: ") and "EINTEGRITY" in said[-1] and not placed.exists()

    content["/toy.tgz"] = whole
    environment.fetch_browser()
    assert (placed / "package.json").is_file() and not (placed / "ran").exists()
