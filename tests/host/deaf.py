"""A pytest plugin: the test of each knob in knobs.py once more, on a node that is deaf to it and takes the default instead.

Of a parametrised test the cases that name the knob come first, and none is run after one that failed: that one shows what is
to be shown. test_knobs.py runs it; what became of the tests is written to $DEAF_REPORT, as {knob: outcomes}.
"""

import inspect
import json
import os
from pathlib import Path

import pytest
from knobs import SHOWN

outcomes: dict[str, set[str]] = {}


def pytest_generate_tests(metafunc):
    test = metafunc.definition.nodeid.partition("tests/")[2]
    knobs = [(node, name) for node, inputs in SHOWN.items() for name, shown in inputs.items() if shown == test]
    metafunc.parametrize("deaf_to", knobs, indirect=True, ids=".".join)


def pytest_collection_modifyitems(items):
    def names_its_knob(item) -> bool:
        node, name = item.callspec.params["deaf_to"]
        return name in item.callspec.id.replace(f"{node}.{name}", "", 1)

    items.sort(key=lambda item: (str(item.path), not names_its_knob(item)))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    if "failed" in outcomes.get(".".join(item.callspec.params["deaf_to"]), ()):
        pytest.skip("another case has failed")


@pytest.fixture(autouse=True)
def deaf_to(request, host, monkeypatch):
    """The node hears nothing of one of its inputs."""
    node, name = request.param
    kind = host.NODE_CLASS_MAPPINGS[node]
    described = next(part for part in kind.GET_SCHEMA().inputs if part.id == name)
    silence = getattr(described, "default", None)
    if silence is None and hasattr(described, "options"):
        silence = described.options[0]
    execute = kind.execute.__func__

    def deaf(cls, *args, **kwargs):
        given = inspect.signature(execute).bind(cls, *args, **kwargs)
        given.arguments[name] = silence
        return execute(*given.args, **given.kwargs)

    monkeypatch.setattr(kind, "execute", classmethod(deaf))
    request.node.user_properties.append(("deaf to", f"{node}.{name}"))


def pytest_runtest_logreport(report):
    knob = dict(report.user_properties).get("deaf to")
    if knob and (report.when == "call" or report.skipped):
        outcomes.setdefault(knob, set()).add(report.outcome)


def pytest_sessionfinish():
    found = {knob: sorted(seen) for knob, seen in outcomes.items()}
    Path(os.environ["DEAF_REPORT"]).write_text(json.dumps(found), encoding="utf-8")
