"""The server of scripts/headless.py is found at the port that it was given by the system, and at no other's."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
LISTENS = """
import socket, sys
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
sys.stdin.read()
"""
LAUNCHES = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {LISTENS!r}])"
WAITS = "print(0, flush=True); input()"


@pytest.fixture
def listening_port(monkeypatch):
    pytest.importorskip("psutil")
    monkeypatch.setattr(sys, "path", [*sys.path, str(SCRIPTS)])
    from headless import listening_port

    return listening_port


def test_of_two_servers_each_is_found_at_its_own_port(listening_port):
    """One is started by a launcher, as the Python of a virtual environment is on Windows."""
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    start = lambda program: subprocess.Popen([sys.executable, "-c", program], **pipes)
    with start(LISTENS) as one, start(LAUNCHES) as other, start(WAITS) as third:
        ports = [int(process.stdout.readline()) for process in (one, other, third)]
        assert [listening_port(process.pid) for process in (one, other, third)] == [*ports[:2], None]
        assert ports[0] != ports[1]
    assert [listening_port(process.pid) for process in (one, other, third)] == [None] * 3  # they have ended
