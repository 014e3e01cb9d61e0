"""Continuation states, damaged and with headers and descriptions that lie."""

import pytest
import torch
from fuzzing import altered, cases, damaged, fuzz, memory_folder, outcome

from realportrait_core.errors import InputError
from realportrait_core.long import state as states
from realportrait_core.motion_map import MotionMaps

if not hasattr(states, "load_state"):
    pytest.skip("there are no files of continuation states yet", allow_module_level=True)


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> bytes:
    maps = MotionMaps(torch.zeros(1, 2, 3, 3).half(), torch.eye(3).double()[None], torch.eye(3).double()[None, :2], 64, 64)
    text = {"size": "64x64", "steps": "4"}
    state = states.ContinuationState(2, 30, 50, 7, text, {"vid2vid": "0123"}, torch.zeros(1, 4, 2, 2), maps, [{"sharp": 1.0}] * 2)
    path = tmp_path_factory.mktemp("state") / "state.safetensors"
    states.save_state(path, state)
    assert states.load_state(path).frame == 30
    return path.read_bytes()


@cases(normal=150, nightly=8000)
def test_states_that_lie_are_refused(sound, count, record_property):
    with memory_folder() as folder:
        path = folder / "state.safetensors"

        def check(data: bytes) -> None:
            path.write_bytes(data)
            found = outcome(lambda: states.load_state(path), InputError)
            if found is not None:
                assert found.latents is None or bool(torch.isfinite(found.latents).all())
                assert type(found.clip) is type(found.frame) is int and found.clip >= 0

        fuzz(damaged(sound) | altered(sound, states.MAPS), check, count, record_property)
