"""What the set-up scripts download is what it was: by its digest, by a commit's id, or by an exact version. docs/security.md."""

import ast
import base64
import hashlib
import http.server
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import threading
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
                "pip install": True,  # exact versions: below
                "download_url_to_file": "WHEEL_SHA256" in text,
            }
            ways = downloads(function)
            found |= ways
            wrong += [f"{file.name}: {function.name} does {way} and compares nothing" for way in ways if not held.get(way)]
    assert not wrong
    assert found >= {"pip download", "npm pack", "npm ci", "git fetch", "pip install", "download_url_to_file"}


def test_the_digests_are_digests(environment):
    """A commit's whole id, SHA-256 of single files, SHA-512 of everything that npm installs, exact versions."""
    assert re.fullmatch(r"[0-9a-f]{40}", environment.HOST_GIT[1])
    wheels = ("HOST_WHEEL", "DETECTOR_WHEEL", "HEADS_WHEEL", "STLPIPS_WHEEL", "FACE_API")
    for package, digest, *_ in (getattr(environment, name) for name in wheels):
        assert re.fullmatch(r"[0-9a-f]{64}", digest) and re.search(r"(==|.@)\d+\.\d+", package)
    lock = json.loads((environment.BROWSER_LOCK / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    assert all(re.fullmatch(r"sha512-[\w+/]{86}==", entry["integrity"]) for name, entry in lock.items() if name)
    wanted = json.loads((environment.BROWSER_LOCK / "package.json").read_text(encoding="utf-8"))["dependencies"]
    assert {name: lock[f"node_modules/{name}"]["version"] for name in wanted} == wanted
    assert all("==" in package for package in (*environment.TORCH, *environment.CHECKERS))


def test_every_package_is_exact_where_the_tests_run(environment):
    """The lines of constraints.txt are of one Python and system, and name all that is installed there beside torch."""
    lines = [line for line in environment.CONSTRAINTS.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    pattern = r"([a-z0-9-]+)==[\w.]+ ; python_version == \"[\d.]+\" and sys_platform == \"\w+\" and platform_machine == \"\w+\""
    exact = {re.fullmatch(pattern, line)[1] for line in lines}
    for wanted in environment.EXTRA:
        assert re.split(r"[\[>=;]", wanted)[0] in exact, wanted


# Another file is refused


def test_a_wheel_with_one_other_byte_is_refused(environment, tmp_path, monkeypatch):
    """pip takes it, as from an index that was tampered with; the digest does not fit, and nothing is kept."""
    folder, name = tmp_path / "index", "harmless-1.0-py3-none-any.whl"
    folder.mkdir()
    with zipfile.ZipFile(folder / name, "w") as wheel:
        wheel.writestr("harmless.py", "VALUE = 1\n")
        wheel.writestr("harmless-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: harmless\nVersion: 1.0\n")
        wheel.writestr("harmless-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("harmless-1.0.dist-info/RECORD", "")
    whole = (folder / name).read_bytes()
    digest = hashlib.sha256(whole).hexdigest()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))

    (folder / name).write_bytes(whole.replace(b"VALUE = 1", b"VALUE = 2"))
    said = []
    monkeypatch.setattr(environment, "say", said.append)
    environment.fetch_wheel(Path(sys.executable), "harmless==1.0", digest, "a test")
    assert not list(environment.VENV.glob("*.whl"))
    assert said[-1].startswith("Left out: ") and digest in said[-1]

    (folder / name).write_bytes(whole)
    environment.fetch_wheel(Path(sys.executable), "harmless==1.0", digest, "a test")
    assert [path.read_bytes() for path in environment.VENV.glob("*.whl")] == [whole]


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
