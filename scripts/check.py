"""python scripts/check.py: ruff's lints, ruff's format and mypy's types of the core, by pyproject.toml; about half a minute."""

import subprocess
import sys

import environment

CHECKS = (("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy", "--cache-dir", str(environment.VENV / "mypy")))


def main() -> int:
    try:
        python = environment.prepare().python
        environment.install_checkers(python)
    except environment.SetupError as error:
        print(error, file=sys.stderr)
        return 1
    return max(subprocess.run([python, "-m", *check], cwd=environment.ROOT).returncode for check in CHECKS)


if __name__ == "__main__":
    sys.exit(main())
