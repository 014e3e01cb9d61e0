"""The import rules of the house, read off the import statements, and what neither the core nor the nodes may call."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CORE = ROOT / "realportrait_core"
NODES = ROOT / "nodes"
HOSTS_NODES = NODES / "host" / "media.py"  # it imports the host's own module of the name `nodes`
HEADS = ROOT / "rendered_heads"

# Imports run one way: a room of the core -> the rooms that it may look into.
BASE = {"config", "errors", "whole_file"}
NETWORKS = {"vid2vid", "dit", "motion_map", "diffusion", "face", "vae", "checkpoint"}
ALLOWED = {
    "errors": set(),
    "whole_file": set(),
    "config": {"errors"},
    "opencv": {"errors"},
    "checkpoint": BASE,
    "face": BASE | {"opencv"},
    "diffusion": BASE,
    "motion_map": BASE,
    "video": BASE | {"opencv"},
    "paste": BASE | {"face"},
    "vae": BASE | {"checkpoint"},
    "licences": BASE | {"checkpoint"},
    "vid2vid": BASE | {"checkpoint"},
    "dit": BASE | {"checkpoint", "motion_map", "memory"},  # never vid2vid: a motion map is a tensor
    "speed": BASE | {"dit", "diffusion"},
    "animation": BASE | NETWORKS | {"speed", "memory"},
    "generate": BASE | NETWORKS | {"animation", "speed"},
    "generate_long": BASE | NETWORKS | {"animation", "speed", "long", "video"},
    "long": BASE | NETWORKS | {"animation", "speed", "inspect", "paste", "video", "memory"},
    "memory": BASE,
    "inspect": BASE | NETWORKS | {"animation"},
    "edit": BASE | NETWORKS | {"animation"},
    "motion_file": BASE | NETWORKS | {"animation"},
    "head_rotation": BASE | {"vid2vid"},  # never train or eval: both use it
    "batch": BASE | NETWORKS | {"animation", "speed", "long", "opencv", "video"},  # never train or eval: both may use its pool
    "train": BASE | NETWORKS | {"animation", "speed", "stlpips", "head_rotation", "video", "batch"},
    # inspect has the means of colours, convert reads a .pth, batch has the pool
    "eval": BASE | NETWORKS | {"animation", "speed", "stlpips", "head_rotation", "video", "inspect", "convert", "batch", "opencv"},
    "stlpips": BASE,
    "convert": BASE | {"checkpoint", "licences", "vid2vid", "dit", "vae"},
    "batch.__main__": BASE | {"batch", "face"},
    "checkpoint.__main__": set(),
    "head_rotation.__main__": BASE | {"head_rotation"},
}
HOST = {"comfy", "comfy_api", "comfy_extras", "comfy_execution", "folder_paths", "nodes", "server", "execution", "latent_preview"}
# Third-party modules that may be imported at start, because the host has already done so; the others wait until needed.
AT_START = {"torch", "numpy", "einops", "safetensors", "tqdm"}
LONG = 350  # lines
# Itself imported only when it is needed, and where it can run.
WAITS = {CORE / "dit" / "kernels.py"}
# Modules that run what a file holds, or load it as code. json, safetensors, PyAV and Pillow read data.
FORBIDDEN_MODULES = {
    "pickle", "_pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "jsonpickle", "yaml", "code", "codeop",
    "ctypes", "cffi", "imp",
}  # fmt: skip
# torch's and NumPy's own ways to the same.
FORBIDDEN_CALLS = {
    "eval", "exec", "compile", "print", "torch.load", "logging.basicConfig", "torch.cuda.empty_cache",
    "__import__", "importlib.import_module", "importlib.reload", "importlib.util.spec_from_file_location",
    "torch.hub.load", "torch.hub.load_state_dict_from_url", "torch.jit.load", "torch.export.load", "torch.ops.load_library",
    "torch.serialization.load", "torch.package.PackageImporter", "types.FunctionType", "types.CodeType",
    "os.system", "os.popen",
}  # fmt: skip
# Run with python -m: they talk to a terminal.
COMMANDS = {
    CORE / "train",
    CORE / "eval",
    CORE / "convert",
    CORE / "batch" / "__main__.py",
    CORE / "checkpoint" / "__main__.py",
    CORE / "head_rotation" / "__main__.py",
}
# Where torch.load may be called, with weights_only=True: training resumes from its own optimizer state, of plain tensors,
# one file of one command turns the .pth of others into safetensors, and one measure's network comes as a .pth inside a wheel.
READERS_OF_PLAIN_TENSORS = {CORE / "train", CORE / "convert" / "pickled.py", CORE / "stlpips.py"}


def python_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def imports(file: Path, nested: bool = True) -> Iterator[tuple[int, int, list[str]]]:
    """(line, leading dots, dotted path) of every import; nested=False: only those run when the file is imported."""
    tree = ast.parse(file.read_text(encoding="utf-8"), str(file))
    statements = list(ast.walk(tree) if nested else at_import(tree.body))
    for node in statements:
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, 0, name.name.split(".")
        elif isinstance(node, ast.ImportFrom):
            base = node.module.split(".") if node.module else []
            for name in node.names:
                yield node.lineno, node.level, [*base, name.name]


def at_import(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        for field in ("body", "orelse", "handlers", "finalbody"):
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield from at_import(getattr(node, field, []))


def room(file: Path) -> str:
    """The room of the core that a file is in: vid2vid/warp.py -> vid2vid. A room's command is one of its own."""
    parts = file.relative_to(CORE).with_suffix("").parts
    return ".".join(parts) if file in COMMANDS else parts[0]


def is_command(file: Path) -> bool:
    return bool(COMMANDS & {file, *file.parents})


def core_imports(file: Path) -> Iterator[tuple[int, str]]:
    """(line, room) of every relative import that leaves the file's own folder for another room of the core."""
    package = file.relative_to(CORE).parent.parts
    for line, level, path in imports(file):
        if level:
            climbed = package[: len(package) - (level - 1)]
            target = [*climbed, *path]
            if target:
                yield line, target[0]


MODULES = [file for file in python_files(CORE) if file != CORE / "__init__.py"]


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(CORE)))
def test_core_imports_one_way(file):
    here = room(file)
    assert here in ALLOWED, f"{here} is a new room: say in ALLOWED what it may import"
    wrong = [f"{file}:{line} imports {to}" for line, to in core_imports(file) if to != here and to not in ALLOWED[here]]
    assert not wrong, f"{here} may import {sorted(ALLOWED[here])} only"


def test_no_module_imports_itself_in_a_circle():
    """Of the imports that run when a module of the core is imported; a package stands for its __init__.py."""
    names = {".".join(file.relative_to(CORE).with_suffix("").parts).removesuffix(".__init__"): file for file in MODULES}
    graph = {}
    for name, file in names.items():
        package = list(file.relative_to(CORE).parent.parts)
        graph[name] = set()
        for _, level, path in imports(file, nested=False):
            target = [*package[: len(package) - (level - 1)], *path] if level else []
            while target and ".".join(target) not in names:
                target.pop()
            if target and (found := ".".join(target)) != name:
                graph[name].add(found)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_long_files_say_why():
    """A file of the core with more than 350 lines gives the reason in its first comment, beside that number."""
    long = []
    for file in python_files(CORE):
        lines = file.read_text(encoding="utf-8").splitlines()
        if len(lines) > LONG and not any(str(LONG) in line for line in lines[:10]):
            long.append(f"{file} has {len(lines)} lines")
    assert not long


def test_core_runs_without_the_host():
    wrong = [
        f"{file}:{line} imports {path[0]}"
        for file in python_files(CORE)
        for line, level, path in imports(file)
        if level == 0 and path[0] in HOST
    ]
    assert not wrong


def test_rendered_heads_know_the_errors_of_the_core_alone():
    wrong = [
        f"{file}:{line} imports {'.'.join(path)}"
        for file in python_files(HEADS)
        for line, level, path in imports(file)
        if level == 0 and path[0] in {"realportrait_core", "nodes"} | HOST and path[:2] != ["realportrait_core", "errors"]
    ]
    assert not wrong


def test_rendered_heads_are_drawn_for_training_alone():
    """Neither what a user of the nodes has, nor what trains the paper's model, needs them."""
    wrong = [
        f"{file}:{line}"
        for file in [*python_files(CORE), *python_files(NODES)]
        for line, level, path in imports(file)
        if level == 0 and path[0] == HEADS.name and CORE / "train" / "mini" not in file.parents
    ]
    assert not wrong


def test_the_paper_is_trained_without_mini():
    wrong = [
        f"{file}:{line}"
        for file in python_files(CORE / "train")
        for line, level, path in imports(file)
        if CORE / "train" / "mini" not in file.parents and (level == 1 and path[0] == "mini" or level == 2 and path[:1] == ["mini"])
    ]
    assert not wrong


def test_what_trains_the_paper_imports_in_no_circle():
    """Not even for a type checker, or inside a function."""
    own = [file for file in python_files(CORE / "train") if CORE / "train" / "mini" not in file.parents]
    files = {file.relative_to(CORE).with_suffix("").parts: file for file in own}
    arrows = {
        module: {
            found
            for _, level, path in imports(file)
            if level
            for whole in [(*module[:-level], *path)]
            for found in [next((whole[:n] for n in range(len(whole), 0, -1) if whole[:n] in files), None)]
            if found
        }
        for module, file in files.items()
    }
    while free := {module for module, to in arrows.items() if not to & arrows.keys()}:
        arrows = {module: to for module, to in arrows.items() if module not in free}
    assert not arrows, f"these import each other: {sorted('.'.join(module) for module in arrows)}"


@pytest.mark.parametrize("folder", [HEADS, CORE / "train" / "mini", CORE / "head_rotation"], ids=lambda folder: folder.name)
def test_no_modules_of_a_room_import_each_other_in_a_circle(folder):
    """Imports for type checking count too."""
    modules = {file.stem: file for file in folder.glob("*.py")}
    found = {
        name: {path[0] for _, level, path in imports(file) if level == 1 and path[0] in modules} for name, file in modules.items()
    }
    found["__init__"] = set()  # it collects names, and a room's own modules import from where they are defined
    while leaves := {name for name, needs in found.items() if not needs}:
        found = {name: needs - leaves for name, needs in found.items() if name not in leaves}
    assert not found


@pytest.mark.parametrize("folder", [CORE, NODES, HEADS, ROOT / "benchmarks", ROOT / "scripts"], ids=lambda folder: folder.name)
def test_no_path_leaves_the_repository(folder):
    """What lies beside a checkout on a developer's machine is named in tests alone."""
    texts = {file: file.read_text(encoding="utf-8") for file in folder.rglob("*") if file.suffix in (".py", ".md", ".json")}
    assert not [str(file) for file, text in texts.items() if "../shared" in text or '"shared"' in text]


@pytest.mark.parametrize("folder", [CORE, NODES], ids=lambda folder: folder.name)
def test_own_modules_are_imported_relatively(folder):
    """The host loads the pack under its path's name: an absolute name of ours finds nothing, or another copy."""
    wrong = [
        f"{file}:{line} imports {'.'.join(path)}"
        for file in python_files(folder)
        for line, level, path in imports(file)
        if level == 0 and path[0] in {"realportrait_core", "nodes"} and file != HOSTS_NODES
    ]
    assert not wrong


@pytest.mark.parametrize("command", sorted(COMMANDS - {CORE / "eval"}), ids=lambda path: str(path.relative_to(CORE)))
def test_nodes_run_no_command(command):
    """They do not train, and a file is converted offline only; of the evaluation one has what .comfyignore keeps."""
    dotted = ["realportrait_core", *command.relative_to(CORE).with_suffix("").parts]
    wrong = [
        f"{file}:{line}"
        for file in python_files(NODES)
        for line, level, path in imports(file)
        if level and path[: len(dotted)] == dotted
    ]
    assert not wrong


def test_slow_imports_wait_until_they_are_needed():
    """With torch at hand, all modules of the nodes then take 0.1 s (python -X importtime)."""
    files = [file for file in python_files(CORE) if not is_command(file)] + python_files(NODES)
    wrong = [
        f"{file}:{line} imports {path[0]}"
        for file in files
        if file not in WAITS
        for line, level, path in imports(file, nested=False)
        if level == 0 and path[0] not in sys.stdlib_module_names | HOST | AT_START | ({"PIL"} if NODES in file.parents else set())
    ]
    assert not wrong


@pytest.mark.parametrize("folder", [CORE, NODES], ids=lambda folder: folder.name)
def test_nothing_that_runs_strings_or_pickles(folder):
    wrong = []
    for file in python_files(folder):
        reader = bool(READERS_OF_PLAIN_TENSORS & {file, *file.parents})
        wrong += [
            f"{file}:{line} imports {path[0]}" for line, level, path in imports(file) if not level and path[0] in FORBIDDEN_MODULES
        ]
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                plain_tensors = called == "torch.load" and "weights_only=True" in [ast.unparse(k) for k in node.keywords]
                allowed = reader and plain_tensors or is_command(file) and called in {"print", "logging.basicConfig"}
                if called in FORBIDDEN_CALLS and not allowed:
                    wrong.append(f"{file}:{node.lineno} calls {called}")
                # np.load unpickles where it is told to; runpy runs a module whose name is written there, and no other.
                unpickles = any(k.arg == "allow_pickle" and ast.unparse(k.value) != "False" for k in node.keywords)
                unnamed = called.startswith("runpy.") and not (node.args and isinstance(node.args[0], ast.Constant))
                if unpickles or unnamed:
                    wrong.append(f"{file}:{node.lineno} {ast.unparse(node)}")
    assert not wrong


def test_the_nodes_need_no_opencv():
    """A fresh ComfyUI has none, and pip installs its packages over one another. What only commands use may use it."""
    face, video = CORE / "face", CORE / "video"
    users = {
        CORE / "train",
        CORE / "eval",
        CORE / "head_rotation",
        CORE / "opencv.py",
        face / "landmarks.py",
        video / "pictures.py",
    }
    users |= {CORE / "batch"}
    wrong = []
    for file in python_files(CORE) + python_files(NODES):
        for line, _, path in imports(file):
            if {"cv2", "opencv", "landmarks", "pictures"} & set(path) and not users & {file, *file.parents}:
                wrong.append(f"{file}:{line}")
    assert not wrong


def test_importing_the_pack_loads_nothing_heavy():
    """ComfyUI imports every pack at start-up, one after the other."""
    program = (
        "import importlib.util, sys\n"
        f"root = {str(ROOT)!r}\n"
        "spec = importlib.util.spec_from_file_location('pack', root + '/__init__.py', submodule_search_locations=[root])\n"
        "spec.loader.exec_module(importlib.util.module_from_spec(spec))\n"
        "assert not {'torch', 'numpy', 'cv2', 'av', 'comfy'} & set(sys.modules), sys.modules.keys()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_root_offers_the_v3_entry_point_and_nothing_of_the_old_kind():
    """Where NODE_CLASS_MAPPINGS exists, the host never asks comfy_entrypoint."""
    tree = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8"))
    names = {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}
    assigned = {ast.unparse(target) for node in tree.body if isinstance(node, ast.Assign) for target in node.targets}
    assert "comfy_entrypoint" in names
    assert "NODE_CLASS_MAPPINGS" not in assigned
