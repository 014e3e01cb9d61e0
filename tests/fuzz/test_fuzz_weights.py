"""Weight and motion files with damaged bytes and with headers that lie, through every loader that opens files of others."""

from pathlib import Path

import pytest
import torch
import toy_sizes
from fuzzing import altered, cases, damaged, fuzz, joined, junk, memory_folder, outcome, split
from hypothesis import strategies as st
from onnx_bytes import colour_embedding
from public import TINY
from safetensors.torch import save_file

from realportrait_core.animation.driving_motion import DrivingMotion
from realportrait_core.checkpoint import SIGNATURES, read_header, sniff
from realportrait_core.config import ConditionerConfig, DiTConfig
from realportrait_core.dit.ablation import load_network
from realportrait_core.dit.checkpoint import load_dit, save_dit
from realportrait_core.dit.model import RealPortraitDiT
from realportrait_core.errors import RealPortraitError, WeightsError
from realportrait_core.face.onnx_file import initializers
from realportrait_core.licences import licence_line
from realportrait_core.motion_file import check_motion, load_motion, save_motion
from realportrait_core.vae.files import load_vae
from realportrait_core.vae.kl import AutoencoderKL
from realportrait_core.vae.tiny import TinyVAE, save_vae
from realportrait_core.vid2vid import FaceVid2Vid
from realportrait_core.vid2vid.checkpoint import load_stitching, load_vid2vid, save_vid2vid
from realportrait_core.vid2vid.keypoints import rotation_matrix
from realportrait_core.vid2vid.retarget import MotionParameters
from realportrait_core.vid2vid.stitching import KeypointMLP

FOREIGN = tuple(sorted(key for keys in SIGNATURES.values() for key in keys))
LOADERS = {
    "dit": load_dit,
    "vid2vid": load_vid2vid,
    "stitching": load_stitching,
    "tiny_vae": load_vae,
    "sd_vae": load_vae,
    "motion": load_motion,
}
LIGHT, HEAVY = ("stitching", "motion"), ("dit", "vid2vid", "tiny_vae", "sd_vae")  # milliseconds, tens of them a case


def motion(frames: int = 3, k: int = 5) -> DrivingMotion:
    torch.manual_seed(0)
    parameters = MotionParameters(
        rotation_matrix(*(10 * torch.randn(3, frames))),
        torch.randn(frames, k, 3) / 10,
        torch.ones(frames, 1),
        torch.zeros(frames, 3),
    )
    crop, present = torch.eye(3, dtype=torch.float64), torch.ones(frames, dtype=torch.bool)
    return DrivingMotion(parameters, torch.randn(frames, k, 3), torch.rand(frames, 5, 2), crop, present, (64, 64), 25.0, "")


@pytest.fixture(scope="session")
def sound(tmp_path_factory) -> dict[str, bytes]:
    """A small file of each kind, which its loader takes."""
    folder = tmp_path_factory.mktemp("sound")
    torch.manual_seed(0)
    conditioner = ConditionerConfig(motion_latent=6, reference_motion=True, draft_widths=(8, 8, 8))
    save_dit(folder / "dit", RealPortraitDiT(DiTConfig(**toy_sizes.DIT, conditioner=conditioner)))
    save_vid2vid(folder / "vid2vid", FaceVid2Vid(TINY))
    groups = {"retarget_shoulder": [30, 8, 17], "retarget_mouth": [17, 8, 15], "retarget_eye": [18, 8, 15]}
    networks = {group: KeypointMLP(sizes).state_dict() for group, sizes in groups.items()}
    save_file({f"{g}_module.{key}": value for g, state in networks.items() for key, value in state.items()}, folder / "stitching")
    save_vae(folder / "tiny_vae", TinyVAE((4, 4, 4, 4)))
    save_file({key: value.half() for key, value in AutoencoderKL(32).state_dict().items()}, folder / "sd_vae")
    save_motion(folder / "motion", motion())
    for kind, load in LOADERS.items():
        load(folder / kind)
    return {kind: (folder / kind).read_bytes() for kind in LOADERS}


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
