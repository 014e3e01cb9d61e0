"""What the registry, ComfyUI-Manager, pip and a stranger's clone rely on."""

import ast
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import safe_open

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = ROOT / "realportrait_core" / "weights"
MB = 1_000_000
ACCELERATORS = {"NVIDIA CUDA", "AMD ROCm", "Intel Arc", "Apple Metal"}  # GPUs that the registry knows, in its spelling
NEVER_TRACKED = {".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".bin", ".onnx", ".tflite", ".whl", ".zip"}
TEMPLATE_FOLDERS = {"example_workflows", "example", "examples", "workflow", "workflows"}


@pytest.fixture(scope="module")
def pyproject() -> dict:
    tomllib = pytest.importorskip("tomllib", reason="reading TOML needs Python 3.11")
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def released(tracked) -> set[str]:
    """What the registry's archive holds, relative to ROOT."""
    spec = importlib.util.spec_from_file_location("archive", ROOT / "scripts" / "archive.py")
    archive = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(archive)
    return set(archive.release_files())


def test_project_table(pyproject):
    project = pyproject["project"]
    assert "comfyui" not in project["name"].lower()
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["version"])
    assert project["license"] == {"file": "LICENSE"}
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert (ROOT / project["readme"]).is_file()


def test_classifiers_are_those_of_the_registry(pyproject):
    """One that it does not know makes it drop all of them."""
    for classifier in pyproject["project"]["classifiers"]:
        if classifier.startswith("Environment :: GPU :: "):
            assert classifier.removeprefix("Environment :: GPU :: ") in ACCELERATORS
        else:
            assert classifier == "Operating System :: OS Independent"


def test_comfy_table(pyproject):
    comfy = pyproject["tool"]["comfy"]
    assert comfy["PublisherId"]
    assert comfy["requires-comfyui"] == ">=0.3.75"
    assert "web" not in comfy, "WEB_DIRECTORY serves the help pages; a second place would hide them"


def test_requirements_equal_dependencies(pyproject):
    """ComfyUI-Manager reads the one, pip and the registry the other."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.strip()] == pyproject["project"]["dependencies"]


def test_nothing_of_the_hosts_is_required(pyproject):
    """A torch or numpy pinned by a pack replaces the one that the user's GPU or another pack needs; of OpenCV's four packages, all
    with the module cv2, the one that is named is installed over the one that is there (tests/test_opencv.py).
    """
    names = {re.match(r"[\w-]+", dependency)[0] for dependency in pyproject["project"]["dependencies"]}
    assert not names & {"torch", "torchvision", "torchaudio", "numpy", "av", "kornia"}
    assert not [name for name in names if name.startswith("opencv")]


def test_extras_name_what_the_host_would_bring(pyproject):
    """Outside of ComfyUI. torch.load of an older torch can be made to run code, weights_only or not (CVE-2025-32434)."""
    brought = {"torch>=2.6", "numpy", "av", "kornia>=0.7.1", "pillow>=10.1", "opencv-python-headless>=4.8"}
    for extra in ("core", "train"):
        assert brought <= set(pyproject["project"]["optional-dependencies"][extra])


def test_no_top_level_package_hides_the_hosts_nodes(pyproject):
    setuptools = pytest.importorskip("setuptools")
    found = setuptools.find_namespace_packages(str(ROOT), **pyproject["tool"]["setuptools"]["packages"]["find"])
    assert "realportrait_core" in found
    assert {name.split(".")[0] for name in found} == {"realportrait_core", "rendered_heads"}


def test_the_hosts_own_parser_reads_pyproject(host_sources):
    program = (
        "import json, sys\n"
        f"sys.path.insert(0, {str(host_sources)!r})\n"
        "from comfy_config.config_parser import extract_node_configuration\n"
        f"read = extract_node_configuration({str(ROOT)!r})\n"
        "print(json.dumps([read.project.name, read.project.supported_accelerators, read.project.supported_os,"
        " read.project.supported_comfyui_version, read.tool_comfy.publisher_id]))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    name, accelerators, systems, version, publisher = json.loads(done.stdout)
    assert (name, publisher, version) == ("realportrait", "realportrait", ">=0.3.75")
    assert accelerators and systems


def test_a_release_is_the_nodes_and_what_they_need(released):
    tops = {name.split("/")[0] for name in released}
    folders = {"assets", "locales", "nodes", "realportrait_core", "subgraphs", "web", "workflows"}
    files = {"LICENSE", "README.md", "__init__.py", "install.py", "pyproject.toml", "requirements.txt"}
    assert folders | files <= tops <= folders | files | {"CHANGELOG.md"}
    rooms = {name.split("/")[1] for name in released if name.startswith("realportrait_core/")}
    assert "weights" in rooms and not rooms & {"batch", "head_rotation", "train"}
    assert "realportrait_core/eval/__main__.py" not in released, "of the evaluation only what a node measures by"
    assert not [name for name in released if name.endswith(".py") and Path(name).name.startswith("test_")]


def test_a_release_imports_nothing_that_it_leaves_out(released):
    """Every relative import of an archived file finds an archived module, or a name inside one."""
    modules = {name.removesuffix(".py").removesuffix("/__init__") for name in released if name.endswith(".py")} | {""}
    wrong = []
    for name in sorted(released):
        if not name.endswith(".py"):
            continue
        for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                package = name.split("/")[: -node.level]
                base = "/".join([*package, *(node.module or "").split(".")]).strip("/")
                wrong += [f"{name}:{node.lineno}"] * (base not in modules)
                if node.module is None or not (ROOT / f"{base}.py").is_file():  # a package: its names may be modules
                    wrong += [
                        f"{name}:{node.lineno} {each.name}"
                        for each in node.names
                        if ((ROOT / base / f"{each.name}.py").is_file() or (ROOT / base / each.name).is_dir())
                        and "/".join([base, each.name]).strip("/") not in modules
                    ]
    assert not wrong


def test_bundled_weights_fit_and_open():
    files = sorted(WEIGHTS.rglob("*.safetensors"))
    assert {str(file.relative_to(WEIGHTS)) for file in files} == {
        "realportrait/realportrait_mini.safetensors",
        "realportrait/realportrait_mini_vid2vid.safetensors",
        "vae/realportrait_mini_vae.safetensors",
    }
    assert sum(file.stat().st_size for file in files) <= 40 * MB
    for file in files:
        with safe_open(file, "pt") as opened:
            assert list(opened.keys()), file
    assert (WEIGHTS / "CARD.md").is_file()


def test_the_repository_is_light(tracked):
    assert sum(file.stat().st_size for file in tracked) <= 52_000_000


def test_no_pickles_networks_or_archives_are_tracked(tracked):
    assert not [file for file in tracked if file.suffix.lower() in NEVER_TRACKED]


def test_tests_stay_small(tracked):
    assert sum(file.stat().st_size for file in tracked if ROOT / "tests" in file.parents) <= 16 * MB


def test_one_folder_of_workflows():
    """The host serves the first folder of these names that it finds, and lists all of them."""
    assert [folder.name for folder in ROOT.iterdir() if folder.name in TEMPLATE_FOLDERS] == ["workflows"]
    for file in (ROOT / "workflows").glob("*.json"):
        assert "nodes" in json.loads(file.read_text(encoding="utf-8")), f"{file} is not in the browser's format"
    for file in (ROOT / "workflows" / "api").glob("*.json"):
        nodes = json.loads(file.read_text(encoding="utf-8")).values()
        assert all({"class_type", "inputs"} <= node.keys() for node in nodes), f"{file} is not in the API's format"


def test_what_the_texts_name_is_there():
    for name in (
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "LICENSE",
        "requirements.txt",
        "install.py",
        ".ci/run",
        "scripts/archive.py",
        "scripts/check.py",
        "scripts/demo.py",
        "scripts/test.py",
        "assets/portrait.png",
        "assets/driving.mp4",
        "workflows/animate_portrait.json",
        "workflows/api/animate_portrait.json",
    ):
        assert (ROOT / name).is_file(), name


def test_the_commands_of_the_texts_exist(tracked):
    """Every `python -m` of ours that a text or a message names."""
    texts = [path for path in tracked if path.suffix in {".md", ".py", ".json"}]
    named = {
        name
        for path in texts
        for name in re.findall(
            r"python -m\s+((?:realportrait_core|rendered_heads|benchmarks)[\w.]*)", path.read_text(encoding="utf-8")
        )
    }
    assert {"realportrait_core.checkpoint", "realportrait_core.motion_file", "rendered_heads", "benchmarks"} <= named
    for name in named:
        path = ROOT / name.rstrip(".").replace(".", "/")
        script = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
        assert script.is_file() and '__name__ == "__main__"' in script.read_text(encoding="utf-8"), name
