"""python scripts/test.py [pytest arguments]: all tests, the ones on a real ComfyUI server included, in .venv/."""

import os
import subprocess
import sys

import environment


def main() -> int:
    try:
        made = environment.prepare()
        environment.fetch_heads(made.python)
        environment.fetch_judges(made.python)
        environment.fetch_browser()
    except environment.SetupError as error:
        print(error, file=sys.stderr)
        return 1
    told = dict(os.environ, COMFYUI_PATH=str(made.comfyui), PYTHONUNBUFFERED="1")
    # Small networks gain nothing from more threads than this, and lose much where the machine is shared.
    told.setdefault("OMP_NUM_THREADS", str(min(4, os.cpu_count() or 1)))
    return subprocess.run([made.python, "-m", "pytest", *sys.argv[1:]], cwd=environment.ROOT, env=told).returncode


if __name__ == "__main__":
    sys.exit(main())
