"""How scripts/test.py shares the tests among processes, and which of them stay together."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "scripts"


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
    assert (found[:2] == ["-n", "2"]) == shared
    assert options(arguments, 1) == arguments  # on one core there is nothing to share


def test_all_of_them(options):
    """The last -m of a command line counts, so that the user's own takes precedence over that of --all."""
    assert options(["--all"], 1) == ["-m", "not huge and not nightly"]
    assert options(["tests/test_vae.py", "--all", "-m", "slow"], 8) == [
        "-m",
        "not huge and not nightly",
        "tests/test_vae.py",
        "-m",
        "slow",
    ]


CONFTEST = """
import sys
sys.path.insert(0, {tests!r})
def pytest_xdist_make_scheduler(config, log):
    import workers
    return workers.Groups(config, log)
def pytest_collection_modifyitems(items):
    import workers
    items.sort(key=lambda item: workers.turn(item.nodeid))
"""


@pytest.fixture
def workers():
    pytest.importorskip("xdist", reason="no pytest-xdist: run python scripts/test.py")
    import workers

    return workers


def test_the_files_that_are_named_are_there(workers):
    """A name that no file has any more would put its tests on a server of their own, or at the end."""
    served = [f"tests/server/test_{name}.py" for names in workers.SERVERS.values() for name in names]
    first = [group for group in workers.FIRST if group not in workers.SERVERS]
    assert len({*served, *first}) == len(served) + len(first)
    assert [file for file in served + first if not (ROOT / file).is_file()] == []


def test_a_worker_has_whole_files_and_all_those_of_a_server(workers, tmp_path):
    """The groups of the two servers begin, one in each worker."""
    servers = [[f"tests/server/test_{name}.py" for name in names] for names in workers.SERVERS.values()]
    others = ["tests/faults/test_a.py", "tests/host/test_b.py", "tests/server/test_own.py", "tests/test_long.py"]
    assert [workers.worker_group(f"{file}::test[1]") for file in others] == others
    files = [*others, *(file for server in servers for file in server)]
    for file in files:
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("import pytest\n@pytest.mark.parametrize('i', range(6))\ndef test(i):\n    pass\n")
    (tmp_path / "tests" / "conftest.py").write_text(CONFTEST.format(tests=str(ROOT / "tests")))
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib\n")
    command = [sys.executable, "-m", "pytest", "-n", "2", "-v", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    ran = list(dict.fromkeys(re.findall(r"\[(gw\d)\].* PASSED (\S+)::", done.stdout)))  # each worker's files, in their order
    assert len(ran) == len(files) and {file for _, file in ran} == set(files)
    found = [{worker for worker, file in ran if file in server} for server in servers]
    assert sorted(map(list, found)) == [["gw0"], ["gw1"]]
    for (worker,), server in zip(found, servers):
        assert next(file for other, file in ran if other == worker) in server
