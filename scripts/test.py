"""python scripts/test.py [--all | --nightly] [pytest arguments]: the tests, the ones on a real ComfyUI server included, in .venv/.

A run of more than one file is shared by WORKERS processes, where the machine has as many cores. --all: those marked slow too.
--nightly: those marked nightly alone, fuzzing, soaks and loads in full size, which take long.
"""

import os
import subprocess
import sys

import environment

WORKERS = 2
SETS = {"--all": "not huge and not nightly", "--nightly": "nightly"}  # pytest's marks
# Options of pytest's, beside -n, that choose the workers themselves or need the tests in the terminal's own process.
IN_ONE_PROCESS = {"--numprocesses", "-s", "--capture", "--pdb", "--trace", "--co", "--collect-only"}


def main() -> int:
    try:
        made = environment.prepare()
        environment.fetch_heads(made.python)
        environment.fetch_judges(made.python)
        environment.fetch_browser()
    except environment.SetupError as error:
        print(error, file=sys.stderr)
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    options = pytest_options(sys.argv[1:], cores)
    settings = dict(os.environ, COMFYUI_PATH=str(made.comfyui), PYTHONUNBUFFERED="1")
    # Small networks gain nothing from more threads than this, and lose much where the machine is shared.
    settings.setdefault("OMP_NUM_THREADS", str(min(4, max(1, cores // WORKERS if "-n" in options else cores))))
    return subprocess.run([made.python, "-m", "pytest", *options], cwd=environment.ROOT, env=settings).returncode


def pytest_options(arguments: list[str], cores: int) -> list[str]:
    """The arguments with --all and --nightly taken out, and workers put before them where several pay."""
    given = [argument for argument in arguments if argument not in SETS]
    marks = [part for name in SETS if name in arguments for part in ("-m", SETS[name])][-2:]
    workers = ["-n", str(WORKERS)]  # tests/workers.py says which tests one of them runs
    return [*(workers if cores >= WORKERS and several_files(given) else []), *marks, *given]


def several_files(arguments: list[str]) -> bool:
    """Whether pytest, with these arguments, runs more than one file, and nothing speaks against doing so in several processes."""
    if any(argument.partition("=")[0] in IN_ONE_PROCESS or argument.startswith("-n") for argument in arguments):
        return False
    named = [environment.ROOT / argument.partition("::")[0] for argument in arguments]
    files = {path for path in named if path.exists() and path != environment.ROOT}
    return len(files) != 1 or any(path.is_dir() for path in files)


if __name__ == "__main__":
    sys.exit(main())
