"""No knob without a test: every input that a user can set or leave open has one in knobs.py, and it really fails without it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from knobs import SHOWN

HERE = Path(__file__).resolve().parent


def test_every_knob_has_its_test(host):
    """Inputs that must be connected are no knobs: without them nothing runs."""
    from comfy_api.latest import io

    ours = {name: node for name, node in host.NODE_CLASS_MAPPINGS.items() if name.startswith("RealPortrait")}
    knobs = {
        name: {part.id for part in node.GET_SCHEMA().inputs if isinstance(part, io.WidgetInput) or part.optional}
        for name, node in ours.items()
    }
    assert {name: set(shown) for name, shown in SHOWN.items()} == knobs


@pytest.mark.slow
def test_each_fails_on_a_node_that_is_deaf_to_the_knob(host, tmp_path):
    """All of them once more, by the plugin deaf.py in a process of its own: what still passes shows nothing."""
    tests = sorted({f"{HERE.parent}/{test}" for inputs in SHOWN.values() for test in inputs.values()})
    told = dict(os.environ, PYTHONPATH=str(HERE), DEAF_REPORT=str(tmp_path / "deaf.json"))
    command = [sys.executable, "-m", "pytest", "-p", "deaf", "-p", "no:cacheprovider", "-q", "--tb=no", *tests]
    done = subprocess.run(command, cwd=HERE.parents[1], env=told, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stdout[-3000:] + done.stderr[-3000:]
    outcomes = json.loads((tmp_path / "deaf.json").read_text(encoding="utf-8"))
    assert set(outcomes) == {f"{node}.{name}" for node, inputs in SHOWN.items() for name in inputs}
    assert [knob for knob, seen in outcomes.items() if seen == ["passed"]] == []
