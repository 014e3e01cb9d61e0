"""The real host in this process: its modules on sys.path, this pack loaded by the host's own loader.

Skipped where there is no ComfyUI: $COMFYUI_PATH or .venv/comfyui names it.
"""

import asyncio
import importlib
import os
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
COMFYUI = Path(os.environ.get("COMFYUI_PATH") or ROOT / ".venv" / "comfyui")
PACK = str(ROOT).replace(".", "_x_")  # the name under which the host imports a pack

sys.path.insert(0, str(Path(__file__).parent))  # for `import tiny`


def pack_module(name: str):
    """A module of the pack as the host loaded it; the core has another identity in tests."""
    return importlib.import_module(f"{PACK}.{name}")


@pytest.fixture(scope="session")
def host(tmp_path_factory):
    """The host's `nodes` module, with the nodes of this pack among its own."""
    if not (COMFYUI / "comfy").is_dir():
        pytest.skip(f"no ComfyUI at {COMFYUI}; run python scripts/test.py")
    pytest.importorskip("torchsde", reason="this Python has not the host's packages; run python scripts/test.py")
    return start_host(tmp_path_factory.mktemp("comfyui"))


def start_host(base: Path):
    """The same, in a process that has no host yet. base: an empty folder for its own."""
    nodes = import_host(base)
    assert asyncio.run(nodes.load_custom_node(str(ROOT))), "the host could not load the pack"
    return nodes


def import_host(base: Path):
    """The host's `nodes` module without this pack."""
    sys.path.insert(0, str(COMFYUI))
    from comfy.cli_args import args

    args.cpu = not torch.cuda.is_available()
    args.base_directory = str(base)  # folder_paths reads it when it is imported
    for folder in ("input", "output", "temp", "user", "models", "custom_nodes"):
        (base / folder).mkdir()
    import utils.extra_config  # noqa: F401, as the host's main.py, first: nodes.py puts comfy/utils.py in the way of utils/

    import nodes

    assert Path(nodes.__file__).parent == COMFYUI, "the pack's nodes/ hides the host's nodes.py"
    return nodes


@pytest.fixture(scope="session")
def pack(host):
    """pack("nodes.host.model") -> that module of the pack as the host loaded it."""
    return pack_module


@pytest.fixture(autouse=True)
def as_the_host_runs():
    """The host executes nodes under inference mode."""
    with torch.inference_mode():
        yield


@pytest.fixture
def run_node(host):
    """run_node("RealPortraitSampler", steps=2, ...) -> its outputs as a tuple."""

    def run(node_id: str, **inputs):
        return host.NODE_CLASS_MAPPINGS[node_id].execute(**inputs).result

    return run


@pytest.fixture
def cancelled(host):
    """cancelled(work, at): runs it, presses the button when the bar reaches `at`, and returns where the bar was, (done, total)."""
    import comfy.model_management as management
    import comfy.utils

    def run(work, at):
        ticks = []

        def hook(value, total, preview, node_id=None):
            ticks.append((value, total))
            if value >= at:
                management.interrupt_current_processing(True)

        comfy.utils.set_progress_bar_global_hook(hook)
        try:
            with pytest.raises(management.InterruptProcessingException):
                work()
        finally:
            comfy.utils.set_progress_bar_global_hook(None)
            management.interrupt_current_processing(False)
        return ticks

    return run


@pytest.fixture(scope="module")
def files(pack):
    import line

    line.weights(pack)
    return line


@pytest.fixture
def whole(files, pack, run_node):
    return files.Line(pack, run_node)
