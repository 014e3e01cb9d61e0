"""What the Comfy Registry asks of a release: an address, pictures, and no line that its scanner takes for an attack."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# The registry's scanner is not public. It flags a version, which hides it from ComfyUI-Manager, for any match of whatever severity,
# in comments and strings too. These are the rules and lines that publishers report from the reasons it gave them
# (api.comfy.org/nodes/NAME/versions?include_status_reason=true), a little wider.
FLAGGED = {
    "python_network_operations": r"\burllib|urlopen|urlretrieve|\brequests\.\w+\s*\(|\bhttp\.client|\baiohttp\b|gettempdir"
    r"|\bsocket\.[a-z]"
    r"|\.(?:connect|create_connection|bind|listen|login|send(?:all|to)?|recv(?:from|_into)?)\s*\(",
    "python_environment_manipulation": r"\benviron\b|\b(?:get|put|unset)env\b",
    "python_command_injection_risk": r"\bsubprocess\b|\bos\.(?:system|popen|exec\w+|spawn\w+)\b|\bpip install\b",
    "python_url_command_execution": r"\b(?:curl|wget|ffmpeg|ffprobe|yt-dlp)\b",
    "python_dynamic_execution": r"(?<![\w.])(?:eval|exec|compile)\s*\(|\.eval\s*\((?!\))|\.exec\s*\(|\bnew Function\b",
    "python_bytecode_manipulation": r"__import__|\bimportlib\.|\bmarshal\b|\bc?[pP]ickle\.\w|\bdill\b",
    "python_sensitive_file_access": r"\bPath\([^()]*\)\.read_|/etc/\w|\.ssh\b",
    "python_privilege_escalation": r"\b(?:sudo|setuid|pkexec)\b",
    "contains_obfuscated_url": r"\bbase64\b|\bb64decode\b|\bzlib\.decompress",
    "contains_blacklisted_url": r"raw\.githubusercontent\.com|pastebin|ngrok|transfer\.sh",
}
SCANNED = {".py", ".js", ".mjs", ".json", ".toml", ".txt"}


@pytest.fixture
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")


@pytest.fixture
def archive(scripts):
    import archive

    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("not a git checkout")
    return archive


@pytest.fixture
def copy(tmp_path, archive) -> Path:
    """A repository of the files that name the address, which is not filled in."""
    for name in ("README.md", "pyproject.toml"):
        text = (ROOT / name).read_text(encoding="utf-8").replace(archive.address_of(ROOT), archive.PLACEHOLDER)
        (tmp_path / name).write_text(text, encoding="utf-8")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "."], cwd=tmp_path, check=True)
    return tmp_path


def tables(root: Path) -> tuple[dict, dict]:
    """[project.urls] and [tool.comfy]."""
    tomllib = pytest.importorskip("tomllib", reason="reading TOML needs Python 3.11")
    read = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    return read["project"]["urls"], read["tool"]["comfy"]


def findings(text: str) -> set[str]:
    return {rule for rule, pattern in FLAGGED.items() if re.search(pattern, text)}


def test_the_archive_has_no_line_that_a_scanner_flags(archive):
    wrong = [
        f"{name}:{number} {rule}: {line.strip()[:100]}"
        for name in archive.release_files()
        if Path(name).suffix in SCANNED
        for number, line in enumerate((ROOT / name).read_text(encoding="utf-8").splitlines(), 1)
        for rule in sorted(findings(line))
    ]
    assert not wrong


def test_the_patterns_find_what_was_flagged():
    """A line of each rule as publishers quote it, and lines that passed."""
    for rule, line in {
        "python_network_operations": "with urllib.request.urlopen(url) as answer:",
        "python_environment_manipulation": 'root = os.environ.get("COMFYUI_PATH")',
        "python_command_injection_risk": "subprocess.run(command)",
        "python_url_command_execution": "# count them by ffprobe -count_frames",
        "python_dynamic_execution": "mx.eval(weights)",
        "python_bytecode_manipulation": '__import__("sys").modules',
        "python_sensitive_file_access": "hashlib.sha256(Path(model).read_bytes())",
        "python_privilege_escalation": "sudo apt",
        "contains_obfuscated_url": "import base64",
        "contains_blacklisted_url": "https://raw.githubusercontent.com/a/b/main/icon.png",
    }.items():
        assert findings(line) == {rule}
    for line in ("return model.eval()", "fuse_conv_bn_eval(module)", "re.compile(pattern)", "import pickletools", "sockets.Motion"):
        assert not findings(line)


def test_every_address_follows_the_repositorys(archive):
    urls, comfy = tables(ROOT)
    home = archive.address_of(ROOT)
    assert urls["Repository"] == home and {"Documentation", "Issues"} <= urls.keys()
    for address in (*urls.values(), comfy["Icon"], comfy["Banner"]):
        assert address.startswith(home)
    for address in (urls["Documentation"], comfy["Icon"], comfy["Banner"]):
        path = re.fullmatch(rf"{re.escape(home)}/(?:raw|blob)/HEAD/(.+)", address)[1]
        assert path in archive.listed(), path
    assert f"git clone --depth 1 {home} realportrait" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_one_command_writes_the_address_everywhere(copy, archive):
    import address

    assert "scripts/address.py" in archive.missing(copy)
    for home in ("https://example.org/somebody/realportrait", "https://example.org/else/where"):
        assert address.move(copy, home) == [copy / "README.md", copy / "pyproject.toml"]
        urls, comfy = tables(copy)
        assert urls["Repository"] == home and comfy["Banner"] == f"{home}/raw/HEAD/assets/banner.jpg"
        assert f"git clone --depth 1 {home} " in (copy / "README.md").read_text(encoding="utf-8")
    assert archive.missing(copy) is None and not address.places(copy, "REPOSITORY_URL")


@pytest.mark.parametrize("wrong", ["github.com/a/b", "https://example.org", "https://example.org/a b/c"])
def test_what_is_no_address_changes_nothing(wrong):
    command = [sys.executable, str(ROOT / "scripts" / "address.py"), wrong]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 1 and "https://HOST/OWNER/NAME" in run.stderr


def test_pictures():
    """Icon: square, at most 400 px. Banner: 21:9."""
    image = pytest.importorskip("PIL.Image")
    with image.open(ROOT / "assets" / "icon.jpg") as icon, image.open(ROOT / "assets" / "banner.jpg") as banner:
        assert icon.width == icon.height <= 400 and banner.width * 9 == banner.height * 21
    assert sum((ROOT / "assets" / name).stat().st_size for name in ("icon.jpg", "banner.jpg")) <= 130_000
