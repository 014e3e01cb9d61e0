"""How scripts/test.py shares the tests among processes, and which of them stay together."""

import importlib.util
import sys

import pytest
from workers import TESTS, worker_group

SCRIPTS = TESTS.parent / "scripts"


@pytest.fixture
def options(monkeypatch):
    """pytest_options of scripts/test.py; `test` is the name of a package of Python's own."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(SCRIPTS)])
    spec = importlib.util.spec_from_file_location("realportrait_test_script", SCRIPTS / "test.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.pytest_options


@pytest.mark.parametrize(
    "arguments, shared",
    [
        ([], True),
        (["-x"], True),
        (["-k", "seam"], True),
        (["tests"], True),
        (["tests/host", "-q"], True),
        (["tests/test_vae.py", "tests/test_dit.py"], True),
        (["tests/test_vae.py"], False),
        (["tests/test_vae.py::test_a", "tests/test_vae.py::test_b", "-k", "x"], False),
        (["-s"], False),
        (["--capture=no", "tests"], False),
        (["--pdb"], False),
        (["-n", "4"], False),
        (["-n4"], False),
        (["--numprocesses=4"], False),
    ],
)
def test_workers_share_a_run_of_several_files(options, arguments, shared):
    found = options(arguments, 2)
    assert found[-len(arguments) :] == arguments if arguments else True
    assert (found[:2] == ["-n", "2"]) == shared and ("loadgroup" in found) == shared
    assert options(arguments, 1) == arguments  # on one core there is nothing to share


def test_all_of_them(options):
    """The last -m of a command line counts, so that the user's own takes precedence over that of --all."""
    assert options(["--all"], 1) == ["-m", "not huge"]
    assert options(["tests/test_vae.py", "--all", "-m", "slow"], 8) == ["-m", "not huge", "tests/test_vae.py", "-m", "slow"]


def test_one_worker_has_all_tests_of_the_server():
    files = sorted(TESTS.rglob("test_*.py"))
    groups = {file: worker_group(file) for file in files}
    server = {file for file in files if file.parent.name == "server"}
    assert server == {file for file, group in groups.items() if group == "server"} and len(server) > 3
    assert len(set(groups.values())) == len(files) - len(server) + 1  # the others by file
