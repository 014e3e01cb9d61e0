"""The whole line in a process, and its children, that may open no network socket; prints one line of JSON.

    python tests/host/sealed.py run FOLDER DETECTOR [WORKFLOW ...]
    python tests/host/sealed.py run-and-open FOLDER DETECTOR [WORKFLOW ...]
    python tests/host/sealed.py attempt python|native|child

Two seals, since one sees what the other cannot. Python's audit hook writes down what is asked; native code, such as FFmpeg's own
protocols, is stopped by the kernel (seccomp, on Linux with x86-64): the process that asks for an internet socket is killed by
SIGSYS. They are set after the host's own imports, of which urllib3 opens a socket to see whether the machine has IPv6.
attempt does what a seal must stop, for the test of the seals. run-and-open: then every loader opens files that would run code, and
what Python runs meanwhile is written down.
"""

import asyncio
import ctypes
import json
import pickle
import platform
import shutil
import socket
import struct
import subprocess
import sys
import sysconfig
import traceback
from pathlib import Path

NETWORK = {
    "socket.__new__",
    "socket.connect",
    "socket.bind",
    "socket.getaddrinfo",
    "socket.gethostbyname",
    "socket.gethostbyaddr",
    "socket.getnameinfo",
    "socket.sendto",
    "socket.sendmsg",
    "urllib.Request",
    "http.client.connect",
}
# Where the code of modules lies.
INSTALLED = tuple(sysconfig.get_paths().values())


def forbid_internet_sockets() -> bool:
    """From here on the kernel kills this process, or a child of it, for socket(AF_INET or AF_INET6); False where it cannot."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return False

    def line(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
        return struct.pack("HBBI", code, yes, no, value)

    load, equal, end = 0x20, 0x15, 0x06
    allow, kill = 0x7FFF0000, 0x80000000
    program = [
        line(load, 4),  # the architecture
        line(equal, 0xC000003E, 1, 0),  # x86-64
        line(end, allow),
        line(load, 0),  # the system call's number
        line(equal, 41, 1, 0),  # socket
        line(end, allow),
        line(load, 16),  # its first argument
        line(equal, 2, 2, 0),  # AF_INET
        line(equal, 10, 1, 0),  # AF_INET6
        line(end, allow),
        line(end, kill),
    ]

    class Filter(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("lines", ctypes.c_void_p)]

    lines = ctypes.create_string_buffer(b"".join(program))
    given = Filter(len(program), ctypes.addressof(lines))
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, set_seccomp, by_filter = 38, 22, 2
    return libc.prctl(no_new_privileges, 1, 0, 0, 0) == 0 and libc.prctl(set_seccomp, by_filter, ctypes.byref(given), 0, 0) == 0


def hear_of(events: set[str]) -> list[str]:
    """Of these audit events of Python, from here on; written to stderr too, at once, since the kernel's seal ends a process."""
    heard: list[str] = []

    def hook(event: str, given: tuple) -> None:
        if event not in events:
            return
        internet = event != "socket.__new__" or given[1] in (socket.AF_INET, socket.AF_INET6)
        module = event == "exec" and given[0].co_filename.startswith(INSTALLED)
        if internet and not module:
            heard.append(f"{event} {given!r}"[:300])
            print(f"heard: {heard[-1]}", file=sys.stderr, flush=True)

    sys.addaudithook(hook)
    return heard


def attempt(kind: str) -> None:
    match kind:
        case "python":
            socket.socket().connect(("127.0.0.1", 9))
        case "native":
            import av

            av.open("http://127.0.0.1:9/video.mp4")
        case "child":
            code = "import socket; socket.socket().connect(('127.0.0.1', 9))"
            sys.exit(subprocess.run([sys.executable, "-c", code]).returncode)


def try_it(kind: str) -> dict:
    asked = hear_of(NETWORK)
    sealed = forbid_internet_sockets()
    try:
        attempt(kind)
    except Exception:
        traceback.print_exc()
    return {"asked": asked, "sealed": sealed}


def run(folder: Path, detector: Path, workflows: list[str], harmful: bool) -> dict:
    from conftest import ROOT, import_host
    from prompts import Executor, load_extras, workflow

    nodes = import_host(folder)
    load_extras(nodes)
    executor = Executor(nodes)
    asked = hear_of(NETWORK)
    sealed = forbid_internet_sockets()
    assert asyncio.run(nodes.load_custom_node(str(ROOT))), "the host could not load the pack"
    (folder / "models" / "realportrait").mkdir()
    shutil.copy(detector, folder / "models" / "realportrait")
    ended = {name: (end := executor.run(workflow(name))).said or end.status for name in workflows}
    used = {entry["class_type"] for name in workflows for entry in workflow(name).values()}
    saved = sorted(path.suffix for path in (folder / "output").rglob("*") if path.is_file())

    found = {"asked": asked, "sealed": sealed, "ended": ended, "used": sorted(used), "saved": saved}
    return found | (open_harmful(folder, executor) if harmful else {})


def open_harmful(folder: Path, executor) -> dict:
    from payloads import RUNS_CODE, prompts

    marker = folder / "marker"
    bad = prompts(folder, marker)
    for name, prompt in bad.items():
        if name.endswith("garbage"):
            executor.run(prompt)  # imports what the refusals need
    ran = hear_of(RUNS_CODE)
    exec(compile("0", "file", "exec"))  # noqa: S102, so that the test sees that the hook hears of it
    pickle.loads(pickle.dumps(Path("shown")))
    shown = len(ran)
    refused = {name: (end.status, end.kind, end.said) for name, prompt in bad.items() for end in [executor.run(prompt)]}
    return {"ran": ran[shown:], "shown": shown, "refused": refused, "marker": marker.exists()}


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["attempt", kind]:
            print(json.dumps(try_it(kind)))
        case [("run" | "run-and-open") as what, folder, detector, *workflows]:
            print(json.dumps(run(Path(folder), Path(detector), workflows, what == "run-and-open")))
