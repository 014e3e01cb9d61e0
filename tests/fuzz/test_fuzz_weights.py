"""Weight and motion files with damaged bytes and with headers that lie, through every loader that opens files of others."""

from pathlib import Path

import pytest
import torch
from fuzzing import altered, cases, damaged, fuzz, joined, junk, memory_folder, outcome, split
from hypothesis import strategies as st
from onnx_bytes import colour_embedding
from sound_files import LOADERS, write_all

from realportrait_core.animation.driving_motion import DrivingMotion
from realportrait_core.checkpoint import SIGNATURES, read_header, sniff
from realportrait_core.dit.ablation import load_network
from realportrait_core.errors import RealPortraitError, WeightsError
from realportrait_core.face.onnx_file import initializers
from realportrait_core.licences import licence_line
from realportrait_core.motion_file import check_motion

FOREIGN = tuple(sorted(key for keys in SIGNATURES.values() for key in keys))
LIGHT, HEAVY = ("stitching", "motion"), ("dit", "vid2vid", "tiny_vae", "sd_vae")  # milliseconds, tens of them a case


@pytest.fixture(scope="session")
def sound(tmp_path_factory) -> dict[str, bytes]:
    """A small file of each kind, which its loader takes."""
    return {kind: path.read_bytes() for kind, path in write_all(tmp_path_factory.mktemp("sound")).items()}


@pytest.fixture
def path():
    with memory_folder() as folder:
        yield folder / "given.safetensors"


def finite(loaded: object) -> bool:
    if isinstance(loaded, DrivingMotion):
        return check_motion(loaded).frames == len(loaded)
    networks = loaded.values() if isinstance(loaded, dict) else [loaded]
    return all(bool(torch.isfinite(value).all()) for network in networks for value in network.state_dict().values())


def load_all(path: Path, data: bytes, load) -> None:
    path.write_bytes(data)
    loaded = outcome(lambda: load(path), RealPortraitError)
    assert loaded is None or finite(loaded)


def of_bytes(whole: bytes) -> st.SearchStrategy:
    """Damage anywhere, or in the header alone, which is the smaller part."""
    head = 8 + int.from_bytes(whole[:8], "little")
    return damaged(whole) | damaged(whole[:head]).map(lambda start: start + whole[head:])


@cases(normal=100, nightly=6000)
@pytest.mark.parametrize("kind", LIGHT)
def test_a_damaged_file_is_refused_or_whole(kind, sound, path, count, record_property):
    fuzz(of_bytes(sound[kind]), lambda data: load_all(path, data, LOADERS[kind]), count, record_property)


@cases(normal=12, nightly=700)
@pytest.mark.parametrize("kind", HEAVY)
def test_a_damaged_network_is_refused_or_whole(kind, sound, path, count, record_property):
    fuzz(of_bytes(sound[kind]), lambda data: load_all(path, data, LOADERS[kind]), count, record_property)


@cases(normal=150, nightly=8000)
@pytest.mark.parametrize("kind", LIGHT)
def test_a_header_that_lies_is_refused(kind, sound, path, count, record_property):
    fuzz(altered(sound[kind], FOREIGN), lambda data: load_all(path, data, LOADERS[kind]), count, record_property)


@cases(normal=12, nightly=700)
@pytest.mark.parametrize("kind", HEAVY)
def test_a_networks_header_that_lies_is_refused(kind, sound, path, count, record_property):
    fuzz(altered(sound[kind], FOREIGN), lambda data: load_all(path, data, LOADERS[kind]), count, record_property)


@cases(normal=250, nightly=15000)
def test_the_header_alone(sound, path, count, record_property):
    """What the menus, the licence's line and the choice of a loader read of any file."""

    def check(data: bytes) -> None:
        path.write_bytes(data)
        header = outcome(lambda: read_header(path), WeightsError)
        if header is not None:
            assert sniff(header.shapes) and all(isinstance(value, str) for value in header.metadata.values())
            assert licence_line(path)
            outcome(lambda: load_network(path), RealPortraitError)

    header, buffer = split(sound["motion"])
    anything = junk.map(lambda value: joined(value, buffer))
    entries = st.dictionaries(st.sampled_from([*sorted(header), *FOREIGN]), junk, max_size=4)
    fuzz(anything | entries.map(lambda given: joined(header | given, buffer)), check, count, record_property)


@cases(normal=200, nightly=15000)
def test_onnx_files(count, record_property):
    """The reader of the face detector's weights. The file's digest is compared before it; the reader does not rely on that."""
    whole = colour_embedding(4, side=8, scales=True)
    assert set(initializers(whole)) == {"half", "inverse", "weight", "bias"}

    def check(data: bytes) -> None:
        found = outcome(lambda: initializers(data), WeightsError)
        assert found is None or sum(4 * value.numel() for value in found.values()) <= len(data)

    fuzz(damaged(whole, most=3) | st.binary(max_size=60), check, count, record_property)
