"""Memory of a process, as Linux tells it, and a limit of it: for tests in which memory really runs out, or must not grow."""

from pathlib import Path


def memory(what: str, process: int | str = "self") -> int:
    """Bytes: "VmSize" of addresses and "VmRSS" in memory now; "VmHWM" in memory at the most, since start_peak() if it was called.

    Not getrusage's ru_maxrss: that begins with the peak of the process that started this one, such as a large pytest.
    """
    status = Path("/proc", str(process), "status").read_text(encoding="ascii", errors="replace").splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith(what))


def start_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def allow_more(size: int) -> None:
    """This process may take so many bytes of addresses beyond those that it has."""
    import resource

    most = memory("VmSize") + size
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
