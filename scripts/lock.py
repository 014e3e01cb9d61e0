"""python scripts/lock.py [NAME ...]: writes the lock of .venv/'s Python and of this system, all that pip installs with its SHA-256.

A version changes only where a package is named here, where environment.py asks for another, or with --all; the first lock of a
Python begins with the versions of one that is there. The hashes are those that the index states of its files.
"""

import argparse
import json
import re
import sys
import tempfile
from pathlib import Path

import environment

HEADER = """\
# Made by scripts/lock.py. scripts/environment.py gives it to pip, which installs these files and no others.
"""
CUDA = re.compile(r"(nvidia|cuda)-|triton$")  # what PyPI's build of torch needs beyond the CPU index's; torch pins it


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="a package whose version may change")
    parser.add_argument("--all", action="store_true", help="all versions may change")
    options = parser.parse_args()
    try:
        python = environment.make_venv()
        host = environment.find_host(python, None)
        if host != environment.VENV / "comfyui":
            raise environment.SetupError("A lock is for the pinned ComfyUI: unset COMFYUI_PATH.")
        folder = environment.lock_folder(python)
        write_locks(python, host, folder, [] if options.all else kept(folder, {canonical(name) for name in options.names}))
    except environment.SetupError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def canonical(name: str) -> str:
    """One spelling of each package's name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def kept(folder: Path, free: set[str]) -> list[str]:
    """The pins of the present lock, without the packages that may change and those that environment.py or torch pins."""
    if not folder.is_dir():
        folder = min(environment.LOCKS.glob("*"), default=folder)
    pins = {line.partition(" ")[0] for file in folder.glob("*.txt") for line in locked(file)}
    exact = (*environment.TORCH, *environment.EXTRA, *environment.CHECKERS)
    free = free | {canonical(re.split(r"[\[=]", package)[0]) for package in exact if "==" in package}
    return sorted(pin for pin in pins if pin.partition("==")[0] not in free and not CUDA.match(pin.partition("==")[0]))


def locked(file: Path) -> list[str]:
    """The lines of a lock: NAME==VERSION --hash=sha256:DIGEST."""
    return [line for line in file.read_text(encoding="utf-8").splitlines() if "--hash" in line]


def write_locks(python: Path, host: Path, folder: Path, pins: list[str]) -> None:
    lists = [part for file in (host / "requirements.txt", environment.ROOT / "requirements.txt") for part in ("-r", str(file))]
    environment.say("Asking pip what it would install; from some indexes it must download all of it for that, 3 GB")
    files = chosen(python, [*lists, *environment.EXTRA, *environment.TORCH], pins)
    checkers = chosen(python, list(environment.CHECKERS), [line.partition(" ")[0] for line in files] + pins)
    torch = [line for line in files if line.startswith(environment.TORCH) or CUDA.match(line.partition("==")[0])]
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "packages.txt", [line for line in files if line not in torch])
    write(folder / "torch.txt", torch)
    write(folder / "checkers.txt", checkers)
    if sys.platform == "linux":
        lock_cpu_build(python, folder / "torch-cpu.txt")


def lock_cpu_build(python: Path, file: Path) -> None:
    index = environment.TORCH_CPU_INDEX
    if environment.reachable(f"{index}/torch/"):
        write(file, chosen(python, ["--index-url", index, "--no-deps", *environment.TORCH], []))
    elif not file.is_file() or not all(line.startswith(environment.TORCH) for line in locked(file)):
        file.unlink(missing_ok=True)
        environment.say(f"Without {file.name}: {index} is out of reach. There the build for NVIDIA is installed instead.")


def chosen(python: Path, wanted: list[str], pins: list[str]) -> list[str]:
    """What pip would install for that in an empty environment: a line each, NAME==VERSION --hash=sha256:DIGEST."""
    with tempfile.TemporaryDirectory(dir=environment.VENV) as work:
        constraints, report = Path(work) / "pins.txt", Path(work) / "report.json"
        constraints.write_text("\n".join(pins), encoding="utf-8")
        dry = ["--dry-run", "--ignore-installed", "--only-binary", ":all:", "--report", str(report), "-c", str(constraints)]
        environment.pip(python, "install", *dry, *wanted)
        installs = json.loads(report.read_text(encoding="utf-8"))["install"]
    return sorted(lock_line(entry) for entry in installs)


def lock_line(entry: dict) -> str:
    name, version = canonical(entry["metadata"]["name"]), entry["metadata"]["version"]
    method, _, digest = entry["download_info"]["archive_info"].get("hash", "").partition("=")
    if method != "sha256":
        raise environment.SetupError(f"The index gives no SHA-256 of {name} {version}, at {entry['download_info']['url']}.")
    return f"{name}=={version} --hash=sha256:{digest}"


def write(file: Path, lines: list[str]) -> None:
    file.write_text(HEADER + "\n".join(lines) + "\n", encoding="utf-8")
    environment.say(f"{file}: {len(lines)} packages")


if __name__ == "__main__":
    sys.exit(main())
