"""Which tests stay together where several processes share a run."""

from pathlib import Path

TESTS = Path(__file__).resolve().parent


def worker_group(file: Path) -> str:
    """The group of a test file's tests, which one worker runs: those of the server share one, the others are by file."""
    name = file.relative_to(TESTS)
    return "server" if name.parts[0] == "server" else name.as_posix()
