"""LivePortrait's motion templates, damaged and made by who means harm, through a reader that never unpickles."""

import pickle
import sys

import numpy as np
import pytest
from fuzzing import cases, damaged, fuzz, motion_template, outcome
from hypothesis import strategies as st

from realportrait_core.errors import InputError
from realportrait_core.motion_file import check_motion
from realportrait_core.motion_file.pickled import read_pickle
from realportrait_core.motion_file.template import template_motion

# Audit events of code that runs: sys.addaudithook
RUNS = {"os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "pickle.find_class", "exec", "compile", "ctypes.dlopen"}

# Instructions and values, from which programs for the stack machine are put together.
PIECES = [
    *(b"(", b")", b"]", b"}", b"e", b"a", b"u", b"s", b"d", b"l", b"t", b"\x85", b"\x86", b"\x87", b"N", b"\x88", b"b", b"R", b"0"),
    *(
        b"\x94",
        b"q\x00",
        b"h\x00",
        b"h\x01",
        b"2",
        b"\x93",
        b"\x81",
        b"\x82\x01",
        b"I1\n",
        b"I-5\n",
        b"K\x07",
        b"F1e999\n",
        b"L9L\n",
    ),
    *(b"\x8a\x09" + b"\x01" * 9, b"Vmotion\n", b"Vexp\n", b"Vf4\n", b"C\x04abcd", b"C\x00", b"Vlatin1\n", b"X\x03\x00\x00\x00abc"),
    *(b"cnumpy\ndtype\n", b"cnumpy\nndarray\n", b"cnumpy.core.multiarray\n_reconstruct\n", b"c_codecs\nencode\n"),
    *(b"cnumpy.core.numeric\n_frombuffer\n", b"cnumpy.core.multiarray\nscalar\n", b"cos\nsystem\n", b"cbuiltins\neval\n"),
    *(b"\x8c\x02os\x8c\x06system\x93", b"(Vtrue\nios\nsystem\n", b"(I3\nVf4\nNNNI-1\nI-1\nI0\nt", b"Pid\n", b"\x80\x04", b"."),
]


@pytest.fixture(scope="module")
def read():
    """Reads a template. Fails where anything is called, compiled or looked up by name meanwhile."""
    events: list[str] | None = None

    def audit(event: str, given: tuple) -> None:
        if events is not None and event in RUNS:
            events.append(event)

    def check(data: bytes) -> None:
        nonlocal events
        events = []
        found = outcome(lambda: template_motion(read_pickle(data)), InputError)
        seen, events = events, None
        assert not seen
        assert found is None or check_motion(found).frames == len(found)

    sys.addaudithook(audit)  # cannot be taken off again
    return check


@cases(normal=50, nightly=2500)
@pytest.mark.parametrize("protocol", range(6))
def test_damaged_templates(protocol, read, count, record_property):
    whole = pickle.dumps(motion_template(), protocol)
    assert len(template_motion(read_pickle(whole))) == 2
    fuzz(damaged(whole, most=4), read, count, record_property)


@cases(normal=150, nightly=10000)
def test_programs_for_the_stack_machine(read, count, record_property):
    programs = st.lists(st.sampled_from(PIECES), min_size=1, max_size=30).map(b"".join)
    inside = damaged(pickle.dumps(motion_template(1), 4), 1).flatmap(
        lambda whole: programs.map(lambda piece: whole[:-1] + piece + b".")
    )
    fuzz(programs | programs.map(lambda piece: piece + b".") | inside, read, count, record_property)


VALUES = st.sampled_from([None, True, -1, 0, 2**70, 10**5000, 1e300, float("nan"), "", "25", b"", (), ((),) * 3, [], {}])
ARRAYS = st.sampled_from(
    [np.zeros(n, kind) for n in (0, 1, 3, 9, 15) for kind in ("f2", "f4", "f8", "i8", "u1", "?")]
    + [
        np.full((1, 5, 3), np.nan),
        np.full((1, 3), 1e300),
        np.full((1, 3, 3), 1e30),
        np.zeros((0, 3)),
        np.float32(3),
        np.zeros((1, 2, 2)),
    ]
)


@cases(normal=100, nightly=6000)
def test_templates_of_other_values(read, count, record_property):
    names = st.sampled_from(["n_frames", "output_fps", "motion", "scale", "R", "R_d", "exp", "t", "kp", "c"])

    def check(change: list) -> None:
        given = motion_template()
        for name, value in change:
            given[name], given["motion"] = value, given["motion"]
            if isinstance(given.get("motion"), list) and name in ("scale", "R", "R_d", "exp", "t", "kp"):
                given["motion"][-1][name] = value
        read(pickle.dumps(given, 4))

    some = st.tuples(names.filter(lambda name: name != "motion"), VALUES | ARRAYS)
    frames = st.tuples(st.just("motion"), VALUES)
    fuzz(st.lists(some, min_size=1, max_size=3) | st.lists(frames, min_size=1, max_size=1), check, count, record_property)
