"""Files that are whole or not there: after errors, and after the end of the process at any moment."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from realportrait_core.whole_file import remove_partial, whole_file, write_whole

ROOT = Path(__file__).resolve().parent.parent
SAVE = """
import sys
from pathlib import Path
import torch
from realportrait_core.checkpoint import save
while True:
    save(Path(sys.argv[1]), {"values": torch.ones(4_000_000)}, {})
"""


def test_a_file_gets_its_name_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "folder" / "file.bin"
    with whole_file(path) as partial:
        partial.write_bytes(b"first")
        assert not path.exists()
    write_whole(tmp_path / "new" / "folder" / "file.bin", b"second")
    assert path.read_bytes() == b"second" and list(path.parent.iterdir()) == [path]


def test_an_error_leaves_what_was_there(tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"before")
    with pytest.raises(ZeroDivisionError), whole_file(path) as partial:
        partial.write_bytes(b"half")
        partial.with_name(".tmpXnMuAr").write_bytes(b"of a library")
        raise ZeroDivisionError
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError), whole_file(tmp_path / "file" / "inside.bin"):
        pytest.fail("there is nowhere to write to")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_killed_while_safetensors_writes(tmp_path):
    """safetensors writes to a temporary file of another name beside the one that it is asked for."""
    path = tmp_path / "state.safetensors"
    process = subprocess.Popen([sys.executable, "-c", SAVE, path], cwd=ROOT)
    try:
        until = time.monotonic() + 120
        while True:
            os.kill(process.pid, signal.SIGSTOP)
            left = [one for one in tmp_path.rglob("*") if one.is_file() and one != path]
            if left and path.exists():
                break
            assert time.monotonic() < until and process.poll() is None
            os.kill(process.pid, signal.SIGCONT)
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    assert left[0].exists(), "it was killed while it wrote"
    (tmp_path / ".other.bin.7.part").write_bytes(b"of others")
    remove_partial(tmp_path, {path.name}.__contains__)
    assert {one.name for one in tmp_path.iterdir()} == {path.name, ".other.bin.7.part"}
    assert path.stat().st_size > 16_000_000
