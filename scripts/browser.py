"""A Chromium without a window, driven by a script for Node.js: an npm package for Linux, which scripts/test.py puts into
.venv/browser where npm is at hand. $REALPORTRAIT_BROWSER names another folder with the same node_modules."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import environment

PACKAGES = ("@sparticuz/chromium", "playwright-core")


class BrowserError(RuntimeError):
    """There is no browser, or the script ended with an error."""


def find_browser() -> Path:
    """The folder whose node_modules hold Chromium and what drives it."""
    folder = Path(os.environ.get("REALPORTRAIT_BROWSER") or environment.VENV / "browser")
    if not shutil.which("node"):
        raise BrowserError("No node on PATH, which drives the browser.")
    for package in PACKAGES:
        if not (folder / "node_modules" / package).is_dir():
            raise BrowserError(
                f"No {package} in {folder}: run python scripts/test.py with npm on PATH, or set REALPORTRAIT_BROWSER."
            )
    return folder


def drive(script: Path, job: dict, folder: Path, limit: float) -> None:
    """Runs a script on a job, which is written to FOLDER/job.json; limit in seconds."""
    browser = find_browser()
    unpacked = browser / "tmp"  # Chromium unpacks itself there, once
    unpacked.mkdir(exist_ok=True)
    written = folder / "job.json"
    written.write_text(json.dumps(job), encoding="utf-8")
    with script.open("rb") as source:
        done = subprocess.run(
            ["node", "--input-type=module", "-", str(written)],
            stdin=source,
            cwd=browser,
            env=dict(os.environ, TMPDIR=str(unpacked)),
            capture_output=True,
            text=True,
            timeout=limit,
        )
    if done.returncode:
        raise BrowserError(f"{script.name} ended with {done.returncode}.\n{done.stderr[-3000:]}")
